"""The classes that are listed whole, against counts, normal forms and brute force."""

from __future__ import annotations

from itertools import combinations, permutations, product
from math import comb, factorial, prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import ArgumentError
from holdfast.lists.errors import Cycle, OutOfBudget
from holdfast.lists.synthesize import (
    FilterEquivariant,
    OrderNatural,
    PermutationType,
    filter_equivariant,
    gluable_share,
    order_natural,
    order_natural_sums,
    permutation_type,
)
from holdfast.lists.synthesize.ordered import KINDS, OrderBlock
from holdfast.lists.synthesize.tables import TieClass, tables
from holdfast.lists.synthesize.words import words_with

order_naturals = st.builds(
    OrderNatural, st.lists(st.builds(OrderBlock, st.integers(1, 3), st.sampled_from(KINDS)), max_size=3).map(tuple)
)
lists = st.lists(st.integers(-5, 5), max_size=7)


def all_lists(n: int, least: int = 0) -> list[tuple[int, ...]]:
    """All lists without duplicates over n values."""
    return [xs for length in range(least, n + 1) for xs in permutations(range(n), length)]


def behaviour(f, n: int) -> tuple:
    return tuple(tuple(f(list(xs))) for xs in all_lists(n))


def assert_filter_equivariant(f, n: int) -> None:
    for xs in all_lists(n):
        answer = list(f(list(xs)))
        for value in range(n):
            assert list(f([x for x in xs if x != value])) == [y for y in answer if y != value]


@pytest.mark.parametrize(("k", "number"), list(enumerate([1, 4, 20, 100, 500])))
def test_order_natural_by_law_and_by_normal_form(k, number):
    by_law, by_form = list(order_natural(k)), list(order_natural_sums(k))
    assert len(by_law) == len(by_form) == number
    assert set(by_law) == set(by_form)
    assert len({f.words for f in by_form}) == number


@given(order_naturals)
def test_words_give_the_order_natural_function_back(f):
    assert OrderNatural.from_words(*f.words) == f


@given(order_naturals, lists, st.integers(-5, 5))
def test_order_naturals_obey_their_laws(f, xs, value):
    assert f([x for x in xs if x != value]) == [y for y in f(xs) if y != value]
    assert f([x**3 + 7 for x in xs]) == [y**3 + 7 for y in f(xs)]


@given(order_naturals, order_naturals, lists)
def test_algebra_of_order_naturals(f, g, xs):
    assert (f + g)(xs) == f(xs) + g(xs)
    assert (f @ g)(xs) == f(g(xs))


@given(order_naturals, lists)
def test_code_of_order_naturals(f, xs):
    space: dict = {}
    exec(f.to_python(), space)
    assert space["f"](xs) == f(xs)


@pytest.mark.parametrize("words", [("001011", "001011"), ("0011", "0101"), ("010110", "001101")])
def test_words_without_an_order_natural_function_have_a_cycle(words):
    with pytest.raises(Cycle) as caught:
        OrderNatural.from_words(*words)
    tokens, answers = caught.value.tokens, caught.value.answers
    for (x, a), (y, b) in zip(tokens, tokens[1:] + tokens[:1], strict=True):
        query, answer = next(each for each in answers if set(each[0]) == {x, y})
        low = min(query)
        assert "".join("0" if z == low else "1" for z in answer) == words[query[0] > query[1]]
        assert [i for i, z in enumerate(answer) if z == x][a] < [i for i, z in enumerate(answer) if z == y][b]


def test_order_natural_names_and_errors():
    f = OrderNatural((OrderBlock(2, "sort desc"), OrderBlock(1, "id")))
    assert repr(f) == "inflate 2 . sort desc + id"
    assert f("bca") == "ccbbaabca"
    assert (f.size, f.multiplicity, repr(OrderNatural())) == (3, 3, "const []")
    with pytest.raises(ArgumentError, match="xs: expected elements that can be sorted"):
        f([1, "a"])
    with pytest.raises(ArgumentError, match="kind: expected one of"):
        OrderBlock(1, "shuffle")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="second: expected 2 letters"):
        OrderNatural.from_words("01", "0110")
    with pytest.raises(ArgumentError, match="second: expected as many zeros as ones"):
        OrderNatural.from_words("01", "00")


def taylor_counts(n: int) -> list[int]:
    """Coefficients of the exponential generating function 1 / (3 + x - 2 e^x), times n!.

    From g * (3 + x - 2 e^x) = 1, term by term.
    """
    counts = [1]
    for m in range(1, n + 1):
        counts.append(sum(2 * comb(m, j) * counts[m - j] for j in range(1, m + 1)) - m * counts[m - 1])
    return counts


def test_permutation_types_are_counted_by_their_generating_function():
    counts = [sum(1 for _ in permutation_type(n)) for n in range(6)]
    assert counts == taylor_counts(5) == [1, 1, 4, 20, 138, 1182]


@pytest.mark.parametrize("n", range(5))
def test_permutation_types_are_different_and_obey_the_law(n):
    functions = list(permutation_type(n))
    assert len({behaviour(f, n) for f in functions}) == len(functions)
    for f in functions[:: max(1, len(functions) // 30)]:
        assert_filter_equivariant(f, n)
        assert all(sorted(f(xs)) == sorted(xs) for xs in all_lists(n))


def test_permutation_types_are_all_that_obey_the_law():
    """Against brute force: every function that permutes the lists over two values, and then those over three."""
    found = set()
    for two in product(*(list(permutations(xs)) for xs in all_lists(3) if len(xs) == 2)):
        answers = dict(zip((xs for xs in all_lists(3) if len(xs) == 2), two, strict=True))
        wholes = []
        for xs in permutations(range(3)):
            fits = [
                ys
                for ys in permutations(range(3))
                if all(
                    tuple(y for y in ys if y in pair) == answers[tuple(x for x in xs if x in pair)]
                    for pair in combinations(range(3), 2)
                )
            ]
            wholes.append(fits)
        if all(wholes):
            assert all(len(fits) == 1 for fits in wholes)
            found.add(((), (0,), (1,), (2,), *two, *(fits[0] for fits in wholes)))
    assert found == {behaviour(f, 3) for f in permutation_type(3)}


def test_permutation_type_as_a_function():
    f = PermutationType((TieClass((2, 4)), TieClass((1, 3), reversed=True)))
    assert f([1, 2, 3, 4]) == [2, 4, 3, 1]
    assert f((4, 4, 1)) == (4, 4, 1)
    assert (repr(f), f.size, repr(PermutationType())) == ("2, 4 | 1, 3 reversed", 3, "no values")
    assert any(repr(g) == "0, 2 reversed | 1" for g in permutation_type(3))
    with pytest.raises(ArgumentError, match="xs: expected elements among 2, 4, 1, 3, got 5"):
        f([5])
    with pytest.raises(ArgumentError, match="n: expected"):
        list(permutation_type(-1))


@pytest.mark.parametrize("n", range(4))
def test_code_of_permutation_types(n):
    for f in permutation_type(n):
        space: dict = {}
        exec(f.to_python(), space)
        assert behaviour(space["f"], n) == behaviour(f, n)


@pytest.mark.parametrize(
    ("multiplicities", "number"),
    [
        ((), 1), ((3,), 1), ((2, 2), 36), ((1, 1, 1), 20), ((2, 1, 1), 64), ((2, 2, 1), 280), ((2, 2, 2), 1422),
        ((1, 0, 1), 4), ((1, 1, 1, 1), 138),
    ],
)  # fmt: skip
def test_filter_equivariant_functions(multiplicities, number):
    functions = list(filter_equivariant(multiplicities))
    n = len(multiplicities)
    assert len(functions) == len({behaviour(f, n) for f in functions}) == number
    for f in functions[:: max(1, number // 20)]:
        assert_filter_equivariant(f, n)
        assert all(f([x]) == [x] * multiplicities[x] for x in range(n))


def test_the_order_of_the_values_does_not_matter():
    counts = {sum(1 for _ in filter_equivariant(order)) for order in permutations((2, 1, 0, 1))}
    assert len(counts) == 1
    assert {sum(1 for _ in filter_equivariant(order)) for order in permutations((3, 2, 1))} == {930}


def test_one_copy_of_each_is_a_permutation():
    assert {behaviour(f, 4) for f in filter_equivariant((1, 1, 1, 1))} == {behaviour(f, 4) for f in permutation_type(4)}


def test_a_table_may_not_glue():
    forward = ((0, 1), (0, 1))
    table = (((0, 1), forward), ((0, 2), ((2, 0), (2, 0))), ((1, 2), ((1, 2), (1, 2))))
    f = FilterEquivariant((1, 1, 1), table)
    assert f([1, 0]) == [0, 1]
    with pytest.raises(Cycle, match="0 before 1 before 2 before 0"):
        f([0, 1, 2])


@pytest.mark.parametrize("xs", [[0, 0], [2], ["a"], [-1]])
def test_values_that_a_table_does_not_have(xs):
    f = next(filter_equivariant((1, 1)))
    with pytest.raises(ArgumentError, match="xs: expected different numbers from 0 to 1"):
        f(xs)


@pytest.mark.parametrize(
    ("multiplicities", "share"),
    [((1, 1, 1), (6, 8)), ((2, 1, 1), (12, 18)), ((2, 2, 1), (30, 54)), ((2, 2, 2), (90, 216)), ((3, 0, 1), (4, 4))],
)
def test_share_of_pair_tables_that_glue(multiplicities, share):
    assert gluable_share(multiplicities) == share
    whole = factorial(sum(multiplicities)) // prod(map(factorial, multiplicities))
    assert share[0] == whole == len(list(words_with(multiplicities)))


def test_bad_multiplicities():
    with pytest.raises(ArgumentError, match="multiplicities: expected"):
        list(filter_equivariant((1, -1)))
    with pytest.raises(ArgumentError, match="three numbers"):
        gluable_share((1, 1))  # type: ignore[arg-type]


def test_a_search_can_be_given_up_and_is_lazy():
    with pytest.raises(OutOfBudget):
        list(tables((2, 2, 2), {}, max_decisions=100))
    assert len(next(tables((1,) * 60, {}))) == 60 * 59 // 2
