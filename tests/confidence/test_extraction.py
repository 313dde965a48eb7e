"""Scores of options from what endpoints return."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit

from holdfast.confidence import NoLogprobs, read_choice, read_logits, read_samples, read_top_logprobs
from holdfast.errors import ArgumentError


def test_the_worked_example() -> None:
    """Tokens of .80, .05, .10 and .02: option mass .95, confidence .894737, log-odds ln 8.5."""
    tokens = [("A", 0.8), (" A", 0.05), ("B", 0.1), ("The", 0.02)]
    reading = read_top_logprobs([(text, math.log(p)) for text, p in tokens], ["A", "B"])
    difference = reading.scores[0] - reading.scores[1]
    assert np.exp(reading.scores) == pytest.approx([0.85, 0.10], abs=1e-12)
    assert reading.mass == pytest.approx(0.95, abs=1e-12)
    assert difference == pytest.approx(2.140066, abs=1e-6)
    assert expit(difference) == pytest.approx(0.894737, abs=1e-6)
    assert not reading.censored


def test_rounded_to_four_digits_it_is_the_same_to_four_digits() -> None:
    reading = read_top_logprobs([("A", -0.2231), (" A", -2.9957), ("B", -2.3026), ("The", -3.912)], ["A", "B"])
    assert reading.scores[0] - reading.scores[1] == pytest.approx(2.140066, abs=1e-4)


def test_a_missing_label_is_bounded_and_not_zero() -> None:
    reading = read_top_logprobs([("A", -0.01), ("The", -5.0), ("I", -6.0)], ["A", "B"])
    assert reading.missing == (1,)
    assert reading.censored
    # What the three leave, .00074, is less than the least of them, .00248.
    left = 1 - math.exp(-0.01) - math.exp(-5.0) - math.exp(-6.0)
    assert reading.scores[1] == pytest.approx(math.log(left + 1e-4), abs=1e-12)
    assert math.log(left) < reading.scores[1] < -6.0
    assert reading.mass == pytest.approx(math.exp(-0.01))


def test_the_least_token_bounds_a_missing_label_where_the_list_leaves_more() -> None:
    reading = read_top_logprobs(
        [(text, math.log(p)) for text, p in [("A", 0.6), ("The", 0.1), ("I", 0.05)]], ["A", "B"]
    )
    assert reading.scores[1] == math.log(0.05)


def test_a_list_that_leaves_nothing_bounds_by_its_rounding() -> None:
    """Four digits of ln .85, ln .10 and ln .05 add up to 1.00002: what was rounded away could be a label."""
    tokens = [("A", -0.1625), ("The", -2.3026), ("I", -2.9957)]
    assert sum(math.exp(value) for _, value in tokens) > 1
    reading = read_top_logprobs(tokens, ["A", "B"])
    assert reading.scores[1] == pytest.approx(math.log(1e-4))


def test_a_list_beyond_a_distribution_is_not_relied_on() -> None:
    """A server that lists the chosen token twice: what such a list leaves says nothing."""
    tokens = [("A", math.log(0.6)), ("A", math.log(0.6)), ("The", math.log(0.2))]
    assert read_top_logprobs(tokens, ["A", "B"]).scores[1] == math.log(0.2)


def test_two_missing_labels_share_what_is_left_and_each_may_be_all_of_it() -> None:
    reading = read_top_logprobs([("C", math.log(0.9)), ("The", math.log(0.09))], ["A", "B", "C"])
    assert reading.missing == (0, 1)
    assert reading.scores[:2] == pytest.approx([math.log(0.01 + 1e-4)] * 2)


def test_spaces_and_case_around_a_label_do_not_matter() -> None:
    tokens = [("\u0120A", math.log(0.3)), ("a", math.log(0.2)), ("\u2581B\n", math.log(0.25)), ("AB", math.log(0.1))]
    reading = read_top_logprobs(tokens, ["A", "B"])
    assert np.exp(reading.scores) == pytest.approx([0.5, 0.25])


def test_case_matters_where_labels_differ_by_it() -> None:
    reading = read_top_logprobs([("a", math.log(0.6)), ("A", math.log(0.3))], ["A", "a"])
    assert np.exp(reading.scores) == pytest.approx([0.3, 0.6])


@pytest.mark.parametrize(
    "tokens", [[], [("A", -9999.0), ("B", -9999.0)], [("A", 0.0), ("B", 0.0)], [("A", math.nan)], [("A", 0.7)]]
)
def test_made_up_log_probabilities_are_refused(tokens: list[tuple[str, float]]) -> None:
    with pytest.raises(NoLogprobs):
        read_top_logprobs(tokens, ["A", "B"])


def test_a_placeholder_is_not_taken_for_the_bound() -> None:
    reading = read_top_logprobs([("A", -0.1), ("The", -4.0), ("x", -9999.0)], ["A", "B"])
    assert reading.scores[1] == -4.0


def test_a_certain_single_token_is_no_mistake() -> None:
    assert read_top_logprobs([("A", 0.0)], ["A", "B"]).mass == 1.0


@pytest.mark.parametrize("labels", [["A", "A "], ["", "B"]])
def test_labels_must_differ(labels: list[str]) -> None:
    with pytest.raises(ArgumentError, match="labels"):
        read_top_logprobs([("A", -1.0)], labels)


def test_logits_give_the_same_as_all_log_probabilities() -> None:
    logits = np.array([2.0, -1.0, 0.5, 0.0])
    reading = read_logits(logits, [[0, 2], [1]])
    shares = np.exp(logits) / np.exp(logits).sum()
    assert np.exp(reading.scores) == pytest.approx([shares[0] + shares[2], shares[1]])
    assert reading.mass == pytest.approx(shares[:3].sum())
    shifted = read_logits(logits + 100.0, [[0, 2], [1]])
    assert shifted.scores == pytest.approx(reading.scores, abs=1e-12)


@pytest.mark.parametrize("tokens", [[[0], []], [[0, 1], [1]]])
def test_a_token_spells_one_label(tokens: list[list[int]]) -> None:
    with pytest.raises(ArgumentError, match="label_tokens"):
        read_logits(np.zeros(3), tokens)


def test_nineteen_samples_of_twenty() -> None:
    reading = read_samples([19, 1], 20)
    assert np.exp(reading.scores[0]) == pytest.approx(0.928571, abs=1e-6)
    assert reading.scores[0] - reading.scores[1] == pytest.approx(2.564949, abs=1e-6)
    assert read_samples([10, 6], 20).mass == 0.8
    never = read_samples([20, 0, 0], 20)
    assert np.isfinite(never.scores).all()
    assert (never.missing, never.censored) == ((1, 2), True)
    assert not reading.censored


@pytest.mark.parametrize("counts", [[0, 0], [-1, 3], [15, 6]])
def test_impossible_counts_are_refused(counts: list[int]) -> None:
    with pytest.raises(ArgumentError, match="counts"):
        read_samples(counts, 20)


def test_a_bare_choice_has_a_sign_and_no_mass() -> None:
    reading = read_choice(1, 3)
    assert reading.scores.argmax() == 1
    assert math.isnan(reading.mass)
    with pytest.raises(ArgumentError, match="option"):
        read_choice(3, 3)
