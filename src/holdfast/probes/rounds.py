"""Times of steps in rounds: medians, and what they would be had other rounds been drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

RESAMPLES = 2000
"""Of the bootstrap over rounds."""

PIECES = 20
"""That they are drawn in, for all at once would take much memory."""


def medians_drawn(times: Float[np.ndarray, "rounds ..."]) -> Float[np.ndarray, "resamples ..."]:
    """Medians of rounds that are drawn anew, whole rounds at a time.

    Arguments:
        times: the first dimension is the round.
    """
    rounds = len(times)
    drawn = np.random.default_rng(0).integers(rounds, size=(RESAMPLES, rounds))
    return np.concatenate([np.median(times[chosen], axis=1) for chosen in np.array_split(drawn, PIECES)])


def line(
    places: Sequence[int], medians: Float[np.ndarray, "*resamples places"]
) -> tuple[Float[np.ndarray, "*resamples"], Float[np.ndarray, "*resamples"]]:
    """Where the least-squares line through medians begins, and how it rises.

    Arguments:
        places: of each column.
        medians: one row, or many.
    """
    solve = np.linalg.pinv(np.stack([np.ones(len(places)), np.asarray(places, dtype=float)], axis=1))
    begins, rises = solve @ medians.T
    return np.asarray(begins), np.asarray(rises)


def interval(values: Float[np.ndarray, " resamples"]) -> tuple[float, float]:
    """The middle 95 % of values, among which infinite ones may be."""
    low, high = np.quantile(values, (0.025, 0.975), method="nearest")
    return float(low), float(high)
