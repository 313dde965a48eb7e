from itertools import product

import pytest

from holdfast.lists.functions import FUNCTIONS, quus

LISTS = [list(xs) for length in range(6) for xs in product(range(3), repeat=length)]

EXAMPLES = {
    "id": ([2, 1, 2], [2, 1, 2]),
    "reverse": ([2, 1, 3], [3, 1, 2]),
    "const []": ([2, 1], []),
    "id + id": ([1, 2], [1, 2, 1, 2]),
    "id + reverse": ([1, 2], [1, 2, 2, 1]),
    "inflate 2": ([1, 2], [1, 1, 2, 2]),
    "inflate 2 . reverse": ([1, 2], [2, 2, 1, 1]),
    "inflate 2 . reverse + id": ([1, 2], [2, 2, 1, 1, 1, 2]),
    "sort": ([2, 0, 1], [0, 1, 2]),
    "sort descending": ([2, 0, 1], [2, 1, 0]),
    "filter even": ([1, 2, 0, 3], [2, 0]),
    "evens, then odds": ([1, 2, 3, 0], [2, 0, 1, 3]),
    "evens, then reversed odds": ([1, 2, 3, 0], [2, 0, 3, 1]),
    "nub, keep first": ([1, 2, 1], [1, 2]),
    "nub, keep last": ([1, 2, 1], [2, 1]),
    "x copied x times": ([2, 0, 1], [2, 2, 1]),
    "sort by frequency": ([1, 0, 1, 2], [0, 2, 1, 1]),
    "sort by frequency, descending": ([2, 1, 0, 1, 0], [1, 1, 0, 0, 2]),
    "group equal values": ([1, 0, 1], [1, 1, 0]),
    "keep values that occur twice": ([1, 0, 1, 2], [1, 1]),
    "drop first occurrences": ([1, 0, 1, 1, 0], [1, 1, 0]),
    "sort + reverse": ([2, 0, 1], [0, 1, 2, 1, 0, 2]),
    "sort . nub": ([2, 0, 2], [0, 2]),
    "triangle": ([1, 2, 3], [1, 1, 2, 1, 2, 3]),
    "i-th element i times": ([1, 2, 3], [1, 2, 2, 3, 3, 3]),
    "tail": ([1, 2, 3], [2, 3]),
    "head": ([1, 2, 3], [1]),
    "init": ([1, 2, 3], [1, 2]),
    "last": ([1, 2, 3], [3]),
    "even positions": ([1, 2, 3, 4], [1, 3]),
    "repeat len times": ([1, 2], [1, 2, 1, 2]),
    "rotate left": ([1, 2, 3], [2, 3, 1]),
    "swap first two": ([1, 2, 3, 4], [2, 1, 3, 4]),
    "riffle": ([1, 2, 3, 4, 5], [1, 4, 2, 5, 3]),
    "swap halves": ([1, 2, 3, 4, 5], [3, 4, 5, 1, 2]),
    "id if len <= 3 else reverse": ([1, 2, 3, 4], [4, 3, 2, 1]),
    "map (+ 1 mod 3)": ([0, 1, 2], [1, 2, 0]),
    "map (const 0)": ([1, 2], [0, 0]),
    "max": ([1, 2, 0], [2]),
    "uniq": ([1, 1, 2, 1], [1, 2, 1]),
    "mode": ([1, 0, 1, 2, 0], [1, 0, 1, 0]),
    "cons 0": ([1, 2], [0, 1, 2]),
    "const [0]": ([1, 2], [0]),
    "intersperse 0": ([1, 2, 3], [1, 0, 2, 0, 3]),
    "reverse if sum odd": ([1, 2, 0], [0, 2, 1]),
    "smallest to front": ([2, 1, 3, 1], [1, 2, 3, 1]),
    "rock, paper, scissors": ([2, 1, 2, 1], [1, 1, 2, 2]),
}

each = pytest.mark.parametrize("named", FUNCTIONS, ids=lambda named: named.name)


def test_the_gallery():
    names = [named.name for named in FUNCTIONS]
    assert len(set(names)) == len(names) == 47
    assert sum(named.filter_equivariant for named in FUNCTIONS) == 23
    assert sum(named.map_equivariant and named.filter_equivariant for named in FUNCTIONS) == 8
    assert sum(named.map_equivariant for named in FUNCTIONS) == 21
    assert sum(named.positional for named in FUNCTIONS) == 15
    assert set(names) == set(EXAMPLES)


@each
def test_what_it_does(named):
    xs, ys = EXAMPLES[named.name]
    assert named.function(list(xs)) == ys


@each
def test_it_is_total_and_leaves_its_argument_alone(named):
    for xs in LISTS:
        given = list(xs)
        answer = named.function(given)
        assert type(answer) is list
        assert given == xs
        assert answer is not given


@each
def test_filters_by_the_definition(named):
    """Every filter of three values, not only the deletion of one: the first list that breaks the law is the listed."""
    f = named.function
    filters = list(product((False, True), repeat=3))

    def breaks(xs):
        return any(f([x for x in xs if keep[x]]) != [y for y in f(xs) if keep[y]] for keep in filters)

    first = next((tuple(xs) for xs in LISTS if breaks(xs)), None)
    assert first == named.counterexample
    assert (first is None) == named.filter_equivariant


@each
def test_maps_by_the_definition(named):
    f = named.function
    maps = list(product(range(3), repeat=3))
    holds = all(
        f([m[x] for x in xs]) == [m[y] for y in answer]
        for xs in LISTS
        if len(xs) <= 4
        for answer in [f(xs)]
        for m in maps
    )
    assert holds == named.map_equivariant


@each
def test_positions_by_tagging_every_token(named):
    """The definition word for word: take every choice of as many copies of x out of f(xs), and look for f(the rest)."""
    f = named.function

    def without(ys, x, copies):
        if copies == 0:
            return {tuple(ys)}
        return {
            rest
            for place, y in enumerate(ys)
            if y == x
            for rest in without(ys[:place] + ys[place + 1 :], x, copies - 1)
        }

    def holds(xs):
        return all(
            tuple(f(xs[:place] + xs[place + 1 :])) in without(f(xs), x, len(f([x]))) for place, x in enumerate(xs)
        )

    lone = all(set(f([x])) <= {x} for x in range(3)) and f([]) == []
    assert (lone and all(holds(xs) for xs in LISTS if len(xs) <= 4)) == named.positional


def test_quus_departs_where_it_is_told():
    assert quus(list(range(50)), 50) == list(range(50))
    assert quus(list(range(51)), 50) == list(range(50, -1, -1))
