"""The layout of Figure 4 of the publication: changes of mind at the left, changes of confidence at the right.

What is drawn are rows of the curves `cells` and `updates` of some trials, means over them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from holdfast.lab.figures import SHARE, SeedMean, seed_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record, Results

Where = tuple[str, str]
"""A display and a kind of advice."""

Labels = Mapping[str, str]
"""Part, and what else tells the trials that are drawn."""


def draw_changes(labels: Labels, results: Results, axes: Axes) -> list[Record]:
    """Left panel: shares of changed minds by advice and display, and those of an ideal observer."""
    from holdfast.confidence.figures import bars_of_changes

    shares = _over_seeds(results, labels, "change_of_mind", SHARE)
    ideal = _over_seeds(results, labels, "ideal_change_of_mind")
    if shares:
        heights = {where: _reach(share, 100.0) for where, share in shares.items()}
        bars_of_changes(axes, heights, {where: 100.0 * share.mean for where, share in ideal.items()})
    axes.set_ylabel("minds changed, %")
    return [{**_row(where, share), "ideal": ideal[where].mean} for where, share in shares.items()]


def draw_confidence(labels: Labels, results: Results, axes: Axes) -> list[Record]:
    """Right panel: changes of the probability of the first answer by advice and display."""
    from holdfast.confidence.figures import bars_of_confidence

    changes = _over_seeds(results, labels, "probability_change")
    if changes:
        bars_of_confidence(axes, {where: _reach(change) for where, change in changes.items()})
    axes.set_ylabel("change of confidence in the first answer")
    return [_row(where, change) for where, change in changes.items()]


def draw_updates(labels: Labels, results: Results, axes: Axes) -> list[Record]:
    """Observed against ideal changes of log-odds by advice and stated accuracy."""
    from holdfast.confidence import Estimate, Update
    from holdfast.confidence.figures import lines_of_updates

    values: dict[tuple[str, float, float], list[float]] = {}
    for row in results.curve("updates", **labels):
        where = str(row["advice"]), float(row["accuracy"] or 0.0), float(row["ideal"] or 0.0)
        values.setdefault(where, []).append(float(row["observed"] or 0.0))
    means = {where: seed_mean(observed) for where, observed in sorted(values.items())}
    if means:
        updates = [
            Update(advice, accuracy, Estimate(mean.mean, mean.low, mean.high), ideal)
            for (advice, accuracy, ideal), mean in means.items()
        ]
        lines_of_updates(axes, updates)
    axes.set_ylabel("change of log-odds")
    return [
        {"advice": advice, "accuracy": accuracy, "ideal": ideal, **_interval(mean)}
        for (advice, accuracy, ideal), mean in means.items()
    ]


def _over_seeds(
    results: Results, labels: Labels, column: str, bounds: tuple[float, float] | None = None
) -> Mapping[Where, SeedMean]:
    """Means over seeds of a column of the cells over all accuracies, by display and advice."""
    values: dict[Where, list[float]] = {}
    for row in results.curve("cells", **labels):
        if row["accuracy"] is None:
            where = str(row["display"]), str(row["advice"])
            values.setdefault(where, []).append(float(row[column] or 0.0))
    return {where: seed_mean(here, bounds=bounds) for where, here in values.items()}


def _reach(mean: SeedMean, unit: float = 1.0) -> tuple[float, float, float]:
    """A mean, and how far its interval reaches down and up."""
    return unit * mean.mean, unit * (mean.mean - mean.low), unit * (mean.high - mean.mean)


def _row(where: Where, mean: SeedMean) -> dict[str, str | float]:
    return {"display": where[0], "advice": where[1], **_interval(mean)}


def _interval(mean: SeedMean) -> dict[str, float]:
    return {"mean": mean.mean, "low": mean.low, "high": mean.high, "seeds": mean.seeds}
