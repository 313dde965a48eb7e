"""The natural filter-equivariant functions: all of them, as sums of a few blocks.

A list function is filter equivariant if `f . filter p == filter p . f` for every predicate p, and natural if
`f . map g == map g . f` for every function g. Those that are both take a list to a fixed number k of copies of each of
its elements, their *multiplicity*, and are known from one word, `f([0, 1])`. Each of them is, in one way only, a
concatenation of blocks that repeat every element in place, of the list or of the reversed list.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby, pairwise, product
from typing import Any

from holdfast.errors import ArgumentError, count_of
from holdfast.lists.errors import Cycle
from holdfast.lists.synthesize.words import Word, rows, three_cycle, two_letter_words
from holdfast.lists.values import as_given

MOST_COPIES = 1000
"""Copies of an element beyond which nobody waits for a list of functions."""


@dataclass(frozen=True)
class Block:
    """Repeats each element in place: `[1, 2]` becomes `[1, 1, 2, 2]`, or `[2, 2, 1, 1]` if reversed.

    Arguments:
        multiplicity: copies of each element, at least 1.
        reversed: begin with the last element.
    """

    multiplicity: int
    reversed: bool = False

    def __post_init__(self) -> None:
        count_of("multiplicity", self.multiplicity, least=1)

    def __call__(self, xs: Sequence[Any]) -> list[Any]:
        """The repeated list."""
        return [x for x in (reversed(xs) if self.reversed else xs) for _ in range(self.multiplicity)]

    def __str__(self) -> str:
        """As in "inflate 2 . reverse"."""
        return block_name(self.multiplicity, "reverse" if self.reversed else "id")


@dataclass(frozen=True, repr=False)
class Natural:
    """A natural filter-equivariant function: a concatenation of blocks.

    Two are equal if and only if they are the same function. `f + g` concatenates, `f @ g` applies g first.

    Arguments:
        blocks: the blocks, in order; none of them: the function that answers with the empty list.
    """

    blocks: tuple[Block, ...] = ()

    @classmethod
    def from_word(cls, word: Sequence[int] | str) -> Natural:
        """The function with `f([0, 1]) == word`.

        Arguments:
            word: as many zeros as ones, as a list or a text such as "0110".

        Errors:
            ArgumentError: something else.
            Cycle: no natural filter-equivariant function gives this word. The shortest such are 001011 and 110100.
        """
        letters = parse_word("word", word)
        blocks = parse_blocks(letters)
        if blocks is not None:
            return cls(blocks)
        relation = rows(letters)
        circle = three_cycle(relation, relation, relation)
        assert circle is not None, f"{letters} is no sum of blocks, and yet glues"
        raise Cycle(circle, tuple(_relabelled(letters, x, y) for x, y in ((0, 1), (1, 2), (0, 2))))

    @property
    def word(self) -> Word:
        """What it makes of `[0, 1]`."""
        return tuple(self([0, 1]))

    @property
    def multiplicity(self) -> int:
        """Copies of each element."""
        return sum(block.multiplicity for block in self.blocks)

    @property
    def size(self) -> int:
        """Parts of its name: how simple it is."""
        return max(1, sum(1 + (block.reversed and block.multiplicity > 1) for block in self.blocks))

    def __call__(self, xs: Sequence[Any]) -> Any:
        """The answer to any list, text or tuple, in its type."""
        return as_given(xs, [x for block in self.blocks for x in block(xs)])

    def __add__(self, other: Natural) -> Natural:
        """Concatenate the answers."""
        if not isinstance(other, Natural):
            return NotImplemented
        return Natural(self.blocks + other.blocks)

    def __matmul__(self, other: Natural) -> Natural:
        """Apply `other` first."""
        if not isinstance(other, Natural):
            return NotImplemented
        # A block reaches into a sum; a reversed one meets its terms from behind.
        return Natural(
            tuple(
                Block(outer.multiplicity * inner.multiplicity, outer.reversed != inner.reversed)
                for outer in self.blocks
                for inner in (reversed(other.blocks) if outer.reversed else other.blocks)
            )
        )

    def __repr__(self) -> str:
        """As in "inflate 2 . reverse + id"."""
        return " + ".join(map(str, self.blocks)) or "const []"

    def to_python(self, name: str = "f") -> str:
        """Source text of a Python function that does the same and needs no imports."""
        parts = (block_code(block.multiplicity, "xs[::-1]" if block.reversed else "xs") for block in self.blocks)
        return function_code(name, " + ".join(parts) or "[]")


IDENTITY = Natural((Block(1),))
REVERSE = Natural((Block(1, reversed=True),))
EMPTY = Natural()


def inflate(multiplicity: int) -> Natural:
    """The function that repeats each element in place; 0 copies give the empty list."""
    return Natural((Block(multiplicity),)) if count_of("multiplicity", multiplicity) else EMPTY


def natural(k: int) -> Iterator[Natural]:
    """All natural filter-equivariant functions of multiplicity k, computed from the law.

    Every word with k zeros and k ones is tried as `f([0, 1])`. It says how any two values are to be ordered, and is
    kept if this leads to no contradiction on three values. There are (2k choose k) words, so that k is in practice
    below 12; `natural_sums` has the same functions without a search.

    Arguments:
        k: copies of each element.

    Returns:
        An iterator in the lexicographic order of the words, 1, 2, 6, 18, 54, 162, ... functions.
    """
    if count_of("k", k) > MOST_COPIES:
        raise ArgumentError("k", f"at most {MOST_COPIES}", k)
    return map(Natural.from_word, natural_words(k))


def natural_words(k: int) -> Iterator[Word]:
    """The words `f([0, 1])` of all natural filter-equivariant functions of multiplicity k; see `natural`."""
    for word in two_letter_words(k, k):
        relation = rows(word)
        if three_cycle(relation, relation, relation) is None:
            yield word


def natural_sums(k: int) -> Iterator[Natural]:
    """All natural filter-equivariant functions of multiplicity k from their normal form: fewest blocks first.

    Arguments:
        k: copies of each element.
    """
    for sizes in compositions(count_of("k", k)):
        for directions in product((False, True), repeat=len(sizes)):
            yield Natural(tuple(map(Block, sizes, directions)))


def compositions(k: int) -> Iterator[tuple[int, ...]]:
    """All lists of positive numbers with sum k, short ones first."""
    if k > MOST_COPIES:
        raise ArgumentError("k", f"at most {MOST_COPIES}", k)
    if k == 0:
        yield ()
    for cuts in range(k):
        for inner in combinations(range(1, k), cuts):
            ends = (0, *inner, k)
            yield tuple(end - start for start, end in pairwise(ends))


def parse_word(argument: str, word: Sequence[int] | str) -> Word:
    """A word with as many zeros as ones from a list or a text, or an error that names the argument."""
    if not isinstance(word, Iterable):
        raise ArgumentError(argument, "as many zeros as ones, and nothing else", word)
    letters = tuple("01".find(letter) if isinstance(letter, str) else letter for letter in word)
    if not all(isinstance(letter, int) for letter in letters):
        raise ArgumentError(argument, "as many zeros as ones, and nothing else", word)
    if any(letter not in (0, 1) for letter in letters) or 2 * sum(letters) != len(letters):
        raise ArgumentError(argument, "as many zeros as ones, and nothing else", word)
    return tuple(map(int, letters))


def parse_blocks(word: Word) -> tuple[Block, ...] | None:
    """The blocks of a word, which begins with the run of one letter and as many of the other; `None`: it has none."""
    blocks: list[Block] = []
    start = 0
    while start < len(word):
        first = word[start]
        run = next(len(list(group)) for _, group in groupby(word[start:]))
        if word[start + run : start + 2 * run] != (1 - first,) * run:
            return None
        blocks.append(Block(run, reversed=first == 1))
        start += 2 * run
    return tuple(blocks)


def block_name(multiplicity: int, kind: str) -> str:
    """As in "inflate 2 . reverse"; what is not needed is left out."""
    if multiplicity == 1:
        return kind
    return f"inflate {multiplicity}" + (f" . {kind}" if kind != "id" else "")


def block_code(multiplicity: int, source: str) -> str:
    """A Python expression for elements repeated in place."""
    return source if multiplicity == 1 else f"[x for x in {source} for _ in range({multiplicity})]"


def function_code(name: str, expression: str, steps: Sequence[str] = ()) -> str:
    """Source text of a Python function on a list `xs`."""
    lines = ["xs = list(xs)", *steps, f"return {expression}"]
    return f"def {name}(xs):\n" + "".join(f"    {line}\n" for line in lines)


def _relabelled(word: Word, x: int, y: int) -> tuple[list[int], list[int]]:
    """A list of two values and its answer."""
    return [x, y], [(x, y)[letter] for letter in word]
