"""Networks of mLSTM and sLSTM blocks as published (v1), and the published sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from holdfast.errors import ArgumentError, count_of
from holdfast.nn.layout import Layout
from holdfast.nn.stack import Stack
from holdfast.nn.state import State
from holdfast.nn.xlstm.mlstm_mixer import MLSTM
from holdfast.nn.xlstm.slstm_mixer import SLSTM


@dataclass(frozen=True, kw_only=True)
class XLSTMConfig:
    """Shape of an xLSTM.

    Arguments:
        dim: width of the residual stream.
        layers: number of blocks.
        heads: of every mLSTM and sLSTM.
        slstm_at: which blocks, from 0, are sLSTM blocks; all others are mLSTM blocks.
    """

    dim: int
    layers: int
    heads: int
    slstm_at: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        count_of("layers", self.layers, least=1)
        if not set(self.slstm_at) <= set(range(self.layers)) or len(set(self.slstm_at)) < len(self.slstm_at):
            raise ArgumentError("slstm_at", f"different numbers below the {self.layers} layers", self.slstm_at)


XLSTM_SIZES = {
    "16M": XLSTMConfig(dim=512, layers=8, heads=4),
    "48M": XLSTMConfig(dim=768, layers=12, heads=4),
    "108M": XLSTMConfig(dim=1024, layers=16, heads=4),
    "206M": XLSTMConfig(dim=1280, layers=20, heads=4),
    "16M-slstm": XLSTMConfig(dim=512, layers=8, heads=4, slstm_at=(1,)),
    "48M-slstm": XLSTMConfig(dim=768, layers=12, heads=4, slstm_at=(1, 3)),
    "108M-slstm": XLSTMConfig(dim=1024, layers=16, heads=4, slstm_at=(1, 3)),
    "206M-slstm": XLSTMConfig(dim=1280, layers=20, heads=4, slstm_at=(1, 3, 5)),
}
"""The networks of arXiv 2410.22391: xLSTM[1:0], and those called xLSTM[7:1], whose share of sLSTM is smaller than that
but for the smallest."""


class GatedFeedForward(nn.Module):
    """y = out_proj(gelu(g) * u), where g, u = in_proj(x); without biases.

    Arguments:
        dim: width of input and output. The hidden one is 1.3 times that, up to the next multiple of 64.
        blocks: number of blocks of the network, by which the weights of `out_proj` are smaller at first.
    """

    def __init__(self, dim: int, *, blocks: int = 1) -> None:
        super().__init__()
        hidden = -(-13 * dim // 640) * 64
        self.in_proj = nn.Linear(dim, 2 * hidden, bias=False)
        self.out_proj = nn.Linear(hidden, dim, bias=False)
        nn.init.normal_(self.in_proj.weight, std=math.sqrt(2 / (5 * dim)))
        nn.init.normal_(self.out_proj.weight, std=2 / (blocks * math.sqrt(dim)))

    def forward(self, x: Float[Tensor, "*shape dim"]) -> Float[Tensor, "*shape dim"]:
        """Every token by itself."""
        gate, value = self.in_proj(x).chunk(2, -1)
        output: Tensor = self.out_proj(gelu(gate) * value)
        return output


class XLSTMBlock(nn.Module):
    """x + mixer(norm(x)), and where there is a feed-forward layer then x + feed_forward(norm(x)).

    Arguments:
        dim: width of the residual stream.
        mixer: a sequence mixer.
        feed_forward: a layer for every token by itself, or `None`.
    """

    def __init__(self, dim: int, mixer: nn.Module, feed_forward: nn.Module | None) -> None:
        super().__init__()
        self.mixer_norm = nn.LayerNorm(dim, bias=False)
        self.mixer = mixer
        self.feed_norm = None if feed_forward is None else nn.LayerNorm(dim, bias=False)
        self.feed_forward = feed_forward

    def forward(
        self, x: Float[Tensor, "batch time dim"], state: Any = None, layout: Layout | None = None
    ) -> tuple[Float[Tensor, "batch time dim"], State]:
        """The residual stream after the block, and the mixer's state."""
        mixed, after = self.mixer(self.mixer_norm(x), state, layout)
        x = x + mixed
        if self.feed_norm is not None and self.feed_forward is not None:
            x = x + self.feed_forward(self.feed_norm(x))
        return x, after


class XLSTM(Stack):
    """mLSTM blocks, x + MLSTM(norm(x)), sLSTM blocks, the same with SLSTM and then x + GatedFFN(norm(x)), a last norm.

    Arguments:
        config: the shape.

    Errors:
        ArgumentError: widths that the heads do not divide.

    Source: arXiv 2405.04517, figures 10 and 11; arXiv 2410.22391.
    """

    def __init__(self, config: XLSTMConfig) -> None:
        super().__init__(_blocks(config), nn.LayerNorm(config.dim, bias=False))
        self.config = config


def _blocks(config: XLSTMConfig) -> Iterator[XLSTMBlock]:
    for layer in range(config.layers):
        if layer in config.slstm_at:
            slstm = SLSTM(config.dim, config.heads, block=layer, blocks=config.layers)
            yield XLSTMBlock(config.dim, slstm, GatedFeedForward(config.dim, blocks=config.layers))
        else:
            yield XLSTMBlock(config.dim, MLSTM(config.dim, config.heads, blocks=config.layers), None)
