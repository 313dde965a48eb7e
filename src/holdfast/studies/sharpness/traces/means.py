"""Means over tasks, by seed."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from holdfast.lab.results import Values

if TYPE_CHECKING:
    from holdfast.lab import Results


def tasks_of(results: Results, but: str = "") -> list[str]:
    """The tasks that were tested, without one of them."""
    return [task for task in results.levels("algorithm", part="traces") if task != but]


def mean(tables: Sequence[Values]) -> Values:
    """Mean of several tables, for the seeds that are in all of them."""
    return Values.of(lambda *values: fmean(values), *tables)


def beyond_training(results: Results, metric: str, arm: str, tasks: Sequence[str]) -> Values:
    """By seed, the mean over tasks of a metric's mean over the sizes beyond the task's training."""
    by_task = []
    for task in tasks:
        rows = results.where(part="traces", arm=arm, algorithm=task)
        sizes = {int(row["n"] or 0) for row in rows if int(row["n"] or 0) > int(row["train_size"] or 0)}
        by_task.append(mean([results.by_seed(metric, part="traces", arm=arm, algorithm=task, n=n) for n in sizes]))
    means = mean(by_task)
    if not means and not means.missing:
        means.missing = f"not every one of {', '.join(tasks) or 'its tasks'} was tested beyond its training sizes"
    return means
