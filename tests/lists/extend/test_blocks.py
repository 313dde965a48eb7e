"""Block merge stays within its capacity and its query count; covering families show every pair."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from holdfast.errors import ArgumentError
from holdfast.lists.errors import Cycle, NotExtendable
from holdfast.lists.extend import extrapolate
from holdfast.lists.extend.block_merge import block_merge
from holdfast.lists.extend.cover import affine_plane, cover, cover_merge, vote_queries
from holdfast.lists.extend.sublists import Sublists
from holdfast.lists.functions import reverse
from holdfast.lists.oracle import Oracle


def answered(plan, function) -> tuple[list[int], list[list[int]]]:
    """The result of a plan whose questions a function answers, and the questions."""
    asked: list[list[int]] = []
    try:
        queries = next(plan)
        while True:
            asked += [query.tolist() for query in queries]
            queries = plan.send([np.array(function(query.tolist()), dtype=np.int64) for query in queries])
    except StopIteration as stop:
        return stop.value.tolist(), asked


@pytest.mark.parametrize(
    ("capacity", "random_sort", "backwards"),
    [(2, 8946, 5120), (4, 3397, 2304), (8, 1369, 1024), (16, 562, 448), (32, 234, 192)],
)
def test_query_counts(capacity: int, random_sort: int, backwards: int) -> None:
    for seed in range(2):
        xs = np.random.default_rng(seed).permutation(1024)
        sublists = Sublists(np.arange(1024), xs.tolist(), capacity)
        out, asked = answered(block_merge(sublists), lambda query, xs=xs: sorted(query, key=xs.__getitem__))
        assert xs[out].tolist() == list(range(1024))
        assert abs(len(asked) / random_sort - 1) < 0.05
        assert max(map(len, asked)) == capacity
    out, asked = answered(block_merge(sublists), reverse)
    assert out == list(range(1024))[::-1]
    assert abs(len(asked) / backwards - 1) < 0.05


@pytest.mark.parametrize("capacity", [3, 5, 7])
def test_odd_capacities(capacity: int) -> None:
    xs = np.random.default_rng(0).permutation(100).tolist()
    spied = []

    def shown(query: list[int]) -> list[int]:
        spied.append(len(query))
        return sorted(query)

    assert extrapolate(shown, capacity, mode="distinct", engine="blocks")(xs) == sorted(xs)
    assert max(spied) == capacity


def test_merges_of_a_level_share_their_rounds() -> None:
    calls: list[int] = []

    def batched(queries: list[list[int]]) -> list[list[int]]:
        calls.append(len(queries))
        return [query[::-1] for query in queries]

    made = extrapolate(Oracle(batched, batched=True), 8, mode="distinct", engine="blocks").explain(list(range(128)))
    assert made.output == list(range(128))[::-1]
    assert calls[:2] == [16, 8]
    # Runs of 8, 16, 32 and 64 tokens, 4 of which are settled in each round.
    assert len(calls) == made.calls == 1 + 2 + 4 + 8 + 16


@pytest.mark.parametrize("order", [2, 3, 4, 5, 7, 8, 9, 16, 25, 27])
def test_affine_planes_show_every_pair_once(order: int) -> None:
    lines = affine_plane(order)
    pairs = [pair for line in lines for pair in combinations(sorted(line), 2)]
    assert len(lines) == order**2 + order
    assert all(len(line) == order for line in lines)
    assert len(pairs) == len(set(pairs)) == order**2 * (order**2 - 1) // 2


@pytest.mark.parametrize("order", [1, 6, 10, 12])
def test_no_plane_without_a_field(order: int) -> None:
    with pytest.raises(ArgumentError, match="order: expected a power of a prime"):
        affine_plane(order)


def test_covers_show_every_pair() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        size = int(rng.integers(1, 20))
        labels = rng.permutation(np.repeat(np.arange(size), rng.integers(1, rng.integers(2, 12), size)))
        counts = np.bincount(labels)
        capacity = int(max(sum(sorted(counts.tolist())[-2:]), 2) + rng.integers(0, 6))
        sublists = Sublists(labels, list(range(size)), capacity)
        sets = cover(sublists, rng.permutation(size).tolist())
        assert {pair for some in sets for pair in combinations(sorted(some), 2)} >= set(combinations(range(size), 2))
        assert max(len(sublists.of(some)) for some in sets) <= capacity


def test_the_plane_is_used_where_it_fits() -> None:
    sublists = Sublists(np.arange(64), list(range(64)), 8)
    assert len(cover(sublists, range(64))) == 72
    assert len(cover(Sublists(np.arange(65), list(range(65)), 8), range(65))) == 17 * 16 // 2
    out, asked = answered(cover_merge(sublists), reverse)
    assert out == list(range(64))[::-1]
    assert len(asked) == 72


def test_votes_ask_every_pair_in_several_contexts() -> None:
    for size in (6, 30):
        sublists = Sublists(np.arange(size), list(range(size)), 8)
        queries, _ = vote_queries(sublists, 3, seed=0)
        assert all(len(query) <= 8 for query in queries)
        for pair in combinations(range(size), 2):
            contexts = {tuple(query.tolist()) for query in queries if np.isin(pair, query).all()}
            assert len(contexts) >= 3 or size == 6
            assert len(contexts) >= 2


def test_covering_answers_that_contradict_each_other() -> None:
    sublists = Sublists(np.arange(4), list("abcd"), 2)
    circle = {(0, 1): [0, 1], (1, 2): [1, 2], (0, 2): [2, 0]}
    with pytest.raises(Cycle) as cycle:
        answered(cover_merge(sublists), lambda query: circle.get(tuple(query), query))
    assert {value for value, _ in cycle.value.tokens} == set("abc")

    def wavering(query: list[int]) -> list[int]:
        return query[::-1] if 5 in query else query

    with pytest.raises(NotExtendable) as caught:
        answered(cover_merge(Sublists(np.arange(6), list("abcdef"), 4)), wavering)
    assert caught.value.want == sorted(caught.value.got)


def test_block_merge_sees_an_answer_that_reorders_a_run() -> None:
    def wavering(query: list[int]) -> list[int]:
        return query[::-1] if query[0] == 0 and query[-1] > 3 else query

    with pytest.raises(NotExtendable, match="as earlier answers do"):
        answered(block_merge(Sublists(np.arange(8), list(range(8)), 4)), wavering)


def test_too_many_copies_for_the_capacity() -> None:
    sublists = Sublists(np.array([0, 1, 0, 1, 0]), ["x", "y"], 4)
    for plan in (block_merge(sublists), cover_merge(sublists)):
        with pytest.raises(ArgumentError, match="capacity: expected at least 5, since mode group") as caught:
            answered(plan, sorted)
        assert "'x' 3 times and 'y' 2 times" in str(caught.value)
