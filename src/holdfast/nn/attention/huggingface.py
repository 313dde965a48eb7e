"""Adaptive temperature, or any other normaliser, in a Hugging Face model: register once, then name it.

    from holdfast.nn.huggingface import register

    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation=register())

`transformers` looks up two things under that name: the attention and the mask that it is given. With the first alone
padding and cached prefixes would be lost without a word, so that one call registers both.

It asks no model whether it looks anything up. One that does not would go on with its own attention and without a mask,
so that it saw padding and the future: such a model is refused when it is made, loaded or switched.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.errors import ArgumentError, require
from holdfast.nn.attention import plain
from holdfast.nn.attention.attention import attend
from holdfast.nn.attention.call import OFFSETS, AttentionCall, full_precision
from holdfast.nn.attention.own_normalisers import ENTRY, begin_again, carry_entry, own_normaliser
from holdfast.nn.learned_scale import LearnedScale
from holdfast.nn.normalisers import Adaptive, Normaliser, Plain, SSMax
from holdfast.nn.temperature import PUBLISHED, AdaptiveTemperature

RESERVED = ("eager", "sdpa", "flash", "flex")
"""What `transformers` reads a meaning of its own into, wherever a name has it."""

BY_LAYER = "holdfast_by_layer"
"""Name of the attention in which every layer has the normaliser that it carries itself."""

ASKING = "a model that calls ALL_ATTENTION_FUNCTIONS.get_interface(...) of transformers for its attention"
"""What is expected of a model."""

GUARDED = "holdfast_guarded"
"""Attribute of a method of `transformers` that refuses what cannot use a registered attention."""


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
    cache (continuous batching). From the first call on, `transformers` raises an `ArgumentError` for a model that is
    made, loaded or switched with such a name and has an attention that does not ask (`refusal` says why).

    Positions, for a normaliser that reads them, are slots in the sequence: padding on the left counts.

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
    if isinstance(normaliser, SSMax) and (normaliser.learned or normaliser.tensors):
        raise ArgumentError("normaliser", "scales that are numbers (learn_scales makes them learnable)", normaliser)
    attention = RegisteredAttention(
        normaliser if isinstance(normaliser, Normaliser) else Adaptive(normaliser or PUBLISHED)
    )
    modeling, _ = _interfaces()
    present = modeling.ALL_ATTENTION_FUNCTIONS.get(name)
    if present == attention:
        return name
    if present is not None and not isinstance(present, RegisteredAttention):
        raise ArgumentError("name", "one that no other package has registered", name)
    if present is not None and not replace:
        raise ArgumentError("name", f"another one, or replace=True, since it stands for {present.normaliser}", name)
    _register(name, attention)
    return name


def register_by_layer() -> str:
    """Make the attention known to `transformers` in which each layer has the normaliser that it carries.

    `set_normalisers` and `learn_scales` give layers such; the others have the softmax. A model that was saved with them
    is loaded with `from_pretrained(path, attn_implementation=register_by_layer())`.

    Returns:
        the name.

    Errors:
        MissingExtraError: `transformers` is not installed.
    """
    _register(BY_LAYER, AttentionByLayer(Plain()))
    return BY_LAYER


def _register(name: str, attention: RegisteredAttention) -> None:
    modeling, masking = _interfaces()
    modeling.AttentionInterface.register(name, attention)
    masking.AttentionMaskInterface.register(name, mask_with_offsets)
    _guard(modeling)


def unregister(name: str) -> None:
    """Take a name out of both interfaces again; one that is not there is no error."""
    modeling, masks = _interfaces()
    # The interfaces can register, but not forget, what all models share.
    modeling.AttentionInterface._global_mapping.pop(name, None)
    masks.AttentionMaskInterface._global_mapping.pop(name, None)


def _interfaces() -> tuple[Any, Any]:
    """The modules of `transformers` with the interfaces of attention and of masks."""
    return require("transformers.modeling_utils", "hf"), require("transformers.masking_utils", "hf")


def refusal(model_class: type) -> str | None:
    """Why models of a class cannot use a registered attention; `None` where nothing in its files speaks against it.

    Arguments:
        model_class: a `PreTrainedModel`. A model that is put together from others is judged by each of them, when that
            is made.
    """
    files = _files(model_class)
    shown = ", ".join(sorted({file.__name__.rpartition(".")[2] for file in files})) or model_class.__module__
    if not files or not all(source_of(file) for file in files):
        return f"{model_class.__name__}, whose code ({shown}) cannot be read"
    table = any(re.search(r"\[[\w.]*\._attn_implementation\]", source_of(file)) for file in files)
    if table or not model_class._can_set_attn_implementation():  # type: ignore[attr-defined]
        return f"{model_class.__name__}, whose attention ({shown}) is computed without asking"
    others = [sys.modules[layer.__module__] for layer in _layers(files) if layer.__module__ in sys.modules]
    asks = any("ALL_ATTENTION_FUNCTIONS" in vars(file) for file in (*files, *others))
    made_of_others = any(name.startswith("Auto") for file in files for name in vars(file))
    if not asks and not made_of_others:
        return f"{model_class.__name__}, which has no attention ({shown})"
    flags = ("_supports_sdpa", "_supports_attention_backend")
    if all(any(vars(base).get(flag) is False for base in _bases(model_class)) for flag in flags):
        return f"{model_class.__name__}, which says that it supports no attention but its own ({shown})"
    return None


def refusal_of_parts(model: torch.nn.Module) -> str | None:
    """Why a model that is made cannot: a layer of its own, not of a model within it, computes its attention itself."""
    shared = require("transformers.modeling_utils", "hf").PreTrainedModel
    waiting = list(model.children())
    while waiting:
        part = waiting.pop()
        kind: Any = type(part)
        if issubclass(kind, shared):
            continue
        if _computes_itself(kind):
            return f"{type(model).__name__}, whose {kind.__name__} computes attention without asking"
        waiting += part.children()
    return None


@functools.cache
def _computes_itself(layer_class: Any) -> bool:
    """Whether a layer is an attention with a softmax in its own code."""
    if "Attention" not in layer_class.__name__ or layer_class.__module__.partition(".")[0] == "torch":
        return False
    own = "".join(source_of(base) for base in layer_class.__mro__ if base.__module__ == layer_class.__module__)
    return "softmax(" in own and "get_interface(" not in own and "attention_interface" not in own


@functools.cache
def source_of(thing: Any) -> str:
    """The code of a class or a module; nothing where it has no file."""
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):
        return ""


def _bases(model_class: type) -> list[type]:
    """The class and its bases down to what all models of transformers share."""
    shared = require("transformers.modeling_utils", "hf").PreTrainedModel
    return [base for base in model_class.__mro__ if issubclass(base, shared) and base is not shared]


def _files(model_class: type) -> list[ModuleType]:
    """The modules that define a class of models and its bases."""
    names = dict.fromkeys(base.__module__ for base in _bases(model_class))
    return [sys.modules[name] for name in names if name in sys.modules]


def _layers(files: list[ModuleType]) -> Iterator[type]:
    """Layers that the files name, defined there or imported from other models."""
    shared = "transformers.modeling_utils"
    for file in files:
        for value in vars(file).values():
            if inspect.isclass(value) and issubclass(value, torch.nn.Module) and value.__module__ != shared:
                yield value


def check_asks(model: torch.nn.Module) -> None:
    """Refuse what is no model of transformers that asks for its attention.

    Errors:
        ArgumentError: so it is.
    """
    shared = require("transformers.modeling_utils", "hf").PreTrainedModel
    strange = None if isinstance(model, shared) else f"{type(model).__name__}, which is no model of transformers"
    reason = strange or refusal(type(model)) or refusal_of_parts(model)
    if reason is not None:
        raise ArgumentError("model", ASKING, reason)


def _check(reason: str | None) -> None:
    """Refuse a model for a reason.

    Errors:
        ArgumentError: there is one; names the class of the model, and what it would need.
    """
    if reason is not None:
        raise ArgumentError("attn_implementation", ASKING, reason)


def _guard(modeling: Any) -> None:
    """Have transformers refuse, for names that `register` has given, what `refusal` refuses. Done once a process."""
    model: Any = modeling.PreTrainedModel
    if hasattr(model.get_correct_attn_implementation, GUARDED):
        return
    functions = modeling.ALL_ATTENTION_FUNCTIONS
    choose, switch, finish = model.get_correct_attn_implementation, model.set_attn_implementation, model.post_init
    initialise = model._initialize_weights

    def ours(name: Any) -> bool:
        return isinstance(name, str) and isinstance(functions.get(name), RegisteredAttention)

    @functools.wraps(choose)
    def guarded_choose(self: Any, requested_attention: str | None, *args: Any, **options: Any) -> Any:
        if requested_attention is None and getattr(self.config, ENTRY, None) and BY_LAYER in functions:
            requested_attention = BY_LAYER
            self.config._attn_implementation = BY_LAYER  # for the parts of the model too
        if ours(requested_attention):
            _check(refusal(type(self)))
        return choose(self, requested_attention, *args, **options)

    @functools.wraps(finish)
    def guarded_finish(self: Any) -> Any:
        if ours(self.config._attn_implementation):
            _check(refusal_of_parts(self))
        entry = getattr(self.config, ENTRY, None)
        if entry is not None:  # before weights are loaded, and whatever attention the model uses
            carry_entry(self, entry)
        return finish(self)

    @functools.wraps(initialise)
    def guarded_initialise(self: Any, module: Any, *args: Any, **options: Any) -> Any:
        if isinstance(module, LearnedScale) and not getattr(module, "_is_hf_initialized", False):
            begin_again(module)
        return initialise(self, module, *args, **options)

    @functools.wraps(switch)
    def guarded_switch(self: Any, attn_implementation: Any, *args: Any, **options: Any) -> Any:
        # Checked before anything is switched: transformers leaves out what cannot be, with a line in a log.
        wanted = {id(config): name for config, name in _wanted(self.config, attn_implementation)}
        for part in self.modules():
            if isinstance(part, model) and ours(wanted.get(id(part.config), wanted[id(self.config)])):
                _check(refusal(type(part)) or refusal_of_parts(part))
        return switch(self, attn_implementation, *args, **options)

    for guarded in (guarded_choose, guarded_finish, guarded_switch, guarded_initialise):
        setattr(guarded, GUARDED, True)
        setattr(model, guarded.__name__, guarded)


def _wanted(config: Any, implementation: Any) -> Iterator[tuple[Any, Any]]:
    """A configuration and all in it, each with the name that is wanted for it: one, or a dict by part."""
    by_part = isinstance(implementation, dict)
    yield config, implementation.get("", config._attn_implementation) if by_part else implementation
    for key in config.sub_configs:
        part = getattr(config, key, None)
        if part is not None:
            yield from _wanted(part, implementation.get(key, part._attn_implementation) if by_part else implementation)


def mask_with_offsets(
    *, q_offset: Any = 0, kv_offset: Any = 0, config: Any = None, allow_is_causal_skip: bool = True, **options: Any
) -> Tensor | None:
    """The mask of SDPA, which says too where it stands in the sequence.

    Decoders beside an encoder always get one: some of their layers do not say that they are causal, and an attention
    that is given no mask could not know.
    """
    from transformers.masking_utils import sdpa_mask

    unsure = getattr(config, "is_encoder_decoder", False) or getattr(config, "is_decoder", False)
    mask: Tensor | None = sdpa_mask(
        q_offset=q_offset, kv_offset=kv_offset, allow_is_causal_skip=allow_is_causal_skip and not unsure, **options
    )
    if mask is not None and (isinstance(q_offset, Tensor) or q_offset or kv_offset):
        # What is contiguous stays the same object on its way through `generate`; a static cache counts on in its tensor
        # before a layer looks.
        mask = mask.contiguous()
        setattr(mask, OFFSETS, (q_offset.clone() if isinstance(q_offset, Tensor) else q_offset, kv_offset))
    return mask


@dataclass(frozen=True)
class RegisteredAttention:
    """What `transformers` calls in the place of a model's own attention."""

    normaliser: Normaliser

    def normaliser_of(self, module: torch.nn.Module) -> Normaliser:
        """What turns the logits of a layer into weights."""
        return self.normaliser

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
            module, query, key, value, attention_mask, normaliser=self.normaliser_of(module), **options
        )
        if not output_attentions and not (dropout > 0 and module.training):
            return attend(call).transpose(1, 2).contiguous(), None
        assert call.value is not None
        with full_precision(query.device):
            weights = plain.weights(call).to(query.dtype)
        weights = torch.nn.functional.dropout(weights, p=dropout, training=module.training)
        output = weights @ call.value.repeat_interleave(call.groups, dim=1)
        if not output_attentions:
            return output.transpose(1, 2).contiguous(), None
        return output.transpose(1, 2).contiguous(), torch.nn.functional.pad(weights, (0, key.shape[2] - call.keys))


@dataclass(frozen=True)
class AttentionByLayer(RegisteredAttention):
    """The same with the normaliser that each layer carries."""

    def normaliser_of(self, module: torch.nn.Module) -> Normaliser:
        """What the layer carries, or else the softmax."""
        return own_normaliser(module)
