"""What a backbone keeps of the tokens it has read, as named tensors and numbers, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

from torch import Tensor

from holdfast.errors import ArgumentError
from holdfast.nn.stack import BackboneState
from holdfast.nn.state import Slots, State

Number = int | float | bool | None


def state_tensors(state: Any) -> tuple[dict[str, Tensor], dict[str, Number]]:
    """The parts of a state, by name.

    Arguments:
        state: of a backbone.

    Returns:
        Its tensors, and its numbers.
    """
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Number] = {}
    for name, layer in _layers(state):
        for field in fields(layer):
            part = getattr(layer, field.name)
            if isinstance(part, Slots):
                tensors[f"{name}.{field.name}.keys"] = part.keys[:, :, : part.used]
                tensors[f"{name}.{field.name}.values"] = part.values[:, :, : part.used]
            elif isinstance(part, Tensor):
                tensors[f"{name}.{field.name}"] = part
            else:
                numbers[f"{name}.{field.name}"] = part
    return tensors, numbers


def state_from(initial: Any, tensors: Mapping[str, Tensor], numbers: Mapping[str, Number]) -> Any:
    """A state from its parts.

    Arguments:
        initial: the state before the first token, of the same model and batch.
        tensors: of the state that was kept.
        numbers: likewise.

    Errors:
        ArgumentError: they are not those of such a state.
    """
    layers = []
    for name, layer in _layers(initial):
        changed: dict[str, Any] = {}
        for field in fields(layer):
            part, whole = getattr(layer, field.name), f"{name}.{field.name}"
            if isinstance(part, Slots):
                keys, values = (_fitting(f"{whole}.{of}", getattr(part, of), tensors, 2) for of in ("keys", "values"))
                changed[field.name] = Slots(keys, values, keys.shape[2])
            elif isinstance(part, Tensor):
                changed[field.name] = _fitting(whole, part, tensors)
            else:
                if whole not in numbers:
                    raise ArgumentError("state", f"the number {whole}", "none")
                if field.name in ("longest", "ragged"):
                    changed[field.name] = numbers[whole]
                elif numbers[whole] != part:
                    raise ArgumentError("state", f"{part} as {whole}", numbers[whole])
        layers.append(replace(layer, **changed))
    return BackboneState(layers=tuple(layers)) if isinstance(initial, BackboneState) else layers[0]


def _layers(state: Any) -> Iterator[tuple[str, State]]:
    if isinstance(state, BackboneState):
        for number, layer in enumerate(state.layers):
            yield f"layer{number}", layer
    else:
        yield "backbone", state


def _fitting(name: str, like: Tensor, tensors: Mapping[str, Tensor], free: int | None = None) -> Tensor:
    """A tensor of a name, which fits another one but in one dimension."""
    tensor = tensors.get(name)
    if tensor is None:
        raise ArgumentError("state", f"the tensor {name}", "none")
    wanted, got = list(like.shape), list(tensor.shape)
    if free is not None and len(got) > free:
        wanted[free] = got[free]
    if wanted != got or tensor.dtype != like.dtype:
        raise ArgumentError("state", f"{name} of shape {wanted}, {like.dtype}", f"{got}, {tensor.dtype}")
    return tensor.to(like.device)
