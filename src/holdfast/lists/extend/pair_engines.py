"""Engines that ask for pairs of values: all of them at once, or those that a merge comes to compare."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

import numpy as np

from holdfast.lists.errors import Cycle, NotExtendable
from holdfast.lists.extend.labels import in_values
from holdfast.lists.extend.pairs import Labels, Word, glue_words
from holdfast.lists.extend.positional import glue_occurrences, pair_word, short_answers, short_queries
from holdfast.lists.extend.sublists import Merge, Plan, Sublists, in_step, labels_of, merge_all, tokens_of
from holdfast.lists.tokens import Token

ELEMENTS_AT_ONCE = 1 << 22
"""Elements of the lists that are asked for in one batch; bounds the memory."""


class PairSource(Protocol):
    """How the word of two values is asked for."""

    @property
    def sublists(self) -> Sublists:
        """Of the whole list."""

    def queries(self, x: int, y: int) -> list[Labels]:
        """The lists to ask for."""

    def word(self, x: int, y: int, answers: list[Labels]) -> Word:
        """The word of x and y, true where it is y, by the answers to these lists."""


@dataclass(frozen=True, eq=False)
class Together:
    """All copies of the two values in one list."""

    sublists: Sublists

    def queries(self, x: int, y: int) -> list[Labels]:
        return [self.sublists.of((x, y))]

    def word(self, x: int, y: int, answers: list[Labels]) -> Word:
        return np.asarray(answers[0] == y)


@dataclass(frozen=True, eq=False)
class ByOccurrence:
    """Lists of two elements, in each order in which the values stand in the list."""

    sublists: Sublists

    def queries(self, x: int, y: int) -> list[Labels]:
        names = np.array([x, y])
        return [names[query] for query in short_queries(self._part(x, y), 2)]

    def word(self, x: int, y: int, answers: list[Labels]) -> Word:
        part = self._part(x, y)
        names = np.array([x, y])
        short = short_answers(short_queries(part, 2), [(answer == y).astype(np.int64) for answer in answers], 2)
        try:
            return pair_word(part, 0, 1, short)
        except NotExtendable as error:
            raise in_values(error, lambda labels: self.sublists.show(names[labels])) from None

    def _part(self, x: int, y: int) -> Labels:
        labels = self.sublists.labels
        return np.asarray(labels[(labels == x) | (labels == y)] == y, dtype=np.int64)


def ask_all_pairs(source: Together) -> Plan:
    """Score scatter from the words of all pairs of values.

    Errors:
        ArgumentError: two values have more copies together than the capacity.
        Cycle: no list fits the answers.

    Source: the amalgamation of arXiv 2507.08796, derived in docs/systems/lists.md.
    """
    sublists = source.sublists
    values = np.unique(sublists.labels).tolist()
    copies = np.zeros(len(sublists.values), dtype=np.int64)
    words: dict[tuple[int, int], Word] = {}
    if len(values) == 1:
        [answer] = yield [sublists.of(values)]
        copies[values] = len(answer)
    sublists.refuse_too_long(values)
    for pairs in _batches(sublists, values):
        answers = yield [query for pair in pairs for query in source.queries(*pair)]
        for (x, y), answer in zip(pairs, answers, strict=True):
            words[x, y] = source.word(x, y, [answer])
            copies[y] = np.count_nonzero(words[x, y])
            copies[x] = len(answer) - copies[y]
    try:
        return glue_words(copies, words)
    except Cycle as cycle:
        answers_seen = []
        for pair, _ in cycle.answers:
            x, y = sorted(pair)
            answers_seen.append((sublists.of((x, y)).tolist(), np.where(words[x, y], y, x).tolist()))
        raise in_values(Cycle(cycle.tokens, tuple(answers_seen)), sublists.show) from None


def ask_short_lists(sublists: Sublists) -> Plan:
    """The answer from lists of two elements, whatever the length.

    Errors:
        Cycle, NotExtendable: no list fits the answers.

    Source: the amalgamation of arXiv 2507.08796, derived in docs/systems/lists.md.
    """
    labels, size = sublists.labels, len(sublists.values)
    queries = short_queries(labels, size)
    if size == 1:
        [answer] = yield [labels[:1]]
        return np.repeat(answer, len(labels))
    answers = yield list(queries)
    try:
        return glue_occurrences(labels, short_answers(queries, answers, size))
    except (Cycle, NotExtendable) as error:
        raise in_values(error, sublists.show) from None


def lazy_merge(source: PairSource) -> Plan:
    """The values, with all their copies, merged two by two; asks only for pairs of values that come to be compared.

    It is a comparison sort of the values where they do not interleave, and then needs few of the pairs; so it cannot
    see every contradiction.

    Errors:
        ArgumentError: two values that are compared have more copies together than the capacity.
        NotExtendable: the answers to two orders of two elements do not fit together.

    Source: the amalgamation of arXiv 2507.08796, derived in docs/systems/lists.md.
    """
    sublists = source.sublists
    values = list(dict.fromkeys(sublists.labels.tolist()))
    runs = yield from in_step([_first_merge(values[at : at + 2], source) for at in range(0, len(values), 2)])
    return labels_of((yield from merge_all(runs, lambda left, right: _merge_tokens(left, right, source))))


def _first_merge(values: list[int], source: PairSource) -> Merge:
    """The tokens of one or two values."""
    if len(values) == 1:
        single = np.array(values) if isinstance(source, ByOccurrence) else source.sublists.of(values)
        [answer] = yield [single]
        times = source.sublists.counts[values[0]] // len(single)
        return [(values[0], copy) for copy in range(len(answer) * times)]
    x, y = values
    word = source.word(x, y, (yield source.queries(x, y)))
    return tokens_of(np.where(word, y, x))


def _merge_tokens(left: list[Token], right: list[Token], source: PairSource) -> Merge:
    merged: list[Token] = []
    y_before: dict[tuple[int, int], list[int]] = {}
    i = j = 0
    while i < len(left) and j < len(right):
        (x, a), (y, b) = left[i], right[j]
        if (x, y) not in y_before:
            word = source.word(x, y, (yield source.queries(x, y)))
            at_x = np.flatnonzero(~word)
            y_before[x, y] = (at_x - np.arange(len(at_x))).tolist()
        if y_before[x, y][a] <= b:
            merged.append(left[i])
            i += 1
        else:
            merged.append(right[j])
            j += 1
    return merged + left[i:] + right[j:]


def _batches(sublists: Sublists, values: list[int]) -> Iterator[list[tuple[int, int]]]:
    """All pairs of values, some at a time."""
    batch: list[tuple[int, int]] = []
    elements = 0
    for x, y in combinations(values, 2):
        batch.append((x, y))
        elements += sublists.counts[x] + sublists.counts[y]
        if elements > ELEMENTS_AT_ONCE:
            yield batch
            batch, elements = [], 0
    if batch:
        yield batch
