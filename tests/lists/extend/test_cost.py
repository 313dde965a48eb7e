"""What an extension costs: a duplicate little, and an expensive plan is said before it starts."""

from __future__ import annotations

import random
import warnings

import numpy as np
import pytest

from holdfast.errors import ArgumentError
from holdfast.lists import FUNCTIONS, ExpensivePlan, extrapolate
from holdfast.lists.extend.positional import OrderedAnswers, glue_occurrences, short_answers, short_queries

# What keeps nothing of a list without duplicates costs next to nothing there.
DEARER_THAN_NOTHING = ("const []", "x copied x times", "drop first occurrences", "keep values that occur twice")

EQUIVARIANT = [named for named in FUNCTIONS if named.filter_equivariant and named.name not in DEARER_THAN_NOTHING]


@pytest.mark.parametrize("named", EQUIVARIANT, ids=lambda named: named.name)
def test_a_duplicate_costs_little(named) -> None:
    xs = random.Random(0).sample(range(1000), 100)
    extended = extrapolate(named.function, 20)
    distinct = extended.explain(xs).queries
    for more in (xs[3:4], xs[:20]):
        made = extended.explain([*xs, *more])
        assert made.output == named.function([*xs, *more])
        assert made.queries <= 3 * distinct + 3
        assert made.longest <= 20


def test_a_duplicate_costs_votes_little() -> None:
    xs = random.Random(0).sample(range(1000), 60)
    extended = extrapolate(sorted, 8, mode="group", votes=2)
    assert extended.explain([*xs, xs[0]]).queries <= 2 * extended.explain(xs).queries


def test_both_orders_of_the_values_tell_all_pairs() -> None:
    rng = np.random.default_rng(0)
    for named in EQUIVARIANT:
        if named.positional:
            values = rng.permutation(9)
            answers = [np.array(named.function(order.tolist()), dtype=np.int64) for order in (values, values[::-1])]
            labels = np.concatenate([values, rng.integers(0, 9, 30)])
            assert len(short_queries(labels, 9)) <= 72
            queries = np.argwhere(~np.eye(9, dtype=bool))
            short = short_answers(queries, [np.array(named.function(pair.tolist()), int) for pair in queries], 9)
            whole = OrderedAnswers(values, *answers)
            assert whole.copies.tolist() == short.copies.tolist()
            for x in range(9):
                for rows, table in zip(whole.rows(x), short.rows(x), strict=True):
                    assert rows.tolist() == table[:, : whole.copies[x]].tolist()
            want = named.function(labels.tolist())
            assert glue_occurrences(labels, whole).tolist() == glue_occurrences(labels, short).tolist() == want


def test_an_expensive_plan_is_said_before_anything_is_asked() -> None:
    shown = []

    def spied(xs):
        shown.append(xs)
        return sorted(xs)

    xs = list(range(60))
    for engine in ("pairs", "merge", "cover"):
        said = rf"engine='{engine}' is about to ask for about .* engine='blocks' needs"
        with pytest.warns(ExpensivePlan, match=said):
            extrapolate(sorted, 4 if engine == "cover" else 16, mode="distinct", engine=engine)(xs)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ExpensivePlan)
        with pytest.raises(ExpensivePlan, match=r"engine='cover' .* engine='blocks'"):
            extrapolate(spied, 4, mode="distinct", on_inconsistent="repair")(xs)
    assert shown == []


def test_the_plans_that_engine_auto_makes_are_cheap(recwarn) -> None:
    for length, capacity in ((9, 3), (30, 2), (200, 8), (200, 100)):
        xs = random.Random(length).sample(range(1000), length)
        for more in ([], xs[:2]):
            assert extrapolate(sorted, capacity, calibrate=0, mode="group")([*xs, *more] if capacity > 3 else xs)
    assert not recwarn.list


def test_copies_that_no_question_can_hold_are_found_before_one() -> None:
    def fails(xs):
        raise AssertionError

    with pytest.raises(ArgumentError, match="capacity: expected at least 9, since mode group shows"):
        extrapolate(fails, 8, mode="group", calibrate=0)([*range(30), 0, 0, 0, 0, 1, 1, 1])
