"""The best k by windows of a few: exact for consistent functions, and few questions."""

from __future__ import annotations

import asyncio
import random

import pytest

from holdfast.errors import ArgumentError
from holdfast.lists import AlienValue, BadAnswer, NotExtendable, Oracle, OutOfBudget, Votes, topk
from holdfast.lists.extend.selection import Selection


def by_tens(xs):
    return sorted(xs, key=lambda x: x // 10)


def by_tens_turned(xs):
    return sorted(xs, key=lambda x: x // 10, reverse=True)[::-1]


def evens_first(xs):
    return sorted(xs, key=lambda x: x % 2)


FUNCTIONS = [sorted, by_tens, by_tens_turned, evens_first, list, lambda xs: xs[::-1]]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("capacity", [2, 3, 7, 20])
def test_first_k_of_what_the_function_gives_for_the_whole_list(function, capacity: int) -> None:
    rng = random.Random(capacity)
    for n in (0, 1, 2, 3, 19, 20, 21, 61):
        for k in (1, 2, 7, 23, n, n + 5):
            if k < 1:
                continue
            xs = rng.sample(range(200), n)
            top = topk(Oracle(function, capacity=capacity, progress=False), xs, k, capacity)
            assert top.output == function(xs)[:k]
            assert [xs[place] for place in top.places] == top.output
            assert top.consistent


@pytest.mark.parametrize("seed", range(100, 110))
def test_ten_of_a_thousand_in_windows_of_twenty(seed: int) -> None:
    xs = random.Random(seed).sample(range(10**6), 1000)
    oracle = Oracle(sorted, progress=False)
    top = topk(oracle, xs, 10, 20)
    assert top.output == sorted(xs)[:10]
    assert 53 <= top.queries == oracle.queries <= 60
    assert top.longest == oracle.longest == 20


@pytest.mark.parametrize("capacity", [2, 5])
def test_equal_elements_stand_together_and_take_a_place_each(capacity: int) -> None:
    rng = random.Random(0)
    for k in (1, 4, 9, 30):
        xs = [rng.randrange(12) for _ in range(30)]
        top = topk(sorted, xs, k, capacity)
        assert top.output == sorted(xs)[:k]
        assert len(set(top.places)) == k


@pytest.mark.parametrize("function", [by_tens, by_tens_turned])
@pytest.mark.parametrize("k", [1, 5, 10, 13, 20, 60])
def test_tiers_are_the_ties(function, k: int) -> None:
    xs = random.Random(k).sample(range(60), 60)
    top = topk(function, xs, k, 7, tiers=True)
    want = function(xs)[:k]
    tiers = [[x for x in want if x // 10 == ten] for ten in range(6)]
    assert [list(tier) for tier in top.tiers] == [tier for tier in tiers if tier]
    assert bool(top.tied_out) == (k % 10 != 0)
    assert {x // 10 for x in top.tied_out} <= {want[-1] // 10}
    assert not set(top.tied_out) & set(want)


def test_without_ties_each_tier_is_one_element() -> None:
    xs = random.Random(3).sample(range(100), 50)
    top = topk(sorted, xs, 6, 5, tiers=True)
    assert top.tiers == tuple((x,) for x in sorted(xs)[:6])
    assert top.tied_out == ()


def test_texts_and_tuples_come_back_as_such() -> None:
    assert topk(sorted, "holdfast", 3, 3).output == "adf"
    assert topk(sorted, (3, 1, 2), 2, 2).output == (1, 2)


def test_batched_and_coroutine_functions_are_asked_in_rounds() -> None:
    xs = random.Random(5).sample(range(10**4), 200)

    async def judge(window):
        await asyncio.sleep(0)
        return sorted(window)

    batched = Oracle(lambda lists: [sorted(window) for window in lists], batched=True, progress=False)
    top = topk(batched, xs, 5, 10)
    assert top.output == topk(Oracle(judge, progress=False), xs, 5, 10).output == sorted(xs)[:5]
    assert batched.calls == top.calls < top.queries


def test_a_second_run_goes_on_from_the_cache_of_the_first() -> None:
    xs = random.Random(6).sample(range(10**4), 300)
    kept: dict = {}
    with pytest.raises(OutOfBudget, match="a larger capacity needs fewer"):
        topk(Oracle(sorted, cache=kept, max_queries=32, progress=False), xs, 5, 10)
    again = Oracle(sorted, cache=kept, progress=False)
    top = topk(again, xs, 5, 10)
    assert top.output == sorted(xs)[:5]
    assert again.queries + len(kept) > again.queries == top.queries - 30


def test_a_circle_is_an_error_or_is_counted() -> None:
    def judge(xs):  # the first shown of the smallest three, wrongly, in windows of more than two
        return sorted(xs) if len(xs) < 4 else sorted(xs)[1::-1] + sorted(xs)[2:]

    rng = random.Random(7)
    lists = [rng.sample(range(100), 40) for _ in range(10)]
    with pytest.raises(NotExtendable, match="as earlier answers do"):
        [topk(judge, xs, 10, 4) for xs in lists]
    tops = [topk(judge, xs, 10, 4, on_inconsistent="repair") for xs in lists]
    assert any(top.contradictions and not top.consistent for top in tops)
    assert all(len(set(top.output)) == 10 for top in tops)


def test_fewer_errors_with_more_votes() -> None:
    def missed(seed: int, votes: int) -> int:
        noise = random.Random(seed)
        xs = random.Random(seed).sample(range(100), 100)
        top = topk(
            lambda window: sorted(window, key=lambda x: x + noise.gauss(0, 6)),
            xs,
            10,
            10,
            votes=votes,
            on_inconsistent="repair",
        )
        assert votes == 1 or 0.5 < top.confidence < 1
        return len(set(range(10)) - set(top.output))

    few, many = (sum(missed(seed, votes) for seed in range(100, 120)) for votes in (1, 9))
    assert many < few


def test_a_bias_for_what_comes_first_does_less_harm_in_more_votes() -> None:
    def judge(window):
        return sorted(window, key=lambda x: x + 3 * window.index(x))

    def missed(votes: int) -> int:
        lists = [random.Random(seed).sample(range(60), 60) for seed in range(100, 110)]
        tops = [topk(judge, xs, 5, 8, votes=votes, on_inconsistent="repair") for xs in lists]
        return sum(len(set(range(5)) - set(top.output)) for top in tops)

    assert missed(8) < missed(1)


def test_a_judge_with_more_weight_than_the_others_together_decides() -> None:
    xs = random.Random(8).sample(range(100), 30)
    backwards = [lambda window: sorted(window, reverse=True)] * 2
    assert topk([sorted, *backwards], xs, 3, 5, weights=[3, 1, 1]).output == sorted(xs)[:3]
    assert topk([sorted, *backwards], xs, 3, 5).output == sorted(xs, reverse=True)[:3]


def test_the_weight_of_an_answer_is_as_many_answers() -> None:
    weighed, repeated = Votes(3), Votes(3)
    for answer, weight in (([2, 1, 0], 3), ([0, 1, 2], 2), ([1, 0, 2], 1)):
        weighed.add([0, 1, 2], answer, weight=weight)
        for _ in range(weight):
            repeated.add([0, 1, 2], answer)
    one, other = weighed.glue(), repeated.glue()
    assert (one.labels.tolist(), one.cost, one.confidence) == (other.labels.tolist(), other.cost, other.confidence)
    with pytest.raises(ArgumentError, match="weight: expected a whole number of at least 1"):
        weighed.add([0, 1], [0, 1], weight=0)


def test_what_is_no_order_is_an_error_unless_another_vote_is_left() -> None:
    def drops(xs):
        return xs[1:]

    with pytest.raises(BadAnswer, match="leaves out"):
        topk(drops, [3, 1, 2], 1, 3)
    with pytest.raises(BadAnswer, match="repeats"):
        topk(lambda xs: xs * 2, [3, 1, 2], 1, 3)
    with pytest.raises(AlienValue):
        topk(lambda xs: [0, *xs], [3, 1, 2], 1, 3)
    with pytest.raises(BadAnswer, match="leaves out"):
        topk(drops, [3, 1, 2], 1, 3, on_inconsistent="repair")
    top = topk([drops, sorted], [3, 1, 2], 2, 3, on_inconsistent="repair")
    assert (top.output, top.discarded) == ([1, 2], 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k: expected a whole number of at least 1"),
        ({"capacity": 1}, "capacity: expected a whole number of at least 2"),
        ({"votes": 0}, "votes: expected"),
        ({"votes": 2, "tiers": True}, "votes: expected 1 with tiers"),
        ({"weights": [1, 2]}, "weights: expected 1, one for each function"),
        ({"weights": [0]}, "weights: expected a whole number of at least 1"),
        ({"on_inconsistent": "return"}, "on_inconsistent: expected one of raise, repair"),
        ({"f": []}, "f: expected"),
        ({"f": Oracle(sorted, capacity=2), "capacity": 3}, "capacity: expected at most 2"),
    ],
)
def test_arguments_that_cannot_be_used(options, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        topk(**{"f": sorted, "xs": [2, 1], "k": 1, "capacity": 2, **options})


@pytest.mark.parametrize("seed", range(100, 105))
def test_a_selection_never_repeats_a_window_and_keeps_no_circle(seed: int) -> None:
    """Answers at random: the known order stays one, so that every selection ends."""
    rng = random.Random(seed)
    selection = Selection([1] * 50, 12, 6)
    rounds = 0
    while not selection.done:
        for window in selection.windows():
            selection.learn(rng.sample(window, len(window)))
        rounds += 1
        assert rounds <= 200
    assert len(set(selection.best)) == 12
