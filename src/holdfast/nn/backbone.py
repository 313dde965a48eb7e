"""A stack of blocks whose mixers a schedule names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from holdfast.errors import ArgumentError, count_of
from holdfast.nn.block import Block
from holdfast.nn.causal_attention import CausalAttention
from holdfast.nn.normalisers import Normaliser
from holdfast.nn.rat import RAT, GatedRNN
from holdfast.nn.stack import Stack
from holdfast.nn.xlstm import MLSTM, SLSTM


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Shape of a backbone. What a mixer has no use for, it does not read.

    Arguments:
        mixers: name of each layer's mixer, for example `("rat", "window") * 12`: rat, attention, window, rnn,
            mlstm or slstm.
        dim: width of the residual stream.
        heads: query heads of attention and RAT, and heads of mLSTM and sLSTM.
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


MIXERS: dict[str, Callable[[BackboneConfig, int], nn.Module]] = {
    "rat": lambda config, layer: _rat(config),
    "attention": lambda config, layer: _attention(config, None),
    "window": lambda config, layer: _attention(config, config.window),
    "rnn": lambda config, layer: GatedRNN(config.dim, memory=config.memory),
    "mlstm": lambda config, layer: MLSTM(config.dim, config.heads, blocks=len(config.mixers)),
    "slstm": lambda config, layer: SLSTM(config.dim, config.heads, block=layer, blocks=len(config.mixers)),
}
"""By the name that a schedule has for them: from the shape, and from the layer's number."""


class Backbone(Stack):
    """Blocks one after the other, and a last norm.

    Arguments:
        config: the shape.
    """

    def __init__(self, config: BackboneConfig) -> None:
        blocks = (
            Block(config.dim, MIXERS[name](config, layer), expansion=config.expansion)
            for layer, name in enumerate(config.mixers)
        )
        super().__init__(blocks, nn.RMSNorm(config.dim, eps=1e-6))
        self.config = config
