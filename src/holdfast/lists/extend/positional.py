"""Gluing where every occurrence of a value counts for itself: answers to lists of two elements settle any list.

If a function commutes with deleting single occurrences, then the order of two elements in the answer depends on these
two alone, and on which of them stands first. Equal elements need no order, for they look the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import permutations, product

import numpy as np
from jaxtyping import Int

from holdfast.lists.errors import Cycle, NotExtendable
from holdfast.lists.extend.pairs import Labels, Word

SUMS = 8
"""Running sums that are kept; bounds the memory."""

Rows = Int[np.ndarray, "v k"]
"""By value and copy."""

Token = tuple[int, int]
"""A position in the list, and which copy of its element in the answer."""


@dataclass(frozen=True)
class ShortAnswers:
    """What a function answers to lists of two elements.

    Arguments:
        copies: copies of each value that come out where one goes in.
        after_x: entry [x, y, a] is the number of y before the a-th x in the answer to [x, y].
        before_x: the same in the answer to [y, x].
    """

    copies: Int[np.ndarray, " v"]
    after_x: Int[np.ndarray, "v v k"]
    before_x: Int[np.ndarray, "v v k"]

    def rows(self, x: int) -> tuple[Rows, Rows]:
        """Entries [y, a] of `after_x` and of `before_x` for one x."""
        return self.after_x[x], self.before_x[x]


@dataclass(frozen=True)
class OrderedAnswers:
    """The same, from the answers to all values at once: no table of all pairs is kept.

    Arguments:
        values: the values, each once; every label from 0 on is there.
        forwards: the answer to them.
        backwards: the answer to them turned round; with as many copies of each.
    """

    values: Labels
    forwards: Labels
    backwards: Labels

    @cached_property
    def copies(self) -> Int[np.ndarray, " v"]:
        """Copies of each value that come out where one goes in."""
        return np.bincount(self.forwards, minlength=len(self.values))

    @cached_property
    def _rank(self) -> Labels:
        rank = np.empty(len(self.values), dtype=np.int64)
        rank[self.values] = np.arange(len(self.values))
        return rank

    def rows(self, x: int) -> tuple[Rows, Rows]:
        """Entries [y, a] for one x: the number of y before the a-th x in the answers to [x, y] and to [y, x]."""
        earlier = self._rank < self._rank[x]
        forwards, backwards = (self._before(answer, x) for answer in (self.forwards, self.backwards))
        return np.where(earlier[:, None], backwards, forwards), np.where(earlier[:, None], forwards, backwards)

    def _before(self, answer: Labels, x: int) -> Rows:
        size = len(self.values)
        counts = np.zeros((size, int(self.copies[x])), dtype=np.int64)
        for copy, place in enumerate(np.flatnonzero(answer == x).tolist()):
            counts[:, copy] = np.bincount(answer[:place], minlength=size)
        counts[x] = 0
        return counts


PairAnswers = ShortAnswers | OrderedAnswers


def short_queries(labels: Labels, size: int) -> Int[np.ndarray, "pairs 2"]:
    """The lists of two values in each order in which they stand in a list."""
    first, last = np.full(size, len(labels)), np.full(size, -1)
    at = np.arange(len(labels))
    np.minimum.at(first, labels, at)
    np.maximum.at(last, labels, at)
    return np.argwhere((first[:, None] < last) & ~np.eye(size, dtype=bool))


def short_answers(queries: Int[np.ndarray, "pairs 2"], answers: list[Labels], size: int) -> ShortAnswers:
    """The table of some answers to lists of two elements; entries of other lists are 0.

    Arguments:
        queries: the lists, each of two values.
        answers: their answers; in all of them a value has as many copies.
        size: number of values.
    """
    lengths = np.array([len(answer) for answer in answers], dtype=np.int64)
    query = np.repeat(np.arange(len(queries)), lengths)
    flat = np.concatenate([np.zeros(0, dtype=np.int64), *answers])
    x, y = queries[query].T
    is_y = flat == y
    copies = np.zeros(size, dtype=np.int64)
    for place, here in enumerate((~is_y, is_y)):
        copies[queries[:, place]] = np.bincount(query[here], minlength=len(queries))
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    seen_y = np.cumsum(is_y) - is_y
    seen_y -= seen_y[starts]
    seen_x = np.arange(len(flat)) - starts - seen_y
    after_x, before_x = np.zeros((2, size, size, max(int(copies.max(initial=0)), 1)), dtype=np.int64)
    after_x[x[~is_y], y[~is_y], seen_x[~is_y]] = seen_y[~is_y]
    before_x[y[is_y], x[is_y], seen_y[is_y]] = seen_x[is_y]
    return ShortAnswers(copies, after_x, before_x)


def glue_occurrences(labels: Labels, short: PairAnswers) -> Labels:
    """The answer to a list from the answers to its lists of two elements.

    Arguments:
        labels: the list.
        short: holds the answers to `short_queries(labels)`.

    Errors:
        Cycle: no list fits; in labels, a token being a label and which of the copies of its element.
        NotExtendable: no list fits, and two values suffice to show it; in labels.

    Source: the amalgamation of arXiv 2507.08796, summed up by value: a sum over the elements before each
    one is a running sum. The places of the tokens differ if and only if their tournament is transitive.
    """
    counts = np.bincount(labels, minlength=len(short.copies))
    total = int((counts * short.copies).sum())
    out = np.full(total, -1, dtype=np.min_scalar_type(-max(len(counts), 1)))
    others_before = OthersBefore(labels, counts, short)
    for value in np.flatnonzero(counts * short.copies).tolist():
        # Copy by copy they are in order, or against it: runs that are merged quickly.
        others = np.sort(others_before(value).T, axis=None, kind="stable")
        others += np.arange(len(others), dtype=others.dtype)
        out[others] = value
    if total and out.min() < 0:
        raise _contradiction(labels, counts, short)
    return out.astype(np.int64)


class OthersBefore:
    """For each copy of each occurrence of a value, how many tokens of other values stand before it.

    Arguments:
        labels: the list.
        counts: how often each value stands in it.
        short: the answers to its lists of two elements.
    """

    def __init__(self, labels: Labels, counts: Labels, short: PairAnswers) -> None:
        self._labels, self._counts, self._short = labels, counts, short
        total = int((counts * short.copies).sum())
        # Half the width is twice the speed: all that is done here is reading and writing memory.
        self._type = np.int32 if total < 2**31 else np.int64
        self._order = np.argsort(labels.astype(np.min_scalar_type(max(len(counts), 1))), kind="stable")
        self._ends = np.cumsum(counts)
        self._sums: dict[bytes, Int[np.ndarray, " n"]] = {}

    def __call__(self, value: int) -> Int[np.ndarray, "n k"]:
        at = self._order[self._ends[value] - self._counts[value] : self._ends[value]]
        after, before = self._short.rows(value)
        copies = int(self._short.copies[value])
        others = np.empty((copies, len(at)), dtype=self._type).T
        for copy in range(copies):
            # Of an element that may stand first or last it matters how many of it stand first.
            others[:, copy] = int(self._counts @ after[:, copy])
            more = before[:, copy] - after[:, copy]
            if not more.any():
                continue
            # Values that see the others alike share a running sum, if each of them counts itself as one of these.
            more[value] = alike = int(more[np.flatnonzero(more)[0]])
            others[:, copy] += self._running_sum(more)[at]
            others[:, copy] -= alike * np.arange(1, len(at) + 1, dtype=self._type)
        return others

    def _running_sum(self, more: Int[np.ndarray, " v"]) -> Int[np.ndarray, " n"]:
        name = more.tobytes()
        if name not in self._sums:
            if len(self._sums) >= SUMS:
                self._sums.clear()
            self._sums[name] = np.cumsum(more.astype(self._type).take(self._labels), dtype=self._type)
        return self._sums[name]


def pair_word(labels: Labels, x: int, y: int, short: PairAnswers) -> Word:
    """The answer to a list with all but two values deleted, true where it is y.

    Errors:
        NotExtendable: no list fits; in labels.
    """
    part = labels[(labels == x) | (labels == y)]
    counts = np.bincount(part, minlength=len(short.copies))
    words = []
    others_before = OthersBefore(part, counts, short)
    for value in (x, y):
        others = np.sort(others_before(value), axis=None)
        word = np.full(int((counts * short.copies)[[x, y]].sum()), value == x)
        word[others + np.arange(len(others))] = value == y
        words.append(word)
    if not np.array_equal(words[0], words[1]):
        rule = (
            "in mode positional, the places that the answers to two elements give to the one value and to the other fit"
        )
        raise NotExtendable(rule, part.tolist(), *(np.where(word, y, x).tolist() for word in words))
    return words[0]


def _contradiction(labels: Labels, counts: Labels, short: PairAnswers) -> Cycle | NotExtendable:
    """Three tokens in a circle, from two with equal places; or two values whose tokens are in a circle."""
    ranked: dict[int, list[Token]] = {}
    at: dict[int, Token] = {}
    clash = None
    others_before = OthersBefore(labels, counts, short)
    for value in np.flatnonzero(counts * short.copies).tolist():
        here = np.flatnonzero(labels == value).tolist()
        others = others_before(value)
        order = np.argsort(others, axis=None, kind="stable")
        ranked[value] = [(here[flat // others.shape[1]], flat % others.shape[1]) for flat in order.tolist()]
        for place, token in zip((others.flat[order] + np.arange(len(order))).tolist(), ranked[value], strict=True):
            if at.setdefault(place, token) != token:
                clash = at[place], token
    assert clash is not None
    s, t = clash if _is_before(*clash, labels, short) else clash[::-1]
    x, y = int(labels[s[0]]), int(labels[t[0]])
    # As many stand before s as before t, and s is one of the latter: so some u stands after t and before s.
    u = _between(t, s, labels, short, without=(x, y))
    if u is not None:
        return _circle((s, t, u), labels, short)
    # That u is a copy of x or y, and its order to s or t is the one chosen above for equal elements: p before q, though
    # q stands before m, and m before p. As p was chosen to go first, some v stands after p and before q.
    sooner = [u for u in ranked[x][: ranked[x].index(s)] if _is_before(t, u, labels, short)]
    if sooner:
        p, q, m = sooner[0], s, t
    else:
        p, m = t, s
        q = next(u for u in ranked[y][ranked[y].index(t) + 1 :] if _is_before(u, s, labels, short))
    v = _between(p, q, labels, short, without=(x, y))
    if v is not None:
        return _circle((v, q, m) if _is_before(m, v, labels, short) else (m, p, v), labels, short)
    try:
        pair_word(labels, x, y, short)
    except NotExtendable as error:
        return error
    raise AssertionError("two tokens share a place, and yet no answers contradict each other")


def _between(p: Token, q: Token, labels: Labels, short: PairAnswers, without: tuple[int, ...]) -> Token | None:
    """A token after p and before q, of none of some values."""
    before_p, before_q = (_copies_before(token, labels, short) for token in (p, q))
    where = np.flatnonzero((before_q > before_p) & ~np.isin(labels, without))
    return (int(where[0]), int(before_p[where[0]])) if len(where) else None


def _copies_before(token: Token, labels: Labels, short: PairAnswers) -> Labels:
    """How many copies of each element stand before a token; 0 for those of its own value."""
    position, copy = token
    after, before = (rows[:, copy][labels] for rows in short.rows(int(labels[position])))
    return np.asarray(np.where(np.arange(len(labels)) > position, after, before))


def _is_before(s: Token, t: Token, labels: Labels, short: PairAnswers) -> bool:
    """Whether the answers put one token before another one, of another value."""
    (i, a), (j, b) = s, t
    after, before = short.rows(int(labels[j]))
    return bool(a < (after if i > j else before)[labels[i], b])


def _circle(tokens: tuple[Token, Token, Token], labels: Labels, short: PairAnswers) -> Cycle:
    """The error, with the answers to two elements that show it."""
    answers = []
    for (i, _), (j, _) in zip(tokens, (*tokens[1:], tokens[0]), strict=True):
        x, y = (int(labels[position]) for position in sorted((i, j)))
        word = np.full(int(short.copies[x] + short.copies[y]), y)
        word[short.rows(x)[0][y, : short.copies[x]] + np.arange(short.copies[x])] = x
        answers.append(([x, y], word.tolist()))
    first, second, third = ((int(labels[position]), copy) for position, copy in tokens)
    return Cycle((first, second, third), tuple(answers))


def relabelled(labels: Labels, in_order: Labels, against: Labels, ranks: Labels | None = None) -> Labels:
    """The answer to a list of any length and any values from the answers to two lists of two elements.

    Arguments:
        labels: the list.
        in_order: answer to [0, 1].
        against: answer to [1, 0]; of a function that is blind to values, `in_order` with its labels exchanged.
        ranks: rank of each value among those of the list; `None`: the function is blind to values.

    Errors:
        Cycle, NotExtendable: no list fits; in labels 0, 1, 2 that stand for any values in this order.

    Source: the amalgamation of arXiv 2507.08796, derived in docs/systems/lists.md.
    """
    _refuse_contradictions(in_order, against)
    copies = len(in_order) // 2
    # Before each copy of an element: those of a smaller or larger one, which stands before or after it in the list.
    smaller_before, smaller_after = (np.cumsum(word == 0)[word == 1] for word in (in_order, against))
    larger_before, larger_after = (np.cumsum(word == 1)[word == 0] for word in (against, in_order))
    size = len(labels)
    at = np.arange(size)
    if ranks is None:
        others = at[:, None] * smaller_before + (size - 1 - at)[:, None] * larger_after
        places = others + np.arange(copies)
    else:
        rank = ranks[labels]
        counts = np.bincount(rank)
        smaller = np.cumsum(counts) - counts
        if not np.array_equal(smaller_before - smaller_after, larger_before - larger_after):
            return glue_occurrences(labels, _table(len(ranks), in_order, against, ranks))
        order = np.argsort(rank, kind="stable")
        equal_before = np.empty(size, dtype=np.int64)
        equal_before[order] = np.arange(size) - smaller[rank[order]]
        others = (at - equal_before)[:, None] * (smaller_before - smaller_after)
        others += smaller[rank][:, None] * smaller_after
        others += (size - smaller - counts)[rank][:, None] * larger_after
        token_rank = np.repeat(rank, copies)
        by_place = np.lexsort((others.ravel(), token_rank))
        places = np.empty(size * copies, dtype=np.int64)
        places[by_place] = others.ravel()[by_place] + np.arange(len(by_place)) - smaller[token_rank[by_place]] * copies
    out = np.empty(size * copies, dtype=np.int64)
    out[places.ravel()] = np.repeat(labels, copies)
    return out


def _refuse_contradictions(in_order: Labels, against: Labels) -> None:
    """No list fits if and only if none fits three different values, or two values twice."""
    short = _table(3, in_order, against, np.arange(3))
    for few in (*permutations(range(3)), *product(range(2), repeat=4)):
        glue_occurrences(np.array(few), short)


def _table(size: int, in_order: Labels, against: Labels, ranks: Labels) -> ShortAnswers:
    """The answers to all lists of two values, from those to two values in order and against it."""
    queries = np.argwhere(~np.eye(size, dtype=bool))
    answers = [query[in_order if ranks[query[0]] < ranks[query[1]] else 1 - against] for query in queries]
    return short_answers(queries, answers, size)
