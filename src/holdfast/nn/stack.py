"""Blocks one after the other, with their states as one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from holdfast.errors import ArgumentError
from holdfast.nn.layout import Layout
from holdfast.nn.state import State, of_kind


@dataclass(frozen=True, kw_only=True)
class BackboneState:
    """The states of all layers, with what each of them can do.

    Arguments:
        layers: one a layer.
    """

    layers: tuple[State, ...]

    @property
    def seen(self) -> Int[Tensor, " batch"]:
        """Live tokens that each row has read."""
        return self.layers[0].seen

    @property
    def longest(self) -> int:
        """No row has read more."""
        return self.layers[0].longest

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept but the counts."""
        return sum(state.nbytes for state in self.layers)

    def reorder(self, index: Int[Tensor, " rows"]) -> BackboneState:
        """The state of some rows, in any order and any number of times."""
        return BackboneState(layers=tuple(state.reorder(index) for state in self.layers))

    def detach(self) -> BackboneState:
        """The state as a constant of later backward passes."""
        return BackboneState(layers=tuple(state.detach() for state in self.layers))

    def restarted(
        self, rows: Bool[Tensor, " batch"], initial: BackboneState, longest: int | None = None
    ) -> BackboneState:
        """The state with some rows before their first token; see `State.restarted`."""
        pairs = zip(self.layers, initial.layers, strict=True)
        return BackboneState(layers=tuple(state.restarted(rows, begun, longest) for state, begun in pairs))

    def crop(self, length: int) -> BackboneState:
        """The state after the first `length` tokens only.

        Errors:
            ArgumentError: a layer cannot tell it.
        """
        return BackboneState(layers=tuple(state.crop(length) for state in self.layers))


class Stack(nn.Module):
    """Residual blocks one after the other, and a last norm.

    Arguments:
        blocks: each has a `mixer`, and is called as `block(x, state, layout) -> (y, state)`.
        norm: of the residual stream at the end.
    """

    def __init__(self, blocks: Iterable[nn.Module], norm: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm
        self.checkpointing = False
        """Whether blocks are computed again in the backward pass, which saves memory."""

    def init_state(self, batch: int, *, limit: int | None = None) -> BackboneState:
        """The state before the first token; see `RAT.init_state`."""
        mixers: Iterable[Any] = (block.mixer for block in self.blocks)
        return BackboneState(layers=tuple(mixer.init_state(batch, limit=limit) for mixer in mixers))

    def forward(
        self, x: Float[Tensor, "batch time dim"], state: BackboneState | None = None, layout: Layout | None = None
    ) -> tuple[Float[Tensor, "batch time dim"], BackboneState]:
        """The residual stream after all blocks, normed; see `RAT.forward`."""
        if state is not None:
            of_kind(state, BackboneState)
            if len(state.layers) != len(self.blocks):
                raise ArgumentError("state", f"{len(self.blocks)} layers", f"{len(state.layers)}")
        layers = []
        for number, block in enumerate(self.blocks):
            before = None if state is None else state.layers[number]
            if self.checkpointing and self.training and torch.is_grad_enabled():
                x, after = checkpoint(block, x, before, layout, use_reentrant=False)
            else:
                x, after = block(x, before, layout)
            layers.append(after)
        return self.norm(x), BackboneState(layers=tuple(layers))
