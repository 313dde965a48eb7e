"""Votes in both orders of presentation: a judge's bias cancels, and functions that look at places stay exact."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from holdfast.errors import ArgumentError
from holdfast.lists import FUNCTIONS, Votes, extrapolate
from holdfast.lists.extend.presentation import balance
from holdfast.lists.functions import evens_then_odds, identity, reverse, sort
from holdfast.lists.oracle import Oracle

EQUIVARIANT = [named for named in FUNCTIONS if named.filter_equivariant]


def inversions(order: list[int]) -> int:
    return sum(x > y for x, y in itertools.combinations(order, 2))


def favours_the_first(chance: float, seed: int):
    """Sorts, but leaves two neighbours as it was shown them with some chance."""
    draw = random.Random(seed)

    def judge(xs: list[int]) -> list[int]:
        out = list(xs)
        for end in range(len(out) - 1, 0, -1):
            for place in range(end):
                if out[place] > out[place + 1] and draw.random() >= chance:
                    out[place : place + 2] = out[place + 1], out[place]
        return out

    return judge


def cannot_tell_neighbours(xs: list[int]) -> list[int]:
    """Sorts, but leaves numbers that differ by one as it was shown them."""
    out = list(xs)
    for end in range(len(out) - 1, 0, -1):
        for place in range(end):
            if out[place] - out[place + 1] > 1:
                out[place : place + 2] = out[place + 1], out[place]
    return out


def voted(f, xs: list[int], votes: int, capacity: int = 2, **options):
    return extrapolate(f, capacity, mode="distinct", votes=votes, on_inconsistent="repair", **options).explain(xs)


@pytest.mark.parametrize("chance", [0.3, 0.5])
@pytest.mark.parametrize("votes", [9, 10])
def test_a_judge_that_favours_the_first_comes_out_unbiased(chance: float, votes: int) -> None:
    backwards = list(range(20))[::-1]
    for seed in range(2):
        both = voted(favours_the_first(chance, seed), backwards, votes)
        assert inversions(both.output) <= 6
        assert both.confidence < 0.9
        assert both.weakest <= 0.8
        given = voted(favours_the_first(chance, seed), backwards, votes, presentation="given")
        assert inversions(both.output) <= inversions(given.output)


def test_what_only_bias_decides_has_no_confidence() -> None:
    for votes in (2, 3, 4, 9):
        made = voted(cannot_tell_neighbours, list(range(20))[::-1], votes)
        assert made.output == list(range(20)), "the other votes decide, and not the order of the list"
        assert made.weakest == 0.5
    always = voted(identity, [3, 1, 2, 0], 4, presentation="both")
    assert (always.confidence, always.weakest, always.turning) == (0.5, 0.5, 1.0)


@pytest.mark.parametrize("named", EQUIVARIANT, ids=lambda named: named.name)
def test_functions_that_do_not_err_come_out_exact(named) -> None:
    chance = random.Random(1)
    for _ in range(8):
        xs = chance.sample(range(16), chance.randint(2, 14))
        capacity, votes = chance.choice((2, 3, 8)), chance.choice((2, 3, 4))
        assert voted(named.function, xs, votes, capacity).output == named.function(list(xs)), (xs, capacity, votes)


def test_places_are_looked_at_and_errors_are_mended_all_the_same() -> None:
    for function in (reverse, evens_then_odds, sort):
        draw = random.Random(5)

        def errs(xs, function=function, draw=draw):
            out = function(list(xs))
            return out[::-1] if len(out) == 2 and draw.random() < 0.05 else out

        xs = random.Random(2).sample(range(100), 16)
        assert voted(errs, xs, 11).output == function(list(xs))


def test_votes_ask_again_and_all_of_it_is_counted() -> None:
    calls = []
    oracle = Oracle(lambda xs: calls.append(tuple(xs)) or sorted(xs))
    made = extrapolate(oracle, 2, mode="distinct", votes=6).explain(list(range(12)))
    assert made.output == list(range(12))
    assert len(calls) == made.queries == oracle.queries == 6 * 66
    assert {(x, y) for x, y in calls if x < y} == set(itertools.combinations(range(12), 2))
    assert sum(x > y for x, y in calls) == 3 * 66, "every second time the other way round"


def test_a_batch_of_votes_is_asked_list_by_list() -> None:
    numbers = itertools.count()
    made = extrapolate(
        Oracle(lambda lists: [sorted(xs, reverse=next(numbers) % 5 == 0) for xs in lists], batched=True),
        2,
        mode="distinct",
        votes=5,
        on_inconsistent="repair",
    ).explain([1, 2])
    assert (made.output, made.cost) == ([1, 2], 1)


def test_a_block_merge_shows_its_lists_in_both_orders_where_that_is_wanted() -> None:
    xs = list(range(40))[::-1]
    options = {"mode": "distinct", "engine": "blocks", "on_inconsistent": "repair"}
    given = extrapolate(cannot_tell_neighbours, 8, **options).explain(xs)
    both = extrapolate(cannot_tell_neighbours, 8, presentation="both", **options).explain(xs)
    assert inversions(both.output) < inversions(given.output)
    assert both.weakest == 0.5 < given.weakest
    assert both.queries <= 2 * given.queries


def test_a_presentation_without_votes_is_refused() -> None:
    with pytest.raises(ArgumentError, match="presentation: expected auto where answers are not voted on"):
        extrapolate(sorted, 8, presentation="both")
    with pytest.raises(ArgumentError, match="presentation: expected one of auto, given, both"):
        extrapolate(sorted, 8, votes=2, presentation="reversed")


def test_votes_for_lists_turned_round() -> None:
    votes = Votes(3)
    for pair in ([0, 1], [1, 2], [0, 2]):
        votes.add(pair, pair)
        votes.add(pair[::-1], pair[::-1], turned=True)
    by_place = votes.glue()
    assert (by_place.labels.tolist(), by_place.by_place, by_place.confidence) == ([0, 1, 2], True, 1.0)
    by_value = votes.glue(by_place=False)
    assert (by_value.by_place, by_value.confidence, by_value.turning) == (False, 0.5, 1.0)


def test_both_orders_weigh_the_same() -> None:
    given, turned = np.array([[0, 3], [0, 0]]), np.array([[0, 0], [1, 0]])
    made = balance(given, turned, by_place=False)
    assert made.support.tolist() == [[0, 3], [1, 0]]
    assert made.weighed[0, 1] == made.weighed[1, 0]
    nothing = balance(given, np.zeros_like(given))
    assert nothing.weighed.tolist() == given.tolist()
