"""Numbers are drawn in proportion to their priorities."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from holdfast.errors import ArgumentError
from holdfast.rl.rainbow.sum_tree import SumTree


def tree_of(priorities: np.ndarray) -> SumTree:
    tree = SumTree(len(priorities))
    tree.update(np.arange(len(priorities)), priorities)
    return tree


@pytest.mark.parametrize("capacity", [1, 2, 15, 16, 17, 256, 257, 5000])
def test_it_finds_what_cumulative_sums_find(capacity: int) -> None:
    rng = np.random.default_rng(0)
    priorities = rng.integers(0, 4, capacity).astype(np.float64)  # whole numbers: sums are exact
    priorities[rng.integers(capacity)] = 3
    tree = tree_of(priorities)
    assert tree.total == priorities.sum()
    masses = np.concatenate([np.arange(tree.total), rng.random(500) * tree.total])
    assert (tree.find(masses) == np.searchsorted(priorities.cumsum(), masses, side="right")).all()


def test_frequencies_are_those_of_sampling_by_cumulative_sums() -> None:
    rng = np.random.default_rng(1)
    priorities = rng.exponential(size=300)
    priorities[::7] = 0
    tree = tree_of(priorities)
    drawn = tree.find(rng.random(60_000) * tree.total)
    counts = np.bincount(drawn, minlength=300)
    assert counts[::7].sum() == 0
    possible = priorities > 0
    expected = priorities[possible] / priorities.sum() * len(drawn)
    assert stats.chisquare(counts[possible], expected).pvalue > 0.001


def test_a_batch_has_one_of_each_equal_part() -> None:
    tree = tree_of(np.ones(64))
    drawn = tree.sample(32, np.random.default_rng(0))
    assert (drawn // 2 == np.arange(32)).all()


def test_updates_leave_no_drift() -> None:
    rng, priorities = np.random.default_rng(2), np.zeros(1000)
    tree = SumTree(1000)
    for _ in range(300):
        numbers = rng.integers(1000, size=40)
        values = rng.random(40) * 10.0 ** rng.integers(-8, 8, 40)
        tree.update(numbers, values)
        priorities[numbers] = values
    assert (tree[np.arange(1000)] == priorities).all()
    assert tree.total == pytest.approx(priorities.sum(), rel=1e-12)
    tree.update(np.arange(1000), np.zeros(1000))
    assert tree.total == 0


def test_nothing_without_priority_is_found_at_the_very_end() -> None:
    priorities = np.zeros(40)
    priorities[:3] = 0.1  # 0.1 + 0.1 + 0.1 > 0.3
    tree = tree_of(priorities)
    assert (tree.find(np.array([0.0, tree.total, np.nextafter(tree.total, 1)])) == [0, 2, 2]).all()


def test_what_is_no_priority_is_refused() -> None:
    tree = SumTree(20)
    for wrong in (-1.0, np.nan, np.inf):
        with pytest.raises(ArgumentError, match="priorities"):
            tree.update(np.array([0]), np.array([wrong]))
    for number in (-1, 20):
        with pytest.raises(ArgumentError, match="numbers"):
            tree.update(np.array([number]), np.ones(1))
    with pytest.raises(ArgumentError, match="without"):
        tree.find(np.zeros(1))
