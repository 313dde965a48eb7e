"""What a policy remembers of its slots: joined to one batch, and parted again.

Sessions that begin and end at any time are stepped together by that: nothing a slot reads or answers depends on the
others, up to the rounding of a larger batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from holdfast.errors import ArgumentError
from holdfast.nn.stack import BackboneState
from holdfast.nn.state import Slots, State
from holdfast.rl.episodes import Episodes


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Of each slot. Nothing is changed in place: a policy may go back to any memory that it has had.

    Arguments:
        state: of the model's backbone.
        episodes: as far as they are known.
        target: return to reach in an episode, in the environment's units.
    """

    state: Any
    episodes: Episodes
    target: Float64[np.ndarray, " slots"]

    @property
    def slots(self) -> int:
        """How many."""
        return len(self.target)

    @property
    def joinable(self) -> bool:
        """Whether it can be joined with others: whether its size is the same after any number of tokens."""
        return not any(
            isinstance(getattr(layer, field.name), Slots) for layer in _layers(self.state) for field in fields(layer)
        )

    def parted(self) -> list[Memory]:
        """The memory of each slot by itself."""
        if self.slots == 1:
            return [self]
        # In memory of their own: a slot that rests must not keep that of a whole batch.
        layers = [
            [dict(zip(parts, row, strict=True)) for row in zip(*(_rows(part) for part in parts.values()), strict=True)]
            for parts in map(_tensors, _layers(self.state))
        ]
        arrays = self.episodes.arrays()
        return [
            Memory(
                state=_rebuilt(self.state, [parts[slot] for parts in layers]),
                episodes=Episodes.of({name: array[slot : slot + 1].copy() for name, array in arrays.items()}),
                target=self.target[slot : slot + 1].copy(),
            )
            for slot in range(self.slots)
        ]


def joined(memories: Sequence[Memory]) -> Memory:
    """Memories of one policy's model and domain as that of all their slots, in order.

    Arguments:
        memories: at least one.

    Errors:
        ArgumentError: what one keeps grows with the number of tokens.
    """
    first = memories[0]
    if len(memories) == 1:
        return first
    if not first.joinable:
        raise ArgumentError("memories", "of a backbone whose state does not grow", type(first.state).__name__)
    every = [[_tensors(layer) for layer in _layers(memory.state)] for memory in memories]
    layers = [
        {name: torch.cat([parts[layer][name] for parts in every]) for name in every[0][layer]}
        for layer in range(len(every[0]))
    ]
    longest = {layer.longest for memory in memories for layer in _layers(memory.state)}
    ragged = len(longest) > 1 or any(layer.ragged for memory in memories for layer in _layers(memory.state))
    arrays = [memory.episodes.arrays() for memory in memories]
    return Memory(
        state=_rebuilt(first.state, layers, longest=max(longest), ragged=ragged),
        episodes=Episodes.of({name: np.concatenate([array[name] for array in arrays]) for name in arrays[0]}),
        target=np.concatenate([memory.target for memory in memories]),
    )


def _layers(state: Any) -> tuple[State, ...]:
    return state.layers if isinstance(state, BackboneState) else (state,)


def _tensors(layer: State) -> dict[str, Tensor]:
    parts = {field.name: getattr(layer, field.name) for field in fields(layer)}
    return {name: part for name, part in parts.items() if isinstance(part, Tensor)}


def _rows(part: Tensor) -> list[Tensor]:
    return [row.clone() for row in part.split(1)]


def _rebuilt(like: Any, layers: Sequence[dict[str, Any]], **changes: Any) -> Any:
    """A state with other tensors."""
    new = tuple(
        type(layer)(**{field.name: getattr(layer, field.name) for field in fields(layer)} | parts | changes)
        for layer, parts in zip(_layers(like), layers, strict=True)
    )
    return BackboneState(layers=new) if isinstance(like, BackboneState) else new[0]
