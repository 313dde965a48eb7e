"""Contrasts within questions: exact without noise, unbiased with it, and honest about their intervals."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.special import log_softmax

from holdfast.confidence import Observer, Readings, Trials, advice_log_odds, contrast, simulate
from holdfast.confidence.intervals import holm, interval, p_value, question_weights
from holdfast.errors import ArgumentError

TRUTH = {"choice_bias": 0.8, "weight_same": 0.8, "weight_opposite": 2.0}


@pytest.mark.parametrize(
    "observer",
    [
        Observer(noise=0, bias=1, weight_same=0.8, weight_opposite=2.5),
        Observer(noise=0, bias=-0.5, bias_other=0.25, weight_same=-0.5, weight_opposite=-0.5, position=1.5),
        Observer(noise=0, bias=0.5, shift_opposite=0.7, shift_same=0.2),
    ],
)
def test_without_noise_contrasts_are_exact(observer: Observer) -> None:
    contrasts = contrast(simulate(observer, 30, displays=("shown", "hidden", "other", "shown_flipped"), templates=2))
    truth = {
        "choice_bias": observer.bias,
        "ownership_bias": observer.bias - observer.bias_other,
        "other_bias": observer.bias_other,
        "flipped_bias": -observer.bias,
        "weight_same": observer.weight_same,
        "weight_opposite": observer.weight_opposite,
        "intercept_same": observer.shift_same,
        "intercept_opposite": observer.shift_opposite,
        "position_bias": observer.position,
    }
    for name, value in truth.items():
        assert contrasts.values[name] == pytest.approx(value, abs=1e-9), name


def test_updates_are_the_advice_times_its_weight() -> None:
    contrasts = contrast(simulate(Observer(noise=0, weight_same=0.8, weight_opposite=2.5), 5))
    worth = advice_log_odds(np.array([0.5, 0.6, 0.7, 0.8, 0.9, 1.0]))
    assert contrasts.updates[:, 0] == pytest.approx(np.tile(0.8 * worth, (5, 1)), abs=1e-9)
    assert contrasts.updates[:, 1] == pytest.approx(np.tile(2.5 * worth, (5, 1)), abs=1e-9)


def test_recovery_and_coverage() -> None:
    """200 questions, noise .5, bias .8, weights .8 and 2: biases below .02, 95 % intervals that hold the truth."""
    observer = Observer(noise=0.5, bias=0.8, weight_same=0.8, weight_opposite=2.0)
    means: dict[str, list[float]] = {name: [] for name in TRUTH}
    covered = dict.fromkeys(TRUTH, 0)
    for seed in range(60):
        contrasts = contrast(
            simulate(observer, 200, seed, displays=("shown", "hidden"), accuracies=(0.6, 0.7, 0.8, 0.9))
        )
        weights = question_weights(200, 800, seed)
        for name, truth in TRUTH.items():
            entry = interval(contrasts.mean(name), weights @ contrasts.values[name], 200)
            means[name].append(entry.value)
            covered[name] += entry.low <= truth <= entry.high
    for name, truth in TRUTH.items():
        assert abs(np.mean(means[name]) - truth) < 0.02, name
        assert 0.88 <= covered[name] / 60 <= 1, name


def test_more_than_two_options_are_exact_for_an_ideal_observer() -> None:
    contrasts = contrast(ideal_among(np.array([3, 4, 2, 4]), np.random.default_rng(0)))
    for name in ("weight_same", "weight_opposite"):
        assert contrasts.values[name] == pytest.approx(1.0, abs=1e-9), name
    assert contrasts.values["choice_bias"] == pytest.approx(0.0, abs=1e-9)


def ideal_among(options: np.ndarray, rng: np.random.Generator) -> Trials:
    """Trials of an ideal observer of questions with several options, contradicted in favour of any other one."""
    displays, advices, accuracies = ("shown", "hidden"), ("same", "opposite", "neutral"), (0.6, 0.7, 0.9)
    shape = (len(options), len(displays), len(advices), len(accuracies))
    question, display, advice, level = (axis.ravel() for axis in np.indices(shape))
    width = int(options.max())
    prior = rng.normal(0, 1, (len(options), width))
    prior[np.arange(width) >= options[:, None]] = -np.inf
    choice = prior.argmax(axis=1)[question]
    other = (choice + rng.integers(1, options[question])) % options[question]
    advised = np.select([advice == 0, advice == 1], [choice, other], -1)
    accuracy = np.array(accuracies)[level]
    likelihood = np.where(
        np.arange(width) == advised[:, None], accuracy[:, None], ((1 - accuracy) / (options[question] - 1))[:, None]
    )
    posterior = prior[question] + np.where(advised[:, None] >= 0, np.log(likelihood), 0.0)

    def stage(scores: np.ndarray) -> Readings:
        shares = log_softmax(scores, axis=1)
        both = np.repeat(np.where(np.isinf(shares), np.nan, shares)[:, None], 2, axis=1)
        return Readings(both, np.ones(both.shape[:2]), np.zeros(both.shape[:2], bool))

    return Trials(
        question=question,
        template=np.zeros_like(question),
        display=np.array(displays)[display],
        advice=np.array(advices)[advice],
        accuracy=accuracy,
        choice=choice,
        stage_1=stage(prior[question]),
        stage_2=stage(posterior),
        answer=np.full(len(question), -1),
        options=options[question],
        advised=advised,
    )


def test_a_question_that_lacks_a_cell_is_dropped_as_a_whole() -> None:
    trials = simulate(Observer(), 10)
    invalid = trials.invalid.astype("<U9")
    invalid[np.flatnonzero((trials.question == 3) & (trials.display == "shown"))[0]] = "refusal"
    marked = dataclasses.replace(trials, invalid=invalid)
    for part in (marked, trials.where(invalid == "")):
        contrasts = contrast(part)
        assert contrasts.question.tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9]
        assert (contrasts.dropped, contrasts.units) == (1, 10)


def test_neutral_advice_without_an_accuracy_stands_beside_all() -> None:
    trials = simulate(Observer(noise=0, bias=1, weight_opposite=2), 6)
    neutral = trials.advice == "neutral"
    once = trials.where(~neutral | (trials.accuracy == 0.7))
    once = dataclasses.replace(once, accuracy=np.where(once.advice == "neutral", np.nan, once.accuracy))
    contrasts = contrast(once)
    assert contrasts.values["weight_opposite"] == pytest.approx(2.0, abs=1e-9)
    assert contrasts.values["choice_bias"] == pytest.approx(1.0, abs=1e-9)


def test_one_accuracy_gives_no_slope_with_intercept() -> None:
    contrasts = contrast(simulate(Observer(noise=0, weight_same=0.8), 4, accuracies=(0.7,)))
    assert np.isnan(contrasts.values["weight_same"]).all()
    assert contrasts.values["through_zero_same"] == pytest.approx(0.8, abs=1e-9)


def test_without_hidden_answers_there_is_no_bias_to_see() -> None:
    contrasts = contrast(simulate(Observer(), 4, displays=("shown",)))
    assert np.isnan(contrasts.values["choice_bias"]).all()
    assert np.isfinite(contrasts.values["weight_same"]).all()


def test_nothing_complete_is_an_error() -> None:
    trials = simulate(Observer(), 3)
    broken = dataclasses.replace(trials, invalid=np.where(trials.display == "shown", "refusal", ""))
    with pytest.raises(ArgumentError, match="no cell is missing"):
        contrast(broken)
    with pytest.raises(ArgumentError, match="bare choices"):
        contrast(dataclasses.replace(trials, source="choices"))


def test_resamples_of_questions_have_the_spread_of_the_mean() -> None:
    values = np.random.default_rng(0).normal(0, 1, 100)
    again = question_weights(100, 4000) @ values
    # The standard deviation of 4,000 draws is known to 1.1 %.
    assert again.std() == pytest.approx(values.std() / 10, rel=0.06)
    assert again.mean() == pytest.approx(values.mean(), abs=5 * values.std() / 10 / np.sqrt(4000))


def test_holm_by_hand() -> None:
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": float("nan")})
    assert [adjusted[name] for name in "abc"] == pytest.approx([0.03, 0.06, 0.06])
    assert np.isnan(adjusted["d"])
    assert holm({"a": 0.5, "b": 0.9}) == {"a": 1.0, "b": 1.0}


def test_p_values_are_those_of_student() -> None:
    """Resamples of n values spread by sqrt((n - 1) / n) of the standard error."""
    again = np.array([-1.0, 1.0]) * np.sqrt(10 / 11) / np.sqrt(2)
    assert p_value(2.0, again, 0.0, 11) == pytest.approx(0.0734, abs=1e-4)
    assert p_value(0.0, np.zeros(3), 0.0, 11) == 1.0
    assert p_value(1.0, np.zeros(3), 0.0, 11) == 0.0
