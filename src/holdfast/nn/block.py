"""The residual block around a sequence mixer."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from holdfast.nn.layout import Layout
from holdfast.nn.state import State


class FeedForward(nn.Module):
    """Two projections with a GELU in between, without biases.

    Arguments:
        dim: width of input and output.
        expansion: hidden width in multiples of it.
    """

    def __init__(self, dim: int, *, expansion: int = 4) -> None:
        super().__init__()
        self.in_proj = nn.Linear(dim, expansion * dim, bias=False)
        self.out_proj = nn.Linear(expansion * dim, dim, bias=False)
        nn.init.normal_(self.in_proj.weight, std=0.02)
        nn.init.normal_(self.out_proj.weight, std=0.02)

    def forward(self, x: Float[Tensor, "*shape dim"]) -> Float[Tensor, "*shape dim"]:
        """Every token by itself."""
        hidden: Tensor = self.out_proj(nn.functional.gelu(self.in_proj(x)))
        return hidden


class Block(nn.Module):
    """x + mixer(norm(x)), then x + feed_forward(norm(x)).

    Arguments:
        dim: width of the residual stream.
        mixer: a sequence mixer: `mixer(x, state, layout) -> (y, state)`.
        expansion: hidden width of the feed-forward layer, in multiples of `dim`.

    Source: arXiv 2507.04416, section 3; pre-norm residual blocks.
    """

    def __init__(self, dim: int, mixer: nn.Module, *, expansion: int = 4) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(dim, eps=1e-6)
        self.mixer = mixer
        self.feed_norm = nn.RMSNorm(dim, eps=1e-6)
        self.feed_forward = FeedForward(dim, expansion=expansion)

    def forward(
        self, x: Float[Tensor, "batch time dim"], state: Any = None, layout: Layout | None = None
    ) -> tuple[Float[Tensor, "batch time dim"], State]:
        """The residual stream after the block, and the mixer's state."""
        mixed, after = self.mixer(self.mixer_norm(x), state, layout)
        x = x + mixed
        return x + self.feed_forward(self.feed_norm(x)), after
