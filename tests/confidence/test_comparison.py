"""Nested models of log-odds: the one that made the trials is the one that is needed."""

from __future__ import annotations

import dataclasses

import pytest

from holdfast.confidence import PRESETS, Observer, compare, pooled_regression, simulate
from holdfast.errors import ArgumentError


@pytest.mark.parametrize(
    ("observer", "needed"),
    [
        (PRESETS["bayes"], "bayes"),
        (PRESETS["choice_supportive"], "bias"),
        (PRESETS["stubborn"], "one_weight"),
        (PRESETS["both"], "two_weights"),
        (Observer(bias=0.5, shift_opposite=0.7), "shifts"),
    ],
)
def test_the_mechanism_is_found(observer: Observer, needed: str) -> None:
    comparison = compare(simulate(observer, 60))
    assert comparison.needed == needed
    scores = {model.name: model for model in comparison.models}
    assert scores[needed].bic == 0
    assert scores["bayes"].gain == 0
    gain = scores["bayes"].held_out - scores[needed].held_out
    assert gain == pytest.approx(scores[needed].gain, abs=1e-9)


def test_a_temperature_makes_overconfidence_ideal_again() -> None:
    trials = simulate(Observer(scale=2.5), 60)
    assert compare(trials).needed != "bayes"
    assert compare(trials, temperature=2.5).needed == "bayes"


def test_held_out_noise_is_that_of_the_observer() -> None:
    """Two readings of noise .3 averaged, in nats: half of ln(2 pi e .045)."""
    scores = {model.name: model for model in compare(simulate(PRESETS["both"], 200)).models}
    assert scores["two_weights"].held_out == pytest.approx(-0.132, abs=0.03)


def test_without_noise_nothing_breaks() -> None:
    comparison = compare(simulate(Observer(noise=0, bias=1), 20))
    assert comparison.needed == "bias"


def test_pooled_regression_is_exact_without_noise_and_limits() -> None:
    values = pooled_regression(simulate(Observer(noise=0, bias=1, weight_same=0.8, weight_opposite=2.5), 20))
    assert values["choice_bias"] == pytest.approx(1.0, abs=1e-9)
    assert values["weight_same"] == pytest.approx(0.8, abs=1e-9)
    assert values["weight_opposite"] == pytest.approx(2.5, abs=1e-9)


def test_what_cannot_be_compared_is_refused() -> None:
    trials = simulate(Observer(), 20)
    with pytest.raises(ArgumentError, match="at least 10 questions"):
        compare(simulate(Observer(), 5))
    with pytest.raises(ArgumentError, match="bare choices"):
        compare(dataclasses.replace(trials, source="choices"))
