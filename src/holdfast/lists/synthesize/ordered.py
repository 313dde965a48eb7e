"""The order-natural functions: those that see which of two values is larger, and nothing else of them.

The class is computed from the law: words are tried as answers on two values, and kept if they lead to no contradiction
on three, whatever the order in which these appear. Three are enough, for a longer list that cannot be glued from
answers on pairs has three tokens that go round in a circle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from holdfast.errors import ArgumentError, count_of
from holdfast.lists.errors import Cycle
from holdfast.lists.synthesize.natural import (
    MOST_COPIES,
    block_code,
    block_name,
    compositions,
    function_code,
    natural_words,
    parse_blocks,
    parse_word,
)
from holdfast.lists.synthesize.words import Word, rows, three_cycle
from holdfast.lists.values import as_given

Kind = Literal["id", "reverse", "sort", "sort desc"]
KINDS: tuple[Kind, ...] = ("id", "reverse", "sort", "sort desc")
SOURCES = {"id": "xs", "reverse": "xs[::-1]", "sort": "sorted(xs)", "sort desc": "sorted(xs, reverse=True)"}
"""How Python writes each kind."""
_OPPOSITE: dict[Kind, Kind] = {"id": "reverse", "reverse": "id", "sort": "sort desc", "sort desc": "sort"}
_KIND: dict[tuple[bool, bool], Kind] = {
    # Are the two values of [0, 1] turned round, and those of [1, 0]?
    (False, False): "id",
    (True, True): "reverse",
    (False, True): "sort",
    (True, False): "sort desc",
}

APPEARANCES = tuple(ways for ways in product((0, 1), repeat=3) if ways not in ((0, 0, 1), (1, 1, 0)))
"""The 6 orders in which values x, y, z can appear: which of the pairs xy, yz, xz appear the other way round."""


@dataclass(frozen=True)
class OrderBlock:
    """Repeats each element in place, of the list as it is, reversed, sorted or sorted in descending order.

    Arguments:
        multiplicity: copies of each element, at least 1.
        kind: the order.
    """

    multiplicity: int
    kind: Kind = "id"

    def __post_init__(self) -> None:
        count_of("multiplicity", self.multiplicity, least=1)
        if self.kind not in KINDS:
            raise ArgumentError("kind", f"one of {', '.join(KINDS)}", self.kind)

    def __call__(self, xs: Sequence[Any]) -> list[Any]:
        """The repeated list."""
        ordered = xs[::-1] if self.kind == "reverse" else xs
        if self.kind.startswith("sort"):
            try:
                ordered = sorted(xs, reverse=self.kind == "sort desc")
            except TypeError as error:
                raise ArgumentError("xs", "elements that can be sorted", str(error)) from None
        return [x for x in ordered for _ in range(self.multiplicity)]

    def __str__(self) -> str:
        """As in "inflate 2 . sort"."""
        return block_name(self.multiplicity, self.kind)


@dataclass(frozen=True, repr=False)
class OrderNatural:
    """A concatenation of blocks that keep, reverse, sort or sort in descending order.

    On lists without duplicates these are all filter-equivariant functions that commute with strictly increasing maps
    and give each element as many copies as any other. With duplicates there are more of them (for example those that
    drop all copies but one).

    Two are equal if and only if they are the same function. `f + g` concatenates, `f @ g` applies g first.

    Arguments:
        blocks: the blocks, in order; none of them: the function that answers with the empty list.
    """

    blocks: tuple[OrderBlock, ...] = ()

    @classmethod
    def from_words(cls, first: Sequence[int] | str, second: Sequence[int] | str) -> OrderNatural:
        """The function with `f([0, 1]) == first` and `f([1, 0]) == second`.

        Arguments:
            first: as many zeros as ones, as a list or a text such as "0110".
            second: as many of each.

        Errors:
            ArgumentError: something else.
            Cycle: no such function gives these words.
        """
        up, down = parse_word("first", first), parse_word("second", second)
        if len(up) != len(down):
            raise ArgumentError("second", f"{len(up)} letters, as many as first", second)
        ups, downs = parse_blocks(up), parse_blocks(down)
        if ups is not None and downs is not None and [b.multiplicity for b in ups] == [b.multiplicity for b in downs]:
            # The blocks of f([1, 0]) are named after 0, the second element: "reversed" begins with the first one.
            return cls(
                tuple(
                    OrderBlock(u.multiplicity, _KIND[u.reversed, not d.reversed])
                    for u, d in zip(ups, downs, strict=True)
                )
            )
        words = (up, down)
        for ways in APPEARANCES:
            circle = three_cycle(*(rows(words[way]) for way in ways))
            if circle is not None:
                pairs = zip(((0, 1), (1, 2), (0, 2)), ways, strict=True)
                raise Cycle(circle, tuple(_seen(words[way], pair, way) for pair, way in pairs))
        raise AssertionError(f"{up} and {down} are no sum of blocks, and yet glue")

    @property
    def words(self) -> tuple[Word, Word]:
        """What it makes of `[0, 1]` and of `[1, 0]`."""
        return tuple(self([0, 1])), tuple(self([1, 0]))

    @property
    def multiplicity(self) -> int:
        """Copies of each element."""
        return sum(block.multiplicity for block in self.blocks)

    @property
    def size(self) -> int:
        """Parts of its name: how simple it is."""
        return max(1, sum(1 + (block.kind != "id" and block.multiplicity > 1) for block in self.blocks))

    def __call__(self, xs: Sequence[Any]) -> Any:
        """The answer to any list, text or tuple of elements with an order, in its type.

        Errors:
            ArgumentError: the elements have no order, and a block sorts.
        """
        return as_given(xs, [x for block in self.blocks for x in block(xs)])

    def __add__(self, other: OrderNatural) -> OrderNatural:
        """Concatenate the answers."""
        if not isinstance(other, OrderNatural):
            return NotImplemented
        return OrderNatural(self.blocks + other.blocks)

    def __matmul__(self, other: OrderNatural) -> OrderNatural:
        """Apply `other` first."""
        if not isinstance(other, OrderNatural):
            return NotImplemented
        return OrderNatural(tuple(block for outer in self.blocks for block in _after(outer, other)))

    def __repr__(self) -> str:
        """As in "inflate 2 . sort + id"."""
        return " + ".join(map(str, self.blocks)) or "const []"

    def to_python(self, name: str = "f") -> str:
        """Source text of a Python function that does the same and needs no imports."""
        parts = (block_code(block.multiplicity, SOURCES[block.kind]) for block in self.blocks)
        return function_code(name, " + ".join(parts) or "[]")


def _after(outer: OrderBlock, inner: OrderNatural) -> list[OrderBlock]:
    """The blocks of a block after a sum."""
    m = outer.multiplicity
    if outer.kind.startswith("sort"):
        # Sorting forgets what came before, but for the number of copies.
        return [OrderBlock(m * inner.multiplicity, outer.kind)] if inner.blocks else []
    if outer.kind == "reverse":
        return [OrderBlock(m * block.multiplicity, _OPPOSITE[block.kind]) for block in reversed(inner.blocks)]
    return [OrderBlock(m * block.multiplicity, block.kind) for block in inner.blocks]


def _seen(word: Word, pair: tuple[int, int], other_way_round: int) -> tuple[list[int], list[int]]:
    """A list of two values, in the order in which they appear, and its answer."""
    return list(pair[::-1] if other_way_round else pair), [pair[letter] for letter in word]


def order_natural(k: int) -> Iterator[OrderNatural]:
    """All order-natural functions of multiplicity k, computed from the law.

    Pairs of words are tried as `f([0, 1])` and `f([1, 0])`, and kept if they glue on three values in each of their six
    orders of appearance. k is in practice below 6; `order_natural_sums` has the same functions without a search.

    Arguments:
        k: copies of each element.

    Returns:
        An iterator over them, 1, 4, 20, 100, 500, ... functions.
    """
    if count_of("k", k) > MOST_COPIES:
        raise ArgumentError("k", f"at most {MOST_COPIES}", k)
    words = [(word, rows(word)) for word in natural_words(k)]  # three values that all appear the same way round
    mixed = [ways for ways in APPEARANCES if len(set(ways)) > 1]
    for (first, up), (second, down) in product(words, repeat=2):
        relations = (up, down)
        if all(three_cycle(*(relations[way] for way in ways)) is None for ways in mixed):
            yield OrderNatural.from_words(first, second)


def order_natural_sums(k: int) -> Iterator[OrderNatural]:
    """All order-natural functions of multiplicity k from their normal form: fewest blocks first.

    Arguments:
        k: copies of each element.
    """
    for sizes in compositions(count_of("k", k)):
        for kinds in product(KINDS, repeat=len(sizes)):
            yield OrderNatural(tuple(map(OrderBlock, sizes, kinds)))
