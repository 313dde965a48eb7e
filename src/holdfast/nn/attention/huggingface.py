"""Adaptive temperature, or any other normaliser, in a Hugging Face model: register once, then name it.

    from holdfast.nn.huggingface import register

    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation=register())

`transformers` looks up two things under that name: the attention and the mask that it is given. With the first alone
padding and cached prefixes would be lost without a word, so that one call registers both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.errors import ArgumentError, require
from holdfast.nn.attention import plain
from holdfast.nn.attention.attention import attend
from holdfast.nn.attention.call import AttentionCall
from holdfast.nn.normalisers import Adaptive, Normaliser
from holdfast.nn.temperature import PUBLISHED, AdaptiveTemperature

RESERVED = ("eager", "sdpa", "flash", "flex")
"""What `transformers` reads a meaning of its own into, wherever a name has it."""


def register(
    name: str = "holdfast_adaptive",
    normaliser: AdaptiveTemperature | Normaliser | None = None,
    *,
    replace: bool = False,
) -> str:
    """Make an attention known to `transformers` under a name, for `attn_implementation=name`.

    Every model that asks the attention interface of `transformers` can then use it, with its caches, grouped key
    heads, softcap, sliding window, sinks, left padding, dropout and gradients; `set_attn_implementation(name)` switches
    a loaded model. Several names hold several laws side by side. It computes in PyTorch operations and takes no paged
    cache (continuous batching).

    Attention weights are returned where the model hands `output_attentions` on to its attention layers.

    Arguments:
        name: letters, digits, `_`, `-` and `.`, without a name of the implementations that exist.
        normaliser: a law, or any `Normaliser`; `None`: the published law, its temperature constant in the backward
            pass (`Adaptive(law, detach=False)` has it follow).
        replace: put this in the place of another one of the same name; models that use the name follow.

    Returns:
        the name.

    Errors:
        ArgumentError: a name that is reserved, or taken by another normaliser or by somebody else.
        MissingExtraError: `transformers` is not installed.

    Source: arXiv 2410.01104, section 3; the attention interface of `transformers`.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or any(word in name for word in RESERVED):
        raise ArgumentError("name", f"letters, digits, _, - and . without any of {', '.join(RESERVED)}", name)
    if normaliser is not None and not isinstance(normaliser, AdaptiveTemperature | Normaliser):
        raise ArgumentError("normaliser", "an AdaptiveTemperature, a Normaliser or None", normaliser)
    attention = RegisteredAttention(
        normaliser if isinstance(normaliser, Normaliser) else Adaptive(normaliser or PUBLISHED)
    )
    modeling, masking = _interfaces()
    present = modeling.ALL_ATTENTION_FUNCTIONS.get(name)
    if present == attention:
        return name
    if present is not None and not isinstance(present, RegisteredAttention):
        raise ArgumentError("name", "one that no other package has registered", name)
    if present is not None and not replace:
        raise ArgumentError("name", f"another one, or replace=True, since it stands for {present.normaliser}", name)
    modeling.AttentionInterface.register(name, attention)
    masking.AttentionMaskInterface.register(name, masking.sdpa_mask)
    return name


def unregister(name: str) -> None:
    """Take a name out of both interfaces again; one that is not there is no error."""
    modeling, masks = _interfaces()
    # The interfaces can register, but not forget, what all models share.
    modeling.AttentionInterface._global_mapping.pop(name, None)
    masks.AttentionMaskInterface._global_mapping.pop(name, None)


def _interfaces() -> tuple[Any, Any]:
    """The modules of `transformers` with the interfaces of attention and of masks."""
    return require("transformers.modeling_utils", "hf"), require("transformers.masking_utils", "hf")


@dataclass(frozen=True)
class RegisteredAttention:
    """What `transformers` calls in the place of a model's own attention."""

    normaliser: Normaliser

    def __call__(
        self,
        module: torch.nn.Module,
        query: Float[Tensor, "batch heads queries dim"],
        key: Float[Tensor, "batch kv_heads keys dim"],
        value: Float[Tensor, "batch kv_heads keys value_dim"],
        attention_mask: Tensor | None,
        dropout: float = 0.0,
        output_attentions: bool | None = None,
        **options: Any,
    ) -> tuple[Float[Tensor, "batch queries heads value_dim"], Float[Tensor, "batch heads queries keys"] | None]:
        """The output, and the weights where they are asked for."""
        call = AttentionCall.of_transformers(
            module, query, key, value, attention_mask, normaliser=self.normaliser, **options
        )
        if not output_attentions and not (dropout > 0 and module.training):
            return attend(call).transpose(1, 2).contiguous(), None
        assert call.value is not None
        weights = plain.weights(call).to(query.dtype)
        weights = torch.nn.functional.dropout(weights, p=dropout, training=module.training)
        output = weights @ call.value.repeat_interleave(call.groups, dim=1)
        if not output_attentions:
            return output.transpose(1, 2).contiguous(), None
        return output.transpose(1, 2).contiguous(), torch.nn.functional.pad(weights, (0, key.shape[2] - call.keys))
