"""What the claims and figures of several parts share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from holdfast.lab.figures import SHARE, draw_over_seeds, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record
    from holdfast.studies.macros.lanes import Course

GAIN = 0.12
"""By which a penalty has to raise a score to count."""
LOSS = 0.15
"""By which a penalty with a wrong matrix, or one that does not learn, has to stay behind."""


def batches(seeds: Sequence[int], size: int) -> Iterator[tuple[int, ...]]:
    """Seeds that are trained side by side in a trial.

    Arguments:
        seeds: all of them.
        size: at most so many in a batch.
    """
    for begin in range(0, len(seeds), size):
        yield tuple(seeds[begin : begin + size])


def tables_of(
    courses: Mapping[str, Course], seeds: Sequence[int], steps: int, **labels: Any
) -> tuple[list[Record], list[Record]]:
    """Records and curves of a run.

    Arguments:
        courses: of its arms.
        seeds: of the run.
        steps: primitive steps of the run.
        labels: of all rows.

    Returns:
        Records with `auc`, the mean score over the run, and `final`, the last one, by arm and seed; and the curves,
        `score` by primitive `step`.
    """
    records: list[Record] = []
    curve: list[Record] = []
    for arm, course in courses.items():
        every = steps // (len(course.scores) - 1)
        for number, seed in enumerate(seeds):
            scores = course.scores[:, number].tolist()
            row = {**labels, "arm": arm, "seed": seed}
            records.append({**row, "auc": sum(scores) / len(scores), "final": scores[-1]})
            curve += [{**row, "step": place * every, "score": score} for place, score in enumerate(scores)]
    return records, curve


def draw_curves(axes: Axes, curves: Mapping[str, Sequence[Record]], labels: Mapping[str, str]) -> list[Record]:
    """Scores against primitive steps, a line an arm, with the interval over seeds.

    Arguments:
        axes: to draw on.
        curves: rows by arm.
        labels: of the arms.
    """
    rows: list[Record] = []
    for number, (arm, curve) in enumerate(curves.items()):
        steps = sorted({int(row["step"] or 0) for row in curve})
        values: dict[int, list[float]] = {step: [] for step in steps}
        for row in curve:
            values[int(row["step"] or 0)].append(float(row["score"] or 0.0))
        style: dict[str, Any] = {"linestyle": "-" if number < 6 else "--", "linewidth": 1.4, "color": f"C{number % 6}"}
        points = draw_over_seeds(axes, values, band=True, bounds=SHARE, label=labels[arm], **style)
        rows += [
            {"arm": arm, "primitive step": x, "score": mean, "low": low, "high": high, "seeds": n}
            for x, mean, low, high, n in points
        ]
    axes.set_xlabel("primitive steps")
    axes.set_ylabel("greedy score (1: shortest way)")
    legend(axes, columns=3)
    return rows
