"""A normaliser for each layer of a transformers model, learned or fitted for each of its heads, and saved with it.

learn_scales(model, SSMax(1 / math.log(2048), learned=True))    # then train it
model.save_pretrained("model")
model = AutoModelForCausalLM.from_pretrained("model", attn_implementation=register_by_layer())
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from holdfast.errors import ArgumentError
from holdfast.nn.attention.huggingface import ASKING, check_asks, register_by_layer, source_of
from holdfast.nn.attention.own_normalisers import ENTRY, carry, carry_entry, entry_of, heads_of
from holdfast.nn.normalisers import Normaliser, SSMax


def set_normalisers(model: nn.Module, normalisers: Mapping[str, Normaliser]) -> None:
    """Give layers of a transformers model a normaliser each, and switch the model to them; all others get the softmax.

    `model.save_pretrained` then writes the normalisers into `config.json`, and scales that are learned beside the
    weights. `from_pretrained(path, attn_implementation=register_by_layer())` brings back both, bit for bit. Once
    `register_by_layer()` was called in a process, a model that has such normalisers takes them where no
    `attn_implementation` is named. Another one, such as `"sdpa"`, leaves them alone: they are kept, and not used.

    Arguments:
        model: one that asks transformers for its attention.
        normalisers: by the path of the attention layer, such as `model.layers.0.self_attn`. `ByHead` has one for each
            head; `SSMax(scale, learned=True)`, with one scale a head, makes them parameters of the layer, which an
            optimiser made before does not know.

    Errors:
        ArgumentError: the model computes its attention without asking, there is no such layer, or one for another
            number of heads.
        MissingExtraError: transformers is not installed.
    """
    name = register_by_layer()
    known = attention_layers(model)
    layers = dict(model.named_modules())
    entry = entry_of(normalisers)
    for path, normaliser in normalisers.items():
        if path not in layers:
            raise ArgumentError("normalisers", f"paths of attention layers ({', '.join(known)})", path)
        heads = heads_of(layers[path])
        if isinstance(normaliser, SSMax) and normaliser.learned and normaliser.heads is None:
            raise ArgumentError("normalisers", "a learned scale with one number a head", repr(normaliser))
        if None not in (heads, normaliser.heads) and heads != normaliser.heads:
            raise ArgumentError("normalisers", f"one for the {heads} heads of {path}", f"{normaliser.heads} heads")
    switch: Any = model.set_attn_implementation
    switch(name)
    for layer in layers.values():
        carry(layer, None)
    setattr(model.config, ENTRY, entry)
    carry_entry(model, entry)


def learn_scales(model: nn.Module, start: SSMax) -> None:
    """Make the scale s of s ln n, by which every head multiplies its logits, a parameter of each attention layer.

    Their names end in `holdfast_normaliser.log_scale`: it is the logarithm of the scale that is kept, so that no step
    of an optimiser makes a scale negative. See `set_normalisers` for how they are saved.

    Arguments:
        model: one that asks transformers for its attention.
        start: what they begin with. `SSMax(1 / math.log(n))` changes nothing for a query that sees n keys.

    Errors:
        ArgumentError: the model computes its attention without asking, or its number of heads cannot be told.
        MissingExtraError: transformers is not installed.

    Source: arXiv 2501.19399, section 3.
    """
    if not isinstance(start, SSMax) or start.tensors:
        raise ArgumentError("start", "SSMax with a number, or one a head", repr(start))
    normalisers = {}
    for path, layer in attention_layers(model).items():
        heads = heads_of(layer)
        if heads is None:
            raise ArgumentError("model", "attention layers that say how many heads they have", f"{path}")
        scales: Any = start.scale if isinstance(start.scale, tuple) else (start.scale,) * heads
        normalisers[path] = replace(start, scale=scales, learned=True)
    set_normalisers(model, normalisers)


def attention_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers of a transformers model that ask for their attention, by their paths.

    Errors:
        ArgumentError: the model computes its attention without asking.
    """
    check_asks(model)
    layers = {path: layer for path, layer in model.named_modules() if _asks(type(layer))}
    if not layers:
        raise ArgumentError("model", ASKING, f"{type(model).__name__}, none of whose layers does")
    return layers


def _asks(kind: type) -> bool:
    """Whether the code of a class of layers asks the interface of transformers for an attention."""
    computing = next((base for base in kind.__mro__ if "forward" in vars(base)), nn.Module)
    return computing is not nn.Module and "ALL_ATTENTION_FUNCTIONS" in source_of(computing)
