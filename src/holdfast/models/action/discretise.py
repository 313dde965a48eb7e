"""Actions as ids: a vocabulary that all domains share, discrete actions first and the bins of a dimension behind them.

A continuous dimension is rescaled from the bounds of its domain to [0, 1] and cut into equal bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, Num
from torch import Tensor

from holdfast.errors import ArgumentError, count_of
from holdfast.models.action.domain import ActionSpace, Continuous, Discrete, Domain


@dataclass(frozen=True)
class Vocabulary:
    """Ids 0 to discrete - 1 are discrete actions; those from there on are bins, the same ones for every dimension.

    Arguments:
        discrete: most actions that a discrete domain has; 0: there is no discrete domain.
        bins: of a continuous dimension.
        dims: most dimensions that a continuous domain has; 0: there is no continuous domain.

    Errors:
        ArgumentError: numbers below 0, fewer than two bins, or no action at all.

    Source: arXiv 2410.22391, with 18 discrete actions, 256 bins and 8 dimensions.
    """

    discrete: int
    bins: int
    dims: int

    def __post_init__(self) -> None:
        count_of("discrete", self.discrete)
        count_of("bins", self.bins, least=2)
        count_of("dims", self.dims)
        if not self.discrete and not self.dims:
            raise ArgumentError("dims", "discrete actions or continuous dimensions", "none of both")

    @property
    def size(self) -> int:
        """Number of ids."""
        return self.discrete + self.bins

    def check(self, domain: Domain) -> None:
        """Refuse a domain that has more actions than there is room for.

        Errors:
            ArgumentError: so it is.
        """
        room = self.discrete if isinstance(domain.action, Discrete) else self.dims
        number = domain.action.n if isinstance(domain.action, Discrete) else domain.action.dims
        kind = "discrete actions" if isinstance(domain.action, Discrete) else "action dimensions"
        if number > room:
            raise ArgumentError(f"domain {domain.name}", f"at most {room} {kind}, as the vocabulary has", number)

    def choices(self, space: ActionSpace) -> int:
        """Among how many ids a dimension of an action is chosen."""
        return space.n if isinstance(space, Discrete) else self.bins

    def first(self, space: ActionSpace) -> int:
        """The first of these ids."""
        return 0 if isinstance(space, Discrete) else self.discrete

    def ids(self, action: Num[Tensor, "*batch dims"], space: ActionSpace) -> Int64[Tensor, "*batch dims"]:
        """Ids of actions. A value outside the bounds is in the first or the last bin.

        Arguments:
            action: in the environment's units.
            space: that they are of.

        Errors:
            ArgumentError: a value that is no number, or no id of the space.
        """
        if isinstance(space, Discrete):
            whole = action.long()
            wrong = (whole != action) | (whole < 0) | (whole >= space.n)
            if bool(wrong.any()):
                raise ArgumentError("action", f"ids from 0 to {space.n - 1}", str(action[wrong][0].item()))
            return whole
        low, high = _bounds(space, action)
        share = (action.double() - low) / (high - low)
        if bool(share.isnan().any()):
            raise ArgumentError("action", "numbers", "NaN")
        return (share * self.bins).floor().clamp(0, self.bins - 1).long() + self.discrete

    def actions(
        self, ids: Int64[Tensor, "*batch dims"], space: ActionSpace, decode: str = "centre"
    ) -> Num[Tensor, "*batch dims"]:
        """Actions of ids, in the environment's units.

        Arguments:
            ids: of the space.
            space: that they are of.
            decode: which point of a bin stands for it: its centre, which is at most half a bin off and unbiased, or
                its left edge, as in the published code, which can never say the upper bound.

        Returns:
            Float32, or the ids themselves where actions are discrete.

        Errors:
            ArgumentError: ids that are none of the space, or another decoding.
        """
        if decode not in ("centre", "left"):
            raise ArgumentError("decode", "centre or left", repr(decode))
        within = ids - self.first(space)
        if bool(((within < 0) | (within >= self.choices(space))).any()):
            first = self.first(space)
            raise ArgumentError("ids", f"ids from {first} to {first + self.choices(space) - 1}", "others")
        if isinstance(space, Discrete):
            return within
        low, high = _bounds(space, ids)
        share = (within.double() + (0.5 if decode == "centre" else 0.0)) / self.bins
        return (low + share * (high - low)).float()


def _bounds(space: Continuous, like: Tensor) -> tuple[Float[Tensor, " dims"], Float[Tensor, " dims"]]:
    """In float64: the edge of a bin must not depend on the dtype of the data."""
    return (
        torch.tensor(space.low, dtype=torch.float64, device=like.device),
        torch.tensor(space.high, dtype=torch.float64, device=like.device),
    )
