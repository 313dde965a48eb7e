"""Gluing where every occurrence of a value counts for itself: answers to lists of two elements settle any list.

If a function commutes with deleting single occurrences, then the order of two elements in the answer depends on these
two alone, and on which of them stands first. Equal elements need no order, for they look the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
from jaxtyping import Int

from holdfast.lists.errors import Cycle, NotExtendable
from holdfast.lists.extend.pairs import Labels, Word

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


def glue_occurrences(labels: Labels, short: ShortAnswers) -> Labels:
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
    out = np.full(total, -1, dtype=np.int64)
    for value in np.flatnonzero(counts * short.copies).tolist():
        others = np.sort(_others_before(labels, counts, short, value), axis=None, kind="stable")
        out[others + np.arange(len(others))] = value
    if total and out.min() < 0:
        raise _contradiction(labels, counts, short)
    return out


def pair_word(labels: Labels, x: int, y: int, short: ShortAnswers) -> Word:
    """The answer to a list with all but two values deleted, true where it is y.

    Errors:
        NotExtendable: no list fits; in labels.
    """
    part = labels[(labels == x) | (labels == y)]
    counts = np.bincount(part, minlength=len(short.copies))
    words = []
    for value in (x, y):
        others = np.sort(_others_before(part, counts, short, value), axis=None)
        word = np.full(int((counts * short.copies)[[x, y]].sum()), value == x)
        word[others + np.arange(len(others))] = value == y
        words.append(word)
    if not np.array_equal(words[0], words[1]):
        rule = (
            "in mode positional, the places that the answers to two elements give to the one value and to the other fit"
        )
        raise NotExtendable(rule, part.tolist(), *(np.where(word, y, x).tolist() for word in words))
    return words[0]


def _others_before(labels: Labels, counts: Labels, short: ShortAnswers, value: int) -> Int[np.ndarray, "n k"]:
    """For each copy of each occurrence of a value, how many tokens of other values stand before it."""
    at = np.flatnonzero(labels == value)
    others = np.empty((len(at), int(short.copies[value])), dtype=np.int64)
    for copy in range(others.shape[1]):
        after, before = short.after_x[value, :, copy], short.before_x[value, :, copy]
        # Of an element that may stand first or last it matters how many of it stand first.
        others[:, copy] = counts @ after
        if (before != after).any():
            others[:, copy] += np.cumsum((before - after)[labels])[at]
    return others


def _contradiction(labels: Labels, counts: Labels, short: ShortAnswers) -> Cycle | NotExtendable:
    """Three tokens in a circle, from two with equal places; or two values whose tokens are in a circle."""
    ranked: dict[int, list[Token]] = {}
    at: dict[int, Token] = {}
    clash = None
    for value in np.flatnonzero(counts * short.copies).tolist():
        here = np.flatnonzero(labels == value).tolist()
        others = _others_before(labels, counts, short, value)
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


def _between(p: Token, q: Token, labels: Labels, short: ShortAnswers, without: tuple[int, ...]) -> Token | None:
    """A token after p and before q, of none of some values."""
    before_p, before_q = (_copies_before(token, labels, short) for token in (p, q))
    where = np.flatnonzero((before_q > before_p) & ~np.isin(labels, without))
    return (int(where[0]), int(before_p[where[0]])) if len(where) else None


def _copies_before(token: Token, labels: Labels, short: ShortAnswers) -> Labels:
    """How many copies of each element stand before a token; 0 for those of its own value."""
    position, copy = token
    after, before = (table[labels[position], :, copy][labels] for table in (short.after_x, short.before_x))
    return np.asarray(np.where(np.arange(len(labels)) > position, after, before))


def _is_before(s: Token, t: Token, labels: Labels, short: ShortAnswers) -> bool:
    """Whether the answers put one token before another one, of another value."""
    (i, a), (j, b) = s, t
    table = short.after_x if i > j else short.before_x
    return bool(a < table[labels[j], labels[i], b])


def _circle(tokens: tuple[Token, Token, Token], labels: Labels, short: ShortAnswers) -> Cycle:
    """The error, with the answers to two elements that show it."""
    answers = []
    for (i, _), (j, _) in zip(tokens, (*tokens[1:], tokens[0]), strict=True):
        x, y = (int(labels[position]) for position in sorted((i, j)))
        word = np.full(int(short.copies[x] + short.copies[y]), y)
        word[short.after_x[x, y, : short.copies[x]] + np.arange(short.copies[x])] = x
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
