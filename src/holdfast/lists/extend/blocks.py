"""Gluing from sublists of many values: block merge and covering families.

A function that may be shown `capacity` elements at once tells more in one answer than the order of two. Block merge
cuts the list into chunks, asks for each, and merges the answers two by two, with one query for every `capacity / 2`
tokens or so. A covering family is a set of sublists such that every two values are together in one of
them; it needs more queries, and all of them can be asked at once.

The engines are generators: each yields lists to ask for, as labels, and is sent their answers, until it returns the
answer to the whole list. So the caller decides how to ask: one by one, in one batch, or together with other lists.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Int

from holdfast.errors import ArgumentError
from holdfast.lists.errors import Cycle, NotExtendable
from holdfast.lists.extend.pairs import Labels, Token

Plan = Generator[list[Labels], list[Labels], Labels]
"""Yields lists to ask for, is sent their answers, returns the answer to the whole list."""

Merge = Generator[list[Labels], list[Labels], list[Token]]
"""The same, for two runs of tokens that become one."""


@dataclass(frozen=True, eq=False)
class Sublists:
    """A list, and its sublists of some values.

    Arguments:
        labels: the list.
        values: what the labels stand for.
        capacity: most elements of a sublist that may be asked for; `None`: any number.
    """

    labels: Labels
    values: Sequence[Any]
    capacity: int | None = None

    @cached_property
    def counts(self) -> list[int]:
        """How often each value stands in the list."""
        found: list[int] = np.bincount(self.labels, minlength=len(self.values)).tolist()
        return found

    @cached_property
    def _where(self) -> list[Labels]:
        order = np.argsort(self.labels, kind="stable")
        return np.split(order, np.cumsum(self.counts)[:-1])

    def of(self, some: Iterable[int]) -> Labels:
        """The list with all but some values deleted.

        Errors:
            ArgumentError: it is longer than the capacity.
        """
        where = [self._where[value] for value in some]
        at = np.sort(np.concatenate(where)) if where else np.zeros(0, dtype=np.int64)
        if self.capacity is not None and len(at) > self.capacity:
            raise self.too_long(some)
        return np.asarray(self.labels[at])

    def too_long(self, some: Iterable[int]) -> ArgumentError:
        """The error for values that the function cannot be shown together."""
        each = [f"{self.values[value]!r} {self.counts[value]} times" for value in dict.fromkeys(some)]
        total = sum(self.counts[value] for value in dict.fromkeys(some))
        what = "all copies of two values at once" if len(each) > 1 else "all copies of a value at once"
        expected = f"at least {total}, since mode group shows the function {what} ({' and '.join(each)})"
        return ArgumentError("capacity", expected, self.capacity)

    def show(self, labels: Iterable[int]) -> list[Any]:
        """A list of labels as values."""
        return [self.values[label] for label in (labels.tolist() if isinstance(labels, np.ndarray) else labels)]


def tokens_of(answer: Labels) -> list[Token]:
    """The tokens of an answer, in its order."""
    seen: dict[int, int] = {}
    found = []
    for label in answer.tolist():
        copy = seen.get(label, 0)
        seen[label] = copy + 1
        found.append((label, copy))
    return found


def in_step(merges: Sequence[Merge]) -> Generator[list[Labels], list[Labels], list[list[Token]]]:
    """Several merges together: in each round the lists that all of them ask for."""
    done: list[list[Token]] = [[] for _ in merges]
    waiting: dict[int, list[Labels]] = {}

    def move(number: int, answers: list[Labels] | None) -> None:
        try:
            merge = merges[number]
            waiting[number] = next(merge) if answers is None else merge.send(answers)
        except StopIteration as stop:
            waiting.pop(number, None)
            done[number] = stop.value

    for number in range(len(merges)):
        move(number, None)
    while waiting:
        answers = iter((yield [query for queries in waiting.values() for query in queries]))
        for number, queries in list(waiting.items()):
            move(number, [next(answers) for _ in queries])
    return done


def block_merge(sublists: Sublists) -> Plan:
    """Chunks of as many elements as the function may be shown, merged two by two; all merges of a level in step.

    Each query of a merge shows the function the next tokens of both runs. What its answer says holds until one side's
    tokens are used up, for everything else of that side comes later. With duplicates a chunk holds all copies of its
    values.

    Arguments:
        sublists: the list, with a capacity of at least 2.

    Errors:
        ArgumentError: two values have more copies together than the capacity, and were to be compared.
        NotExtendable: an answer orders two tokens otherwise than an earlier one, or a value that was left out of one
            answer makes a difference to another.

    Source: the amalgamation of arXiv 2507.08796, derived in docs/systems/lists.md: about
    (2n/c) log2(n/c) + n/c queries for n elements and capacity c.
    """
    chunks = list(_packed(sublists, dict.fromkeys(sublists.labels.tolist()), _capacity(sublists)))
    answers = yield [sublists.of(chunk) for chunk in chunks]
    yield from _ask_for_left_out(chunks, answers, sublists)
    runs = [tokens_of(answer) for answer in answers]
    while len(runs) > 1:
        odd = runs[-1:] if len(runs) % 2 else []
        pairs = zip(runs[::2], runs[1::2], strict=False)
        runs = (yield from in_step([_merge_blocks(left, right, sublists) for left, right in pairs])) + odd
    return labels_of(runs)


def _ask_for_left_out(chunks: list[list[int]], answers: list[Labels], sublists: Sublists) -> Merge:
    """Ask once more, beside values of another chunk, for the values that a chunk's answer left out.

    No merge would ask for them again, and one odd value could take its neighbours with it unseen.
    """
    queries: list[Labels] = []
    wanted: list[Labels] = []
    for number, (chunk, answer) in enumerate(zip(chunks, answers, strict=True)):
        left_out = [value for value in chunk if value not in set(answer.tolist())]
        others = [other for other in answers[number + 1 :] + answers[:number] if len(other)]
        if not left_out or not others:
            continue
        for group in _packed(sublists, left_out, _capacity(sublists) // 2):
            room = _capacity(sublists) - sum(sublists.counts[value] for value in group)
            beside = next(_packed(sublists, dict.fromkeys(others[0].tolist()), room))
            if sum(sublists.counts[value] for value in beside) <= room:
                queries.append(sublists.of([*group, *beside]))
                wanted.append(others[0][np.isin(others[0], beside)])
    if not queries:
        return []
    for query, want, got in zip(queries, wanted, (yield queries), strict=True):
        if not np.array_equal(want, got):
            rule = "a value that is left out of one answer makes no difference to another"
            raise NotExtendable(rule, *(sublists.show(labels) for labels in (query, want, got)))
    return []


def _merge_blocks(left: list[Token], right: list[Token], sublists: Sublists) -> Merge:
    merged: list[Token] = []
    i = j = 0
    while i < len(left) and j < len(right):
        i_end, j_end, values = _windows(left, i, right, j, sublists)
        query = sublists.of(values)
        [answer] = yield [query]
        found = tokens_of(answer)
        windows = left[i:i_end], right[j:j_end]
        for window in windows:
            inside = set(window)
            again = [token for token in found if token in inside]
            if again != window:
                rule = "an answer orders the copies of its values as earlier answers do"
                want, got = (sublists.show(label for label, _ in tokens) for tokens in (window, again))
                raise NotExtendable(rule, sublists.show(query), want, got)
        new = set(windows[0]), set(windows[1])
        for token in found:
            if i == i_end or j == j_end:
                break
            if token in new[0]:
                i += 1
            elif token in new[1]:
                j += 1
            else:
                continue
            merged.append(token)
    return merged + left[i:] + right[j:]


def _windows(
    left: list[Token], i: int, right: list[Token], j: int, sublists: Sublists
) -> tuple[int, int, dict[int, None]]:
    """Where the next tokens of two runs end that can be shown together, and their values."""
    capacity = _capacity(sublists)
    first, second = (sublists.counts[run[at][0]] for run, at in ((left, i), (right, j)))
    if first + second > capacity:
        raise sublists.too_long((left[i][0], right[j][0]))
    i_end, shown, values = _window(left, i, max(first, min(capacity // 2, capacity - second)), sublists)
    j_end, also_shown, also = _window(right, j, capacity - shown, sublists)
    if j_end == len(right):
        i_end, _, values = _window(left, i, capacity - also_shown, sublists)
    return i_end, j_end, values | also


def _window(run: list[Token], start: int, budget: int, sublists: Sublists) -> tuple[int, int, dict[int, None]]:
    """Where a run's next tokens end whose values fit in a budget of elements, how many these are, and the values."""
    values: dict[int, None] = {}
    shown = 0
    for end in range(start, len(run)):
        value = run[end][0]
        if value not in values:
            if shown + sublists.counts[value] > budget:
                return end, shown, values
            shown += sublists.counts[value]
            values[value] = None
    return len(run), shown, values


def _packed(sublists: Sublists, values: Iterable[int], size: int) -> Iterator[list[int]]:
    """Values in groups of at most so many elements, in their order; a value that has more is alone."""
    group: list[int] = []
    shown = 0
    for value in values:
        if group and shown + sublists.counts[value] > size:
            yield group
            group, shown = [], 0
        group.append(value)
        shown += sublists.counts[value]
    if group:
        yield group


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
    capacity = _capacity(sublists) if size is None else size
    groups = list(_packed(sublists, values, capacity // 2))
    if len(groups) == 1 or sum(sublists.counts[value] for value in values) <= capacity:
        return [list(values)]
    found: list[list[int]] = []
    for second, right in enumerate(groups):
        for left in groups[:second]:
            found += _joined(sublists, left, right, capacity)
    if max(sublists.counts[value] for value in values) > capacity // 2:
        # Beside a value with so many copies, a group may have been shown in parts only.
        whole = [set(some) for some in found]
        found += [group for group in groups if len(group) > 1 and not any(some.issuperset(group) for some in whole)]
    orders = [order for order in _prime_powers(capacity) if order**2 >= len(values)]
    if orders and max(sublists.counts[value] for value in values) == 1:
        at = [[values[point] for point in line if point < len(values)] for line in affine_plane(orders[0])]
        lines = [line for line in at if len(line) > 1]
        if len(lines) < len(found):
            return lines
    return found


def _joined(sublists: Sublists, left: list[int], right: list[int], capacity: int) -> Iterator[list[int]]:
    """Two groups of values together, or what can be shown at once where one value has more than half the capacity."""
    large, small = sorted((left, right), key=lambda group: -sum(sublists.counts[value] for value in group))
    room = capacity - sum(sublists.counts[value] for value in large)
    for part in _packed(sublists, small, max(room, 0)):
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


def vote_queries(sublists: Sublists, votes: int, seed: int) -> list[Labels]:
    """Random sublists in which every two values are together at least so many times, each time among other values.

    Arguments:
        sublists: the list, with a capacity of at least 2.
        votes: how many times.
        seed: of the shuffles.

    Errors:
        ArgumentError: two values have more copies together than the capacity.
    """
    rng = np.random.default_rng(seed)
    values = np.unique(sublists.labels)
    size, total = _capacity(sublists), len(sublists.labels)
    if votes > 1 and total <= size:
        # The whole list again and again would be one context: two thirds of it are many.
        size = max(sum(sorted(sublists.counts)[-2:]), 2 * total // 3)
    return [sublists.of(some) for _ in range(votes) for some in cover(sublists, rng.permutation(values).tolist(), size)]


def _capacity(sublists: Sublists) -> int:
    return len(sublists.labels) if sublists.capacity is None else sublists.capacity


def labels_of(runs: list[list[Token]]) -> Labels:
    """The values of runs of tokens, one run after the other."""
    return np.array([label for run in runs for label, _ in run], dtype=np.int64)
