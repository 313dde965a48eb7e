"""The functions of each class that fit examples, or the reason why none does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count, islice, pairwise
from typing import Any

from holdfast.lists.errors import Cycle, OutOfBudget, show
from holdfast.lists.synthesize.natural import Block, Natural
from holdfast.lists.synthesize.ordered import KINDS, Kind, OrderBlock, OrderNatural
from holdfast.lists.synthesize.synthesis import ClassName, Family, Hypothesis, Program
from holdfast.lists.synthesize.tables import PermutationType, tables, weak_order
from holdfast.lists.synthesize.terms import leaves, search
from holdfast.lists.synthesize.version_space import VersionSpace
from holdfast.lists.synthesize.words import Word, restrict
from holdfast.lists.values import Alphabet

DECISIONS = 200_000
"""Pairs that are decided in the search for permutations."""

PERMUTED = 64
"""Values of the largest search for permutations."""

PAIR_ANSWERS: tuple[tuple[Word, Word], ...] = tuple((f, s) for f in ((0, 1), (1, 0)) for s in ((0, 1), (1, 0)))
"""What a permutation can make of [0, 1] and [1, 0]."""

Part = tuple[int, Kind]
"""A block of a sum: its multiplicity and its kind."""

Named = Mapping[str, Callable[[Any], Any]]
"""Functions of an element, by name."""


@dataclass(frozen=True)
class Limits:
    """How far the classes are searched.

    Arguments:
        size: leaves of the largest term.
        multiplicity: copies that an `inflate` in a term makes, and a natural function where no example shows it.
        hypotheses: functions that are kept of a class.
    """

    size: int
    multiplicity: int
    hypotheses: int


def natural_family(space: VersionSpace, limits: Limits) -> Family:
    """The natural functions that fit."""
    sums = _SumClass(
        "natural",
        "the natural functions",
        ("id", "reverse"),
        lambda parts: Natural(tuple(Block(m, kind == "reverse") for m, kind in parts)),
    )
    return _sum_family(sums, space, space.labelled, limits, lambda: _why_not_natural(space))


def order_natural_family(space: VersionSpace, limits: Limits) -> Family:
    """The order-natural functions that fit."""
    scope = "the order-natural functions"
    if any(len(set(xs)) < len(xs) for xs, _ in space.labelled):
        scope += " that are sums of blocks (with duplicates, as here, there are others)"
    rank = _ranks(space.alphabet.values)
    if rank is None:
        return Family("order-natural", (), 0, True, scope, "the values have no order")
    words = [(tuple(rank[x] for x in xs), tuple(rank[y] for y in ys)) for xs, ys in space.labelled]
    sums = _SumClass(
        "order-natural", scope, KINDS, lambda parts: OrderNatural(tuple(OrderBlock(m, kind) for m, kind in parts))
    )
    return _sum_family(sums, space, words, limits, lambda: _why_not_order_natural(space, words))


def _ranks(values: Sequence[Any]) -> list[int] | None:
    """The place of each value in their order, or `None` if they have none."""
    try:
        order = sorted(range(len(values)), key=values.__getitem__)
        if not all(values[i] < values[j] for i, j in pairwise(order)):
            return None
    except (TypeError, ValueError):
        return None
    rank = [0] * len(values)
    for place, label in enumerate(order):
        rank[label] = place
    return rank


@dataclass(frozen=True)
class _SumClass:
    """A class of sums of blocks: its name, what it is, the kinds of its blocks, and how a sum becomes a function."""

    name: ClassName
    scope: str
    kinds: Sequence[Kind]
    build: Callable[[Sequence[Part]], Program]


def _sum_family(
    sums: _SumClass,
    space: VersionSpace,
    words: Sequence[tuple[Word, Word]],
    limits: Limits,
    why_not: Callable[[], str],
) -> Family:
    """The sums of blocks that fit."""
    name, scope = sums.name, sums.scope
    copies = {out / into for (_, into), (out, _) in space.counts.items()}
    if len(copies) > 1 or any(k != int(k) for k in copies):
        return Family(name, (), 0, True, scope, f"copies of elements are not multiplied alike: {_uneven(space)}")
    if copies:
        k = int(copies.pop())
        total, fitting = _sums(words, k, sums.kinds)
        scope += f" of multiplicity {k}"
        functions = [sums.build(parts) for parts in islice(fitting, limits.hypotheses)]
    else:
        # No example has an element, so that all functions fit: those with few copies are listed.
        per_copies = [_sums(words, k, sums.kinds) for k in range(limits.multiplicity + 1)]
        total = sum(ways for ways, _ in per_copies)
        scope += f" of multiplicity up to {limits.multiplicity} (the examples show none)"
        functions = [sums.build(p) for _, fitting in per_copies for p in islice(fitting, limits.hypotheses)]
        functions.sort(key=lambda function: function.size)
    hypotheses = tuple(Hypothesis(name, function) for function in functions[: limits.hypotheses])
    complete = len(hypotheses) == total and bool(space.counts)
    return Family(name, hypotheses, total, complete, scope, "" if hypotheses else why_not())


def _sums(words: Sequence[tuple[Word, Word]], k: int, kinds: Sequence[Kind]) -> tuple[int, Iterator[tuple[Part, ...]]]:
    """How many sums of blocks of total multiplicity k fit, and an iterator over them, the simplest first.

    A sum fits if and only if each answer can be cut into the answers of its blocks, at places that depend on nothing
    but the copies so far. So the sums are the ways from 0 to k copies, along blocks that fit where they begin.
    """
    arranged = {kind: [OrderBlock(1, kind)(xs) for xs, _ in words] for kind in kinds}
    steps: dict[int, list[Part]] = {}
    ways = {k: 1}
    cost = {k: 0}
    for start in range(k - 1, -1, -1):
        steps[start] = [
            (m, kind)
            for m in range(1, k - start + 1)
            if start + m in ways
            for kind in kinds
            if all(
                list(ys[start * len(xs) : (start + m) * len(xs)]) == [x for x in block for _ in range(m)]
                for (xs, ys), block in zip(words, arranged[kind], strict=True)
            )
        ]
        if steps[start]:
            ways[start] = sum(ways[start + m] for m, _ in steps[start])
            cost[start] = min(_cost(part) + cost[start + part[0]] for part in steps[start])

    def cheapest_first() -> Iterator[tuple[Part, ...]]:
        order = count()
        waiting: list[tuple[int, int, int, int, tuple[Part, ...]]] = []
        if 0 in ways:
            heappush(waiting, (cost[0], next(order), 0, 0, ()))
        while waiting:
            _, _, paid, here, parts = heappop(waiting)
            if here == k:
                yield parts
                continue
            for part in steps[here]:
                there = here + part[0]
                price = paid + _cost(part)
                heappush(waiting, (price + cost[there], next(order), price, there, (*parts, part)))

    return ways.get(0, 0), cheapest_first()


def _cost(part: Part) -> int:
    """What a block adds to the size of a name."""
    return 1 + (part[0] > 1 and part[1] != "id")


def _uneven(space: VersionSpace) -> str:
    """Two counts of copies that no one factor explains."""
    shown: dict[float, str] = {}
    for (label, into), (out, _) in space.counts.items():
        value = repr(space.alphabet.values[label])
        shown.setdefault(out / into, f"{value} goes in {_times(into)} and comes out {_times(out)}")
    return "; ".join(list(shown.values())[:2])


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


def _why_not_natural(space: VersionSpace) -> str:
    """A proof that no natural function fits, as short as the examples have one."""
    values = space.alphabet.values
    seen: dict[tuple[int, ...], tuple[Word, Word]] = {}
    for part, (answer, _) in space.pair_words.items():
        first = part[0]
        pattern, word = tuple(int(x != first) for x in part), tuple(int(x != first) for x in answer)
        other = seen.setdefault(pattern, (part, word))
        if other[1] != word:
            known = space.pair_words[other[0]][0]
            return (
                f"it would do the same to {_shown(values, part)} as to {_shown(values, other[0])}, "
                f"and they give {_shown(values, answer)} and {_shown(values, known)}"
            )
    if (0, 1) in seen:
        try:
            function = Natural.from_word(seen[0, 1][1])
        except Cycle as error:
            return f"on three values {error}"
        for xs, ys in space.examples:
            if list(function(list(xs))) != list(ys):
                return f"f({_shown(values, seen[0, 1][0])}) makes it {function}, which fails on {show(xs)}"
    return "no concatenation of repeated lists and repeated reversed lists gives these answers"


def _why_not_order_natural(space: VersionSpace, words: Sequence[tuple[Word, Word]]) -> str:
    """A proof that no order-natural function fits, if there is a short one."""
    values = space.alphabet.values
    seen: dict[bool, tuple[Word, Word]] = {}
    for part, (answer, _) in space.pair_words.items():
        if len(part) > 2:
            continue
        falling = bool(values[part[0]] > values[part[1]])
        low = part[falling]
        word = tuple(int(x != low) for x in answer)
        other = seen.setdefault(falling, (part, word))
        if other[1] != word:
            known = space.pair_words[other[0]][0]
            return (
                f"it would do the same to {_shown(values, part)} as to {_shown(values, other[0])}, "
                f"and they give {_shown(values, answer)} and {_shown(values, known)}"
            )
    for _, word in seen.values():
        try:
            Natural.from_word(word)
        except Cycle as error:
            return f"on three values in order {error}"
    if len(seen) == 2:
        try:
            OrderNatural.from_words(seen[False][1], seen[True][1])
        except Cycle as error:
            return f"on three values {error}"
    return "no concatenation of repeated lists, as they are, reversed or sorted, gives these answers"


def _shown(values: Sequence[Any], word: Word) -> str:
    return show([values[label] for label in word])


def permutation_family(space: VersionSpace, limits: Limits) -> Family:
    """The permutations that fit: pair by pair, with what the examples say of the pair."""
    values = space.alphabet.values
    scope = f"the filter-equivariant permutations of lists without duplicates over {show(values)}"
    changed = next(((x, into, out) for (x, into), (out, _) in space.counts.items() if into != out), None)
    if changed is not None:
        x, into, out = changed
        reason = f"{values[x]!r} goes in {_times(into)} and comes out {_times(out)}"
        return Family("permutation", (), 0, True, scope, reason)
    if len(values) > PERMUTED:
        reason = f"there are more than {PERMUTED} values, and none was looked for"
        return Family("permutation", (), None, False, scope, reason)
    allowed: dict[tuple[int, int], set[tuple[Word, Word]]] = {}
    for part, (answer, _) in space.pair_words.items():
        i, j = sorted(set(part))
        options = allowed.setdefault((i, j), set(PAIR_ANSWERS))
        word, wanted = tuple(int(x == j) for x in part), tuple(int(x == j) for x in answer)
        options -= {option for option in options if _permuted(word, option) != wanted}
    # Each takes time that grows with the pairs.
    limit = min(limits.hypotheses, DECISIONS // max(1, len(values) ** 2))
    types: list[PermutationType] = []
    complete = True
    try:
        for table in tables((1,) * len(values), allowed, DECISIONS):
            if len(types) == limit:
                complete = False
                break
            types.append(weak_order(values, table))
    except OutOfBudget:
        complete = False
    types.sort(key=lambda permutation: permutation.size)
    reason = "no order with ties, kept or reversed, gives these answers"
    if not complete:
        reason = f"none was found among the first {DECISIONS} choices"
    return Family(
        "permutation",
        tuple(Hypothesis("permutation", permutation) for permutation in types),
        len(types) if complete else None,
        complete,
        scope,
        "" if types else reason,
    )


def _permuted(word: Word, option: tuple[Word, Word]) -> Word:
    """What a permutation with these answers to [0, 1] and [1, 0] makes of a list of zeros and ones."""
    first, second = option
    if first == second:
        return tuple(sorted(word, reverse=first == (1, 0)))
    return word if first == (0, 1) else word[::-1]


def term_family(space: VersionSpace, limits: Limits, keys: Named, predicates: Named, *, progress: bool) -> Family:
    """The terms that fit."""
    alphabet = Alphabet([*space.alphabet.values, *fresh_values(space.alphabet.values)])
    available = leaves(alphabet.values, limits.multiplicity, keys, predicates)
    # What is left of a long example with most values deleted is one too, and refutes most terms in less time.
    short = [(restrict(xs, set(xs[:3])), restrict(ys, set(xs[:3]))) for xs, ys in space.labelled if len(xs) > 16]
    searched = search([*short, *space.labelled], alphabet, available, limits.size, progress=progress)
    scope = f"the {searched.tried} terms of size up to {limits.size}"
    if searched.dropped:
        scope += f" (without {', '.join(searched.dropped)}, which fail on these values)"
    reason = "" if searched.terms else f"no term of size up to {limits.size} gives these answers"
    return Family(
        "terms",
        tuple(Hypothesis("terms", term) for term in searched.terms[: limits.hypotheses]),
        len(searched.terms),
        len(searched.terms) <= limits.hypotheses,
        scope,
        reason,
    )


def fresh_values(values: Sequence[Any]) -> list[Any]:
    """Two values that the examples do not have, where it is clear what these may be."""
    if not values:
        return [0, 1, 2]
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        return [max(values) + 1, max(values) + 2]
    if all(isinstance(value, str) and len(value) == 1 for value in values) and max(values) < "\U0010fff0":
        return [chr(ord(max(values)) + 1), chr(ord(max(values)) + 2)]
    return []
