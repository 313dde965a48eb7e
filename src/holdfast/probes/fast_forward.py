"""States after many tokens, without computing all of them where the next step cannot tell the difference.

What a step costs is told by the shapes of what it reads and writes, not by the numbers there. So a state that has the
same shapes after any number of tokens may stand for a later one. What attention keeps may not: as many keys and values
as there would be are really laid into memory, where a step really reads them.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from holdfast.nn.causal_attention import AttentionState
from holdfast.nn.stack import BackboneState
from holdfast.nn.state import Slots, State


def layers_of(state: Any) -> tuple[State, ...]:
    """The states of all layers."""
    return state.layers if isinstance(state, BackboneState) else (state,)


def kept_bytes(state: Any) -> int:
    """Bytes that a state keeps of the tokens it has read, without slots that are still free."""
    total = 0
    for part in _parts(state):
        if isinstance(part, Slots):
            total += sum(kept[:, :, : part.used].numel() * kept.element_size() for kept in (part.keys, part.values))
        elif part.is_floating_point():
            total += part.nbytes
    return total


def is_constant(early: Any, late: Any) -> bool:
    """Whether a state has the same size after any number of tokens.

    Arguments:
        early: after some tokens.
        late: the same one after more.
    """
    pairs = zip(layers_of(early), layers_of(late), strict=True)
    return all(_constant(one, other) for one, other in pairs)


def fast_forward(early: Any, late: Any, tokens: int) -> Any:
    """The state after many tokens.

    Keys and values of attention are those that are there, over and over, in memory of their own.

    Arguments:
        early: after some tokens, all rows alike.
        late: the same one after more.
        tokens: how many; no fewer than `late` has read.

    Returns:
        The state; `None`: it grows in a way that only reading tells.
    """
    layers = []
    for one, other in zip(layers_of(early), layers_of(late), strict=True):
        counts: dict[str, Any] = {"seen": torch.full_like(other.seen, tokens), "longest": tokens}
        if _constant(one, other):
            layers.append(replace(other, **counts))
        elif isinstance(other, AttentionState):
            layers.append(replace(other, **counts, cache=_repeated(other.cache, tokens)))
        else:
            return None
    return BackboneState(layers=tuple(layers)) if isinstance(late, BackboneState) else layers[0]


def with_room(state: Any, tokens: int) -> Any:
    """A state that goes on in place for some tokens, as one does most of the time; the room is made now."""
    return _with_slots(state, lambda part: part.last(part.used, part.used + tokens))


def again(state: Any) -> Any:
    """A state that goes on in place, though it was continued before: those who did so must not be asked any more."""
    return _with_slots(state, lambda part: replace(part, appended=[0], age=0))


def _constant(early: State, late: State) -> bool:
    parts = [[getattr(state, field.name) for field in fields(state)] for state in (early, late)]
    if any(isinstance(part, Slots) for part in parts[1]):
        return False
    shapes = [[part.shape for part in of_one if isinstance(part, Tensor)] for of_one in parts]
    return shapes[0] == shapes[1] and early.longest < late.longest


def _repeated(slots: Slots, number: int) -> Slots:
    """So many slots, which hold those in use again and again."""
    index = torch.arange(number, device=slots.keys.device) % slots.used
    return Slots(slots.keys[:, :, index], slots.values[:, :, index], number)


def _parts(state: Any) -> list[Slots | Tensor]:
    parts = [getattr(layer, field.name) for layer in layers_of(state) for field in fields(layer)]
    return [part for part in parts if isinstance(part, Slots | Tensor)]


def _with_slots(state: Any, change: Any) -> Any:
    layers = []
    for layer in layers_of(state):
        changed = {
            field.name: change(part) for field in fields(layer) if isinstance(part := getattr(layer, field.name), Slots)
        }
        layers.append(replace(layer, **changed))
    return BackboneState(layers=tuple(layers)) if isinstance(state, BackboneState) else layers[0]
