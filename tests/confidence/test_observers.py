"""The ideal observer's values, and simulated observers that are what they are said to be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit, logit

from holdfast.confidence import PRESETS, Observer, advice_log_odds, ideal, simulate
from holdfast.confidence.observers import draw_evidence
from holdfast.errors import ArgumentError


@pytest.mark.parametrize(
    ("accuracy", "worth"),
    [(0.5, 0.0), (0.6, 0.405465), (0.7, 0.847298), (0.8, 1.386294), (0.9, 2.197225), (1.0, 4.595120)],
)
def test_what_advice_is_worth(accuracy: float, worth: float) -> None:
    assert float(advice_log_odds(accuracy)) == pytest.approx(worth, abs=1e-6)


@pytest.mark.parametrize(
    ("before", "accuracy", "advice", "after"),
    [
        (0.9, 0.7, "same", 0.954545),
        (0.9, 0.7, "opposite", 0.794118),
        (0.75, 0.8, "same", 0.923077),
        (0.75, 0.8, "opposite", 0.428571),
        (0.9, 0.9, "opposite", 0.5),
        (0.9, 0.9, "neutral", 0.9),
    ],
)
def test_an_ideal_observer(before: float, accuracy: float, advice: str, after: float) -> None:
    assert expit(ideal(logit(before), advice, accuracy)) == pytest.approx(after, abs=1e-6)


def test_an_ideal_observer_switches_where_the_adviser_knows_more() -> None:
    confidence, accuracy = np.meshgrid([0.55, 0.65, 0.75, 0.85], [0.6, 0.7, 0.8, 0.9])
    gives_up = ideal(logit(confidence), "opposite", accuracy) < 0
    assert (gives_up == (accuracy > confidence)).all()


@pytest.mark.parametrize("accuracy", [0.0, -0.1, 1.01])
def test_impossible_accuracies_are_refused(accuracy: float) -> None:
    with pytest.raises(ArgumentError, match="accuracy"):
        ideal(1.0, "same", accuracy)
    with pytest.raises(ArgumentError, match=r"advice: expected one of same, opposite, neutral, got maybe$"):
        ideal(1.0, "maybe", 0.7)


def test_among_three_options_being_named_is_worth_more() -> None:
    """Bayes by hand: prior 1/3 each, an adviser right in .6 and otherwise wrong in both ways alike."""
    posterior = 0.6 / (0.6 + 0.2 + 0.2)
    assert float(advice_log_odds(0.6, 3)) == pytest.approx(logit(posterior) - logit(1 / 3))


def test_evidence_is_calibrated() -> None:
    evidence, answer = draw_evidence(np.random.default_rng(0), 100_000)
    correct = (evidence >= 0) == (answer == 0)
    # Standard error of a share over 100,000 draws: .0013.
    assert correct.mean() == pytest.approx(0.777, abs=0.006)
    assert expit(np.abs(evidence)).mean() == pytest.approx(0.776, abs=0.006)
    for low in (0.5, 1.0, 2.0):
        near = np.abs(np.abs(evidence) - low) < 0.1
        assert correct[near].mean() == pytest.approx(expit(low), abs=5 * 0.5 / math.sqrt(near.sum()))


def test_presets_are_what_they_are_called() -> None:
    assert set(PRESETS) == {
        "bayes", "choice_supportive", "opposition_sensitive", "both", "stubborn", "contrarian", "position_biased",
        "anchorer",
    }  # fmt: skip
    assert PRESETS["bayes"] == Observer()
    assert PRESETS["contrarian"].weight_same == PRESETS["contrarian"].weight_opposite == -0.5
    assert PRESETS["position_biased"].position == 1.5
    assert PRESETS["both"].ratio == pytest.approx(3.125)


def test_scale_multiplies_every_reported_log_odds() -> None:
    observer = Observer(bias=1.0, weight_opposite=2.0, shift_same=0.3, position=0.4)
    once, scaled = simulate(observer, 20), simulate(Observer(**{**vars(observer), "scale": 2.5}), 20)
    assert scaled.initial_log_odds == pytest.approx(2.5 * once.initial_log_odds, rel=1e-9)
    assert scaled.final_log_odds == pytest.approx(2.5 * once.final_log_odds, rel=1e-9)


def test_readings_at_the_limit_are_marked() -> None:
    trials = simulate(Observer(clip=3.0), 50)
    differences = trials.stage_2.scores[..., 0] - trials.stage_2.scores[..., 1]
    assert np.abs(differences).max() == pytest.approx(3.0, rel=1e-12)
    assert (trials.stage_2.censored == (np.abs(differences) > 3 - 1e-9)).all()
    assert trials.stage_2.censored.any()


def test_the_same_seed_gives_the_same_trials() -> None:
    first, again, other = (simulate(Observer(), 5, seed=seed) for seed in (3, 3, 4))
    assert (first.final_log_odds == again.final_log_odds).all()
    assert not (first.final_log_odds == other.final_log_odds).all()


@pytest.mark.parametrize("change", [{"noise": -1.0}, {"scale": 0.0}, {"clip": 0.0}, {"bias": math.nan}])
def test_impossible_observers_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ArgumentError, match="Observer"):
        Observer(**change)
