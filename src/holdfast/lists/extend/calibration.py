"""Whether a function keeps the rule that an extension rests on, tried on random lists that it can be shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from holdfast.lists.errors import Cycle, ListFunctionError, NotExtendable
from holdfast.lists.extend.labels import Laws, Translator, in_values
from holdfast.lists.extend.pairs import Labels, glue_words
from holdfast.lists.extend.positional import glue_occurrences, relabelled, short_answers, short_queries
from holdfast.lists.extend.settings import Mode, Relabel, Settings

Answers = Callable[[list[Any], bool], list[list[Any]]]
"""Answers to lists; asked afresh or not."""

Ask = Callable[[list[Labels], bool], list[Labels]]
"""The same, all as labels."""

POOL = 6
"""Values that the lists are made of: few, so that the answers to their pairs serve many lists."""

LONGEST = 32
"""Elements of the longest list, whatever the capacity."""

WIDE = 6
"""Every so many lists one has as many values as there are."""

REPEATS = 4
"""Lists that are asked for twice."""

PAIRS = "the answer is put together from those to two values"

RELABELLED = "any two values, or any two in order, are answered alike"


@dataclass(frozen=True)
class Calibration:
    """What was tried before the function was extended. It shows no fault within these lists, and nothing beyond.

    Arguments:
        mode: `"distinct"`, `"group"` or `"positional"`: what was settled on.
        lists: lists that were tried.
        longest: elements of the longest of them.
        positional: share of them that are answered as mode positional predicts; `None`: not tried.
        group: the same of mode group (of mode distinct for lists without duplicates).
        repeats: lists that were asked for twice.
        stable: share of these that were answered alike both times; 1 where there are none.
        values: distinct values that there were to try.
    """

    mode: Mode
    lists: int
    longest: int
    positional: float | None
    group: float | None
    repeats: int
    stable: float
    values: int


def samples(size: int, capacity: int, count: int, distinct: bool, rng: np.random.Generator) -> list[Labels]:
    """Random lists to try: of lengths 3 to capacity, mostly of three values or four, with many duplicates.

    Some have as many values as there are, for functions that keep the rule among few values only.

    Arguments:
        size: number of values.
        capacity: elements of the longest, up to 32.
        count: how many.
        distinct: without duplicates.
        rng: source of chance.
    """
    lists = []
    capacity = min(capacity, LONGEST)
    for number in range(count):
        length = (capacity, 3)[number] if number < 2 else int(rng.integers(3, capacity + 1))
        if distinct:
            lists.append(rng.permutation(size)[:length])
            continue
        if number % WIDE == 0:
            few = rng.permutation(size)[:length]
            lists.append(rng.permutation(np.concatenate([few, rng.choice(few, length - len(few))])))
            continue
        most = min(size, length, 4)
        few = rng.permutation(size)[: max(most - int(rng.random() < (0.5 if length < 5 else 0.3)), 1)]
        # All of the values are there, and the rest is drawn from them.
        lists.append(rng.permutation(np.concatenate([few, rng.choice(few, length - len(few))])))
    return lists


def calibrate_on(answers_to: Answers, translator: Translator, settings: Settings) -> Calibration:
    """Compare the function's answers to random lists with what each mode predicts from shorter ones.

    Arguments:
        answers_to: the function.
        translator: what the lists are made of.
        settings: how many lists to try, in which mode, up to which length, and how many of them may come out otherwise;
            with `relabel`, whether the answers to two values settle all others is tried, and nothing else. Where some
            may, the empty list may, too.

    Errors:
        NotExtendable: the function keeps no such rule, or answers one list in two ways.
        AlienValue, WrongMultiplicity, Cycle: its answers to short lists fit no function that mode positional is right
            for, and this mode was named.
    """

    def ask(queries: list[Labels], fresh: bool) -> list[Labels]:
        return translator.read(answers_to([translator.query(query) for query in queries], fresh))

    mode, count, tolerance, relabel = settings.mode_to_try, settings.lists_to_try, settings.tolerance, settings.relabel
    rng = np.random.default_rng(settings.seed)
    lists = samples(translator.size, settings.capacity, count, mode == "distinct", rng)
    empty, *answers = ask([np.zeros(0, dtype=np.int64), *lists], False)
    show = translator.show
    if len(empty) and not tolerance:
        raise NotExtendable("the empty list gives the empty list", [], [], show(empty))
    again = ask(lists[:REPEATS], True)
    same = [np.array_equal(*both) for both in zip(answers, again, strict=False)]
    if not all(same) and not tolerance:
        odd = same.index(False)
        rule = "one list has one answer (votes=3 asks for each pair in several lists)"
        raise NotExtendable(rule, show(lists[odd]), show(answers[odd]), show(again[odd]))
    longest, stable = max(map(len, lists)), sum(same) / len(same)
    done = Calibration(mode, count, longest, None, None, len(same), stable, translator.size)
    tried = list(zip(lists, answers, strict=True))
    if mode in ("auto", "positional"):
        rule = "the answer is put together from those to two elements" if relabel is None else RELABELLED
        predict = _by_pairs(ask, lists, translator) if relabel is None else _by_two(ask, translator, relabel)
        share, error = _try_prediction(tried, predict, rule, show)
        done = replace(done, positional=share, mode="positional")
        if error is None or share >= 1 - tolerance:
            return done
        if mode == "positional" or relabel is not None:
            raise error
    share, error = _try_deletions(ask, tried, translator)
    done = replace(done, group=share, mode="group" if mode == "auto" else mode)
    if error is None or share >= 1 - tolerance:
        return done
    raise error


def _by_pairs(ask: Ask, lists: list[Labels], translator: Translator) -> Callable[[Labels], Labels]:
    """What mode positional predicts."""
    size = translator.size
    queries = np.unique(np.concatenate([short_queries(xs, size) for xs in lists]), axis=0)
    asked = list(queries) if len(queries) else [lists[0][:1]]
    answers = ask(asked, False)
    problem: ListFunctionError | None = None
    try:
        Laws(translator).check(asked, answers)
        short = short_answers(queries, answers, size) if len(queries) else None
    except ListFunctionError as error:
        problem = error

    def predict(xs: Labels) -> Labels:
        if problem is not None:
            raise problem
        if short is None:
            return np.repeat(answers[0], len(xs))
        try:
            return glue_occurrences(xs, short)
        except (Cycle, NotExtendable) as error:
            raise in_values(error, translator.show) from None

    return predict


def _by_two(ask: Ask, translator: Translator, relabel: Relabel) -> Callable[[Labels], Labels]:
    """What relabelling predicts."""
    queries = two_values(relabel)
    in_order, against = both_ways(queries, ask(queries, False), translator)
    ranks = np.arange(translator.size) if relabel == "rank" else None

    def predict(xs: Labels) -> Labels:
        try:
            return relabelled(xs, in_order, against, ranks)
        except (Cycle, NotExtendable) as error:
            raise in_values(error, translator.show) from None

    return predict


def two_values(relabel: Relabel) -> list[Labels]:
    """The lists that relabelling asks for."""
    return [np.array([0, 1]), np.array([1, 0])][: 1 + (relabel == "rank")]


def both_ways(queries: list[Labels], answers: list[Labels], translator: Translator) -> tuple[Labels, Labels]:
    """The answers to [0, 1] and to [1, 0], from what was asked of them.

    Errors:
        AlienValue, WrongMultiplicity: an answer breaks a law.
    """
    Laws(translator).check(queries, answers)
    return answers[0], answers[1] if len(answers) > 1 else 1 - answers[0]


def _try_prediction(
    tried: list[tuple[Labels, Labels]],
    predict: Callable[[Labels], Labels],
    rule: str,
    show: Callable[[Labels], list[Any]],
) -> tuple[float, ListFunctionError | None]:
    """Share of lists that are answered as predicted, and the error for the first that is not."""
    right, error = 0, None
    for xs, answer in tried:
        try:
            want = predict(xs)
        except ListFunctionError as problem:
            error = error or problem
            continue
        right += np.array_equal(want, answer)
        if not np.array_equal(want, answer) and not isinstance(error, NotExtendable):
            error = NotExtendable(rule, show(xs), show(want), show(answer))
    return right / len(tried), error


def _try_deletions(
    ask: Ask, tried: list[tuple[Labels, Labels]], translator: Translator
) -> tuple[float, ListFunctionError | None]:
    """Share of lists where deleting all but two values deletes them from the answer, and the error for the first not.

    If that holds for every two values, then the answer is the one that glues from these pairs.
    """
    parts = [(xs, answer, [xs[np.isin(xs, some)] for some in _proper_parts(xs)]) for xs, answer in tried]
    rest = iter(ask([part for _, _, some in parts for part in some], False))
    right = 0
    errors: list[NotExtendable] = []
    for xs, answer, some in parts:
        answers = [next(rest) for _ in some]
        wants = [answer[np.isin(answer, part)] for part in some]
        wrong = [place for place in range(len(some)) if not np.array_equal(wants[place], answers[place])]
        right += not wrong
        if wrong:
            errors.append(_refusal(xs, answer, some, answers, wants, wrong[0], translator))
    return right / len(tried), min(errors, key=lambda error: (error.rule != PAIRS, len(error.query)), default=None)


def _proper_parts(xs: Labels) -> list[tuple[int, ...]]:
    """Two of the values of a list, in every way; of two values, either."""
    values = np.unique(xs).tolist()
    return list(combinations(values, min(2, len(values) - 1))) if len(values) > 1 else []


def _refusal(
    xs: Labels,
    answer: Labels,
    parts: list[Labels],
    answers: list[Labels],
    wants: list[Labels],
    wrong: int,
    translator: Translator,
) -> NotExtendable:
    """The error for a list whose answer is not the one that its parts glue to; if they do not glue, for a part."""
    show = translator.show
    try:
        laws = Laws(translator)
        laws.check(parts, answers)
        copies = np.zeros(translator.size, dtype=np.int64)
        words: dict[tuple[int, int], Any] = {}
        for part, word in zip(parts, answers, strict=True):
            x, y = np.unique(part).tolist()
            words[x, y] = word == y
            copies[[x, y]] = np.count_nonzero(word == x), np.count_nonzero(word == y)
        want = glue_words(copies, words)
    except (ListFunctionError, ValueError):
        rule = f"what is deleted from {show(xs)} is deleted from its answer {show(answer)}, and nothing else"
        return NotExtendable(rule, show(parts[wrong]), show(wants[wrong]), show(answers[wrong]))
    return NotExtendable(PAIRS, show(xs), show(want), show(answer))
