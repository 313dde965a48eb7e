"""What the claims and figures of several parts share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from holdfast.lab.figures import GREY, SHARE, seed_mean
from holdfast.lab.verdict import BySeed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record

MARGIN = 0.05
"""The least difference in what is kept that counts, where nobody has foretold one: a prototype took .05 for the gap on
permuted digits, for what is next to nothing, and for the optimisers that are not to keep more than SGD."""


def not_learnt(learn: BySeed, label: str) -> str:
    """Why what an arm keeps is not compared: what was not learnt cannot be forgotten. Empty where it is.

    Arguments:
        learn: its learning accuracy by seed.
        label: what it is called.
    """
    from holdfast.probes.solutions.retention import LEARNT

    if not learn:
        return ""  # the test says what is missing
    mean = sum(learn.values()) / len(learn)
    if mean >= LEARNT:
        return ""
    return f"not learnt, retention is meaningless: {label} has a learning accuracy of {mean:.3f}, below {LEARNT:g}"


def unbracketed(bracketed: BySeed, label: str, level: float) -> str:
    """Why there is no retention at a learning accuracy.

    Arguments:
        bracketed: by seed, whether two neighbouring rates bracket the level.
        label: what the optimiser is called.
        level: the learning accuracy.
    """
    lacking = [str(seed) for seed, known in bracketed.items() if not known]
    seeds = f"at seed{'s' * (len(lacking) > 1)} {', '.join(lacking)}"
    return f"no comparison: no two neighbouring rates of {label} bracket a learning accuracy of {level:g} {seeds}"


def draw_row(axes: Axes, place: int, values: Sequence[float], name: str, colour: str = "C0") -> Record:
    """A row with the mean of shares and its 95 % interval, and below it a small dot for each seed.

    Arguments:
        axes: to draw on, with a y axis that points down.
        place: of the row.
        values: shares from 0 to 1, one a seed, at least one.
        name: of the mean in what is returned.
        colour: of the mean.
    """
    mean = seed_mean(values, bounds=SHARE)
    low, high = mean.low, mean.high
    axes.plot(values, [place + 0.3] * len(values), ".", color=GREY, markersize=3)
    axes.errorbar(mean.mean, place, xerr=[[mean.mean - low], [high - mean.mean]], fmt="o", color=colour, markersize=5)
    return {name: mean.mean, "low": low, "high": high, "seeds": mean.seeds}
