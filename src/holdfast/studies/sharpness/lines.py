"""Lines of the arms over the number of items, as several figures of this study draw them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from holdfast.lab.figures import SHARE, draw_over_seeds, size_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record, Results

SHOWN = ("plain", "published", "refit", "log-n", "hard")
"""Arms in figures that would be crowded with all of them."""

# Places in the page's palette, which suits light and dark pages and colour-blind readers.
COLOURS = {"plain": "C0", "published": "C1", "refit": "C2", "log-n": "C3", "hard": "C4", "ssmax": "C5"}

DASHES = {"log-n": (0, (4, 2)), "hard": (0, (1, 1.5))}
"""Arms that often coincide with another are broken lines, so that both can be seen."""


def draw_by_size(
    results: Results,
    axes: Axes,
    metric: str,
    arms: Sequence[str],
    part: str,
    *,
    minus: str | None = None,
    band: bool = True,
) -> list[Record]:
    """A line an arm over the sizes.

    Arguments:
        results: of the study.
        axes: to draw on.
        metric: what is drawn: means over seeds.
        arms: which.
        part: whose records.
        minus: an arm to subtract, paired over seeds.
        band: show the 95 % intervals.

    Returns:
        For each arm and `n` the `metric`, its interval from `low` to `high`, and the number of `seeds`.
    """
    rows: list[Record] = []
    for arm in arms:
        values = {}
        for n in results.levels("n", part=part, arm=arm):
            by_seed: dict[int, float] = results.by_seed(metric, part=part, arm=arm, n=n)
            if minus is not None:
                base = results.by_seed(metric, part=part, arm=minus, n=n)
                by_seed = {seed: value - base[seed] for seed, value in by_seed.items() if seed in base}
            values[n] = list(by_seed.values())
        points = draw_over_seeds(
            axes,
            values,
            band=band,
            bounds=SHARE if metric == "accuracy" and minus is None else None,
            color=COLOURS[arm],
            linestyle=DASHES.get(arm, "-"),
            marker="o",
            markersize=3,
            linewidth=1.6,
            label=arm,
        )
        rows += [
            {"arm": arm, "n": x, metric: mean, "low": low, "high": high, "seeds": seeds}
            for x, mean, low, high, seeds in points
        ]
    size_axis(axes, [int(n) for n in results.levels("n", part=part)], "items n")
    return rows
