"""Adaptive temperature, or any other normaliser, in a Hugging Face model: register once, then name it.

    from holdfast.nn.huggingface import register

    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation=register())

`transformers` looks up two things under that name: the attention and the mask that it is given. With the first alone
padding and cached prefixes would be lost without a word, so that one call registers both.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.errors import ArgumentError, require
from holdfast.nn.normalisers import Adaptive, Normaliser, hidden_keys
from holdfast.nn.temperature import PUBLISHED, AdaptiveTemperature
from holdfast.nn.tempered_attention import adaptive_attention, attention_weights

RESERVED = ("eager", "sdpa", "flash", "flex")
"""What `transformers` reads a meaning of its own into, wherever a name has it."""

Masking = tuple[Tensor | None, bool, int | None]
"""Mask, causal and window, as `holdfast.nn.adaptive_attention` takes them."""


def register(
    name: str = "holdfast_adaptive",
    temperature: AdaptiveTemperature | Normaliser | None = None,
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
        temperature: a law, or any `Normaliser`; `None`: the published law, its temperature constant in the backward
            pass (`Adaptive(law, detach=False)` has it follow).
        replace: put this law in the place of another one of the same name; models that use the name follow.

    Returns:
        the name.

    Errors:
        ArgumentError: a name that is reserved, or taken by another law or by somebody else.
        MissingExtraError: `transformers` is not installed.

    Source: arXiv 2410.01104, section 3; the attention interface of `transformers`.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or any(word in name for word in RESERVED):
        raise ArgumentError("name", f"letters, digits, _, - and . without any of {', '.join(RESERVED)}", name)
    if temperature is not None and not isinstance(temperature, AdaptiveTemperature | Normaliser):
        raise ArgumentError("temperature", "an AdaptiveTemperature, a Normaliser or None", temperature)
    attention = _Attention(temperature if isinstance(temperature, Normaliser) else Adaptive(temperature or PUBLISHED))
    modeling, masking = _interfaces()
    present = modeling.ALL_ATTENTION_FUNCTIONS.get(name)
    if present == attention:
        return name
    if present is not None and not isinstance(present, _Attention):
        raise ArgumentError("name", "one that no other package has registered", name)
    if present is not None and not replace:
        raise ArgumentError("name", f"another one, or replace=True, since it stands for {present.normaliser}", name)
    modeling.AttentionInterface.register(name, attention)
    masking.AttentionMaskInterface.register(name, masking.sdpa_mask)
    return name


def _interfaces() -> tuple[Any, Any]:
    """The modules of `transformers` with the interfaces of attention and of masks."""
    return require("transformers.modeling_utils", "hf"), require("transformers.masking_utils", "hf")


@dataclass(frozen=True)
class _Attention:
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
        scaling: float | None = None,
        softcap: float | None = None,
        sliding_window: int | None = None,
        s_aux: Float[Tensor, " heads"] | None = None,
        is_causal: bool | None = None,
        position_bias: Tensor | None = None,
        **rest: Any,
    ) -> tuple[Float[Tensor, "batch queries heads value_dim"], Float[Tensor, "batch heads queries keys"] | None]:
        """The output, and the weights where they are asked for."""
        if rest.get("cache") is not None:
            raise ArgumentError("attn_implementation", "sdpa or flash attention for a paged cache", "this one")
        seen = key_span(module, query, key, attention_mask, is_causal)
        mask, causal, window = masking(module, query, seen, attention_mask, sliding_window, is_causal)
        if position_bias is not None:
            mask = _biased(position_bias[..., :seen], mask)
        if s_aux is not None:
            s_aux = s_aux.reshape(-1).to(query.dtype)
        k, v = key[:, :, :seen], value[:, :, :seen]
        options: dict[str, Any] = {
            "mask": mask,
            "causal": causal,
            "scale": scaling,
            "softcap": softcap,
            "window": window,
            "sinks": s_aux,
            "temperature": self.normaliser,
        }
        weights = None
        if rest.get("output_attentions") or (dropout > 0 and module.training):
            weights = attention_weights(query, k, **options).to(query.dtype)
            weights = torch.nn.functional.dropout(weights, p=dropout, training=module.training)
            output = weights @ v.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
            weights = torch.nn.functional.pad(weights, (0, key.shape[2] - seen))
        else:
            output = adaptive_attention(query, k, v, **options)
        return output.transpose(1, 2).contiguous(), weights if rest.get("output_attentions") else None


def key_span(
    module: torch.nn.Module, query: Tensor, key: Tensor, attention_mask: Tensor | None, is_causal: bool | None
) -> int:
    """How many keys there are, without the slots at the end of a static cache that are still empty.

    The queries stand at the last of them, which is where the causal mask and normalisers with a position look.
    """
    queries, keys = query.shape[2], key.shape[2]
    if queries == keys:
        return keys
    if attention_mask is None:
        # `transformers` leaves the mask of a static cache out only in a prefill, where all slots behind are empty.
        return queries if queries > 1 and queries < keys and causal_module(module, is_causal) else keys
    if attention_mask.ndim != 4 or torch.compiler.is_compiling():
        return keys
    visible = attention_mask if attention_mask.dtype == torch.bool else ~hidden_keys(attention_mask)
    anywhere = visible[..., :keys].flatten(0, 2).any(0)
    last = int(anywhere.nonzero().max()) + 1 if bool(anywhere.any()) else keys
    return min(keys, max(last, queries))


def causal_module(module: torch.nn.Module, is_causal: bool | None) -> bool:
    """Whether a layer is causal where its mask does not say."""
    return bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)


def masking(
    module: torch.nn.Module,
    query: Float[Tensor, "batch heads queries dim"],
    keys: int,
    attention_mask: Tensor | None,
    sliding_window: int | None,
    is_causal: bool | None,
) -> Masking:
    """Read a mask as `transformers` gives it: none, bool or additive, for the first `keys` keys.

    A mask that is there is complete: causality and the window are already in it.
    """
    if attention_mask is None:
        causal = query.shape[2] > 1 and causal_module(module, is_causal)
        # One query stands at the last key, behind which there is nothing to hide: its window still counts.
        return None, causal, sliding_window
    if attention_mask.ndim != 4:
        raise ArgumentError("attention_mask", "four dimensions (batch, heads, queries, keys)", attention_mask.ndim)
    mask = attention_mask[..., :keys] if attention_mask.shape[-1] > 1 else attention_mask
    return (mask if mask.is_floating_point() else mask.bool()), False, None


def _biased(bias: Tensor, mask: Tensor | None) -> Tensor:
    """A learned bias of the positions, with the mask in it."""
    if mask is None:
        return bias
    if mask.dtype == torch.bool:
        return torch.where(mask, bias, -torch.inf)
    return (bias + mask).masked_fill(hidden_keys(mask), -torch.inf)


def unregister(name: str) -> None:
    """Take a name out of both interfaces again; one that is not there is no error."""
    modeling, masks = _interfaces()
    # The interfaces can register, but not forget, what all models share.
    modeling.AttentionInterface._global_mapping.pop(name, None)
    masks.AttentionMaskInterface._global_mapping.pop(name, None)


def own_attention(module: torch.nn.Module, implementation: str) -> Callable[..., Any]:
    """The function that a layer would call with this implementation.

    Arguments:
        module: an attention layer of `transformers`.
        implementation: for example `"sdpa"` or `"eager"`, which each model brings along.

    Errors:
        ArgumentError: its source file has no such function.
    """
    from sys import modules

    files = [modules[kind.__module__] for kind in type(module).__mro__ if kind.__module__ in modules]
    eager = next((file.eager_attention_forward for file in files if hasattr(file, "eager_attention_forward")), None)
    table: Any = next((file.ALL_ATTENTION_FUNCTIONS for file in files if hasattr(file, "ALL_ATTENTION_FUNCTIONS")), {})
    found: Callable[..., Any] | None = table.get(implementation, eager if implementation == "eager" else None)
    if found is None:
        raise ArgumentError("model", f"an attention function for {implementation!r}", type(module).__name__)
    return found
