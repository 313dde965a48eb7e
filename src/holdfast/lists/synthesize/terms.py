"""A small language of filter-equivariant functions, and the search for its shortest terms that fit examples.

A term is a leaf such as `nub` or `sort`, a composition `f . g` (g first) or a concatenation `f + g`. Terms are built
by size, their number of leaves. Of terms that answer alike on a bank of lists only one is kept. As a filter-equivariant
function is known from its answers on lists of two values, terms that agree on all these lists up to some length agree
on *every* list over the same values whose parts of two values are not longer: up to there, nothing is lost.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations, product
from keyword import iskeyword
from typing import Any

from holdfast.bar import Bar
from holdfast.errors import ArgumentError
from holdfast.lists.functions import frequency_sort, frequency_sort_descending, group
from holdfast.lists.synthesize.natural import block_code, function_code
from holdfast.lists.synthesize.words import Word
from holdfast.lists.values import Alphabet, as_given

SLICE = 1024
"""Terms between two updates of the progress bar."""

BANK_LENGTH = 4
"""Length of the longest lists of two values in the bank."""
BANK_VALUES = 3
"""Values that these are made of."""
BANK_PAIRS = 8
"""Values that lists of two elements are made of; of the others there are lists of one element."""


@dataclass(frozen=True)
class Leaf:
    """A function of its own.

    Arguments:
        name: how a term shows it.
        template: a Python expression with `{xs}` for the list.
        names: what the expression refers to, besides Python's own.
        quick: does the same in less time, for elements that can be hashed; `None`: there is nothing quicker.
    """

    name: str
    template: str
    names: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict, compare=False)
    size: int = 1
    quick: Callable[[list[Any]], list[Any]] | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Composition:
    """One function after another: the inner one first."""

    outer: Leaf | Concatenation
    inner: Expression
    size: int

    def __str__(self) -> str:
        return " . ".join(
            f"({part})" if isinstance(part, Concatenation) else str(part) for part in (self.outer, self.inner)
        )


@dataclass(frozen=True)
class Concatenation:
    """The answer of one function, and then that of another one."""

    left: Leaf | Composition
    right: Expression
    size: int

    def __str__(self) -> str:
        return f"{self.left} + {self.right}"


Expression = Leaf | Composition | Concatenation


@dataclass(frozen=True, repr=False)
class Term:
    """A function of the language.

    Arguments:
        expression: what it is made of.
    """

    expression: Expression

    @property
    def size(self) -> int:
        """Its number of leaves."""
        return self.expression.size

    def __repr__(self) -> str:
        """As in "nub . sort + reverse"."""
        return str(self.expression)

    def to_python(self, name: str = "f") -> str:
        """Source text of a Python function that does the same. It needs no imports, but the keys and predicates that
        were brought along, under their names."""
        steps: list[str] = []
        return function_code(name, _code(self.expression, "xs", steps), steps)

    @cached_property
    def _function(self) -> Callable[[Any], list[Any]]:
        space: dict[str, Any] = dict(_names(self.expression))
        exec(self.to_python("term"), space)
        function: Callable[[Any], list[Any]] = space["term"]
        return function

    def __call__(self, xs: Sequence[Any]) -> Any:
        """The answer to a list, text or tuple, in its type."""
        return as_given(xs, self._function(xs))


def _code(expression: Expression, xs: str, steps: list[str]) -> str:
    """A Python expression; intermediate lists get a name in a step of their own, where that reads better."""
    if isinstance(expression, Leaf):
        return expression.template.replace("{xs}", xs)
    if isinstance(expression, Concatenation):
        return f"{_code(expression.left, xs, steps)} + {_code(expression.right, xs, steps)}"
    inner = _code(expression.inner, xs, steps)
    outer = expression.outer
    once = isinstance(outer, Leaf) and outer.template.count("{xs}") == 1
    if not inner.isidentifier() and (not once or isinstance(expression.inner, Concatenation)):
        name = f"part{len(steps) + 1}"
        steps.append(f"{name} = {inner}")
        inner = name
    return _code(outer, inner, steps)


def _names(expression: Expression) -> Iterator[tuple[str, Callable[[Any], Any]]]:
    if isinstance(expression, Leaf):
        yield from expression.names.items()
    elif isinstance(expression, Composition):
        yield from _names(expression.outer)
        yield from _names(expression.inner)
    else:
        yield from _names(expression.left)
        yield from _names(expression.right)


def leaves(
    values: Sequence[Any],
    max_multiplicity: int,
    keys: Mapping[str, Callable[[Any], Any]],
    predicates: Mapping[str, Callable[[Any], Any]],
) -> list[Leaf]:
    """The leaves of the language, for some values.

    Arguments:
        values: what the lists are made of; "even" and "odd" are for whole numbers.
        max_multiplicity: copies that the largest `inflate` makes.
        keys: what `sort by` may sort by, by name.
        predicates: what `filter` may keep, by name.

    Errors:
        ArgumentError: the name of a key or a predicate is no Python name, or one that the code uses.
    """
    for argument, given in (("keys", keys), ("predicates", predicates)):
        if not isinstance(given, Mapping) or not all(isinstance(name, str) and callable(given[name]) for name in given):
            raise ArgumentError(argument, "functions by name, such as {'abs': abs}", given)
        for name in given:
            taken = hasattr(builtins, name) and getattr(builtins, name) is not given[name]
            if not name.isidentifier() or iskeyword(name) or name in ("xs", "x", "term") or taken:
                raise ArgumentError(argument, "names that Python code can use and does not use yet", name)
    available = [
        Leaf("id", "{xs}"),
        Leaf("reverse", "{xs}[::-1]"),
        Leaf("sort", "sorted({xs})"),
        Leaf("sort desc", "sorted({xs}, reverse=True)"),
        Leaf("nub", "list(dict.fromkeys({xs}))"),
        Leaf("nub last", "list(dict.fromkeys({xs}[::-1]))[::-1]"),
    ]
    available += [Leaf(f"inflate {m}", block_code(m, "{xs}")) for m in range(2, max_multiplicity + 1)]
    available += [
        Leaf("group", "sorted({xs}, key={xs}.index)", quick=group),
        Leaf("sort by frequency", "sorted({xs}, key=lambda x: ({xs}.count(x), x))", quick=frequency_sort),
        Leaf(
            "most frequent first",
            "sorted({xs}, key=lambda x: (-{xs}.count(x), {xs}.index(x)))",
            quick=frequency_sort_descending,
        ),
    ]
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        available.append(Leaf("filter even", "[x for x in {xs} if x % 2 == 0]"))
        available.append(Leaf("filter odd", "[x for x in {xs} if x % 2 == 1]"))
    for name, predicate in predicates.items():
        available.append(Leaf(f"filter {name}", f"[x for x in {{xs}} if {name}(x)]", {name: predicate}))
    for name, key in keys.items():
        available.append(Leaf(f"sort by {name}", f"sorted({{xs}}, key={name})", {name: key}))
    return available


@dataclass(frozen=True)
class Search:
    """What a search for terms found.

    Arguments:
        terms: the terms that fit, shortest first; no two of them agree on the whole bank.
        tried: terms that were built.
        dropped: leaves that cannot deal with the values.
    """

    terms: tuple[Term, ...]
    tried: int
    dropped: tuple[str, ...]


def search(
    examples: Sequence[tuple[Word, Word]],
    alphabet: Alphabet,
    available: Sequence[Leaf],
    max_size: int,
    *,
    progress: bool = False,
) -> Search:
    """All terms up to a size that fit examples, but for those that answer like a shorter one on the bank.

    Arguments:
        examples: lists and their answers, as labels.
        alphabet: the values.
        available: the leaves.
        max_size: leaves of the largest terms.
        progress: show a bar on a terminal after two seconds.
    """
    lists = _Lists(alphabet, available)
    inputs = [lists.number(xs) for xs, _ in examples]
    target = tuple(lists.number(ys) for _, ys in examples)
    inputs += [lists.number(word) for word in _bank(len(alphabet.values))]
    seen: set[tuple[int, ...]] = set()
    fits: list[Term] = []
    dropped: list[str] = []
    by_size: dict[int, list[tuple[Expression, tuple[int, ...]]]] = {}

    def keep(expression: Expression, answers: tuple[int, ...]) -> None:
        if answers in seen:
            return
        seen.add(answers)
        by_size[expression.size].append((expression, answers))
        if answers[: len(target)] == target:
            fits.append(Term(expression))

    by_size[1] = []
    tried = len(available)
    for leaf in available:
        try:
            keep(leaf, tuple(lists.apply(leaf, number) for number in inputs))
        except Exception:
            # Values that have no order, for example; a key or predicate may raise anything.
            dropped.append(leaf.name)
    with Bar("terms", 0, wanted=progress) as bar:
        for size in range(2, max_size + 1):
            bar.advance(0, more=_built(by_size, size))
            by_size[size] = []
            for expression, answer in _larger(by_size, size, lists):
                tried += 1
                if tried % SLICE == 0:
                    bar.advance(SLICE)
                if size == max_size and any(answer(place, inputs[place]) != want for place, want in enumerate(target)):
                    continue  # nothing is built of the largest terms, so that only those that fit are of interest
                keep(expression, tuple(answer(place, number) for place, number in enumerate(inputs)))
    return Search(tuple(fits), tried, tuple(dropped))


Answer = Callable[[int, int], int]
"""What a term answers to the list at a place in the inputs, and with this number."""


def _built(by_size: Mapping[int, Sequence[tuple[Expression, tuple[int, ...]]]], size: int) -> int:
    """About how many terms of a size there are."""
    count = 0
    for outer_size in range(1, size):
        outers = [outer for outer, _ in by_size[outer_size]]
        ways = sum(1 + isinstance(outer, Leaf) for outer in outers)
        count += ways * len(by_size[size - outer_size])
    return count


def _larger(
    by_size: Mapping[int, Sequence[tuple[Expression, tuple[int, ...]]]], size: int, lists: _Lists
) -> Iterator[tuple[Expression, Answer]]:
    """The terms of a size, from shorter ones; brackets that change nothing are left out."""
    for outer_size in range(1, size):
        for (outer, _), (inner, within) in product(by_size[outer_size], by_size[size - outer_size]):
            if not isinstance(outer, Composition) and "id" not in (str(outer), str(inner)):
                yield (
                    Composition(outer, inner, size),
                    lambda place, _, outer=outer, within=within: lists.apply(outer, within[place]),  # type: ignore[misc]
                )
    for left_size in range(1, size):
        for (left, first), (right, second) in product(by_size[left_size], by_size[size - left_size]):
            if not isinstance(left, Concatenation):
                yield (
                    Concatenation(left, right, size),
                    lambda place, _, first=first, second=second: lists.join(first[place], second[place]),  # type: ignore[misc]
                )


def _bank(values: int) -> list[Word]:
    """Lists of at most two values: all of them over a few values up to a length, and short ones over the others."""
    few = range(min(values, BANK_VALUES))
    words: dict[Word, None] = {(): None}
    for pair in [*combinations(few, 2), (0,)] if values else []:
        for length in range(1, BANK_LENGTH + 1):
            words.update(dict.fromkeys(product(pair, repeat=length)))
    words.update(dict.fromkeys(product(range(values), repeat=1)))
    words.update(dict.fromkeys(product(range(min(values, BANK_PAIRS)), repeat=2)))
    return list(words)


class _Lists:
    """Lists by number, so that what a leaf makes of a list is computed once."""

    def __init__(self, alphabet: Alphabet, available: Sequence[Leaf]) -> None:
        self._alphabet = alphabet
        self._numbers: dict[Word, int] = {}
        self._words: list[Word] = []
        self._joined: dict[tuple[int, int], int] = {}
        self._memo: dict[str, dict[int, int]] = {leaf.name: {} for leaf in available}
        try:
            self._label: dict[Any, int] | None = {value: label for label, value in enumerate(alphabet.values)}
        except TypeError:
            self._label = None
        hashable = self._label is not None
        self._functions = {leaf.name: (leaf.quick if hashable else None) or Term(leaf) for leaf in available}

    def number(self, word: Word) -> int:
        """The number of a list."""
        new = len(self._words)
        number = self._numbers.setdefault(word, new)
        if number == new:
            self._words.append(word)
        return number

    def apply(self, expression: Expression, number: int) -> int:
        """What an expression makes of a list."""
        if isinstance(expression, Concatenation):
            return self.join(self.apply(expression.left, number), self.apply(expression.right, number))
        if isinstance(expression, Composition):
            return self.apply(expression.outer, self.apply(expression.inner, number))
        memo = self._memo[expression.name]
        known = memo.get(number)
        if known is None:
            answer = self._functions[expression.name](self._alphabet.decode(self._words[number]))
            known = memo[number] = self.number(self._encode(answer))
        return known

    def join(self, left: int, right: int) -> int:
        """One list after another."""
        known = self._joined.get((left, right))
        if known is None:
            known = self._joined[left, right] = self.number(self._words[left] + self._words[right])
        return known

    def _encode(self, answer: list[Any]) -> Word:
        if self._label is None:
            return tuple(self._alphabet.encode(answer).tolist())
        return tuple([self._label[x] for x in answer])
