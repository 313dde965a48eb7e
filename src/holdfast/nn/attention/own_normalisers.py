"""Normalisers that layers of a model carry themselves: where they are kept, and how they come back with its weights.

What a layer computes with is an attribute of it, and the model's configuration says what that was: so it is in
`config.json`. A learned scale is a parameter, and so in the file of weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from holdfast.errors import ArgumentError
from holdfast.nn.learned_scale import LearnedScale, learned_scale
from holdfast.nn.normaliser_documents import document_of, normaliser_of
from holdfast.nn.normalisers import Normaliser, Plain

ATTRIBUTE = "holdfast_normaliser"
"""Of a layer: its normaliser, or the module that gives it."""

ENTRY = "holdfast_normalisers"
"""Of a configuration: a document for each layer by its path in the model."""


def own_normaliser(layer: nn.Module) -> Normaliser:
    """What a layer carries; the softmax where it carries nothing."""
    carried: Normaliser | LearnedScale | None = getattr(layer, ATTRIBUTE, None)
    if isinstance(carried, LearnedScale):
        given: Normaliser = carried()
        return given
    return Plain() if carried is None else carried


def carry(layer: nn.Module, normaliser: Normaliser | None) -> None:
    """Have a layer carry a normaliser, in the place of what it carries; `None`: nothing.

    A scale that is learned has one number a head, which says how many heads there are.
    """
    if hasattr(layer, ATTRIBUTE):
        delattr(layer, ATTRIBUTE)
    if normaliser is None:
        return
    scale = None
    scale = None if normaliser.heads is None else learned_scale(normaliser, normaliser.heads)
    if scale is not None:
        weight = next((weight for weight in layer.parameters() if weight.is_floating_point()), None)
        if weight is not None:
            scale = scale.to(device=weight.device, dtype=weight.dtype)
            if not weight.is_meta:
                scale.reset_parameters()
    setattr(layer, ATTRIBUTE, normaliser if scale is None else scale)


def entry_of(normalisers: Mapping[str, Normaliser]) -> dict[str, Any]:
    """What a configuration keeps of the normalisers of layers."""
    return {path: document_of(normaliser) for path, normaliser in normalisers.items()}


def carry_entry(model: nn.Module, entry: Any) -> None:
    """Have the layers of a model, or of a part of one, carry what a configuration keeps.

    A path begins where the whole model does. In a part, made on the way, a layer is meant by a path that ends with
    its own, or the other way round, if there is one such; the model around the part then decides anew.

    Errors:
        ArgumentError: it is no such entry.
    """
    if not isinstance(entry, dict):
        raise ArgumentError(ENTRY, "a dict of documents by path", repr(entry))
    layers = dict(model.named_modules())
    for layer in layers.values():
        carry(layer, None)
    for path, document in entry.items():
        place = path if path in layers else _only(path, layers)
        if place is not None and (place == path or _only(place, entry) == path):
            carry(layers[place], normaliser_of(document))


def _only(path: str, paths: Iterable[str]) -> str | None:
    """The only one of some paths that ends with this one, or that it ends with."""
    alike = [other for other in paths if other and (other.endswith(f".{path}") or path.endswith(f".{other}"))]
    return alike[0] if len(alike) == 1 else None


def heads_of(layer: nn.Module) -> int | None:
    """How many query heads an attention layer of transformers says that it has."""
    config = getattr(layer, "config", None)
    for source in (layer, config):
        for name in ("num_attention_heads", "num_heads", "n_heads", "n_head"):
            number = getattr(source, name, None)
            if isinstance(number, int) and not isinstance(number, bool) and number > 0:
                return number
    return None


@torch.no_grad()
def begin_again(scale: LearnedScale) -> None:
    """Scales as they began, unless they were loaded."""
    from transformers import initialization

    initialization.copy_(scale.log_scale, scale.beginning())
