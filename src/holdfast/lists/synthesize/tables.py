"""The filter-equivariant functions over a few values, as tables of their answers on pairs; permutations among them.

The classes are computed from the law: words are tried as answers on two values, and kept if they lead to no
contradiction on three, whatever the order in which these appear. Three are enough, for a longer list that cannot be
glued from answers on pairs has three tokens that go round in a circle.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import combinations, product
from math import inf, prod
from typing import Any

from holdfast.errors import ArgumentError, count_of
from holdfast.lists.errors import Cycle, OutOfBudget
from holdfast.lists.synthesize.natural import function_code
from holdfast.lists.synthesize.words import (
    Circle,
    Word,
    glue,
    restrict,
    rows,
    three_cycle,
    two_letter_words,
    words_with,
)
from holdfast.lists.values import as_given

MOST_LISTED = 1000
"""Values beyond which nobody waits for a list of functions."""


@dataclass(frozen=True)
class TieClass:
    """Values that stay in the order of their appearance, or in the reverse of it.

    Arguments:
        values: the values.
        reversed: whether that order is reversed; of one value alone it is not.
    """

    values: tuple[Any, ...]
    reversed: bool = False

    def __str__(self) -> str:
        """As in "1, 3 reversed"."""
        return ", ".join(map(repr, self.values)) + (" reversed" if self.reversed else "")


@dataclass(frozen=True, repr=False)
class PermutationType:
    """Sorts by a weak order of the values; the values of a tie keep their order of appearance, or reverse it.

    On lists without duplicates these are all filter-equivariant functions that only change the order.

    Arguments:
        classes: the ties, from first to last.
    """

    classes: tuple[TieClass, ...] = ()

    @property
    def size(self) -> int:
        """Parts of its name: how simple it is."""
        return max(1, sum(1 + tie.reversed for tie in self.classes))

    def __call__(self, xs: Sequence[Any]) -> Any:
        """The answer to a list, text or tuple of these values, in its type.

        Errors:
            ArgumentError: there is another value.
        """
        known = [value for tie in self.classes for value in tie.values]
        for x in xs:
            if x not in known:
                raise ArgumentError("xs", f"elements among {', '.join(map(repr, known)) or 'none'}", x)
        ordered = [x for tie in self.classes for x in (xs[::-1] if tie.reversed else xs) if x in tie.values]
        return as_given(xs, ordered)

    def __repr__(self) -> str:
        """As in "0, 2 reversed | 1"."""
        return " | ".join(map(str, self.classes)) or "no values"

    def to_python(self, name: str = "f") -> str:
        """Source text of a Python function that does the same and needs no imports."""
        if len(self.classes) == 1:
            return function_code(name, "xs[::-1]" if self.classes[0].reversed else "xs")
        parts = (
            f"[x for x in {'xs[::-1]' if tie.reversed else 'xs'} if x in {tie.values!r}]"
            if len(tie.values) > 1
            else f"[x for x in xs if x == {tie.values[0]!r}]"
            for tie in self.classes
        )
        return function_code(name, " + ".join(parts) or "[]")


def permutation_type(n: int) -> Iterator[PermutationType]:
    """All filter-equivariant functions that permute the lists without duplicates over the values 0, 1, ..., n - 1.

    Every way to answer the lists of two values is tried, and kept if it glues on three.

    Arguments:
        n: number of values.

    Returns:
        An iterator over them, 1, 1, 4, 20, 138, 1182, ... functions.
    """
    if count_of("n", n) > MOST_LISTED:
        raise ArgumentError("n", f"at most {MOST_LISTED}", n)
    for answers in tables((1,) * n, {}):
        yield weak_order(range(n), answers)


def weak_order(values: Sequence[Any], answers: Sequence[tuple[Word, Word]]) -> PermutationType:
    """The normal form of a function that permutes lists without duplicates.

    Arguments:
        values: its values.
        answers: its table of pair answers, as from `tables`.
    """
    n = len(values)
    ties = [{i} for i in range(n)]
    ahead = [0] * n  # values that always come before this one
    turned = set()
    for (i, j), (first, second) in zip(pairs_of(n), answers, strict=True):
        if first == second:
            ahead[j if first == (0, 1) else i] += 1
        else:
            ties[i].add(j)
            ties[j].add(i)
            if first == (1, 0):
                turned |= {i, j}
    leaders = sorted((i for i in range(n) if i == min(ties[i])), key=ahead.__getitem__)
    return PermutationType(
        tuple(TieClass(tuple(values[j] for j in sorted(ties[i])), reversed=i in turned) for i in leaders)
    )


@dataclass(frozen=True)
class FilterEquivariant:
    """A filter-equivariant function on lists without duplicates over the values 0, 1, ..., as a table of pair answers.

    Arguments:
        multiplicities: copies of each value in an answer.
        table: for each pair i < j its answers to `[i, j]` and to `[j, i]`.
    """

    multiplicities: tuple[int, ...]
    table: tuple[tuple[tuple[int, int], tuple[Word, Word]], ...]

    @cached_property
    def pair_words(self) -> Mapping[tuple[int, int], tuple[Word, Word]]:
        """The table by pair."""
        return dict(self.table)

    def __call__(self, xs: Sequence[int]) -> list[int]:
        """The answer to a list, glued from the answers to its pairs.

        Errors:
            ArgumentError: a value is not in the table, or occurs twice.
            Cycle: the table has no such answer; this does not happen with the functions of `filter_equivariant`.
        """
        place: dict[int, int] = {}
        for position, x in enumerate(xs):
            if not isinstance(x, int) or not 0 <= x < len(self.multiplicities) or x in place:
                raise ArgumentError("xs", f"different numbers from 0 to {len(self.multiplicities) - 1}", list(xs))
            place[x] = position
        pairs = list(combinations(sorted(place), 2))
        words = {(i, j): self.pair_words[i, j][place[i] > place[j]] for i, j in pairs}
        glued = glue({x: self.multiplicities[x] for x in place}, words)
        if isinstance(glued, Circle):
            sides = [
                tuple(sorted((s[0], t[0])))
                for s, t in zip(glued.tokens, glued.tokens[1:] + glued.tokens[:1], strict=True)
            ]
            raise Cycle(glued.tokens, tuple((restrict(xs, (i, j)), words[i, j]) for i, j in sides))
        return list(glued)


def filter_equivariant(multiplicities: Sequence[int]) -> Iterator[FilterEquivariant]:
    """All filter-equivariant functions on lists without duplicates over a few values, computed from the law.

    Arguments:
        multiplicities: for each of the values 0, 1, ... its copies in an answer.

    Returns:
        An iterator over them, 20 for copies (1, 1, 1), 64 for (2, 1, 1), 1422 for (2, 2, 2).
    """
    if not isinstance(multiplicities, Iterable):
        raise ArgumentError("multiplicities", "numbers of copies", type(multiplicities).__name__)
    copies = tuple(count_of("multiplicities", k) for k in multiplicities)
    pairs = pairs_of(len(copies))
    for answers in tables(copies, {}):
        yield FilterEquivariant(
            copies,
            tuple(
                (pair, (_named(first, pair), _named(second, pair)))
                for pair, (first, second) in sorted(zip(pairs, answers, strict=True))
            ),
        )


def pairs_of(n: int) -> list[tuple[int, int]]:
    """The pairs of n values in the order (0, 1), (0, 2), (1, 2), (0, 3), ..."""
    return [(i, j) for j in range(n) for i in range(j)]


def tables(
    copies: Sequence[int],
    allowed: Mapping[tuple[int, int], Collection[tuple[Word, Word]]],
    max_decisions: float = inf,
) -> Iterator[tuple[tuple[Word, Word], ...]]:
    """All tables of pair answers that glue on three values.

    Pairs are decided in the order of `pairs_of`: the third side of a triangle is drawn from the words that close it, in
    each order of appearance.

    Arguments:
        copies: for each value its copies in an answer.
        allowed: for some pairs i < j the answers to `[i, j]` and `[j, i]` that are possible, as words on 0 (for i) and
            on 1 (for j).
        max_decisions: pairs that are decided, over all tables, before the search is given up.

    Returns:
        An iterator over tables: for each pair, in the order above, its two answers.

    Errors:
        OutOfBudget: there is more to search.
    """
    pairs = pairs_of(len(copies))
    words = {(i, j): list(two_letter_words(copies[i], copies[j])) for i, j in pairs}
    chosen: dict[tuple[int, int], tuple[int, int]] = {}
    permitted = {
        pair: {(words[pair].index(first), words[pair].index(second)) for first, second in options}
        for pair, options in allowed.items()
    }

    def options(pair: tuple[int, int]) -> Iterator[tuple[int, int]]:
        """The answers to a pair, as numbers of words, that close all triangles with the pairs before."""
        i, j = pair
        up = down = (1 << len(words[pair])) - 1
        for m in range(i):
            closes = _closing_words(copies[m], copies[i], copies[j])
            (u, d), (v, e) = chosen[m, i], chosen[m, j]
            # The words for mi and mj that can appear with i before j, and with j before i: see APPEARANCES.
            up &= closes.get((u, v), 0) & closes.get((d, v), 0) & closes.get((d, e), 0)
            down &= closes.get((d, e), 0) & closes.get((u, v), 0) & closes.get((u, e), 0)
        known = permitted.get(pair)
        return ((f, s) for f in _bits(up) for s in _bits(down) if known is None or (f, s) in known)

    if not pairs:
        yield ()
        return
    decisions = 0
    open_choices = [options(pairs[0])]
    while open_choices:
        pair = pairs[len(open_choices) - 1]
        choice = next(open_choices[-1], None)
        if choice is None:
            open_choices.pop()
            continue
        decisions += 1
        if decisions > max_decisions:
            raise OutOfBudget(int(max_decisions), decisions)
        chosen[pair] = choice
        if len(open_choices) < len(pairs):
            open_choices.append(options(pairs[len(open_choices)]))
        else:
            yield tuple((words[pair][chosen[pair][0]], words[pair][chosen[pair][1]]) for pair in pairs)


@cache
def _closing_words(x: int, y: int, z: int) -> Mapping[tuple[int, int], int]:
    """Which words on values y and z glue with a word on x and y and one on x and z.

    The words are numbered as `two_letter_words` lists them; the answer is a set of bits. A triple glues if there is a
    word on all three values with these restrictions, so that all such words are listed, and restricted.
    """
    number = [
        {word: position for position, word in enumerate(two_letter_words(*counts))}
        for counts in ((x, y), (x, z), (y, z))
    ]
    closing: dict[tuple[int, int], int] = defaultdict(int)
    for word in words_with((x, y, z)):
        xy, xz, yz = (
            numbers[tuple(int(letter == second) for letter in word if letter in (first, second))]
            for numbers, (first, second) in zip(number, ((0, 1), (0, 2), (1, 2)), strict=True)
        )
        closing[xy, xz] |= 1 << yz
    return closing


def gluable_share(multiplicities: tuple[int, int, int]) -> tuple[int, int]:
    """How strict the law is: of all triples of pair words on three values, how many glue, and how many there are.

    Arguments:
        multiplicities: copies of each of the three values.

    Returns:
        Two counts, for example (6, 8) for one copy of each.
    """
    if len(multiplicities) != 3:
        raise ArgumentError("multiplicities", "three numbers", multiplicities)
    x, y, z = (count_of("multiplicities", k) for k in multiplicities)
    sides = [[rows(word) for word in two_letter_words(*counts)] for counts in ((x, y), (y, z), (x, z))]
    return sum(three_cycle(*triple) is None for triple in product(*sides)), prod(map(len, sides))


def _named(word: Word, names: tuple[int, int]) -> Word:
    return tuple(names[letter] for letter in word)


def _bits(mask: int) -> Iterator[int]:
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest
