"""How many lists the engines ask for: bounds that hold at every length and capacity, on random lists."""

from __future__ import annotations

import math
from functools import cmp_to_key

import numpy as np
import pytest

from holdfast.lists import Oracle, extrapolate
from holdfast.lists.functions import reverse


def most_queries(n: int, capacity: int) -> float:
    """(2n / c) log2(n / c) + n / c: merges of two runs, level by level, and the first runs."""
    return 2 * n / capacity * math.log2(n / capacity) + n / capacity


@pytest.mark.parametrize("function", [reverse, sorted])
@pytest.mark.parametrize("capacity", [2, 4, 8, 16, 32])
def test_block_merge_keeps_to_its_bound(function, capacity: int) -> None:
    rng = np.random.default_rng(0)
    for n in (64, 256, 1024):
        xs = rng.permutation(n).tolist()
        made = extrapolate(Oracle(function, progress=False), capacity, mode="distinct", engine="blocks").explain(xs)
        assert made.output == function(xs)
        assert made.queries <= most_queries(n, capacity)


@pytest.mark.parametrize("n", [16, 64, 256, 1024])
def test_the_lazy_merge_asks_for_few_more_pairs_than_pythons_sort_compares(n: int) -> None:
    asked = merged = 0
    for seed in range(max(1, 256 // n)):
        xs = np.random.default_rng(seed).permutation(n).tolist()

        def compare(x: int, y: int) -> int:
            nonlocal asked
            asked += 1
            return -1 if x < y else 1

        assert sorted(xs, key=cmp_to_key(compare)) == sorted(xs)
        made = extrapolate(Oracle(sorted, progress=False), 2, mode="distinct", engine="merge").explain(xs)
        assert made.output == sorted(xs)
        merged += made.queries
    assert merged <= 1.1 * asked
