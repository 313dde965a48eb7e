"""The answer to one list as a plan: questions, and what they come to."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from math import ceil, log2
from typing import Any

import numpy as np

from holdfast.errors import ArgumentError
from holdfast.lists.errors import Cycle, ListFunctionError, NotExtendable, OutOfBudget, Undetermined
from holdfast.lists.extend.blocks import Plan, Sublists, block_merge, cover_merge, vote_queries
from holdfast.lists.extend.calibration import Calibration, both_ways, two_values
from holdfast.lists.extend.faces import face_merge
from holdfast.lists.extend.labels import Translator, in_values
from holdfast.lists.extend.pair_engines import (
    ByOccurrence,
    PairSource,
    Together,
    ask_all_pairs,
    ask_short_lists,
    lazy_merge,
)
from holdfast.lists.extend.pairs import Labels
from holdfast.lists.extend.positional import relabelled, short_queries
from holdfast.lists.extend.rounds import checked
from holdfast.lists.values import as_given

MOST_QUERIES = 10**6
"""Lists that the engines which ask for all at once may need where no budget is given."""

CHEAP_PAIRS = 50
"""So few pairs that engine auto asks for all, and so finds every contradiction."""

Answering = Generator[list[Labels], list[Labels | None], Any]
"""Yields questions, is sent their answers (`None`: there is none), returns an `Extension`."""


@dataclass(frozen=True, eq=False)
class Extension:
    """The answer to one list, and what it rests on.

    Arguments:
        output: the answer, in the type of the list; `None` if there is none and `on_inconsistent="return"`.
        mode: the mode that was used: `"distinct"`, `"group"` or `"positional"`.
        engine: the engine that was used; `"direct"`: the list was short enough to be asked for; `"votes"`: several
            votes for each pair; `"relabel"`: answers on placeholders.
        queries: lists that it asked for, whether or not their answers were known from before.
        longest: elements of the longest of these.
        calls: rounds of questions; a batched function is called at most once in each.
        consistent: no answer contradicts another one. An engine that asks for few pairs sees few contradictions.
        cost: votes against the output; 0 without votes.
        confidence: share of the votes that agree with the output; 1 without votes.
        disputed: pairs of tokens (a value, and which of its copies) with votes against their order.
        discarded: answers that cast no vote.
        calibration: what was tried before; `None`: nothing.
        error: why there is no output.
    """

    output: Any
    mode: str
    engine: str
    queries: int = 0
    longest: int = 0
    calls: int = 0
    consistent: bool = True
    cost: int = 0
    confidence: float = 1.0
    disputed: tuple[tuple[tuple[Any, int], tuple[Any, int]], ...] = ()
    discarded: int = 0
    calibration: Calibration | None = None
    error: ListFunctionError | None = None


@dataclass(frozen=True)
class Settings:
    """Arguments of `extrapolate` of the same names."""

    capacity: int
    mode: str
    engine: str
    votes: int
    on_inconsistent: str
    relabel: str | None
    placeholders: Sequence[Any] | None
    key: Callable[[Any], Any] | None
    calibrate: int
    seed: int
    progress: bool

    @property
    def by_votes(self) -> bool:
        return self.votes > 1 or self.on_inconsistent != "raise"


def engine_plan(
    engine: str, mode: str, duplicates: bool, sublists: Sublists, max_queries: int | None
) -> tuple[Plan, int]:
    """The engine at work on a list, and about how many questions it will ask."""
    size, capacity = len(set(sublists.labels.tolist())), sublists.capacity or len(sublists.labels)
    short = mode == "positional" and duplicates
    if short and engine not in ("pairs", "merge"):
        raise ArgumentError("engine", "pairs or merge in mode positional with duplicates", engine)
    parts = max(size / capacity, 1)
    few = ceil(2 * parts * log2(parts) + parts)
    if engine == "blocks":
        return block_merge(sublists), few
    if engine == "merge":
        source: PairSource = ByOccurrence(sublists) if short else Together(sublists)
        return lazy_merge(source), min(size * (size - 1) // 2, ceil(size * log2(max(size, 2))))
    if engine == "faces":
        return face_merge(sublists), 0
    groups = ceil(size / (capacity // 2))
    needed = size * (size - 1) // 2 if engine == "pairs" else groups * (groups - 1) // 2
    budget = MOST_QUERIES if max_queries is None else max_queries
    if short and needed <= budget:
        needed = len(short_queries(sublists.labels, size))
    if needed > budget:
        hint = "engine='merge' asks only for pairs that it compares" if short else f"engine='blocks' needs about {few}"
        raise OutOfBudget(budget, needed, hint)
    if engine == "cover":
        return cover_merge(sublists), needed
    if short or not duplicates:
        return ask_short_lists(sublists), needed
    return ask_all_pairs(Together(sublists)), needed


def nothing() -> Answering:
    """No question and no answer."""
    yield []


def whole_list(sublists: Sublists) -> Plan:
    """The list as it is."""
    [answer] = yield [sublists.labels]
    return answer


def empty_list(xs: Any, translator: Translator, mode: str) -> Answering:
    """The empty list, whose answer is known."""
    [answer] = yield [translator.labels]
    if answer is not None and len(answer):
        raise NotExtendable("the empty list gives the empty list", [], [], translator.show(answer))
    return Extension(xs, mode, "direct")


def extending(plan: Plan, xs: Any, translator: Translator, mode: str, engine: str) -> Answering:
    """The engine's answer, with every answer that it rests on held to the laws."""
    labels = yield from checked(plan, translator)
    return Extension(as_given(xs, translator.show(labels)), mode, engine)


def relabelling(xs: Any, translator: Translator, asked: Translator, settings: Settings) -> Answering:
    """The answer from those to two placeholders."""
    size = translator.size
    ranks = _ranks(translator.values[:size]) if settings.relabel == "rank" else None
    queries = two_values(str(settings.relabel))
    answers = [answer for answer in (yield queries) if answer is not None]
    in_order, against = both_ways(queries, answers, asked)
    try:
        labels = relabelled(translator.labels, in_order, against, ranks)
    except (Cycle, NotExtendable) as error:
        raise in_values(error, asked.show) from None
    return Extension(as_given(xs, translator.show(labels)), "positional", "relabel")


def voting(sublists: Sublists, xs: Any, translator: Translator, mode: str, settings: Settings) -> Answering:
    """The list that most of the votes are for."""
    from holdfast.lists.extend.votes import Votes, block_merge_with_errors

    blocks = settings.engine == "blocks"
    plan = block_merge_with_errors(sublists) if blocks else _in_one_round(sublists, settings)
    answers = yield from _seen(plan)
    votes = Votes(translator.size)
    seen = [(query, answer) for query, answer in answers if answer is not None]
    lost = len(answers) - len(seen)
    for query, answer in seen:
        votes.add(query, answer)
    show = translator.show
    try:
        # Block merge brings only some pairs together; those that matter stand side by side.
        ranking = votes.glue(settings.seed, guess=blocks)
    except Undetermined as error:
        open_pairs = Undetermined([show(sublists.of(values)) for values in error.missing])
        if settings.on_inconsistent != "return":
            raise open_pairs from None
        return Extension(None, mode, "votes", consistent=False, confidence=0.0, error=open_pairs)
    if settings.on_inconsistent == "raise" and not ranking.consistent:
        raise _outvoted(seen, ranking.labels, show)
    disputed = tuple(((translator.values[x], a), (translator.values[y], b)) for (x, a), (y, b) in ranking.disputed)
    return Extension(
        as_given(xs, show(ranking.labels)),
        mode,
        "blocks" if blocks else "votes",
        consistent=ranking.consistent,
        cost=ranking.cost,
        confidence=ranking.confidence,
        disputed=disputed,
        discarded=ranking.discarded + lost,
    )


Asked = list[tuple[Labels, Labels | None]]
"""Questions with their answers; `None`: there was none."""


def _in_one_round(sublists: Sublists, settings: Settings) -> Generator[list[Labels], list[Labels | None], None]:
    yield vote_queries(sublists, settings.votes, settings.seed)


def _seen(
    plan: Generator[list[Labels], list[Labels | None], Any],
) -> Generator[list[Labels], list[Labels | None], Asked]:
    """Carry out a plan, and keep all that was asked and answered."""
    found: Asked = []
    try:
        queries = next(plan)
        while True:
            answers = yield queries
            found += zip(queries, answers, strict=True)
            queries = plan.send(answers)
    except StopIteration:
        return found


def _outvoted(
    seen: Sequence[tuple[Labels, Labels]], labels: Labels, show: Callable[[Labels], list[Any]]
) -> ListFunctionError:
    """The error for majorities that fit no list, with an answer that the closest list contradicts."""
    rule = "the majorities of the votes fit one list (on_inconsistent='repair' gives the closest)"
    for query, answer in seen:
        want = labels[np.isin(labels, query)]
        if not np.array_equal(want, answer):
            return NotExtendable(rule, show(query), show(want), show(answer))
    return NotExtendable(rule, show(labels), show(labels), [])


def duplicate(sublists: Sublists) -> ArgumentError:
    seen: dict[int, int] = {}
    for place, label in enumerate(sublists.labels.tolist()):
        if label in seen:
            break
        seen[label] = place
    got = f"{sublists.values[label]!r} at positions {seen[label]} and {place}"
    return ArgumentError("xs", "no duplicates in mode distinct (modes group and positional take them)", got)


def _ranks(values: Sequence[Any]) -> Labels:
    """Rank of each value."""
    try:
        order = sorted(range(len(values)), key=values.__getitem__)
    except TypeError as error:
        raise ArgumentError("xs", "elements that can be sorted, with relabel='rank'", str(error)) from None
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[order] = np.arange(len(values))
    return ranks
