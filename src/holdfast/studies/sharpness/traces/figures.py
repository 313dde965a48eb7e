"""Figures of the part `traces`."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

from holdfast.lab import Figure, Results
from holdfast.lab.figures import GREY, draw_over_seeds, legend, size_axis
from holdfast.studies.sharpness.traces.means import mean, tasks_of
from holdfast.studies.sharpness.traces.models import ARMS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record


def draw_traces(results: Results, axes: Axes) -> list[Record]:
    """Accuracy against the size, a line an arm: a mean over seeds and over the tasks that were tested at all sizes.

    A task that ends earlier, as bubble sort does, is left out: a mean must not change what it is made of on the way.

    Arguments:
        results: with records of this part.
        axes: to draw on.

    Returns:
        The rows that were drawn: `arm`, `n`, `accuracy` and the number of `seeds`.
    """
    sizes = results.levels("n", part="traces")
    tasks = [task for task in tasks_of(results) if results.levels("n", part="traces", algorithm=task) == sizes]
    rows: list[Record] = []
    for place, arm in enumerate(ARMS):
        values = {}
        for n in sizes:
            by_task = [results.by_seed("accuracy", part="traces", arm=arm, algorithm=task, n=n) for task in tasks]
            values[n] = list(mean(by_task).values())
        points = draw_over_seeds(
            axes,
            values,
            color=f"C{place}",
            linestyle="--" if arm == "adaptive-inference" else "-",
            marker="o",
            markersize=3,
            label=arm,
        )
        rows += [{"arm": arm, "n": point.x, "accuracy": point.mean, "seeds": point.seeds} for point in points]
    trained = {n for task in tasks for n in results.levels("train_size", part="traces", algorithm=task)}
    for n in sorted(trained):
        axes.axvline(n, color=GREY, linewidth=0.8, linestyle=":", label=f"trained up to {n}")
    size_axis(axes, sizes, "numbers in the input n")
    axes.set_ylabel(f"accuracy, mean over {len(tasks)} tasks")
    axes.set_ylim(-0.02, 1.02)
    legend(axes)
    return rows


def draw_inactive(results: Results, axes: Axes) -> list[Record]:
    """Share of attention rows beyond the published law's reach against the length of the text, a line a task.

    The arm is `adaptive`, trained and tested with the law; lines are means over seeds.

    Arguments:
        results: with records of this part.
        axes: to draw on.

    Returns:
        The rows that were drawn: `algorithm`, `n`, `tokens` of the longest text, `inactive_share`, `entropy` of the
        weights in nats, and the number of `seeds`.
    """
    rows: list[Record] = []
    for place, task in enumerate(tasks_of(results)):
        labels = {"part": "traces", "arm": "adaptive", "algorithm": task}
        line = []
        for n in results.levels("n", **labels):
            by_metric = {name: results.by_seed(name, **labels, n=n) for name in ("tokens", "inactive_share", "entropy")}
            means = {name: fmean(values.values()) for name, values in by_metric.items()}
            line.append((means["tokens"], means["inactive_share"]))
            rows.append({"algorithm": task, "n": n, **means, "seeds": len(by_metric["tokens"])})
        if line:
            axes.plot(*zip(*line, strict=True), color=f"C{place}", marker="o", markersize=3, label=task)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_xlabel("tokens of the text")
    axes.set_ylabel("share of rows above 5.9445 nats")
    axes.set_ylim(bottom=-0.02)
    legend(axes)
    return rows


FIGURES = (
    Figure(
        "traces",
        "Language models that write algorithms out: accuracy against the size of the input, one network an arm. Lines "
        "are means over seeds and over the tasks that were tested at every size, which leaves bubble sort out.",
        draw_traces,
    ),
    Figure(
        "traces-inactive",
        "Language models trained with the published law: share of attention rows that are too dispersed for it, by the "
        "length of the text.",
        draw_inactive,
    ),
)
