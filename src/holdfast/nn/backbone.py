"""A stack of blocks whose mixers a schedule names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from holdfast.errors import ArgumentError, count_of
from holdfast.nn.block import Block
from holdfast.nn.causal_attention import CausalAttention
from holdfast.nn.layout import Layout
from holdfast.nn.normalisers import Normaliser
from holdfast.nn.rat import RAT, GatedRNN
from holdfast.nn.state import State, of_kind
from holdfast.nn.xlstm import MLSTM


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Shape of a backbone. What a mixer has no use for, it does not read.

    Arguments:
        mixers: name of each layer's mixer, for example `("rat", "window") * 12`: rat, attention, window, rnn
            or mlstm.
        dim: width of the residual stream.
        heads: query heads of attention and RAT, and heads of the mLSTM.
        expansion: hidden width of the feed-forward layers, in multiples of `dim`.
        chunk_size: tokens a chunk of RAT.
        qk_groups: queries and keys that RAT's heads share; `None`: one a head.
        kv_heads: key heads of attention; `None`: as many as `heads`.
        window: tokens that a token sees in a `window` layer, itself included.
        memory: of the gated recurrence: its gates remember for 1 to `memory - 1` tokens at first.
        rope_theta: base of rotary positions; `None`: no layer has positions.
        output_gate: whether attention has an output gate, as RAT and the recurrence do.
        normaliser: turns the logits of attention and RAT into weights; `None`: the softmax.
    """

    mixers: tuple[str, ...]
    dim: int
    heads: int
    expansion: int = 4
    chunk_size: int = 16
    qk_groups: int | None = 2
    kv_heads: int | None = None
    window: int = 1024
    memory: int = 1024
    rope_theta: float | None = 10_000.0
    output_gate: bool = False
    normaliser: Normaliser | None = None

    def __post_init__(self) -> None:
        if not self.mixers or not set(self.mixers) <= set(MIXERS):
            raise ArgumentError("mixers", f"a sequence of names among {', '.join(MIXERS)}", repr(self.mixers))
        count_of("expansion", self.expansion, least=1)


def _attention(config: BackboneConfig, window: int | None) -> CausalAttention:
    return CausalAttention(
        config.dim,
        config.heads,
        kv_heads=config.kv_heads,
        rope_theta=config.rope_theta,
        window=window,
        normaliser=config.normaliser,
        output_gate=config.output_gate,
    )


def _rat(config: BackboneConfig) -> RAT:
    return RAT(
        config.dim,
        config.heads,
        chunk_size=config.chunk_size,
        qk_groups=config.qk_groups,
        rope_theta=config.rope_theta,
        normaliser=config.normaliser,
    )


MIXERS: dict[str, Callable[[BackboneConfig], nn.Module]] = {
    "rat": _rat,
    "attention": lambda config: _attention(config, None),
    "window": lambda config: _attention(config, config.window),
    "rnn": lambda config: GatedRNN(config.dim, memory=config.memory),
    "mlstm": lambda config: MLSTM(config.dim, config.heads, blocks=len(config.mixers)),
}
"""By the name that a schedule has for them."""


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

    def crop(self, length: int) -> BackboneState:
        """The state after the first `length` tokens only.

        Errors:
            ArgumentError: a layer cannot tell it.
        """
        return BackboneState(layers=tuple(state.crop(length) for state in self.layers))


class Backbone(nn.Module):
    """Blocks one after the other, and a last norm.

    Arguments:
        config: the shape.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(
            Block(config.dim, MIXERS[name](config), expansion=config.expansion) for name in config.mixers
        )
        self.norm = nn.RMSNorm(config.dim, eps=1e-6)
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
