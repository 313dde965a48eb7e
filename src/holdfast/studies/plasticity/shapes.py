"""The tasks and networks of the parts, as settings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Addition:
    """Addition modulo a number: all pairs are dealt out at random, (x, y) and (y, x) independently.

    Arguments:
        modulus: numbers that are added lie below it.
        share: of all pairs that is learnt from; the others test.
    """

    modulus: int = 43
    share: float = 0.5

    @property
    def commutativity_floor(self) -> float:
        """Test accuracy to expect of a network that has learnt its pairs, and no more than that addition commutes.

        It is right where it has seen the mirror of a pair, and a pair with x = y has none (arXiv 2507.20057, A.1).
        """
        return self.share * (1 - 1 / self.modulus)

    @property
    def tests(self) -> int:
        """How many pairs test."""
        return self.modulus**2 - int(self.share * self.modulus**2)


@dataclass(frozen=True, kw_only=True)
class TransformerShape:
    """A transformer of one block for addition.

    Arguments:
        dim: width of the residual stream.
        heads: of the attention.
        hidden: units of the feed-forward layer.
        constants: tokens after the two numbers that are always the same ("="); the last one is read.
        norm: whether RMSNorm stands before the attention, before the feed-forward layer and after it.
    """

    dim: int = 64
    heads: int = 4
    hidden: int = 256
    constants: int = 1
    norm: bool = True


@dataclass(frozen=True, kw_only=True)
class MLPShape:
    """A network with one hidden layer for addition.

    Arguments:
        dim: width of an embedding.
        hidden: units.
    """

    dim: int = 64
    hidden: int = 128


@dataclass(frozen=True, kw_only=True)
class Layers:
    """Hidden layers of a network for images or states.

    Arguments:
        width: units of a layer.
        depth: number of layers.
    """

    width: int = 96
    depth: int = 3
