"""Covering families: sets of values such that every two are together in one, each of which can be asked for.

They need more queries than block merge, and all of them can be asked at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product

import numpy as np
from jaxtyping import Int

from holdfast.errors import ArgumentError
from holdfast.lists.errors import Cycle, NotExtendable
from holdfast.lists.extend.pairs import Labels
from holdfast.lists.extend.sublists import Plan, Sublists, tokens_of
from holdfast.lists.tokens import Token


def cover(sublists: Sublists, values: Sequence[int], size: int | None = None) -> list[list[int]]:
    """Sets of values, few of them, such that every two values are together in one, and each set can be asked for.

    Groups of half the capacity, two by two; or the lines of an affine plane, which show every two values together just
    once, where that takes fewer.

    Arguments:
        sublists: the list, with a capacity of at least 2.
        values: the values, in the order in which they are to be grouped.
        size: most elements of a set; `None`: the capacity.

    Errors:
        ArgumentError: two values have more copies together than the capacity.

    Source: the amalgamation of arXiv 2507.08796, derived in docs/systems/lists.md.
    """
    capacity = sublists.room if size is None else size
    groups = list(sublists.packed(values, capacity // 2))
    if len(groups) == 1 or sum(sublists.counts[value] for value in values) <= capacity:
        return [list(values)]
    sets: list[list[int]] = []
    for second, right in enumerate(groups):
        for left in groups[:second]:
            sets += _joined(sublists, left, right, capacity)
    if max(sublists.counts[value] for value in values) > capacity // 2:
        # Beside a value with so many copies, a group may have been shown in parts only.
        whole = [set(some) for some in sets]
        sets += [group for group in groups if len(group) > 1 and not any(some.issuperset(group) for some in whole)]
    orders = [order for order in _prime_powers(capacity) if order**2 >= len(values)]
    if orders and max(sublists.counts[value] for value in values) == 1:
        at = [[values[point] for point in line if point < len(values)] for line in affine_plane(orders[0])]
        lines = [line for line in at if len(line) > 1]
        if len(lines) < len(sets):
            return lines
    return sets


def _joined(sublists: Sublists, left: list[int], right: list[int], capacity: int) -> Iterator[list[int]]:
    """Two groups of values together, or what can be shown at once where one value has more than half the capacity."""
    large, small = sorted((left, right), key=lambda group: -sum(sublists.counts[value] for value in group))
    room = capacity - sum(sublists.counts[value] for value in large)
    for part in sublists.packed(small, max(room, 0)):
        if sum(sublists.counts[value] for value in part) > room:
            raise sublists.too_long((large[0], part[0]))
        yield large + part


def affine_plane(order: int) -> list[list[int]]:
    """Lines of the affine plane over a finite field: sets of points such that every two are together in just one.

    Arguments:
        order: elements of the field: a power of a prime.

    Returns:
        `order**2 + order` lines of `order` points each, which are numbered from 0 to `order**2 - 1`.

    Errors:
        ArgumentError: the order is no power of a prime.
    """
    if order not in _prime_powers(order):
        raise ArgumentError("order", "a power of a prime", order)
    plus, times = _field(order)
    sloped = [
        [x * order + int(plus[times[slope, x], shift]) for x in range(order)]
        for slope, shift in product(range(order), repeat=2)
    ]
    return sloped + [[x * order + y for y in range(order)] for x in range(order)]


def _prime_powers(most: int) -> list[int]:
    primes = [p for p in range(2, most + 1) if all(p % d for d in range(2, int(p**0.5) + 1))]
    return sorted(p**m for p in primes for m in range(1, most.bit_length()) if p**m <= most)


@cache
def _field(order: int) -> tuple[Int[np.ndarray, "q q"], Int[np.ndarray, "q q"]]:
    """Tables of addition and multiplication of a finite field; an element's digits are coefficients of a polynomial."""
    p = next(d for d in range(2, order + 1) if order % d == 0)
    size = round(np.log(order) / np.log(p))
    digits = (np.arange(order)[:, None] // p ** np.arange(size)) % p
    plus = ((digits[:, None] + digits) % p) @ p ** np.arange(size)
    # Modulo a polynomial x^size - r the products have no zero divisors if and only if it is irreducible.
    for rest in digits:
        times = np.zeros((order, order, size), dtype=np.int64)
        shifted = digits
        for power in range(size):
            times = (times + digits[:, power, None, None] * shifted) % p
            shifted = (np.roll(shifted, 1, axis=1) * (np.arange(size) > 0) + shifted[:, -1:] * rest) % p
        table = times @ p ** np.arange(size)
        if (table[1:, 1:] > 0).all():
            return plus, table
    raise AssertionError(f"there is a field with {order} elements")


def cover_merge(sublists: Sublists) -> Plan:
    """All sublists of a covering family in one batch. Memory grows with the square of the output's length.

    Errors:
        ArgumentError: two values have more copies together than the capacity.
        NotExtendable: two answers order the same tokens differently.
        Cycle: no list fits the answers.
    """
    values = list(dict.fromkeys(sublists.labels.tolist()))
    queries = [sublists.of(some) for some in cover(sublists, values)]
    answers = yield queries
    copies = np.zeros(len(sublists.values), dtype=np.int64)
    for query, answer in zip(queries, answers, strict=True):
        copies[query] = np.bincount(answer, minlength=len(copies))[query]
    first = (np.cumsum(copies) - copies).tolist()
    before = np.zeros((copies.sum(),) * 2, dtype=bool)
    for number, answer in enumerate(answers):
        at = np.array([first[label] + copy for label, copy in tokens_of(answer)], dtype=np.int64)
        sooner, later = _two_of(len(at))
        if before[at[later], at[sooner]].any():
            raise _disagreement(sublists, queries, answers, number)
        before[at[sooner], at[later]] = True
    label = np.repeat(np.arange(len(copies)), copies)
    places = before.sum(axis=0)
    order = np.argsort(places, kind="stable")
    equal = np.flatnonzero(np.diff(places[order]) == 0)
    if len(equal):
        s, t = order[equal[0] : equal[0] + 2]
        s, t = (s, t) if before[s, t] else (t, s)
        u = np.flatnonzero(before[:, s] & before[t])[0]
        raise _seen_cycle(sublists, queries, answers, [(int(label[i]), int(i) - first[label[i]]) for i in (s, t, u)])
    return np.asarray(label[order])


@cache
def _two_of(size: int) -> tuple[Labels, Labels]:
    """Places of every two of so many elements, the earlier ones and the later ones."""
    sooner, later = np.triu_indices(size, 1)
    return sooner, later


def _disagreement(sublists: Sublists, queries: list[Labels], answers: list[Labels], number: int) -> NotExtendable:
    """The error for an answer that orders tokens otherwise than an earlier one."""
    for earlier in range(number):
        both = np.intersect1d(queries[earlier], queries[number])
        want, got = (answer[np.isin(answer, both)] for answer in (answers[earlier], answers[number]))
        if not np.array_equal(want, got):
            rule = f"the values that it shares with {sublists.show(queries[earlier])} are answered alike"
            return NotExtendable(rule, *map(sublists.show, (queries[number], want, got)))
    raise AssertionError("some earlier answer has another order")


def _seen_cycle(sublists: Sublists, queries: list[Labels], answers: list[Labels], tokens: list[Token]) -> Cycle:
    shown = []
    for (x, _), (y, _) in zip(tokens, tokens[1:] + tokens[:1], strict=True):
        number = next(number for number, query in enumerate(queries) if np.isin((x, y), query).all())
        shown.append((sublists.show(queries[number]), sublists.show(answers[number])))
    first, second, third = ((sublists.values[label], copy) for label, copy in tokens)
    return Cycle((first, second, third), tuple(shown))


def vote_queries(
    sublists: Sublists, votes: int, seed: int, *, both_orders: bool = False
) -> tuple[list[Labels], list[bool]]:
    """Random sublists in which every two values are together at least so many times, each time among other values.

    Arguments:
        sublists: the list, with a capacity of at least 2.
        votes: how many times.
        seed: of the shuffles.
        both_orders: show half of them the other way round; where `votes` is odd, chance decides for the last of each.

    Returns:
        The lists as they are to be shown, and which of them are turned round.

    Errors:
        ArgumentError: two values have more copies together than the capacity.
    """
    rng = np.random.default_rng(seed)
    values = np.unique(sublists.labels)
    size, total = sublists.room, len(sublists.labels)
    if votes > 1 and total <= size:
        # The whole list again and again would be one context: two thirds of it are many.
        size = max(sum(sorted(sublists.counts)[-2:]), 2 * total // 3)
    queries: list[Labels] = []
    turned: list[bool] = []
    for vote in range(votes):
        for some in cover(sublists, rng.permutation(values).tolist(), size):
            last = vote == votes - 1 and vote % 2 == 0
            turned.append(both_orders and bool(rng.integers(2) if last else vote % 2))
            queries.append(sublists.of(some)[:: -1 if turned[-1] else 1])
    return queries, turned
