import inspect
import json
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from operator import itemgetter
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import holdfast
from holdfast.errors import ArgumentError, MissingExtraError
from holdfast.lists import Oracle, OutOfBudget
from holdfast.lists.check import (
    assert_filter_equivariant,
    check_filter_equivariance,
    check_injective_equivariance,
    check_map_equivariance,
    check_order_equivariance,
    check_order_invariance,
    check_positional,
    classify,
    filter_equivariance_test,
)
from holdfast.lists.check import search as check_search
from holdfast.lists.check.laws import Filters
from holdfast.lists.functions import FUNCTIONS, quus, rotate_left, tail

each = pytest.mark.parametrize("named", FUNCTIONS, ids=lambda named: named.name)
NOT_EQUIVARIANT = [named for named in FUNCTIONS if not named.filter_equivariant]

# Functions that see values and still commute with some maps.
BLIND_TO_VALUES = {  # injective maps: they see which elements are equal
    "nub, keep first",
    "nub, keep last",
    "sort by frequency, descending",
    "group equal values",
    "keep values that occur twice",
    "drop first occurrences",
    "uniq",
    "mode",
}
BY_ORDER = {  # strictly increasing maps: they see which element is larger
    "sort",
    "sort descending",
    "sort by frequency",
    "sort + reverse",
    "sort . nub",
    "max",
    "smallest to front",
}


@pytest.fixture(params=[True, False], ids=["hypothesis", "plain"])
def engine(request, monkeypatch):
    """With Hypothesis, and as if it were not installed."""
    if not request.param:
        monkeypatch.setattr(check_search, "find_spec", lambda name: None)
    return request.param


BLIND_TO_ORDER = {"const []", "sort", "sort descending", "sort by frequency", "sort . nub", "max"}


@each
def test_the_whole_gallery_is_classified(named):
    found = classify(named.function, max_examples=12)
    expected = {
        "filter": named.filter_equivariant,
        "map": named.map_equivariant,
        "injective": named.map_equivariant or named.name in BLIND_TO_VALUES,
        "order": named.map_equivariant or named.name in BLIND_TO_VALUES | BY_ORDER,
        "positional": named.positional,
        "invariant": named.name in BLIND_TO_ORDER,
    }
    assert found.names == tuple(name for name, holds in expected.items() if holds)
    assert found.natural == (named.filter_equivariant and named.map_equivariant)


@pytest.mark.parametrize("named", NOT_EQUIVARIANT, ids=lambda named: named.name)
def test_counterexamples_are_the_smallest_there_are(named):
    report = check_filter_equivariance(named.function)
    assert report.queries < 5000
    assert not report.holds
    assert report.counterexample.xs == named.counterexample


@pytest.mark.parametrize("named", NOT_EQUIVARIANT, ids=lambda named: named.name)
def test_random_lists_alone_find_them_too_and_make_them_as_small(named, engine):
    report = check_filter_equivariance(named.function, exhaustive=(3, -1), seed=3)
    assert not report.holds
    assert report.counterexample.xs == named.counterexample
    assert report.scope.length == -1
    assert 1 <= report.n_checked == report.scope.random <= 500


@pytest.mark.slow
@each
def test_no_disagreement_among_many_random_lists(named):
    """2,200 lists a function, about 100,000 in all."""
    rng = random.Random(f"many {named.name}")
    law, broken = Filters(), 0
    for _ in range(2200):
        values = rng.sample(range(10), rng.choice((2, 3, 5, 10)))
        xs = rng.choices(values, k=rng.choice((3, 6, 12)))
        broken += law.violation(lambda queries: [named.function(list(query)) for query in queries], xs) is not None
    assert (broken == 0) == named.filter_equivariant


@pytest.mark.parametrize("named", [named for named in FUNCTIONS if named.filter_equivariant], ids=lambda n: n.name)
def test_a_report_of_what_holds_says_what_was_tried(named):
    report = check_filter_equivariance(named.function, max_examples=40)
    assert report.holds
    assert report.broken is report.counterexample is None
    assert report.n_checked == 364 + report.scope.random
    assert 20 <= report.scope.random <= 40
    assert 5 <= report.longest <= 12
    assert str(report) == (
        f"filter equivariance: no counterexample in {report.n_checked} lists of length <= {report.longest}\n"
        f"  (all lists of length <= 5 over 0, 1, 2; {report.scope.random} lists of length <= 12 at random)"
    )
    assert report.snippet == ""


def test_without_random_lists():
    report = check_filter_equivariance(sorted, max_examples=0, exhaustive=(2, 3))
    assert (report.n_checked, report.longest, report.queries) == (15, 3, 15 + check_search.REPEATS)
    assert str(report.scope) == "all lists of length <= 3 over 0, 1"


def test_a_report_of_what_is_broken():
    report = check_filter_equivariance(rotate_left)
    assert (report.law, report.broken) == ("filter equivariance", "deletion")
    found = report.counterexample
    assert (found.xs, found.dropped, found.want, found.got) == ((0, 1, 2), 0, (1, 2), (2, 1))
    assert (found.answer, found.shown) == ((1, 2, 0), (1, 2))
    assert report.n_checked == len([[]]) + 3 + 9 + [*range(27)].index(5) + 1
    assert report.longest == 3
    assert str(report) == inspect.cleandoc("""
        filter equivariance: broken (deletion): the order of what stays depends on what is deleted

          xs               [0, 1, 2]
          f(xs)            [1, 2, 0]
          f(xs) without 0  [1, 2]
          f(xs without 0)  [2, 1]

            from holdfast.lists.functions import rotate_left as f

            xs, value = [0, 1, 2], 0
            want = [y for y in f(list(xs)) if y != value]
            got = list(f([x for x in xs if x != value]))
            assert got == want, f"{got} is not {want}"
    """)


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("cons 0", "alien value"),
        ("map (const 0)", "alien value"),
        ("triangle", "multiplicity"),
        ("mode", "multiplicity"),
        ("rotate left", "deletion"),
        ("rock, paper, scissors", "deletion"),
    ],
)
def test_what_is_broken_has_a_name(name, broken):
    [named] = [named for named in FUNCTIONS if named.name == name]
    assert check_filter_equivariance(named.function).broken == broken


def test_a_value_may_come_from_a_deletion_only():
    def f(xs):
        return [1] if xs == [0] else xs if 1 in xs else []

    report = check_filter_equivariance(f)
    assert (report.broken, report.counterexample.xs) == ("alien value", (0,))


CHECKS = [
    check_filter_equivariance,
    check_map_equivariance,
    check_injective_equivariance,
    check_order_equivariance,
    check_positional,
]


@pytest.mark.parametrize("law", CHECKS, ids=lambda law: law.__name__)
@each
def test_the_python_of_a_report_runs_and_fails(named, law):
    report = law(named.function, max_examples=0, exhaustive=(3, 4))
    if report.holds:
        assert report.snippet == ""
        return
    assert report.snippet.startswith(f"from holdfast.lists.functions import {named.function.__name__} as f\n")
    with pytest.raises(AssertionError):
        exec(report.snippet, {})
    # It passes for a function that keeps the law: it is about the function and not about the list.
    exec(report.snippet.split("\n", 1)[1], {"f": lambda xs: xs})


@each
def test_a_report_is_ready_for_json(named):
    found = classify(named.function, max_examples=0, exhaustive=(3, 3)).to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["filter"]["law"] == "filter equivariance"
    assert (found["filter"]["counterexample"] is None) == found["filter"]["holds"]


def test_json_of_what_json_lacks():
    def f(xs):
        return xs[1:]

    report = check_filter_equivariance(f, elements=[1j, float("inf"), "a"])
    assert report.to_dict()["counterexample"]["xs"] == ["1j", "inf"]
    assert report.to_dict()["counterexample"]["dropped"] == "1j"


def test_a_classification_is_a_table():
    found = classify(sorted, max_examples=5)
    lines = str(found).splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["law", "holds"],
        ["filter", "yes"],
        ["map", "no"],
        ["injective", "no"],
        ["order", "yes"],
        ["positional", "yes"],
        ["invariant", "yes"],
    ]
    assert lines[1].endswith(f"no counterexample in {found.filter.n_checked} lists of length <= {found.filter.longest}")
    assert lines[2].endswith("[0, 1]: renaming")


def test_no_list_is_asked_twice_in_a_classification():
    shown = Counter()

    def f(xs):
        shown[tuple(xs)] += 1
        return []

    reports = classify(f, max_examples=10).reports
    assert len(reports) == 6
    # Only to see whether answers stay are the longest lists asked again, once a law.
    again = {xs: times for xs, times in shown.items() if times > 1}
    assert len(again) <= len(reports)
    assert sum(times - 1 for times in again.values()) == check_search.REPEATS * len(reports)
    assert sum(report.queries for report in reports.values()) == shown.total()


def test_the_order_of_a_map_is_found():
    report = check_order_equivariance(lambda xs: [x for x in xs if x < 2])
    assert (report.broken, report.counterexample.xs) == ("renaming", (0,))
    [(old, new)] = report.counterexample.mapping
    assert (old, new) == (0, 2)
    report = check_injective_equivariance(sorted)
    assert (report.counterexample.xs, report.counterexample.mapping) == ((0, 1), ((0, 1), (1, 0)))
    report = check_map_equivariance(lambda xs: list(dict.fromkeys(xs)))
    assert (report.counterexample.xs, report.counterexample.want) == ((0, 1), (0, 0))


@pytest.mark.parametrize("law", [check_map_equivariance, check_injective_equivariance, check_order_equivariance])
def test_a_renaming_that_matters_only_on_long_lists_is_found(law, engine):
    def sevens_last(xs):
        return xs if len(xs) < 9 else sorted(xs, key=lambda x: x == 7)

    report = law(sevens_last)
    assert report.broken == "renaming"
    # 7 is among the values, or is a new name of one.
    assert len(report.counterexample.xs) == 9
    assert 7 in report.counterexample.xs + report.counterexample.shown


def test_positional_is_about_single_copies():
    report = check_positional(lambda xs: list(dict.fromkeys(xs)))
    found = report.counterexample
    assert (report.broken, found.xs, found.position, found.copies, found.got) == ("multiplicity", (0, 0), 0, 1, (0,))
    report = check_positional(lambda xs: sorted(xs, key=lambda x: (xs.count(x), x)))
    assert report.broken == "deletion"
    assert len(report.counterexample.xs) == 3
    report = check_positional(lambda xs: [*xs, 5])
    assert (report.broken, report.counterexample.xs) == ("alien value", ())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_departure_beyond_length_50_is_found(engine, seed):
    report = check_filter_equivariance(lambda xs: quus(xs, 50), max_length=64, max_examples=2000, seed=seed)
    assert report.broken == "deletion"
    assert report.n_checked <= 364 + 2000
    assert report.counterexample.xs == (*[0] * 49, 1, 2)


def test_a_departure_beyond_the_longest_list_is_not(engine):
    report = check_filter_equivariance(lambda xs: quus(xs, 50), max_length=50, max_examples=100)
    assert report.holds
    assert report.longest <= report.scope.max_length == 50
    assert "no counterexample in" in str(report)


@pytest.mark.parametrize("limit", [5, 6, 7, 11])
@pytest.mark.parametrize("seed", range(3))
def test_the_smallest_list_does_not_hang_on_luck(engine, limit, seed):
    report = check_filter_equivariance(lambda xs: quus(xs, limit), seed=seed)
    assert report.counterexample.xs == (*[0] * (limit - 1), 1, 2)


def test_the_same_seed_gives_the_same_lists(engine):
    def shown(seed):
        found = []

        def f(xs):
            found.append(list(xs))
            return xs

        check_filter_equivariance(f, exhaustive=(1, -1), max_examples=30, seed=seed)
        return found

    assert shown(1) == shown(1)
    assert shown(1) != shown(2)


def test_elements_of_ones_own(engine):
    report = check_filter_equivariance(lambda xs: xs[1:], elements="abc")
    assert report.counterexample.xs == ("a", "b")
    assert check_filter_equivariance(sorted, elements=["b", "a"], max_examples=20).holds
    assert classify(sorted, elements="cab", max_examples=20).names == ("filter", "order", "positional", "invariant")
    assert check_filter_equivariance(lambda xs: xs[1:], elements=[None], max_examples=20).holds
    report = check_filter_equivariance(lambda xs: xs[1:], elements=[None, 0])
    assert (report.counterexample.xs, report.counterexample.dropped) == ((None, 0), None)


@pytest.mark.parametrize(
    "elements", [st.integers(), st.text(max_size=3), st.tuples(st.booleans(), st.integers(0, 5)), st.sampled_from("ab")]
)
def test_elements_from_a_strategy(elements):
    assert check_filter_equivariance(sorted, elements=elements, max_examples=50).holds
    report = check_filter_equivariance(tail, elements=elements, max_examples=50)
    assert len(report.counterexample.xs) == 2
    report = check_filter_equivariance(tail, elements=elements, exhaustive=(1, -1))
    assert len(report.counterexample.xs) == 2


def test_a_strategy_is_drawn_from_beyond_the_exhaustive_part():
    report = check_filter_equivariance(lambda xs: xs[1:] if 77 in xs else xs, elements=st.integers(60, 90))
    assert 77 not in report.scope.values
    assert set(report.counterexample.xs) > {77}


@given(st.lists(st.lists(st.integers(0, 1), max_size=2), min_size=1))
@settings(max_examples=5)
def test_elements_that_cannot_be_hashed(pool):
    assert check_filter_equivariance(lambda xs: xs[::-1], elements=pool, max_examples=5, exhaustive=(2, 3)).holds
    report = check_filter_equivariance(lambda xs: xs[1:], elements=[[], [1], [2]], max_examples=5)
    assert report.counterexample.xs == ([], [1])
    assert classify(sorted, elements=[[], [1], [2]], max_examples=5, exhaustive=(3, 3)).natural is False


def test_elements_that_cannot_be_hashed_and_a_random_function():
    rng = random.Random(0)

    def f(xs):
        return rng.sample(xs, len(xs))

    options = {"elements": [[n] for n in range(6)], "exhaustive": (1, -1)}
    assert check_filter_equivariance(f, **options).broken == "not deterministic"


def test_a_key_says_what_is_one_value():
    rows = [{"id": 0, "n": "a"}, {"id": 1, "n": "b"}, {"id": 2, "n": "c"}]
    key = itemgetter("id")
    assert check_filter_equivariance(
        Oracle(lambda xs: sorted(xs, key=key), key=key), elements=rows, max_examples=20
    ).holds
    report = check_filter_equivariance(Oracle(rotate_left, key=key), elements=rows)
    assert [row["id"] for row in report.counterexample.xs] == [0, 1, 2]


def sorted_rows(rows):
    return sorted(rows, key=itemgetter("id"))


def same_row(rows):
    return [{"id": 9}]


@pytest.mark.parametrize(
    ("law", "function"),
    [
        (check_filter_equivariance, rotate_left),
        (check_filter_equivariance, same_row),
        (check_injective_equivariance, sorted_rows),
        (check_positional, rotate_left),
        (check_positional, same_row),
    ],
)
def test_the_python_of_a_report_with_a_key(law, function):
    key = itemgetter("id")
    report = law(Oracle(function, key=key), elements=[{"id": 0}, {"id": 1}, {"id": 2}])
    assert "# key: your key" in report.snippet
    with pytest.raises(AssertionError):
        exec(report.snippet, {"key": key})
    exec(report.snippet.split("\n", 1)[1], {"key": key, "f": lambda xs: xs})


def test_nan_and_mixed_types_are_refused_in_the_name_of_the_argument():
    nan = float("nan")
    with pytest.raises(
        ArgumentError, match=r"^elements: expected elements that equal themselves, got nan at position 1"
    ):
        check_filter_equivariance(sorted, elements=[1.0, nan])
    with pytest.raises(ArgumentError, match=r"^elements: expected elements that equal themselves, got nan"):
        check_filter_equivariance(sorted, elements=st.floats())
    with pytest.raises(ArgumentError, match=r"^elements: expected elements that differ if their types do, or a key"):
        check_filter_equivariance(sorted, elements=[0, 1, True])
    with pytest.raises(ArgumentError, match=r"^elements: expected elements that differ if their types do, or a key"):
        check_filter_equivariance(sorted, elements=st.one_of(st.booleans(), st.integers(0, 1)))
    with pytest.raises(ArgumentError, match=r"^elements: expected elements that compare as true or false"):
        check_filter_equivariance(sorted, elements=[np.zeros(2)])
    with pytest.raises(ArgumentError, match=r"^elements: expected values that < can order, got int, str$"):
        check_order_equivariance(list, elements=[1, "a"])
    assert check_filter_equivariance(sorted, elements=st.floats(allow_nan=False), max_examples=20).holds


def test_mixed_types_that_a_strategy_seldom_gives():
    with pytest.raises(ArgumentError, match=r"^elements: expected elements that differ if their types do"):
        check_filter_equivariance(sorted, elements=st.sampled_from([0] * 60 + [5, 5.0]), max_examples=400)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 0}, "max_length: expected a whole number of at least 1, got 0"),
        ({"max_examples": -1}, "max_examples: expected a whole number of at least 0, got -1"),
        (
            {"exhaustive": (0, 3)},
            "exhaustive: expected a number of values from 1 and a length from -1, got (0, 3)",
        ),
        ({"exhaustive": 5}, "exhaustive: expected a number of values from 1 and a length from -1, got 5"),
        ({"exhaustive": (10, 9)}, "exhaustive: expected values ** length of at most 1000000, got (10, 9)"),
        ({"elements": []}, "elements: expected at least one value, got []"),
        ({"elements": 5}, "elements: expected a collection of values or a strategy of Hypothesis, got 5"),
    ],
)
@pytest.mark.parametrize("law", [*CHECKS, classify], ids=lambda law: law.__name__)
def test_options_that_cannot_be_used(law, options, message):
    with pytest.raises(ArgumentError) as caught:
        law(sorted, **options)
    assert str(caught.value) == message


def test_what_cannot_be_called():
    for law in (*CHECKS, classify, filter_equivariance_test):
        with pytest.raises(ArgumentError, match=r"^f: expected a function of lists, got \[1\]$"):
            law([1])


def raises(xs):
    return [max(xs)]


@pytest.mark.parametrize(
    ("function", "xs", "problem"),
    [
        (raises, [], "raised ValueError: "),
        (lambda xs: (x for x in xs), [], "returned generator instead of a list"),
        (lambda xs: "".join(map(str, xs)), [], "returned the text '' instead of a list"),
        (lambda xs: xs.sort(), [], "returned NoneType instead of a list"),
        (lambda xs: xs if len(xs) < 2 else set(xs), [0, 0], "returned set instead of a list"),
        (lambda xs: xs if xs != [0, 1] else xs + None, [0, 1], "raised TypeError: can only concatenate list"),
    ],
)
@pytest.mark.parametrize("law", CHECKS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("batched", [False, True])
def test_bad_answers(function, xs, problem, law, batched):
    def many(lists):
        return [function(xs) for xs in lists]

    report = law(Oracle(many, batched=True) if batched else function)
    assert not report.holds
    assert report.broken == "bad answer"
    assert list(report.counterexample.xs) == xs
    assert report.counterexample.problem.startswith(problem)
    assert report.counterexample.want is report.counterexample.got is None
    assert f"f(xs)  {problem}" in str(report)
    assert json.dumps(report.to_dict())
    with pytest.raises((AssertionError, ValueError, TypeError)):
        exec(report.snippet, {"f": function})


def test_a_bad_answer_on_long_lists_is_made_small(engine):
    def f(xs):
        if len(xs) > 7 and 3 in xs:
            raise KeyError("three")
        return xs

    report = check_filter_equivariance(f)
    assert report.broken == "bad answer"
    assert report.counterexample.xs == (0,) * 7 + (3,)


def test_a_function_that_changes_its_argument():
    def sort_and_clear(xs):
        found = sorted(xs)
        xs.clear()
        return found

    assert check_filter_equivariance(sort_and_clear, max_examples=20).holds
    report = check_filter_equivariance(lambda xs: xs.pop() and xs if xs else xs, max_examples=20)
    assert not report.holds


def test_answers_that_are_as_good_as_lists():
    assert check_filter_equivariance(lambda xs: tuple(sorted(xs)), max_examples=20).holds
    found = classify(lambda xs: np.sort(np.array(xs, dtype=np.int64)), max_examples=20)
    assert found.names == ("filter", "order", "positional", "invariant")


def test_an_answer_in_an_equal_type_is_taken_for_the_values():
    assert check_filter_equivariance(lambda xs: [float(x) for x in xs], max_examples=20).holds
    assert check_map_equivariance(lambda xs: [bool(x) if x < 2 else x for x in xs], max_examples=20).holds


@pytest.mark.parametrize("law", CHECKS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("alien", [float("nan"), None, "a", [1], np.zeros(2), 99])
def test_aliens_of_every_kind(law, alien):
    report = law(lambda xs: [*xs, alien] if xs else [])
    assert (report.broken, report.counterexample.xs) == ("alien value", (0,))
    assert str(report)
    assert json.dumps(report.to_dict(), allow_nan=False)
    if not isinstance(alien, np.ndarray):
        with pytest.raises(AssertionError):
            exec(report.snippet, {"f": lambda xs: [*xs, alien] if xs else []})


def test_an_alien_without_the_key():
    rows = [{"id": 0}, {"id": 1}]
    for law in CHECKS[:3]:
        report = law(Oracle(lambda xs: [{"name": 0}], key=itemgetter("id")), elements=rows)
        assert (report.broken, report.counterexample.xs) == ("alien value", ())


@pytest.mark.parametrize("law", CHECKS, ids=lambda law: law.__name__)
def test_a_random_function_is_told_from_a_wrong_one(law):
    rng = random.Random(1)

    def shuffled(xs):
        rng.shuffle(xs)
        return xs

    report = law(shuffled)
    assert report.broken == "not deterministic"
    assert report.counterexample.want != report.counterexample.got
    assert "f(xs), again" in str(report)
    with pytest.raises(AssertionError):
        exec(report.snippet, {"f": shuffled})


def test_a_function_that_fails_now_and_then_is_told_from_a_wrong_one(engine):
    numbers = iter(range(10**6))

    def every_hundredth_is_wrong(xs):
        if next(numbers) % 100 == 99:
            raise ConnectionError("reset")
        return sorted(xs)

    report = check_filter_equivariance(every_hundredth_is_wrong)
    assert report.broken == "not deterministic"
    assert report.counterexample.problem == "raised ConnectionError: reset"


def test_a_random_function_of_which_the_law_sees_nothing():
    numbers = iter(range(10**6))
    report = check_filter_equivariance(lambda xs: [] if next(numbers) < 100 else xs, exhaustive=(1, 3), max_examples=0)
    assert report.holds
    report = check_filter_equivariance(
        lambda xs: [] if next(numbers) % 2 else xs, elements=[0], exhaustive=(1, 3), max_examples=0
    )
    assert report.broken == "not deterministic"


def test_a_function_that_never_returns(engine):
    stop, stuck = threading.Event(), []

    def f(xs):
        if len(xs) > 2:
            stuck.append(xs)
            stop.wait()
        return xs

    report = check_filter_equivariance(Oracle(f, timeout_s=0.2))
    assert report.broken == "bad answer"
    assert report.counterexample.xs == (0, 0, 0)
    assert report.counterexample.problem == "did not return within 0.2 s"
    assert len(stuck) == 1, "each such call leaves a thread behind"
    # Among random lists too the first one ends the search.
    report = check_filter_equivariance(Oracle(f, timeout_s=0.2), exhaustive=(2, 2), max_length=9)
    assert report.counterexample.problem == "did not return within 0.2 s"
    assert len(stuck) == 2
    stop.set()


def batched_tail(lists):
    return [xs[1:] for xs in lists]


async def async_tail(xs):
    return xs[1:]


def test_many_lists_at_once():
    calls = []

    def sort_all(lists):
        calls.append(len(lists))
        return [sorted(xs) for xs in lists]

    report = check_filter_equivariance(Oracle(sort_all, batched=True), max_examples=0)
    assert report.holds
    assert report.n_checked == 364
    assert calls == [1, 3, 9, 27, 81, 243, *[1] * check_search.REPEATS]
    report = check_filter_equivariance(Oracle(batched_tail, batched=True))
    assert report.counterexample.xs == (0, 1)
    assert report.snippet.startswith("from tests.lists.check.test_check import batched_tail as batched\n")
    with pytest.raises(AssertionError):
        exec(report.snippet, {})


def test_a_batch_that_fails_as_a_batch_only():
    def one_at_a_time(lists):
        return lists[:1]

    report = check_filter_equivariance(Oracle(one_at_a_time, batched=True))
    assert report.broken in ("bad answer", "not deterministic")
    assert "answers to a batch of" in report.counterexample.problem


def test_coroutines():
    report = check_filter_equivariance(async_tail)
    assert report.counterexample.xs == (0, 1)
    with pytest.raises(AssertionError):
        exec(report.snippet, {})


def test_functions_that_cannot_be_imported_are_left_to_the_reader():
    assert check_filter_equivariance(lambda xs: xs[1:]).snippet.startswith("# f: your function, list -> list\n")

    def inner(xs):
        return xs[1:]

    assert check_filter_equivariance(inner).snippet.startswith("# f: your function")


def test_inside_another_property_test():
    @given(st.integers(0, 3))
    @settings(max_examples=3, database=None, deadline=None)
    def inner(limit):
        report = check_filter_equivariance(lambda xs: xs[:limit], max_examples=20, exhaustive=(2, 2))
        assert not report.holds or limit == 0
        with pytest.raises(ArgumentError, match=r"^elements: expected a collection of values, inside of a Hypothesis"):
            check_filter_equivariance(sorted, elements=st.integers())

    inner()


def test_an_assertion_for_tests():
    assert_filter_equivariant(sorted, max_examples=20)
    with pytest.raises(AssertionError) as caught:
        assert_filter_equivariant(rotate_left, max_examples=20)
    assert str(caught.value) == str(check_filter_equivariance(rotate_left, max_examples=20))


def test_the_random_state_of_the_program_is_kept(engine):
    state = random.getstate()
    check_filter_equivariance(sorted, max_examples=20)
    assert random.getstate() == state


test_sort = filter_equivariance_test(sorted)
test_reverse_of_text = filter_equivariance_test(lambda xs: xs[::-1], elements=st.text(max_size=2))


@filter_equivariance_test
def test_nub(xs):
    return list(dict.fromkeys(xs))


@filter_equivariance_test(elements="abc", max_length=30, settings=settings(max_examples=20))
def test_evens(xs):
    return [x for x in xs if x != "b"]


def test_a_test_has_the_name_and_the_module_of_its_function():
    assert (test_nub.__name__, test_sort.__name__) == ("test_nub", "test_sorted")
    assert test_nub.__module__ == __name__


def test_a_test_fails_with_a_small_list_in_words():
    with pytest.raises(AssertionError) as caught:
        filter_equivariance_test(rotate_left, settings=settings(database=None, derandomize=True))()
    assert "filter equivariance: broken (deletion)" in str(caught.value)
    assert "xs               [0, 1, 2]" in str(caught.value)
    assert any("test_rotate_left(\n    xs=[0, 1, 2]" in note for note in caught.value.__notes__)


def test_without_hypothesis_there_is_no_test_but_a_check(monkeypatch):
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    monkeypatch.setattr(check_search, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'holdfast\[test\]'"):
        filter_equivariance_test(sorted)
    assert check_filter_equivariance(sorted, max_examples=20).holds
    assert not check_filter_equivariance(rotate_left, max_examples=20).holds


USERS_TESTS = """
from hypothesis import reproduce_failure, settings, strategies as st
from holdfast.lists import filter_equivariance_test

SHOWN = open("shown.txt", "a")

def noted(name, f):
    def g(xs):
        print(name, xs, file=SHOWN, flush=True)
        return f(xs)
    g.__name__ = g.__qualname__ = name
    return g

blob = settings(print_blob=True, deadline=None)
test_tail = filter_equivariance_test(noted("tail", lambda xs: xs[1:] if len(xs) > 9 else xs), settings=blob)
test_rotate = filter_equivariance_test(noted("rotate", lambda xs: xs[1:] + xs[:1] if xs[8:] else xs), settings=blob)
test_reverse = filter_equivariance_test(noted("reverse", lambda xs: xs[::-1]))
"""


@pytest.mark.slow
def test_in_a_users_own_pytest(tmp_path):
    """What failed is shrunk, replayed first on the next run, each function's own, and pinned by its blob."""

    def run(path):
        (tmp_path / "shown.txt").unlink(missing_ok=True)
        environment = {**os.environ, "PYTHONPATH": str(Path(holdfast.__file__).parent.parent)}
        environment.pop("CI", None)
        for name in [name for name in environment if name.startswith(("PYTEST_", "GITHUB_"))]:
            del environment[name]
        answer = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", path],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=250,
        )
        shown = {}
        for line in (tmp_path / "shown.txt").read_text().splitlines():
            name, xs = line.split(" ", 1)
            shown.setdefault(name, json.loads(xs))
        return answer.stdout, shown

    (tmp_path / "test_mine.py").write_text(USERS_TESTS)
    output, first = run("test_mine.py")
    assert "2 failed, 1 passed" in output, output
    assert "filter equivariance: broken (multiplicity)" in output
    assert "filter equivariance: broken (deletion)" in output
    assert first == {"tail": [], "rotate": [], "reverse": []}

    blobs = [line[line.index("reproduce_failure(") :] for line in output.splitlines() if "@reproduce_failure(" in line]
    blob = next(blob[: blob.rindex(")") + 1] for blob in blobs)
    [line] = [line for line in USERS_TESTS.splitlines() if line.startswith("test_tail")]
    pinned = line.replace("test_tail = ", f"test_pinned = {blob}(").replace('"tail"', '"pinned"') + ")"
    (tmp_path / "test_mine.py").write_text(f"{USERS_TESTS}\n{pinned}\n")
    output, again = run("test_mine.py")
    assert "3 failed, 1 passed" in output, output
    assert len(again["tail"]) == len(again["pinned"]) == 10, "the list that failed comes first"
    assert len(again["rotate"]) == 9
    assert again["reverse"] == []


def test_hypothesis_is_not_loaded_before_it_is_needed():
    script = "import sys, holdfast.lists.check; print('hypothesis' in sys.modules, 'torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert answer.stdout.split() == ["False", "False"], answer.stderr
    assert hypothesis is not None


def test_a_judge_that_favours_what_comes_first_breaks_order_invariance():
    assert check_order_invariance(sorted, max_examples=20).holds
    report = check_order_invariance(lambda xs: list(xs) if len(xs) == 2 and abs(xs[0] - xs[1]) == 1 else sorted(xs))
    assert (report.broken, report.counterexample.xs, report.counterexample.shown) == ("presentation", (0, 1), (1, 0))
    with pytest.raises(AssertionError):
        exec(report.snippet, {"f": lambda xs: list(xs)})
    exec(report.snippet, {"f": sorted})
    long = check_order_invariance(lambda xs: xs if len(xs) > 8 else sorted(xs), max_examples=200)
    assert not long.holds
    assert len(long.counterexample.xs) == 9


def test_a_classification_keeps_what_was_checked():
    spent = Oracle(sorted, max_queries=1000)
    found = classify(spent, max_examples=20)
    whole = classify(sorted, max_examples=20)
    assert 0 < len(found.reports) < 6
    assert all(found.reports[name].holds == whole.reports[name].holds for name in found.reports)
    assert set(found.unfinished) == set(whole.reports) - set(found.reports)
    assert all(isinstance(error, OutOfBudget) for error in found.unfinished.values())
    assert "not checked: max_queries: 1000 are allowed" in str(found)
    assert found.to_dict()["unfinished"]
    with pytest.raises(OutOfBudget):
        classify(Oracle(sorted, max_queries=9), max_examples=20)


def test_elements_without_an_order_leave_the_other_laws_checked():
    found = classify(lambda xs: xs[::-1], elements=[1j, 2j, 3j], max_examples=10)
    assert set(found.unfinished) == {"order"}
    assert isinstance(found.unfinished["order"], ArgumentError)
    assert found.names == ("filter", "map", "injective", "positional")
    assert found.natural
