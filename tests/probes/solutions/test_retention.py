"""What is kept of earlier tasks, by hand; and comparisons that are not made."""

from __future__ import annotations

import math

import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.probes.solutions import (
    RateResult,
    compare_matched,
    compare_runs,
    matched_retention,
    paired_difference,
    retention,
)

TWO = torch.tensor([[0.9, 0.1], [0.4, 0.8]])


def test_two_tasks_by_hand():
    kept = retention(TWO)
    assert kept.forgetting == pytest.approx(0.5)
    assert kept.backward_transfer == pytest.approx(-0.5)
    assert kept.old == pytest.approx(0.4)
    assert kept.learn == pytest.approx(0.85)
    assert kept.final == pytest.approx(0.6)


def test_forgetting_is_from_the_best_before_the_end():
    a = torch.tensor([[0.5, math.nan, math.nan], [0.9, 0.6, math.nan], [0.3, 0.7, 0.8]])
    kept = retention(a)
    assert kept.forgetting == pytest.approx(((0.9 - 0.3) + (0.6 - 0.7)) / 2)
    assert kept.backward_transfer == pytest.approx(((0.3 - 0.5) + (0.7 - 0.6)) / 2)


@pytest.mark.parametrize("wrong", [TWO[:1, :1], TWO + 1, torch.tensor([[0.9, 0.1], [math.nan, 0.8]])])
def test_what_is_no_matrix_of_accuracies_is_refused(wrong: torch.Tensor):
    with pytest.raises(ArgumentError, match="accuracies"):
        retention(wrong)


def sweep(*pairs: tuple[float, float]) -> list[RateResult]:
    """From pairs of learn and old, at the rates 1, 2, 4, …; the last first, for order must not matter."""
    return [RateResult(2.0**number, *pair) for number, pair in enumerate(pairs)][::-1]


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        (sweep((0.8, 0.6), (0.9, 0.4)), 0.5),
        (sweep((0.8, 0.6), (0.9, 0.4), (0.8, 0.0)), 0.5),  # the first of two brackets
        (sweep((0.9, 0.4), (0.8, 0.6)), 0.5),  # falling
        (sweep((0.85, 0.6), (0.85, 0.2)), 0.6),
        (sweep((0.7, 0.9), (0.84, 0.8)), math.nan),
        (sweep((0.86, 0.9), (0.99, 0.8)), math.nan),
        (sweep((0.85, 0.9)), math.nan),
        (sweep((0.8, 0.6), (math.nan, 0.4), (0.9, 0.4)), math.nan),  # a run that broke down is no neighbour
    ],
)
def test_retention_at_matched_plasticity(runs: list[RateResult], expected: float):
    assert matched_retention(runs, 0.85) == pytest.approx(expected, nan_ok=True)


def test_a_rate_comes_once():
    with pytest.raises(ArgumentError, match="one run of each learning rate"):
        matched_retention([RateResult(0.1, 0.5, 0.5)] * 2, 0.5)


def test_without_a_bracket_there_is_no_comparison():
    good, bad = sweep((0.8, 0.6), (0.9, 0.4)), sweep((0.5, 0.9), (0.8, 0.7))
    found = compare_matched({0: good, 1: good}, {0: good, 1: bad}, level=0.85)
    assert math.isnan(found.mean)
    assert all(math.isnan(end) for end in found.interval)
    assert str(found).startswith("no comparison")
    assert "second at seed 1" in found.reason
    better = sweep((0.8, 0.9), (0.9, 0.7))
    found = compare_matched({0: good, 1: good}, {0: better, 1: better}, level=0.85)
    assert found.mean == pytest.approx(-0.3)
    assert found.interval == pytest.approx((-0.3, -0.3))


def test_what_was_not_learnt_is_not_compared_unless_forced():
    learnt, slow = retention(torch.tensor([[1.0, 0], [0.2, 0.9]])), retention(torch.tensor([[0.6, 0], [0.5, 0.9]]))
    found = compare_runs({0: learnt}, {0: slow})
    assert "not learnt, retention is meaningless: the second" in found.reason
    assert math.isnan(found.mean)
    assert compare_runs({0: learnt}, {0: slow}, force=True).mean == pytest.approx(-0.3)
    assert compare_runs({0: learnt}, {0: learnt}).mean == 0


def test_pairs_are_by_seed_and_the_noise_of_seeds_cancels():
    first, second = {1: 0.1, 2: 0.9, 3: 0.5}, {3: 0.4, 2: 0.8, 1: 0.0}
    found = paired_difference(first, second)
    assert found.mean == pytest.approx(0.1)
    assert found.interval == pytest.approx((0.1, 0.1))
    assert found.differences == pytest.approx({1: 0.1, 2: 0.1, 3: 0.1})
    low, high = paired_difference(first, {1: 0.2, 2: 0.8, 3: 0.0}).interval
    assert low < 0 < high
    assert math.isnan(paired_difference({0: 1.0}, {0: 0.5}).interval[0])
    for other in ({}, {1: 0.0}):
        with pytest.raises(ArgumentError, match="the seeds"):
            paired_difference(first, other)
