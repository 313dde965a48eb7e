"""Similarities that penalties begin with, one a seed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from holdfast.lab.seeds import generator_for
from holdfast.studies.macros.streams import SHUFFLE, START

NOISE = 0.01
"""Relative standard deviation of the noise on a start."""


def even_start(n: int, diagonal: float, seeds: Sequence[int]) -> Float64[Tensor, "seeds n n"]:
    """A given diagonal, and the rest of each row spread evenly, with 1 % of noise: nothing is known of similarities.

    Arguments:
        n: number of actions.
        diagonal: of the matrix.
        seeds: of the noise.
    """
    even = torch.full((n, n), (1 - diagonal) / (n - 1), dtype=torch.float64).fill_diagonal_(diagonal)
    noise = (torch.randn(n, n, generator=generator_for(seed, START), dtype=torch.float64) for seed in seeds)
    starts = torch.stack([even * (1 + NOISE * of_seed) for of_seed in noise])
    return (starts + starts.mT) / 2


def averages(groups: Sequence[int], seeds: Sequence[int], *, shuffled: bool = False) -> Float64[Tensor, "seeds n n"]:
    """Averages within groups of actions: what an oracle says, or, shuffled, the same of other actions.

    Arguments:
        groups: of the actions.
        seeds: of the shuffling.
        shuffled: whether the actions change places.
    """
    of = torch.tensor(groups)
    together = (of[:, None] == of).double()
    oracle = together / together.sum(1, keepdim=True)
    if not shuffled:
        return oracle.expand(len(seeds), -1, -1)
    places = [torch.randperm(len(of), generator=generator_for(seed, SHUFFLE)) for seed in seeds]
    return torch.stack([oracle[place][:, place] for place in places])
