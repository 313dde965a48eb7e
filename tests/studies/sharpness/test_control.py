"""Part `control` at toy size."""

from __future__ import annotations

import pytest

from holdfast.lab import Results
from holdfast.studies.sharpness.control import part
from holdfast.studies.sharpness.study import study
from tests.studies.sharpness.toy import TOY
from tests.studies.tools import assert_drawn, assert_repeats, results_of


@pytest.fixture(scope="module")
def results() -> Results:
    return results_of(study, TOY, "control")


def test_a_trial_twice_is_the_same(results: Results) -> None:
    assert_repeats(part, *results.outcomes[0])


def test_it_learns_shares_and_has_no_error_of_ordering(results: Results) -> None:
    rows = results.where(arm="plain")
    assert all(0 <= row["accuracy"] <= 1 and "ordering_error" not in row for row in rows)  # type: ignore[operator]
    losses = [row["loss"] for row in results.curve("training", seed=0)]
    assert losses[-1] < losses[0]  # type: ignore[operator]


def test_figures(results: Results) -> None:
    assert_drawn(part.figures, results)
