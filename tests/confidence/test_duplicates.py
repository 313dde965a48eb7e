"""The noise of equal prompts, and what it makes of contrasts."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from holdfast.confidence import Observer, simulate
from holdfast.confidence.duplicates import DUPLICATES, duplicates_for, noise_of_contrasts, repeat_noise
from holdfast.confidence.responders import Answer, Backend


def pair(key: str, first: float, again: float, **more: tuple[int, ...]) -> tuple[Answer, Answer]:
    return Answer(key, (first, 0.0), 1.0, **more), Answer(f"{key}-1", (again, 0.0), 1.0, **more)


def test_the_deviation_of_pairs_is_that_of_their_differences_over_the_root_of_two() -> None:
    noise = repeat_noise([pair("a", 1.0, 1.2), pair("b", -3.0, -2.6)])
    assert noise is not None
    assert noise.deviation == pytest.approx(math.sqrt((0.2**2 + 0.4**2) / 2) / math.sqrt(2))
    assert noise.duplicates == 2


def test_a_prompt_asked_thrice_has_one_mean() -> None:
    noise = repeat_noise([pair("a", 0.0, 1.0), pair("a", 0.0, 2.0)])
    assert noise is not None
    assert noise.deviation == pytest.approx(1.0)


def test_of_three_options_it_is_the_log_odds_of_the_chosen_one_against_the_others() -> None:
    first, again = (Answer("a", tuple(np.log(p)), 1.0) for p in ([0.2, 0.6, 0.2], [0.1, 0.8, 0.1]))
    noise = repeat_noise([(first, again)] * 2)
    assert noise is not None
    values = [math.log(1.5), math.log(4), math.log(4)]
    assert noise.deviation == pytest.approx(np.std(values, ddof=1))


def test_bounds_and_single_pairs_tell_nothing() -> None:
    assert repeat_noise([]) is None
    assert repeat_noise([pair("a", 1.0, 1.2)]) is None
    assert repeat_noise([pair(key, 1.0, 1.2, missing=(1,)) for key in "abc"]) is None


def test_duplicates_are_worth_sending_where_log_probabilities_may_differ() -> None:
    backend = Backend("m", "chat")
    assert duplicates_for(backend) == DUPLICATES
    for source, samples in (("sampled", 20), ("choices", 0)):
        assert duplicates_for(dataclasses.replace(backend, source=source, samples=samples)) == 0
    assert duplicates_for(dataclasses.replace(backend, deterministic=True)) == 0


def test_noise_moves_contrasts_by_what_their_formulas_say() -> None:
    """A choice bias is a difference of two readings, each the mean over two orders and four accuracies."""
    questions, accuracies, deviation = 400, (0.6, 0.7, 0.8, 0.9), 0.4
    trials = simulate(Observer(noise=0.0, bias=1.0), questions, accuracies=accuracies)
    widths = noise_of_contrasts(trials, deviation)
    reading = deviation**2 / 2
    worth = np.log(np.array(accuracies) / (1 - np.array(accuracies)))
    # An update is a difference of two readings, averaged over two displays; its slope is a regression on the worth.
    slope = math.sqrt(2 * reading / 2 / ((worth - worth.mean()) ** 2).sum())
    expected = {"choice_bias": math.sqrt(2 * reading / 4), "weight_same": slope, "weight_opposite": slope}
    for name, error in expected.items():
        # Four standard errors of a standard deviation of 400 values.
        assert widths[name] == pytest.approx(1.96 * error / math.sqrt(questions), rel=4 / math.sqrt(2 * questions)), (
            name
        )
    assert widths["position_bias"] == 0.0
    assert noise_of_contrasts(trials, 0.0)["choice_bias"] == 0.0


def test_one_question_has_no_interval() -> None:
    assert math.isnan(noise_of_contrasts(simulate(Observer(), 1), 0.1)["choice_bias"])
