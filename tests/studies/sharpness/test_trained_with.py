"""Part `trained-with` at toy size."""

from __future__ import annotations

import dataclasses

import pytest

from holdfast.errors import ArgumentError
from holdfast.lab import Results, Trial
from holdfast.lab.trial import as_outcome
from holdfast.studies.sharpness.study import study
from holdfast.studies.sharpness.trained_with import TrainedWithConfig, part
from tests.studies.sharpness.toy import TOY
from tests.studies.tools import assert_drawn, assert_repeats, results_of


@pytest.fixture(scope="module")
def results() -> Results:
    return results_of(study, TOY, "retrieve", "trained-with")


def test_a_trial_twice_is_the_same(results: Results) -> None:
    assert_repeats(part, *next(pair for pair in results.outcomes if pair[0].labels["part"] == "trained-with"))


def test_a_network_trained_with_softmax_again_is_the_same_network(results: Results) -> None:
    """The control of the networks trained with an alternative: same start, same sets, same test."""
    config = dataclasses.replace(TOY.trained_with, arms=("plain",))
    again = part.run(Trial(0, config, {"arm": "plain"}))
    for row in as_outcome(again).records:
        (first,) = results.where(part="retrieve", arm="plain", n=row["n"], seed=0)
        assert row["accuracy"] == pytest.approx(first["accuracy"], abs=0.051)
        assert row["entropy"] == pytest.approx(first["entropy"], abs=1e-3)


def test_training_with_an_alternative_makes_another_network(results: Results) -> None:
    for arm in TOY.trained_with.arms:
        (with_it,) = results.where(part="trained-with", arm=arm, n=64, seed=0)
        (switched_on,) = results.where(part="retrieve", arm=arm, n=64, seed=0)
        assert with_it["entropy"] != switched_on["entropy"]
        losses = [row["loss"] for row in results.curve("training", part="trained-with", arm=arm, seed=0)]
        assert losses[-1] < losses[0]


def test_the_refit_cannot_be_trained_with() -> None:
    with pytest.raises(ArgumentError, match="arms"):
        TrainedWithConfig(arms=("refit",))


def test_figures(results: Results) -> None:
    assert_drawn(part.figures, results)
