from dataclasses import dataclass, field
from decimal import Decimal
from operator import itemgetter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import ArgumentError
from holdfast.lists import AlienValue, Oracle, extrapolate
from holdfast.lists.values import Alphabet, as_given


@given(st.lists(st.one_of(st.integers(0, 3), st.text(max_size=1), st.none())))
def test_labels_count_values_in_order_of_appearance(xs):
    alphabet = Alphabet(xs)
    assert list(alphabet.values) == list(dict.fromkeys(xs))
    assert alphabet.decode(alphabet.labels) == xs
    assert alphabet.encode(xs).tolist() == alphabet.labels.tolist()
    assert alphabet.labels.dtype == np.int64


@given(st.lists(st.lists(st.integers(0, 2), max_size=2), max_size=12))
def test_elements_that_cannot_be_hashed_are_as_good(xs):
    hashable = Alphabet([tuple(x) for x in xs])
    alphabet = Alphabet(xs)
    assert alphabet.labels.tolist() == hashable.labels.tolist()
    assert [tuple(x) for x in alphabet.values] == list(hashable.values)


def test_what_is_no_value_has_no_label():
    assert Alphabet([3, 1]).encode([1, 2, 3, 3, None, float("nan"), [1], "1"]).tolist() == [1, -1, 0, 0, -1, -1, -1, -1]
    assert Alphabet([]).encode([1]).tolist() == [-1]
    assert Alphabet([]).encode([]).dtype == Alphabet([]).labels.dtype == np.int64


def test_an_answer_may_spell_values_in_other_types():
    assert Alphabet([0, 1]).encode(np.array([1.0, 0.0])).tolist() == [1, 0]
    assert Alphabet([0, 1]).encode([True, np.int64(0)]).tolist() == [1, 0]


@pytest.mark.parametrize("others", [[1, True], [True, 1], [1, 1.0], [0.0, False], [1, 2, np.int64(1)]])
def test_equal_elements_of_different_types_are_refused(others):
    with pytest.raises(ArgumentError, match=r"^xs: expected elements that differ if their types do, or a key, got "):
        Alphabet(others)


def test_types_may_be_mixed_where_nothing_is_equal():
    assert Alphabet([2, True, "a", 0.5]).labels.tolist() == [0, 1, 2, 3]
    assert Alphabet([1, True, 1.0], key=repr).labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize("nan", [float("nan"), np.float32("nan"), complex("nan")])
def test_nan_is_refused(nan):
    with pytest.raises(
        ArgumentError, match=r"^xs: expected elements that equal themselves, got .*nan.* at position 1$"
    ):
        Alphabet([1.0, nan])


class Vague:
    """Has no truth value of equality, as a tensor or a missing value of pandas."""

    __hash__ = object.__hash__

    def __eq__(self, other):
        raise RuntimeError("ambiguous")


@pytest.mark.parametrize("elements", [[np.zeros(2)], [[1], np.zeros(2)], [Vague()], [Vague(), Vague()]])
def test_elements_without_truth_value_of_equality_are_refused(elements):
    with pytest.raises(ArgumentError, match=r"^xs: expected elements that compare as true or false, or a key, got "):
        Alphabet(elements)


def test_in_an_answer_they_are_no_value():
    assert Alphabet([[1], [2]]).encode([np.zeros(2), [2], Vague()]).tolist() == [-1, 1, -1]


def test_arrays_have_a_key():
    alphabet = Alphabet([np.zeros(2), np.ones(2), np.zeros(2)], key=lambda x: x.tobytes())
    assert alphabet.labels.tolist() == [0, 1, 0]
    assert alphabet.encode([np.ones(2)]).tolist() == [1]


def test_what_can_be_hashed_may_equal_what_cannot():
    assert Alphabet([frozenset({1}), frozenset({2})]).encode([{2}, {3}]).tolist() == [1, -1]
    assert Alphabet([{1}, {2}]).encode([frozenset({2}), frozenset({3})]).tolist() == [1, -1]
    with pytest.raises(ArgumentError, match="which equals an earlier frozenset"):
        Alphabet([frozenset({1}), {1}])


def test_a_key_decides_and_one_stands_for_all():
    rows = [{"id": 1, "n": "a"}, {"id": 2, "n": "b"}, {"id": 1, "n": "a"}]
    alphabet = Alphabet(rows, key=itemgetter("id"))
    assert alphabet.labels.tolist() == [0, 1, 0]
    assert alphabet.decode(alphabet.labels) == [rows[0], rows[1], rows[0]]
    assert alphabet.encode([{"id": 2}, {"id": 3}, {"name": 1}, None]).tolist() == [1, -1, -1, -1]


@dataclass(order=True)
class Job:
    priority: int
    name: str = field(compare=False)


@pytest.mark.parametrize(
    ("elements", "key", "argument"),
    [
        (["fox", "the", "dog"], len, "key"),
        ([{"id": 1, "n": "a"}, {"id": 1, "n": "b"}], itemgetter("id"), "key"),
        ([Job(0, "a"), Job(0, "b")], None, "xs"),
        ([Decimal("1.0"), Decimal("1.00")], None, "xs"),
        ([(1,), (True,)], None, "xs"),
    ],
)
def test_what_would_be_lost_is_refused(elements, key, argument):
    """One of these would stand for all, and the others would not come back."""
    with pytest.raises(ArgumentError, match=rf"^{argument}: expected .* since one stands for all of them"):
        Alphabet(elements, key=key)


def test_a_key_that_fails_is_named():
    with pytest.raises(ArgumentError, match=r"^key: expected a function of every element, got KeyError: .*position 1$"):
        Alphabet([{"id": 1}, {}], key=itemgetter("id"))


def test_own_classes_by_their_equality():
    @dataclass
    class Point:  # equality without a hash
        x: int

    assert Alphabet([Point(1), Point(2), Point(1)]).labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize("elements", [[0.0, -0.0], [-0.0, 1.0, 0.0], [(0.0,), (-0.0,)], [0j, complex(-0.0, 0)]])
def test_zeros_of_either_sign_do_not_stand_for_each_other(elements):
    with pytest.raises(ArgumentError, match="equal elements that are alike"):
        Alphabet(elements)


def test_a_zero_of_the_other_sign_is_no_value_of_the_list():
    assert Alphabet([0.0, 1.0]).encode([1.0, -0.0, 0.0]).tolist() == [1, -1, 0]
    assert Alphabet([-0.0]).encode([0.0, -0.0]).tolist() == [-1, 0]
    assert Alphabet([0, 1]).encode([0.0, -0.0]).tolist() == [0, 0], "a whole number has no sign of zero"
    with pytest.raises(AlienValue):
        extrapolate(lambda xs: [-x for x in xs if x == 0], 4, mode="distinct")([0.0, 1.0])


def test_lists_with_zeros_of_either_sign_are_asked_apart():
    oracle = Oracle(lambda xs: xs)
    for query in ([0.0], [-0.0], [(0.0, 1)], [(-0.0, 1)], [(0.0, True)]):
        assert str(oracle(query)) == str(query)
    assert oracle.queries == 5


def test_a_list_in_the_type_of_another():
    assert as_given("ab", ["b", "a"]) == "ba"
    assert as_given((1, 2), [2, 1]) == (2, 1)
    assert as_given([1, 2], [2, 1]) == [2, 1]
    assert as_given("", []) == ""
