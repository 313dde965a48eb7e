"""The answer to one list as a plan: questions, and what they come to."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from math import ceil, log2
from typing import Any

import numpy as np

from holdfast.errors import ArgumentError
from holdfast.lists.errors import Cycle, ExpensivePlan, ListFunctionError, NotExtendable, OutOfBudget, Undetermined
from holdfast.lists.extend.block_merge import block_merge, block_merge_with_errors, merge_both_orders
from holdfast.lists.extend.calibration import Calibration, both_ways, two_values
from holdfast.lists.extend.cover import cover_merge, vote_queries
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
from holdfast.lists.extend.rounds import Answering, Run, checked
from holdfast.lists.extend.settings import Engine, Mode, Relabel, Settings
from holdfast.lists.extend.sublists import Plan, Sublists
from holdfast.lists.extend.votes import Votes
from holdfast.lists.values import as_given

MOST_QUERIES = 10**6
"""Lists that the engines which ask for all at once may need where no budget is given."""

CHEAP_PAIRS = 50
"""So few pairs that engine auto asks for all, and so finds every contradiction."""

MOST_VALUES = 4000
"""Values up to which the lists of two elements are counted in a table of all pairs."""


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
        weakest: the same for the two neighbours in the output whose order is the least certain.
        turning: share of the pairs shown in both orders whose answer turned with the list.
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
    weakest: float = 1.0
    turning: float = 0.0
    disputed: tuple[tuple[tuple[Any, int], tuple[Any, int]], ...] = ()
    discarded: int = 0
    calibration: Calibration | None = None
    error: ListFunctionError | None = None


def prepare(run: Run, settings: Settings, mode: Mode, max_queries: int | None) -> None:
    """Decide how a list will be answered: give its run a plan.

    Arguments:
        run: the list.
        settings: what the user wants.
        mode: the mode that calibration has settled on, or the one that was named.
        max_queries: most lists that the function may be shown.

    Errors:
        ArgumentError: the list and the mode, or the mode and the engine, do not go together.
        OutOfBudget: the engine would ask for more than allowed.
    """
    translator = run.translator
    if settings.relabel is not None:
        run.translator = placeholders_of(settings, run.is_text)
        run.plan = _relabelling(run.xs, translator, run.translator, settings.relabel)
        return
    sublists = Sublists(translator.labels, translator.values[: translator.size], settings.capacity)
    length, duplicates = len(sublists.labels), len(sublists.labels) > translator.size
    if mode == "distinct" and duplicates:
        raise _duplicate(sublists)
    if not length:
        run.plan = _empty_list(run, mode)
    elif settings.by_votes:
        if mode == "positional" and duplicates:
            raise ArgumentError("mode", "group, where votes are asked for on a list with duplicates", mode)
        run.votes = True
        run.plan, run.expected = _voting_plan(run, sublists, mode, settings)
    elif length <= settings.capacity:
        run.plan = _extending(run, _whole_list(sublists), mode, "direct")
    else:
        engine = settings.engine
        if engine == "auto":
            size = translator.size
            engine = "pairs" if size * (size - 1) // 2 <= CHEAP_PAIRS else "blocks"
            if mode == "group" and duplicates:
                sublists.refuse_too_long(range(size))
        plan, run.expected = _engine_plan(engine, mode, duplicates, sublists, max_queries)
        run.plan = _extending(run, plan, mode, engine)


def placeholders_of(settings: Settings, text: bool) -> Translator:
    """What the function is shown where elements are relabelled."""
    chosen = settings.placeholders
    return Translator(("abcde" if text else range(5)) if chosen is None else chosen, None, text)


def _engine_plan(
    engine: Engine, mode: Mode, duplicates: bool, sublists: Sublists, max_queries: int | None
) -> tuple[Plan, int]:
    """The engine at work on a list, and about how many questions it will ask."""
    size = len(set(sublists.labels.tolist()))
    short = mode == "positional" and duplicates
    if short and engine in ("faces", "cover"):
        raise ArgumentError("engine", "pairs, merge or blocks in mode positional with duplicates", engine)
    # With equal elements the order of two values may be asked for both ways round.
    ways = 2 if short else 1
    blocks = _block_queries(sublists, size if short else len(sublists.labels)) * ways
    needed = {
        "pairs": len(short_queries(sublists.labels, size)) if short and size <= MOST_VALUES else size * (size - 1) // 2,
        "merge": min(size * (size - 1) // 2, ceil(size * log2(max(size, 2)))) * ways,
        "blocks": blocks,
    }
    cheapest = min(needed, key=lambda name: needed[name])
    if engine == "faces":
        needed["faces"] = 2 ** min(size, 64)
    if engine == "cover":
        groups = ceil(len(sublists.labels) / ((sublists.capacity or len(sublists.labels)) // 2))
        needed["cover"] = groups * (groups - 1) // 2
    if engine in ("pairs", "cover"):
        budget = MOST_QUERIES if max_queries is None else max_queries
        if needed[engine] > budget:
            hint = f"engine='{cheapest}' needs about {needed[cheapest]}"
            raise OutOfBudget(budget, needed[engine], hint)
    plan = _plan_of(engine, short, duplicates, sublists)
    _say_if_expensive(engine, needed[engine], cheapest, needed[cheapest])
    return plan, needed[engine]


def _plan_of(engine: Engine, short: bool, duplicates: bool, sublists: Sublists) -> Plan:
    if engine == "blocks":
        return merge_both_orders(sublists) if short else block_merge(sublists)
    if engine == "merge":
        source: PairSource = ByOccurrence(sublists) if short else Together(sublists)
        return lazy_merge(source)
    if engine == "faces":
        return face_merge(sublists)
    if engine == "cover":
        return cover_merge(sublists)
    if short or not duplicates:
        return ask_short_lists(sublists)
    return ask_all_pairs(Together(sublists))


def _block_queries(sublists: Sublists, length: int) -> int:
    """About how many questions block merge asks for a list of so many elements."""
    parts = max(length / (sublists.capacity or max(length, 1)), 1)
    return ceil(2 * parts * log2(parts) + parts)


def _say_if_expensive(engine: str, needed: int, cheapest: str, least: int) -> None:
    """Warn before anything is asked, where another engine needs less than half; a few dozen are not worth a word."""
    if needed > max(2 * least, CHEAP_PAIRS):
        warnings.warn(
            f"engine='{engine}' is about to ask for about {needed} lists; engine='{cheapest}' needs about {least}",
            ExpensivePlan,
            stacklevel=2,
        )


def _voting_plan(run: Run, sublists: Sublists, mode: Mode, settings: Settings) -> tuple[Answering, int]:
    """The plan for a function that errs, and about how many questions it will ask."""
    blocks = _block_queries(sublists, len(sublists.labels))
    if settings.engine == "blocks":
        return _voting(run, sublists, mode, settings), blocks * (2 if settings.presentation == "both" else 1)
    groups = ceil(len(sublists.labels) / (settings.capacity // 2))
    needed = max(groups * (groups - 1) // 2, 1)
    if settings.votes == 1:
        # Several votes for every pair are more than block merge gives.
        _say_if_expensive("cover", needed, "blocks", blocks)
    return _voting(run, sublists, mode, settings), needed * settings.votes


def _whole_list(sublists: Sublists) -> Plan:
    """The list as it is."""
    [answer] = yield [sublists.labels]
    return answer


def _empty_list(run: Run, mode: Mode) -> Answering:
    """The empty list, whose answer is known."""
    [answer] = yield [run.translator.labels]
    if answer is not None and len(answer):
        raise NotExtendable("the empty list gives the empty list", [], [], run.translator.show(answer))
    return Extension(run.xs, mode, "direct")


def _extending(run: Run, plan: Plan, mode: Mode, engine: str) -> Answering:
    """The engine's answer, with every answer that it rests on held to the laws."""
    labels = yield from checked(plan, run.translator)
    return Extension(as_given(run.xs, run.translator.show(labels)), mode, engine)


def _relabelling(xs: Any, translator: Translator, asked: Translator, relabel: Relabel) -> Answering:
    """The answer from those to two placeholders."""
    size = translator.size
    ranks = _ranks(translator.values[:size]) if relabel == "rank" else None
    queries = two_values(relabel)
    answers = [answer for answer in (yield queries) if answer is not None]
    in_order, against = both_ways(queries, answers, asked)
    try:
        labels = relabelled(translator.labels, in_order, against, ranks)
    except (Cycle, NotExtendable) as error:
        raise in_values(error, asked.show) from None
    return Extension(as_given(xs, translator.show(labels)), "positional", "relabel")


def _voting(run: Run, sublists: Sublists, mode: Mode, settings: Settings) -> Answering:
    """The list that most of the votes are for."""
    blocks = settings.engine == "blocks"
    answers = yield from _by_blocks(sublists, settings) if blocks else _in_one_round(sublists, settings)
    translator = run.translator
    votes = Votes(translator.size)
    seen = [(query, answer) for query, answer, _ in answers if answer is not None]
    lost = len(answers) - len(seen)
    for query, answer, turned in answers:
        if answer is not None:
            votes.add(query, answer, turned=turned)
    show = translator.show
    by_place = None if settings.presentation == "auto" else False
    try:
        # Block merge brings only some pairs together; those that matter stand side by side.
        ranking = votes.glue(settings.seed, guess=blocks, by_place=by_place)
    except Undetermined as error:
        open_pairs = Undetermined([show(sublists.of(values)) for values in error.missing])
        if settings.on_inconsistent != "return":
            raise open_pairs from None
        return Extension(None, mode, "votes", consistent=False, confidence=0.0, error=open_pairs)
    if settings.on_inconsistent == "raise" and not ranking.consistent:
        raise _outvoted(seen, ranking.labels, show)
    disputed = tuple(((translator.values[x], a), (translator.values[y], b)) for (x, a), (y, b) in ranking.disputed)
    return Extension(
        as_given(run.xs, show(ranking.labels)),
        mode,
        "blocks" if blocks else "votes",
        consistent=ranking.consistent,
        cost=ranking.cost,
        confidence=ranking.confidence,
        weakest=float(ranking.neighbours.min(initial=1.0)),
        turning=ranking.turning,
        disputed=disputed,
        discarded=ranking.discarded + lost,
    )


Asked = list[tuple[Labels, Labels | None, bool]]
"""Questions with their answers (`None`: there was none), and whether the list was turned round."""


def _in_one_round(sublists: Sublists, settings: Settings) -> Generator[list[Labels], list[Labels | None], Asked]:
    distinct = max(sublists.counts) == 1
    both = settings.presentation == "both" or (settings.presentation == "auto" and settings.votes > 1 and distinct)
    times = max(settings.votes, 2) if settings.presentation == "both" else settings.votes
    queries, turned = vote_queries(sublists, times, settings.seed, both_orders=both)
    answers = yield queries
    return list(zip(queries, answers, turned, strict=True))


def _by_blocks(sublists: Sublists, settings: Settings) -> Generator[list[Labels], list[Labels | None], Asked]:
    """A block merge, and all that was asked and answered; each list turned round as well where that is wanted."""
    seen: Asked = []
    plan = block_merge_with_errors(sublists)
    both = settings.presentation == "both"
    try:
        queries = next(plan)
        while True:
            turned = [query[::-1] for query in queries] if both else []
            answers = yield queries + turned
            seen += zip(queries + turned, answers, [False] * len(queries) + [True] * len(turned), strict=True)
            queries = plan.send(answers[: len(queries)])
    except StopIteration:
        return seen


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


def _duplicate(sublists: Sublists) -> ArgumentError:
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
