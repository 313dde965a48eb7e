"""Pair gluing: the answer to a long list from the answers to its sublists of two values.

A filter-equivariant function is fixed by what it answers on lists with at most two distinct values: its *pair words*.
A token is one copy of a value in the output, and its place is the number of tokens before it, which the pair words
tell. So gluing is a sum and a scatter over arrays, without a loop over tokens. If the places collide, then no list has
these pair words, and three tokens go round in a circle: f . filter p == filter p . f cannot hold.

Values are labels 0, 1, 2, ... here (`holdfast.lists.values.Alphabet` makes them).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from holdfast.errors import ArgumentError, count_of
from holdfast.lists.errors import AlienValue, Cycle, NotExtendable, Undetermined, WrongMultiplicity
from holdfast.lists.tokens import Token, circle_through

Labels = Int[np.ndarray, " n"]
"""A list as labels."""

Word = Bool[np.ndarray, " m"]
"""A pair word of values x and y: for each token whether it is y."""

CLOSURE_TOKENS = 1500
"""Most tokens for which `PairTable` also uses what follows from known orders: time grows with the third power."""

MOST_TOKENS = 1 << 40
"""More copies of a value than any memory holds."""

CANDIDATES = 8
"""Most candidates that an `Undetermined` error lists."""


def as_labels(argument: str, labels: Any) -> Labels:
    """Labels as an array, or an error that names the argument.

    Arguments:
        argument: its name.
        labels: whole numbers.

    Errors:
        ArgumentError: something else, or numbers that 64 bits do not hold.
    """
    try:
        numbers = np.asarray(labels)
        whole = numbers.size == 0 or numbers.dtype.kind in "iub"
        if whole and (numbers.ndim == 1 or numbers.size == 0):
            return numbers.astype(np.int64).reshape(-1)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ArgumentError(argument, "a list of whole numbers that 64 bits hold", repr(labels)[:80])


def glue_words(copies: Labels, words: Mapping[tuple[int, int], Word]) -> Labels:
    """The one list whose restrictions to two values are the given pair words (score scatter).

    The place of the a-th x is a plus, over all other values y, the number of y before it in the word of x and y.

    Arguments:
        copies: copies of each value in the output.
        words: for each pair of values with copies, once and in either order, their word.

    Returns:
        The list, as labels.

    Errors:
        ArgumentError: a word is missing, or holds other numbers of copies.
        Cycle: no list has these pair words; its tokens and answers are in labels.

    Source: the amalgamation of arXiv 2507.08796, derived in docs/systems/lists.md. A tournament
    is transitive if and only if its scores differ (Landau).
    """
    copies = as_labels("copies", copies)
    if not isinstance(words, Mapping) or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in words):
        raise ArgumentError("words", "words by pairs of labels", type(words).__name__)
    if len(copies) and not 0 <= copies.min() <= copies.max() < MOST_TOKENS:
        raise ArgumentError("copies", f"numbers from 0 to {MOST_TOKENS}", "another number")
    places = _places(copies, words)
    total = int(np.sum(copies))
    out = np.full(total, -1, dtype=np.min_scalar_type(-max(len(copies), 1)))
    for label, at in enumerate(places):
        out[at] = label
    if total and out.min() < 0:
        raise _cycle(copies, words, places)
    return out.astype(np.int64)


def _places(copies: Labels, words: Mapping[tuple[int, int], Word]) -> list[Labels]:
    """How many tokens stand before each token, by label and copy."""
    present = int(np.count_nonzero(copies))
    # The index of a token in a word counts the tokens of both values before it, its own value's once for each word.
    places = [np.arange(count) * (2 - max(present, 1)) for count in copies]
    needed = present * (present - 1) // 2
    for (x, y), word in words.items():
        seconds = np.flatnonzero(word)
        if len(seconds) != copies[y] or len(word) - len(seconds) != copies[x]:
            got = (len(word) - len(seconds), len(seconds))
            raise ArgumentError("words", f"{copies[x]} copies of {x} and {copies[y]} of {y} in their word", got)
        if copies[x] and copies[y]:
            places[x] += np.flatnonzero(~word)
            places[y] += seconds
            needed -= 1
    if needed:
        raise ArgumentError("words", "one word for every pair of values", f"{needed} fewer")
    return places


def _before(copies: Labels, words: Mapping[tuple[int, int], Word], token: Token) -> dict[int, int]:
    """How many tokens of each value stand before a token."""
    label, copy = token
    counts = dict.fromkeys(range(len(copies)), 0)
    counts[label] = copy
    for (x, y), word in words.items():
        if label in (x, y) and copies[x] and copies[y]:
            places = np.flatnonzero(word if label == y else ~word)
            counts[x if label == y else y] = int(places[copy]) - copy
    return counts


def _cycle(copies: Labels, words: Mapping[tuple[int, int], Word], places: Sequence[Labels]) -> Cycle:
    """Three tokens in a circle, found from two with equal places."""
    label = np.repeat(np.arange(len(copies)), copies)
    copy = np.concatenate([np.arange(count) for count in copies])
    place = np.concatenate(list(places))
    order = np.argsort(place, kind="stable")
    twice = np.flatnonzero(np.diff(place[order]) == 0)[0]
    s, t = ((int(label[token]), int(copy[token])) for token in order[twice : twice + 2])
    tokens = circle_through(s, t, lambda token: _before(copies, words, token))
    answers = []
    for (x, _), (y, _) in zip(tokens, tokens[1:] + tokens[:1], strict=True):
        word = np.where(words[x, y], y, x) if (x, y) in words else np.where(words[y, x], x, y)
        answers.append(([x, y], word.tolist()))
    return Cycle(tokens, tuple(answers))


class PairTable:
    """What is known of a filter-equivariant function, by the lists of at most two values that it was seen on.

    Every answer tells all the pair words inside it. The table predicts the answer to any list whose pairs it knows, or
    says which answers are missing.

    Arguments:
        alphabet_size: number of values; their labels are 0 to `alphabet_size - 1`.
        values: what the labels stand for in errors; `None`: the labels themselves.

    Errors:
        ArgumentError: the size is negative, or there is another number of values.
    """

    def __init__(self, alphabet_size: int, values: Sequence[Any] | None = None) -> None:
        self.alphabet_size = count_of("alphabet_size", alphabet_size)
        if values is not None and len(values) != alphabet_size:
            raise ArgumentError("values", f"{alphabet_size} values", len(values))
        self._values = values
        self._answers: dict[bytes, tuple[Labels, Labels]] = {}
        """Query and answer, by the query, of lists with one or two values."""
        self._copies: dict[tuple[int, int], tuple[int, Labels, Labels]] = {}
        """Copies that come out, by value and copies that go in, with the list that showed it and its answer."""

    def add(self, query: Sequence[int] | Labels, answer: Sequence[int] | Labels) -> None:
        """Learn every pair word that an answer tells.

        Arguments:
            query: labels of the list.
            answer: labels of the answer; any number that is no label of the list is an alien value.

        Errors:
            AlienValue, WrongMultiplicity: the answer is none of a filter-equivariant function.
            NotExtendable: it contradicts an earlier answer. In both cases nothing of it is learnt.
            ArgumentError: the query holds a number that is no label.
        """
        asked, answered = self._labels(query), as_labels("answer", answer)
        aliens = answered[~np.isin(answered, asked)]
        if len(aliens):
            raise AlienValue(self._show(asked), self._show(answered), self._show(aliens[:1])[0])
        values = np.unique(asked)
        copies: dict[tuple[int, int], tuple[int, Labels, Labels]] = {}
        for value in values.tolist():
            name = value, int(np.count_nonzero(asked == value))
            copies[name] = (int(np.count_nonzero(answered == value)), asked, answered)
            known = self._copies.get(name, copies[name])
            if known[0] != copies[name][0]:
                first, second = ((self._show(q), self._show(a)) for _, q, a in (known, copies[name]))
                raise WrongMultiplicity(self._show([value])[0], first, second)
        answers: dict[bytes, tuple[Labels, Labels]] = {}
        for some in _pairs(values.tolist()):
            part, word = (full[np.isin(full, some)] for full in (asked, answered))
            old = self._answers.get(part.tobytes())
            if old is not None and not np.array_equal(old[1], word):
                rule = "an earlier answer, with what was deleted from its list deleted from it"
                raise NotExtendable(rule, self._show(part), self._show(old[1]), self._show(word))
            answers[part.tobytes()] = part, word
        self._copies = copies | self._copies
        self._answers |= answers

    def missing(self, labels: Sequence[int] | Labels) -> list[Labels]:
        """The lists whose answers, all together, settle the answer to a list; none if it is settled.

        Orders that follow from known ones (first before second, second before third) are not missing, as long as the
        output has at most 1500 tokens.

        Errors:
            Cycle, NotExtendable: no answer fits what is known.
        """
        return self._missing(self._labels(labels))[0]

    def predict(self, labels: Sequence[int] | Labels) -> Labels:
        """The answer to a list.

        Errors:
            Undetermined: with the lists whose answers are missing, and candidates if they are few.
            Cycle, NotExtendable: no answer fits what is known.
        """
        xs = self._labels(labels)
        missing, before, tokens = self._missing(xs)
        if missing:
            few = [] if before is None else linear_extensions(before, CANDIDATES + 1)
            candidates = [self._show(tokens[order]) for order in few] if len(few) <= CANDIDATES else []
            raise Undetermined([self._show(query) for query in missing], candidates)
        if before is not None:
            return np.asarray(tokens[np.argsort(before.sum(axis=0))])
        return self.glue(xs)

    def glue(self, labels: Sequence[int] | Labels) -> Labels:
        """The answer to a list by score scatter, from the words of all its pairs.

        Errors:
            Undetermined: a pair is missing.
            Cycle: no answer fits what is known.
        """
        xs = self._labels(labels)
        words, absent, known = self._words(xs)
        if absent:
            raise Undetermined([self._show(query) for query in absent])
        copies = np.zeros(self.alphabet_size, dtype=np.int64)
        for value, count in known.items():
            copies[value] = count
        try:
            return glue_words(copies, words)
        except Cycle as cycle:
            raise self._explained(cycle, xs) from None

    def _words(self, xs: Labels) -> tuple[dict[tuple[int, int], Word], list[Labels], dict[int, int]]:
        """Known words of the pairs of a list, the lists that would tell the others, and the known copies."""
        counts = dict(zip(*(part.tolist() for part in np.unique(xs, return_counts=True)), strict=True))
        copies = {value: self._copies[value, n][0] for value, n in counts.items() if (value, n) in self._copies}
        words, absent = {}, []
        for x, y in combinations([value for value in counts if copies.get(value) != 0], 2):
            part = xs[(xs == x) | (xs == y)]
            known = self._answers.get(part.tobytes())
            if known is None:
                absent.append(part)
            else:
                words[x, y] = known[1] == y
        told = set(np.concatenate(absent).tolist()) if absent else set()
        absent += [xs[xs == value] for value in counts if value not in copies and value not in told]
        return words, absent, copies

    def _missing(self, xs: Labels) -> tuple[list[Labels], Bool[np.ndarray, "n n"] | None, Labels]:
        """What `missing` says; and where pairs are not known, which token comes before which, and their labels."""
        words, absent, copies = self._words(xs)
        tokens = np.repeat(np.array(list(copies), dtype=np.int64), np.array(list(copies.values()), dtype=np.int64))
        if not absent or len(tokens) > CLOSURE_TOKENS:
            return absent, None, tokens
        known = np.triu(tokens[:, None] == tokens, 1)
        for (x, y), word in words.items():
            at = np.empty(len(word), dtype=np.int64)
            at[~word], at[word] = np.flatnonzero(tokens == x), np.flatnonzero(tokens == y)
            known[np.ix_(at, at)] = np.triu(np.ones((len(at), len(at)), dtype=bool), 1)
        before = closure(known)
        if before.diagonal().any():
            raise self._circle(known, before, tokens, xs)
        settled = before | before.T
        missing = [
            part
            for part in absent
            if len(values := np.unique(part)) == 1
            or not all(int(value) in copies for value in values)
            or not settled[np.ix_(tokens == values[0], tokens == values[1])].all()
        ]
        complete = len(copies) == len(np.unique(xs))
        return missing, before if complete else None, tokens

    def _circle(
        self, known: Bool[np.ndarray, "n n"], before: Bool[np.ndarray, "n n"], tokens: Labels, xs: Labels
    ) -> Cycle | NotExtendable:
        """The error for an order that comes back to where it started."""
        steps = known.astype(np.float32)
        ends = np.argwhere((steps @ steps > 0) & known.T)
        if not len(ends):
            around = np.unique(tokens[before.diagonal()])
            rule = f"the known answers order copies of {self._show(around)} in a circle, so that no list fits them"
            return NotExtendable(rule, self._show(xs), [], [])
        s, u = ends[0]
        t = np.flatnonzero(known[s] & known[:, u])[0]
        three = tuple((int(tokens[i]), int(np.count_nonzero(tokens[:i] == tokens[i]))) for i in (s, t, u))
        return self._explained(Cycle((three[0], three[1], three[2]), ()), xs)

    def _explained(self, cycle: Cycle, xs: Labels) -> Cycle:
        """The circle with the lists that show it, in values."""
        tokens: Any = tuple((self._show([label])[0], copy) for label, copy in cycle.tokens)  # type: ignore[list-item]
        labels: list[Any] = [label for label, _ in cycle.tokens]
        answers = []
        for x, y in zip(labels, labels[1:] + labels[:1], strict=True):
            asked, answered = self._answers[xs[(xs == x) | (xs == y)].tobytes()]
            answers.append((self._show(asked), self._show(answered)))
        return Cycle(tokens, tuple(answers))

    def _labels(self, labels: Sequence[int] | Labels) -> Labels:
        numbers = as_labels("labels", labels)
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < self.alphabet_size:
            wrong = numbers[(numbers < 0) | (numbers >= self.alphabet_size)][0]
            raise ArgumentError("labels", f"labels from 0 to {self.alphabet_size - 1}", int(wrong))
        return numbers

    def _show(self, labels: Sequence[int] | Labels) -> list[Any]:
        plain = [int(label) for label in labels]
        if self._values is None:
            return plain
        return [self._values[label] if 0 <= label < self.alphabet_size else label for label in plain]


def linear_extensions(before: Bool[np.ndarray, "n n"], limit: int) -> list[Labels]:
    """Orders of tokens that fit what is known, `limit` at most, as indices of tokens from first to last.

    Arguments:
        before: whether the row's token comes before the column's; transitive.
        limit: where to stop.
    """
    orders: list[Labels] = []
    order: list[int] = []
    waits_for = before.sum(axis=0)

    def grow() -> None:
        if len(order) == len(before):
            orders.append(np.array(order, dtype=np.int64))
            return
        for token in np.flatnonzero(waits_for == 0).tolist():
            if len(orders) == limit:
                return
            order.append(token)
            waits_for[:] -= before[token]
            waits_for[token] = -1
            grow()
            waits_for[token] = 0
            waits_for[:] += before[token]
            order.pop()

    grow()
    return orders


def closure(before: Bool[np.ndarray, "n n"]) -> Bool[np.ndarray, "n n"]:
    """All that follows from some orders of two tokens."""
    reach: Bool[np.ndarray, "n n"] = before
    while True:
        steps = reach.astype(np.float32)
        further: Bool[np.ndarray, "n n"] = reach | (steps @ steps > 0)
        if np.array_equal(further, reach):
            return reach
        reach = further


def _pairs(values: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Every value alone, and every two."""
    yield from ((value,) for value in values)
    yield from combinations(values, 2)
