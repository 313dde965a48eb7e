"""Some rows of what a model was called with, whatever holds them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def sampled(value: Any, rows: int, seed: int) -> Any:
    """Copies of some rows of every tensor that has as many as the first one, in dicts, lists and tuples too.

    No random state changes. Lists of as many strings are sampled likewise; tensors without dimensions, and those of
    another length, come whole. What is returned shares no memory with what was given.

    Arguments:
        value: a tensor, or a dict, list or tuple of them and of others.
        rows: as many are drawn, or all where there are no more.
        seed: of the draw.
    """
    first = next(_tensors(value), None)
    count = 0 if first is None else len(first)
    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:rows].sort().values

    def some(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            fits = leaf.ndim > 0 and len(leaf) == count
            return leaf.detach()[chosen.to(leaf.device)] if fits else leaf.detach().clone()
        return [leaf[place] for place in chosen.tolist()] if isinstance(leaf, list) and len(leaf) == count else leaf

    return _mapped(value, some)


def _tensors(value: Any) -> Iterator[Tensor]:
    """All with a dimension, in order."""
    if isinstance(value, Tensor):
        if value.ndim:
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """A copy with every leaf changed; a list of strings is one."""
    if isinstance(value, Mapping):
        made: Any = copy.copy(value)
        for name, item in value.items():
            made[name] = _mapped(item, change)
        return made
    if isinstance(value, list):
        words = bool(value) and all(isinstance(item, str) for item in value)
        return change(value) if words else [_mapped(item, change) for item in value]
    if isinstance(value, tuple):
        items = [_mapped(item, change) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return change(value)
