"""Pair words glue to the list that they are the shadows of, or show three tokens in a circle."""

from __future__ import annotations

import tracemalloc
from itertools import combinations, product

import numpy as np
import pytest

from holdfast.errors import ArgumentError
from holdfast.lists.errors import AlienValue, Cycle, NotExtendable, Undetermined, WrongMultiplicity
from holdfast.lists.extend.pairs import PairTable, glue_words, linear_extensions
from holdfast.lists.functions import FUNCTIONS

EQUIVARIANT = [named for named in FUNCTIONS if named.filter_equivariant]


def shadows(out: np.ndarray, size: int) -> dict[tuple[int, int], np.ndarray]:
    return {(x, y): out[(out == x) | (out == y)] == y for x, y in combinations(range(size), 2)}


def all_words(x: int, y: int, k: int, m: int) -> list[list[int]]:
    return [[y if place in at else x for place in range(k + m)] for at in map(set, combinations(range(k + m), m))]


def test_a_list_is_glued_from_its_shadows() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        size = int(rng.integers(1, 8))
        out = rng.integers(0, size, rng.integers(0, 40))
        copies = np.bincount(out, minlength=size)
        words = shadows(out, size)
        assert glue_words(copies, words).tolist() == out.tolist()
        flipped = {(y, x): ~word for (x, y), word in words.items()}
        assert glue_words(copies, flipped).tolist() == out.tolist()


@pytest.mark.parametrize(
    ("copies", "gluing", "total"), [((1, 1, 1), 6, 8), ((2, 1, 1), 12, 18), ((2, 2, 1), 30, 54), ((2, 2, 2), 90, 216)]
)
def test_counts_of_pair_tables_that_glue(copies: tuple[int, int, int], gluing: int, total: int) -> None:
    pairs = list(combinations(range(3), 2))
    tables = list(product(*(all_words(x, y, copies[x], copies[y]) for x, y in pairs)))
    good = 0
    for table in tables:
        words = {(x, y): np.array(word) == y for (x, y), word in zip(pairs, table, strict=True)}
        try:
            out = glue_words(np.array(copies), words)
        except Cycle as cycle:
            assert_circle(cycle)
        else:
            good += 1
            assert [out[(out == x) | (out == y)].tolist() for x, y in pairs] == list(table)
    assert (good, len(tables)) == (gluing, total)


def assert_circle(cycle: Cycle) -> None:
    """Each step's answer has the one token before the other, and the three values differ."""
    assert len({value for value, _ in cycle.tokens}) == 3
    steps = zip(cycle.tokens, (*cycle.tokens[1:], cycle.tokens[0]), cycle.answers, strict=True)
    for (x, a), (y, b), (query, answer) in steps:
        assert {x, y} <= set(query)
        places = [[place for place, value in enumerate(answer) if value == z] for z in (x, y)]
        assert places[0][a] < places[1][b]


def test_circles_are_found_among_many_values() -> None:
    rng = np.random.default_rng(1)
    found = 0
    for _ in range(200):
        size = int(rng.integers(3, 9))
        out = np.repeat(np.arange(size), rng.integers(1, 4, size))
        rng.shuffle(out)
        copies, words = np.bincount(out), shadows(out, size)
        pair = list(words)[rng.integers(len(words))]
        before = words[pair].copy()
        rng.shuffle(words[pair])
        changed = not np.array_equal(before, words[pair])
        try:
            glued = glue_words(copies, words)
        except Cycle as cycle:
            found += 1
            assert changed
            assert_circle(cycle)
        else:
            assert all(np.array_equal(shadows(glued, size)[each], words[each]) for each in words)
    assert found > 50


def test_words_are_checked() -> None:
    with pytest.raises(ArgumentError, match="words: expected one word for every pair of values, got 1 fewer"):
        glue_words(np.array([1, 1]), {})
    with pytest.raises(ArgumentError, match="words: expected 1 copies of 0 and 2 of 1"):
        glue_words(np.array([1, 2]), {(0, 1): np.array([False, True])})
    assert glue_words(np.array([2, 0]), {}).tolist() == [0, 0]
    assert glue_words(np.array([], dtype=int), {}).tolist() == []


def test_millions_of_tokens_in_little_memory() -> None:
    rng = np.random.default_rng(0)
    out = rng.integers(0, 10, 1_000_000)
    words = shadows(out, 10)
    tracemalloc.start()
    glued = glue_words(np.bincount(out), words)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(glued, out)
    assert peak < 40 * len(out)


@pytest.mark.parametrize("named", EQUIVARIANT, ids=lambda named: named.name)
def test_a_table_predicts_from_pairs(named) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        xs = rng.integers(0, 7, rng.integers(0, 25))
        table = PairTable(7)
        for some in [(x,) for x in range(7)] + list(combinations(range(7), 2)):
            part = xs[np.isin(xs, some)]
            table.add(part, named.function(part.tolist()))
        assert table.missing(xs) == []
        assert table.predict(xs).tolist() == named.function(xs.tolist())
        assert table.glue(xs).tolist() == named.function(xs.tolist())


@pytest.mark.parametrize("named", EQUIVARIANT, ids=lambda named: named.name)
def test_what_is_missing_settles_the_answer(named) -> None:
    rng = np.random.default_rng(1)
    open_before = 0
    for _ in range(20):
        xs = rng.integers(0, 6, 10)
        table = PairTable(6)
        for _ in range(3):
            part = xs[np.isin(xs, rng.permutation(6)[:3])]
            table.add(part, named.function(part.tolist()))
        missing = table.missing(xs)
        if missing:
            open_before += 1
            with pytest.raises(Undetermined) as caught:
                table.predict(xs)
            assert [list(query) for query in caught.value.missing] == [query.tolist() for query in missing]
            if caught.value.candidates:
                assert named.function(xs.tolist()) in caught.value.candidates
        for query in missing:
            assert len(set(query.tolist())) <= 2
            table.add(query, named.function(query.tolist()))
        assert table.predict(xs).tolist() == named.function(xs.tolist())
        assert table.missing(xs) == []
    assert open_before or named.name == "const []"


def test_an_order_that_follows_is_not_missing() -> None:
    table = PairTable(3)
    table.add([0, 1], [0, 1])
    table.add([1, 2], [1, 2])
    assert table.predict([0, 1, 2]).tolist() == [0, 1, 2]
    with pytest.raises(Undetermined):
        table.glue([0, 1, 2])
    table = PairTable(3)
    table.add([0, 1], [0, 1])
    table.add([0, 2], [0, 2])
    with pytest.raises(Undetermined) as caught:
        table.predict([0, 1, 2])
    assert caught.value.missing == [[1, 2]]
    assert sorted(caught.value.candidates) == [[0, 1, 2], [0, 2, 1]]


def test_one_answer_tells_all_its_pairs() -> None:
    table = PairTable(4, "abcd")
    table.add([0, 1, 2, 3], [3, 2, 1, 0])
    assert table.predict([1, 3]).tolist() == [3, 1]
    assert table.missing([3, 1])[0].tolist() == [3, 1]
    with pytest.raises(Undetermined) as caught:
        table.predict([3, 1])
    assert caught.value.missing == [["d", "b"]]
    assert sorted(caught.value.candidates) == [["b", "d"], ["d", "b"]]


def test_a_value_that_is_unknown_is_asked_for_once() -> None:
    table = PairTable(2)
    assert [query.tolist() for query in table.missing([0])] == [[0]]
    assert [query.tolist() for query in table.missing([0, 1])] == [[0, 1]]
    table.add([0], [])
    assert [query.tolist() for query in table.missing([0, 1])] == [[1]]
    assert table.missing([]) == []
    assert table.predict([]).tolist() == []


def test_a_table_refuses_answers_that_fit_no_function() -> None:
    table = PairTable(3, "xyz")
    table.add([0, 1], [0, 1])
    with pytest.raises(AlienValue) as alien:
        table.add([0, 2], [0, 1])
    assert (alien.value.value, alien.value.query) == ("y", ["x", "z"])
    with pytest.raises(WrongMultiplicity) as wrong:
        table.add([0, 2], [0, 0, 2])
    assert wrong.value.first == (["x", "y"], ["x", "y"])
    assert wrong.value.second == (["x", "z"], ["x", "x", "z"])
    with pytest.raises(NotExtendable) as other:
        table.add([0, 1, 2], [1, 0, 2])
    assert (other.value.query, other.value.want, other.value.got) == (["x", "y"], ["x", "y"], ["y", "x"])
    assert len(table.missing([0, 2])) == 1, "nothing is learnt from what is refused"
    table.add([1, 2], [1, 2])
    table.add([0, 2], [2, 0])
    with pytest.raises(Cycle) as cycle:
        table.predict([0, 1, 2])
    assert_circle(cycle.value)
    with pytest.raises(ArgumentError, match="labels from 0 to 2"):
        table.predict([3])


def test_a_circle_shows_before_all_pairs_are_known() -> None:
    table = PairTable(4)
    for query, answer in (([0, 1], [0, 1]), ([1, 2], [1, 2]), ([0, 2], [2, 0])):
        table.add(query, answer)
    with pytest.raises(Cycle) as cycle:
        table.predict([0, 1, 2, 3])
    assert_circle(cycle.value)
    table = PairTable(4)
    for query, answer in (([0, 1], [0, 1]), ([1, 2], [1, 2]), ([2, 3], [2, 3]), ([0, 3], [3, 0])):
        table.add(query, answer)
    with pytest.raises(NotExtendable, match="in a circle"):
        table.missing([0, 1, 2, 3])


def test_linear_extensions_are_all_orders_that_fit() -> None:
    before = np.zeros((4, 4), dtype=bool)
    before[0, 1] = before[2, 3] = True
    assert len(linear_extensions(before, 100)) == 6
    assert len(linear_extensions(before, 4)) == 4
    assert len({tuple(order) for order in linear_extensions(before, 100)}) == 6
