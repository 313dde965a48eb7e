"""What the tests of all studies do with results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure as Canvas

from holdfast.lab import Figure, Outcome, Part, Results, Study, Trial, Verdict
from holdfast.lab.trial import as_outcome
from holdfast.lab.verdict import judge

Change = Callable[[dict[str, Any]], dict[str, Any]]
"""Makes another record of one."""


def results_of(study: Study[Any], config: Any, *parts: str) -> Results:
    """The results of all trials of some parts."""
    trials = [trial for trial in study.trials(config) if trial.labels["part"] in parts]
    assert trials
    return Results(config, [(trial, as_outcome(study.run(trial))) for trial in trials])


def judged(study: Study[Any], results: Results) -> dict[str, Verdict]:
    """The verdicts by the names of the claims, whatever the scale."""
    evidence = [claim.test(results) for claim in study.claims]
    return {verdict.claim: verdict for verdict in judge(study.claims, evidence)}


def raised(metric: str, by: float, **labels: Any) -> Change:
    """A change of a record: adds to a metric where it has the labels."""

    def change(row: dict[str, Any]) -> dict[str, Any]:
        fits = metric in row and all(row.get(name) == value for name, value in labels.items())
        return {**row, metric: row[metric] + by} if fits else row

    return change


def with_changes(results: Results, change: Change) -> Results:
    """The same results with every record changed."""
    return Results(
        results.config,
        [(trial, Outcome([change(dict(row)) for row in outcome.records])) for trial, outcome in results.outcomes],
    )


def assert_repeats(part: Part[Any], trial: Trial[Any], first: Outcome) -> None:
    """The trial gives the same again, whatever was drawn from the global states of random numbers meanwhile."""
    torch.rand(7)
    np.random.random(3)
    assert as_outcome(part.run(trial)) == first


def assert_drawn(figures: Sequence[Figure], results: Results) -> None:
    """Each figure draws something, says what its y axis shows, and has no title (the caption stands below)."""
    assert figures
    for figure in figures:
        axes = Canvas().subplots()
        rows = figure.draw(results, axes)
        assert rows, figure.name
        assert all(isinstance(row, dict) for row in rows)
        assert axes.get_ylabel()
        assert not axes.get_title()
