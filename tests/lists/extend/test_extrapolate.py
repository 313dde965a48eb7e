"""An extension equals its function on every list, in every mode and engine that is right for it, or it is refused."""

from __future__ import annotations

import asyncio
import io
import random
import sys
from collections import Counter
from functools import cmp_to_key
from itertools import cycle

import numpy as np
import pytest

from holdfast import bar
from holdfast.errors import ArgumentError
from holdfast.lists.errors import (
    AlienValue,
    BadAnswer,
    Cycle,
    ListFunctionError,
    NotExtendable,
    OutOfBudget,
    Undetermined,
    WrongMultiplicity,
)
from holdfast.lists.extend import extrapolate
from holdfast.lists.functions import FUNCTIONS, double, nub, reverse
from holdfast.lists.oracle import Oracle
from holdfast.lists.synthesize import synthesize

pytestmark = pytest.mark.filterwarnings("ignore::holdfast.lists.ExpensivePlan")

EQUIVARIANT = [named for named in FUNCTIONS if named.filter_equivariant]
POSITIONAL = [named for named in EQUIVARIANT if named.positional]
ONLY_GROUP = [named for named in EQUIVARIANT if not named.positional]
OTHERS = [named for named in FUNCTIONS if not named.filter_equivariant]
NAMED = {named.name: named.function for named in FUNCTIONS}


def spied(function, capacity: int):
    """The function, which fails where it is shown more than its capacity."""

    def shown(xs):
        assert len(xs) <= capacity, len(xs)
        return function(xs)

    return shown


def rock_paper_scissors(xs: list[int]) -> list[int]:
    return sorted(xs, key=cmp_to_key(lambda a, b: 0 if a == b else -1 if (b - a) % 3 == 1 else 1))


def room_for_pairs(xs: list[int]) -> int:
    """The least capacity in mode group."""
    return max(2, sum(sorted(Counter(xs).values())[-2:]))


@pytest.mark.parametrize("engine", ["pairs", "merge", "blocks", "cover"])
def test_exact_without_duplicates(engine: str) -> None:
    chance = random.Random(0)
    for number, named in zip(range(600), cycle(EQUIVARIANT), strict=False):
        long = number in (7, 300)  # more values than a byte with a sign holds
        xs = chance.sample(range(250), chance.randint(130, 150) if long else chance.randint(0, 16))
        capacity = chance.randint(8 if long else 2, 12)
        mode = ("distinct", "group", "positional")[number % 3]
        if mode == "positional" and not named.positional:
            mode = "group"
        found = extrapolate(spied(named.function, capacity), capacity, mode=mode, engine=engine)(xs)
        assert found == named.function(list(xs)), (named.name, xs)


@pytest.mark.parametrize("engine", ["pairs", "merge", "blocks", "cover"])
def test_exact_in_groups(engine: str) -> None:
    chance = random.Random(1)
    for number, named in zip(range(600), cycle(EQUIVARIANT), strict=False):
        xs = chance.choices(range(chance.randint(1, 12)), k=chance.randint(1, 30 if number % 10 else 200))
        capacity = room_for_pairs(xs) + chance.randint(0, 5)
        found = extrapolate(spied(named.function, capacity), capacity, mode="group", engine=engine)(xs)
        assert found == named.function(list(xs)), (named.name, xs)


@pytest.mark.parametrize("engine", ["pairs", "merge", "blocks"])
def test_exact_by_position(engine: str) -> None:
    chance = random.Random(2)
    for number, named in zip(range(600), cycle(POSITIONAL), strict=False):
        xs = chance.choices(range(chance.randint(1, 8)), k=chance.randint(1, 30 if number % 20 else 200))
        found = extrapolate(spied(named.function, 2), 2, mode="positional", engine=engine)(xs)
        assert found == named.function(list(xs)), (named.name, xs)


def test_exact_by_faces() -> None:
    chance = random.Random(3)
    for _, named in zip(range(600), cycle(EQUIVARIANT), strict=False):
        xs = chance.choices(range(5), k=chance.randint(0, 20))
        capacity = room_for_pairs(xs)
        found = extrapolate(spied(named.function, capacity), capacity, mode="group", engine="faces")(xs)
        assert found == named.function(list(xs)), (named.name, xs)


@pytest.mark.parametrize("named", EQUIVARIANT, ids=lambda named: named.name)
def test_auto_is_exact_and_picks_the_mode(named) -> None:
    chance = random.Random(4)
    extended = extrapolate(spied(named.function, 12), 12)
    for _ in range(20):
        xs = chance.choices(range(7), k=chance.randint(5, 40))
        if not named.positional and room_for_pairs(xs) > 12:
            xs = chance.sample(range(100), 30)
        assert extended(xs) == named.function(list(xs))
    assert extended.calibration.mode == ("positional" if named.positional else "group")
    assert extended.oracle.longest <= 12


@pytest.mark.parametrize("named", ONLY_GROUP, ids=lambda named: named.name)
def test_positional_is_wrong_where_copies_are_counted(named) -> None:
    chance = random.Random(5)
    lists = [chance.choices(range(7), k=20) for _ in range(30)]
    forced = extrapolate(named.function, 8, mode="positional").batch(lists, return_exceptions=True)
    assert sum(a != named.function(list(xs)) for a, xs in zip(forced, lists, strict=True)) > 20
    with pytest.raises(ListFunctionError):
        extrapolate(named.function, 8, mode="positional", calibrate=24)(lists[0])


@pytest.mark.parametrize("named", OTHERS, ids=lambda named: named.name)
@pytest.mark.parametrize("capacity", [3, 5, 8, 12])
def test_calibration_refuses_what_is_not_equivariant(named, capacity: int) -> None:
    chance = random.Random(6)
    if capacity == 3 and named.name == "id if len <= 3 else reverse":
        pytest.skip("no list of three elements shows it")
    for xs in ([3, 1, 4, 2, 5, 0, 6, 7, 8, 9, 10, 11, 12, 13], chance.choices(range(5), k=30)):
        with pytest.raises(NotExtendable) as caught:
            extrapolate(named.function, capacity)(xs)
        error = caught.value
        assert named.function(list(error.query)) == error.got
        assert error.want != error.got


@pytest.mark.parametrize(
    ("name", "alias"),
    [
        ("rotate left", [5, 2, 4, 1, 3]),
        ("swap first two", [5, 2, 4, 1, 3]),
        ("swap halves", [5, 2, 4, 1, 3]),
        ("riffle", [3, 1, 4, 2, 5]),
        ("uniq", [3, 1, 4, 2, 5]),
        ("mode", [3, 1, 4, 2, 5]),
        ("id if len <= 3 else reverse", [3, 1, 4, 2, 5]),
        ("smallest to front", [1, 2, 3, 4, 5]),
        ("repeat len times", [3, 1, 4, 2, 5] * 2),
    ],
)
def test_without_calibration_pairs_alias(name: str, alias: list[int]) -> None:
    assert extrapolate(NAMED[name], 4, calibrate=0, engine="pairs")([3, 1, 4, 2, 5]) == alias


@pytest.mark.parametrize(
    ("names", "error"),
    [
        (("tail", "head", "init", "last", "triangle", "max", "even positions"), WrongMultiplicity),
        (("map (+ 1 mod 3)", "cons 0", "intersperse 0"), AlienValue),
        (("reverse if sum odd",), Cycle),
    ],
)
def test_without_calibration_the_laws_still_hold(names: tuple[str, ...], error: type[ListFunctionError]) -> None:
    for name in names:
        with pytest.raises(error):
            extrapolate(NAMED[name], 3, calibrate=0, engine="pairs")([3, 1, 4, 2, 5])


@pytest.mark.parametrize("engine", ["auto", "pairs", "cover", "faces"])
@pytest.mark.parametrize("mode", ["distinct", "group", "positional"])
def test_a_circle_is_shown(engine: str, mode: str) -> None:
    with pytest.raises(Cycle) as caught:
        extrapolate(rock_paper_scissors, 2, mode=mode, engine=engine)([0, 1, 2])
    assert {value for value, _ in caught.value.tokens} == {0, 1, 2}
    for (x, _), (y, _), (query, answer) in zip(
        caught.value.tokens, (*caught.value.tokens[1:], caught.value.tokens[0]), caught.value.answers, strict=True
    ):
        assert rock_paper_scissors(query) == answer == [x, y]
        assert query == sorted(query), "as it stands in the list"


@pytest.mark.parametrize("mode", ["group", "positional"])
def test_a_circle_is_shown_among_duplicates(mode: str) -> None:
    with pytest.raises(Cycle) as caught:
        extrapolate(rock_paper_scissors, 4, mode=mode)([0, 1, 2, 0, 1])
    for (x, a), (y, b), (query, answer) in zip(
        caught.value.tokens, (*caught.value.tokens[1:], caught.value.tokens[0]), caught.value.answers, strict=True
    ):
        assert rock_paper_scissors(query) == answer
        places = [[place for place, value in enumerate(answer) if value == z] for z in (x, y)]
        assert places[0][a] < places[1][b]


def test_answers_to_two_elements_that_fit_no_list_of_two_values() -> None:
    def strange(xs: list[int]) -> list[int]:
        return [1, 0, 1, 0] if xs[0] == 0 else [0, 0, 1, 1]

    for engine in ("pairs", "merge"):
        with pytest.raises(NotExtendable, match="fit") as caught:
            extrapolate(strange, 2, mode="positional", engine=engine)([0, 1, 0, 1])
        assert caught.value.query == [0, 1, 0, 1]
        assert sorted(caught.value.want) == sorted(caught.value.got) == [0, 0, 0, 0, 1, 1, 1, 1]
        assert caught.value.want != caught.value.got


def test_repair_gives_the_closest_list() -> None:
    found = extrapolate(rock_paper_scissors, 2, mode="distinct", on_inconsistent="repair").explain([0, 1, 2])
    assert found.output in ([0, 1, 2], [1, 2, 0], [2, 0, 1])
    assert (found.consistent, found.cost, found.engine, len(found.disputed)) == (False, 1, "votes", 1)
    with pytest.raises(NotExtendable, match="majorities"):
        extrapolate(rock_paper_scissors, 2, mode="distinct", votes=2)([0, 1, 2])


def erring(function, rate: float, seed: int):
    """The function with answers in which neighbours are swapped, a value is made up, or that are none."""
    chance = random.Random(seed)

    def erred(xs: list[int]) -> list[int]:
        ys = function(xs)
        fault = chance.random()
        if fault < rate and len(ys) > 1:
            place = chance.randrange(len(ys) - 1)
            ys[place], ys[place + 1] = ys[place + 1], ys[place]
        elif fault < 1.2 * rate:
            ys.append(-1)
        elif fault < 1.4 * rate:
            raise RuntimeError("tired")
        return ys

    return erred


@pytest.mark.parametrize("function", [sorted, reverse, double], ids=["sort", "reverse", "id + id"])
def test_votes_outdo_a_function_that_errs(function) -> None:
    chance = random.Random(7)
    right = discarded = 0
    for seed in range(5):
        xs = chance.sample(range(1000), 24)
        extended = extrapolate(spied(erring(function, 0.06, seed), 8), 8, votes=7, on_inconsistent="repair", seed=seed)
        found = extended.explain(xs)
        right += found.output == function(list(xs))
        discarded += found.discarded
        assert found.confidence < 1
        assert found.disputed
    assert right >= 4
    assert discarded


def test_votes_in_groups_and_where_the_list_is_short() -> None:
    xs = [0, 1, 2, 3, 0, 1, 2, 3, 4, 5]
    found = extrapolate(spied(nub, 6), 6, votes=3).explain(xs)
    assert (found.output, found.consistent, found.mode, found.cost) == (nub(xs), True, "group", 0)
    found = extrapolate(spied(sorted, 8), 8, votes=3, calibrate=0).explain([3, 1, 2, 5, 4])
    assert found.output == [1, 2, 3, 4, 5]
    assert found.longest < 5, "several contexts, none of them the whole list"
    with pytest.raises(ArgumentError, match="mode: expected group, where votes"):
        extrapolate(sorted, 8, mode="positional", votes=3)([1, 1, 2])
    assert extrapolate(sorted, 8, votes=3)([]) == []


def test_return_has_no_output_where_there_is_none() -> None:
    def mute(xs: list[int]) -> list[int]:
        if {1, 2} <= set(xs):
            raise ValueError
        return xs

    options = {"mode": "distinct", "calibrate": 0}
    found = extrapolate(mute, 2, on_inconsistent="return", **options).explain([1, 2])
    assert found.output is None
    assert isinstance(found.error, Undetermined)
    with pytest.raises(Undetermined) as caught:
        extrapolate(mute, 2, on_inconsistent="repair", **options)([1, 2])
    assert caught.value.missing


def test_a_named_mode_is_tried_if_asked_for() -> None:
    xs = [3, 1, 4, 2, 5, 0]
    with pytest.raises(NotExtendable) as caught:
        extrapolate(NAMED["rotate left"], 4, mode="distinct", calibrate=24)(xs)
    assert len(set(caught.value.query)) == len(caught.value.query)
    found = extrapolate(NAMED["uniq"], 4, mode="distinct", calibrate=True).explain(xs)
    assert found.output == xs, "without duplicates it is the identity"
    assert (found.calibration.mode, found.calibration.group, found.calibration.positional) == ("distinct", 1.0, None)
    with pytest.raises(NotExtendable):
        extrapolate(NAMED["uniq"], 4, mode="group", calibrate=24)([1, 2, 1, 3, 2, 3])


def test_random_answers_are_noticed() -> None:
    chance = random.Random(8)
    with pytest.raises(NotExtendable, match="one list has one answer"):
        extrapolate(lambda xs: chance.sample(xs, len(xs)), 8)(list(range(30)))


@pytest.mark.parametrize(("capacity", "bound"), [(8, 1100), (32, 352)])
def test_few_queries_with_calibration_and_all(capacity: int, bound: int) -> None:
    xs = np.random.default_rng(0).permutation(1024).tolist()
    extended = extrapolate(spied(reverse, capacity), capacity)
    assert extended(xs) == xs[::-1]
    assert extended.oracle.queries <= bound
    extended = extrapolate(spied(sorted, capacity), capacity)
    assert extended(xs) == sorted(xs)
    assert extended.oracle.queries <= {8: 1900, 32: 352}[capacity]


def test_positional_queries_do_not_grow_with_length() -> None:
    xs = np.random.default_rng(0).integers(0, 10, 20_000).tolist()
    extended = extrapolate(spied(sorted, 2), 2, mode="positional")
    assert extended(xs) == sorted(xs)
    assert extended.oracle.queries == 90
    assert extended(xs + xs) == sorted(xs + xs)
    assert extended.oracle.queries == 90
    assert extended.explain(xs).queries == 90


def test_the_lazy_merge_is_a_comparison_sort() -> None:
    xs = np.random.default_rng(0).permutation(256).tolist()
    asked = []
    sorted(xs, key=cmp_to_key(lambda a, b: asked.append(1) or (-1 if sorted([a, b])[0] == a else 1)))
    found = extrapolate(sorted, 2, mode="distinct", engine="merge").explain(xs)
    assert found.queries <= 1.1 * len(asked)


def test_types_are_kept() -> None:
    shown = []

    def text(xs: str) -> str:
        shown.append(type(xs))
        return "".join(sorted(xs))

    assert extrapolate(text, 4)("equivariance") == "".join(sorted("equivariance"))
    assert set(shown) == {str}
    assert extrapolate(reverse, 3)((3, 1, 2, 2, 5)) == (5, 2, 2, 1, 3)
    assert extrapolate(lambda xs: tuple(xs[::-1]), 3)([1, 2, 3, 4]) == [4, 3, 2, 1]
    assert extrapolate(lambda xs: np.array(xs)[::-1], 3)(np.arange(5)) == [4, 3, 2, 1, 0]
    assert extrapolate(reverse, 3)(iter("abcd")) == list("dcba")
    records = [{"id": number} for number in (3, 1, 2, 5, 4)]
    by_id = extrapolate(Oracle(lambda xs: sorted(xs, key=lambda x: x["id"]), key=lambda x: x["id"]), 3)
    assert [record["id"] for record in by_id(records)] == [1, 2, 3, 4, 5]
    lists = [[3], [1], [2], [1], [0], [3]]
    assert extrapolate(sorted, 3)(lists) == sorted(lists), "elements that cannot be hashed"


def test_short_lists_are_asked_for() -> None:
    extended = extrapolate(sorted, 8, mode="distinct")
    assert extended([]) == []
    assert extended([5]) == [5]
    found = extended.explain([2, 1])
    assert (found.output, found.engine, found.queries, found.calibration) == ([1, 2], "direct", 1, None)
    found = extrapolate(sorted, 8).explain([2, 1])
    assert found.calibration.mode == "positional"
    with pytest.raises(NotExtendable, match="the empty list"):
        extrapolate(lambda xs: [0, *xs], 8, mode="distinct")([])
    with pytest.raises(AlienValue):
        extrapolate(lambda xs: [0, *xs], 8, mode="distinct")([1])
    assert extrapolate(double, 3)([7] * 9) == [7] * 18


def test_calibration_is_done_again_where_there_is_more_to_try() -> None:
    extended = extrapolate(reverse, 4)
    extended([1, 1, 1])
    assert extended.calibration.values == 1
    extended([1, 2, 3, 4, 5, 6, 7])
    tried = extended.calibration
    assert (tried.values, tried.lists, tried.longest, tried.positional, tried.stable) == (6, 24, 4, 1.0, 1.0)
    extended(list(range(100)))
    assert extended.calibration is tried
    assert extrapolate(nub, 6).explain([1, 2, 1, 3, 4, 5, 6]).calibration.positional < 1


def test_several_lists_share_their_batches() -> None:
    calls: list[int] = []

    def batched(queries: list[list[int]]) -> list[list[int]]:
        calls.append(len(queries))
        return [sorted(query) for query in queries]

    chance = random.Random(9)
    lists = [chance.sample(range(1000), length) for length in (50, 100, 64, 3, 0)]
    extended = extrapolate(Oracle(batched, batched=True), 8, mode="distinct")
    found = extended.explain_batch(lists)
    assert [each.output for each in found] == [sorted(xs) for xs in lists]
    assert len(calls) == extended.oracle.calls == max(each.calls for each in found)
    assert extended.oracle.queries <= sum(each.queries for each in found)
    assert extended.batch([]) == []


def test_one_list_fails_and_the_others_go_on() -> None:
    def picky(xs: list[int]) -> list[int]:
        if 13 in xs:
            raise ValueError("unlucky")
        return [x for x in xs if x != 7] + [8] * (7 in xs)

    lists = [[3, 1, 2], [13, 1, 2], [7, 2, 4], [2, 2, 1], [float("nan")], 5]
    extended = extrapolate(picky, 2, mode="distinct")
    found = extended.batch(lists, return_exceptions=True)
    assert found[0] == [3, 1, 2]
    assert [type(each) for each in found[1:]] == [BadAnswer, AlienValue, ArgumentError, ArgumentError, ArgumentError]
    with pytest.raises(ArgumentError):
        extended.batch(lists)


def test_coroutines() -> None:
    async def slow(xs: list[int]) -> list[int]:
        await asyncio.sleep(0)
        return sorted(xs)

    xs = np.random.default_rng(0).permutation(40).tolist()
    assert extrapolate(spied(slow, 8), 8)(xs) == sorted(xs)

    async def inside() -> list[int]:
        return extrapolate(slow, 8)(xs)

    assert asyncio.run(inside()) == sorted(xs)


def test_relabelling_needs_two_answers_at_most() -> None:
    chance = random.Random(10)
    for named in EQUIVARIANT:
        xs = [chance.randrange(30) for _ in range(500)]
        if named.map_equivariant:
            extended = extrapolate(spied(named.function, 2), 2, relabel="any", calibrate=0)
            assert extended(xs) == named.function(list(xs))
            assert extended.oracle.queries == 1
            assert extended([object] * 3) == named.function([object] * 3)
        if named.name in ("sort", "sort descending", "sort + reverse"):
            extended = extrapolate(spied(named.function, 2), 2, relabel="rank", calibrate=0)
            assert extended(xs) == named.function(list(xs))
            assert extended.oracle.queries == 2
    records = [{"id": number} for number in range(9)]
    assert extrapolate(Oracle(reverse, key=lambda x: x["id"]), 4, relabel="any")(records) == records[::-1]
    long = np.random.default_rng(0).random(50_000).tolist()
    assert extrapolate(sorted, 4, relabel="rank")(long) == sorted(long)
    assert extrapolate(reverse, 4, relabel="any", placeholders=("?", "!", "."))(long) == long[::-1]
    assert extrapolate(lambda xs: xs[::-1], 4, relabel="any")("straight on") == "no thgiarts"


def test_relabelling_refuses_what_it_is_wrong_for() -> None:
    with pytest.raises(NotExtendable, match="any two values"):
        extrapolate(sorted, 4, relabel="any")([1, 2])
    with pytest.raises(NotExtendable):
        extrapolate(NAMED["evens, then odds"], 4, relabel="rank")([1, 2])
    with pytest.raises(Cycle) as caught:
        extrapolate(lambda xs: [xs[place] for place in (0, 0, 1, 0, 1, 1)], 2, relabel="any", calibrate=0)([5, 6, 7])
    assert len({value for value, _ in caught.value.tokens}) == 3
    twisted = extrapolate(
        lambda xs: [xs[place] for place in (0, 0, 1, 0, 1, 1)], 2, relabel="any", calibrate=0, placeholders="ab"
    )
    with pytest.raises(Cycle):
        twisted("xyz")
    with pytest.raises(ArgumentError, match="elements that can be sorted"):
        extrapolate(sorted, 3, relabel="rank", calibrate=0)([1, "a", None, 2])


def test_wrong_multiplicities_show_both_lists() -> None:
    def ends(xs: list[int]) -> list[int]:
        return xs[:1] + xs[-1:] if len(xs) > 1 and xs[0] != 4 else xs[:1]

    with pytest.raises(WrongMultiplicity) as caught:
        extrapolate(ends, 2, mode="distinct", engine="pairs")([3, 4, 5])
    for query, answer in (caught.value.first, caught.value.second):
        assert ends(query) == answer
        assert caught.value.value in query


def test_budgets() -> None:
    with pytest.raises(OutOfBudget, match="engine='blocks' needs about"):
        extrapolate(sorted, 8, mode="distinct", engine="pairs")(list(range(1500)))
    with pytest.raises(OutOfBudget) as caught:
        extrapolate(Oracle(sorted, max_queries=100), 8, mode="distinct", engine="pairs")(list(range(20)))
    assert (caught.value.budget, caught.value.needed) == (100, 190)
    spent = extrapolate(Oracle(sorted, max_queries=30), 4, mode="distinct", engine="blocks")
    with pytest.raises(OutOfBudget, match="larger capacity"):
        spent(list(range(100)))
    assert spent.oracle.queries <= 30
    with pytest.raises(OutOfBudget, match="engine='blocks' needs about 6"):
        extrapolate(Oracle(sorted, max_queries=9), 4, mode="positional")([1, 2, 3, 4, 5] * 2)
    assert extrapolate(Oracle(sorted, max_queries=400), 8, mode="distinct")(list(range(200))[::-1]) == list(range(200))


def test_answers_are_kept_in_a_cache_of_your_own() -> None:
    cache: dict = {}
    xs = list(range(40))
    extrapolate(Oracle(reverse, cache=cache), 8)(xs)
    again = extrapolate(Oracle(reverse, cache=cache), 8)
    assert again(xs) == xs[::-1]
    assert again.oracle.queries == 4, "only what is asked twice to see whether the answers last"


def test_one_oracle_serves_several_extensions_and_keeps_to_its_own_capacity() -> None:
    oracle = Oracle(sorted, capacity=6)
    xs = list(range(30))[::-1]
    first, again = (extrapolate(oracle, 6, mode="distinct", engine="blocks") for _ in range(2))
    assert first(xs) == sorted(xs)
    queries = oracle.queries
    assert again(xs) == sorted(xs)
    assert first.oracle is again.oracle is oracle
    assert oracle.queries == queries, "what was asked once is known"
    with pytest.raises(ArgumentError, match="capacity: expected at most 6, the capacity of the oracle, got 7"):
        extrapolate(oracle, 7)
    with pytest.raises(ArgumentError, match="f: expected a function of lists"):
        extrapolate([1], 3)


@pytest.mark.parametrize("k", [3, 4, 5])
def test_what_keeps_the_rule_among_few_values_only_is_refused(k: int) -> None:
    with pytest.raises(ListFunctionError):
        extrapolate(lambda xs: sorted(set(xs))[:k], 8)(list(range(20)))


def test_a_value_that_takes_its_neighbours_with_it_is_seen() -> None:
    """The zero is in one chunk only, and no merge asks for what that chunk left out."""
    xs = [*range(1, 51), 0, *range(51, 100)]
    for poisoned in (lambda xs: xs[: xs.index(0)] if 0 in xs else xs, lambda xs: [] if 0 in xs else sorted(xs)):
        with pytest.raises((NotExtendable, WrongMultiplicity)):
            extrapolate(poisoned, 8, mode="distinct", engine="blocks")(xs)
    evens = extrapolate(lambda xs: [x for x in xs if x % 2 == 0], 8, mode="distinct", engine="blocks")
    assert evens(xs) == [x for x in xs if x % 2 == 0]
    assert extrapolate(lambda xs: [], 8, mode="distinct", engine="blocks")(xs) == []


def test_a_large_capacity_costs_nothing() -> None:
    long = extrapolate(sorted, 10**9)
    assert long([3, 1, 2]) == [1, 2, 3]
    assert long.oracle.longest <= 32


def test_a_list_without_an_answer_is_asked_for_once() -> None:
    asked: list[tuple[int, ...]] = []

    def refuses(xs: list[int]) -> list[int]:
        asked.append(tuple(xs))
        if len(xs) == 5:
            raise RuntimeError("not five")
        return sorted(xs)

    extrapolate(refuses, 8, mode="distinct", on_inconsistent="repair")(list(range(20))[::-1])
    assert len(asked) == len(set(asked))


def test_bad_arguments() -> None:
    for name, options, expected in (
        ("mode", {"mode": "guess"}, "one of auto, distinct, group, positional"),
        ("engine", {"engine": "steam"}, "one of auto, faces"),
        ("on_inconsistent", {"on_inconsistent": "shrug"}, "one of raise, repair, return"),
        ("relabel", {"relabel": "none"}, "one of any, rank"),
        ("capacity", {"capacity": 1}, "a whole number of at least 2"),
        ("capacity", {"capacity": "8"}, "a whole number of at least 2, got '8'"),
        ("capacity", {"capacity": 8.5}, "a whole number of at least 2"),
        ("seed", {"seed": -1}, "a whole number of at least 0"),
        ("capacity", {"capacity": 2}, "at least 3, as calibration"),
        ("votes", {"votes": 0}, "a whole number of at least 1"),
        ("calibrate", {"calibrate": -1}, "a whole number of at least 0"),
        ("mode", {"relabel": "any", "mode": "group"}, "auto or positional"),
        ("placeholders", {"relabel": "any", "placeholders": [0]}, "two or more"),
        ("engine", {"engine": "merge", "votes": 3}, "auto or cover"),
        ("relabel", {"relabel": "any", "votes": 3}, "none with votes"),
    ):
        with pytest.raises(ArgumentError, match=f"^{name}: expected {expected}"):
            extrapolate(sorted, **{"capacity": 8, **options})
    with pytest.raises(ArgumentError, match=r"no duplicates in mode distinct .*got 1 at positions 1 and 3"):
        extrapolate(sorted, 2, mode="distinct")([0, 1, 2, 1, 0])
    with pytest.raises(ArgumentError, match="capacity: expected at least 9, since mode group shows"):
        extrapolate(sorted, 8, mode="group")([1, 2, 3] * 4 + [1])
    with pytest.raises(ArgumentError, match="pairs, merge or blocks in mode positional"):
        extrapolate(sorted, 2, mode="positional", engine="cover")([1, 1, 2])
    with pytest.raises(ArgumentError, match="another one than faces"):
        extrapolate(sorted, 2, mode="distinct", engine="faces")(list(range(13)))
    with pytest.raises(ArgumentError, match="equal themselves"):
        extrapolate(sorted, 3)([1.0, float("nan")])
    with pytest.raises(ArgumentError, match="a list, tuple or text"):
        extrapolate(sorted, 3)(5)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("progress", [True, False])
def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch, progress: bool) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(bar, "SHOW_AFTER_S", 0.0)
    xs = list(range(100))
    assert extrapolate(Oracle(reverse, progress=progress), 4)(xs) == xs[::-1]
    assert ("extrapolate" in sys.stderr.getvalue()) is progress
    assert synthesize([([1, 2], [2, 1])], progress=progress).best is not None
    assert ("terms" in sys.stderr.getvalue()) is progress
