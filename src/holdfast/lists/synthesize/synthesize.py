"""Programs by example: list functions that fit a few examples, in every class at once, and the question to ask next.

All classes are filter equivariant, so that an example says much more than itself: with any values deleted from the list
and from its answer it is an example again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count, islice, pairwise, permutations, product
from typing import Any, Literal, Protocol

from holdfast.errors import ArgumentError, count_of
from holdfast.lists.errors import Cycle, OutOfBudget, show
from holdfast.lists.synthesize.classes import KINDS, Kind, OrderBlock, OrderNatural, PermutationType, tables, weak_order
from holdfast.lists.synthesize.natural import Block, Natural
from holdfast.lists.synthesize.terms import leaves, search
from holdfast.lists.synthesize.version_space import Example, VersionSpace, as_examples, version_space
from holdfast.lists.synthesize.words import Word, restrict
from holdfast.lists.values import Alphabet

ClassName = Literal["natural", "order-natural", "terms", "permutation"]
MOST_LEAVES = 5
"""Leaves of the largest term that a search may be asked for."""

CLASSES: tuple[ClassName, ...] = ("natural", "order-natural", "terms", "permutation")
"""The classes, the most symmetric one first: what a few examples of it say about other values is most."""

QUESTION_LENGTH = 4
"""Elements of the longest question."""
COMPARED = 150
"""Hypotheses that a question is chosen by."""
DECISIONS = 200_000
"""Pairs that are decided in the search for permutations."""
PERMUTED = 64
"""Values of the largest search for permutations."""
PAIR_ANSWERS: tuple[tuple[Word, Word], ...] = tuple((f, s) for f in ((0, 1), (1, 0)) for s in ((0, 1), (1, 0)))
"""What a permutation can make of [0, 1] and [1, 0]."""


class Program(Protocol):
    """A list function with a name and a text."""

    @property
    def size(self) -> int: ...
    def __call__(self, xs: Sequence[Any], /) -> Any: ...
    def to_python(self, name: str = "f") -> str: ...


@dataclass(frozen=True)
class Hypothesis:
    """A function that fits the examples.

    Arguments:
        family: the class that it was found in.
        function: the function.
    """

    family: ClassName
    function: Program

    @property
    def name(self) -> str:
        """As in "id + id + reverse"."""
        return str(self.function)

    @property
    def code(self) -> str:
        """A Python function `f` that does the same."""
        return self.function.to_python()

    @property
    def size(self) -> int:
        """Parts of its name."""
        return self.function.size

    def __call__(self, xs: Sequence[Any]) -> Any:
        """The answer to a list, text or tuple, in its type."""
        return self.function(xs)

    def __str__(self) -> str:
        """The name."""
        return self.name


@dataclass(frozen=True)
class Family:
    """What is left of a class.

    Arguments:
        name: the class.
        hypotheses: functions that fit, the simplest first.
        total: how many fit; `None`: it was not counted.
        complete: whether no other function of the class fits.
        scope: what the class is, and what it was searched up to.
        reason: why none fits; empty if some do.
    """

    name: ClassName
    hypotheses: tuple[Hypothesis, ...]
    total: int | None
    complete: bool
    scope: str
    reason: str = ""


@dataclass(frozen=True)
class Synthesis:
    """The functions that fit examples.

    Arguments:
        examples: the lists with their answers.
        families: what is left of each class, the most symmetric class first.
        next_example: the list whose answer would tell most; `None` if all that fit agree on all short lists.
        groups: into how many groups its answer splits the functions that were compared, and how many these are.
    """

    examples: tuple[Example, ...]
    families: tuple[Family, ...]
    next_example: list[Any] | None
    groups: tuple[int, int]
    _space: VersionSpace = field(repr=False)

    @property
    def best(self) -> Hypothesis | None:
        """The simplest function of the most symmetric class that has one; `None` if no class has."""
        family = self._family
        return None if family is None else family.hypotheses[0]

    @property
    def unique(self) -> bool:
        """Whether no other function of the same class fits the examples."""
        family = self._family
        return family is not None and family.complete and family.total == 1

    @property
    def rivals(self) -> tuple[Hypothesis, ...]:
        """The other functions of the same class that fit, simple ones first."""
        family = self._family
        return () if family is None else family.hypotheses[1:]

    @property
    def _family(self) -> Family | None:
        return next((family for family in self.families if family.hypotheses), None)

    def predict(self, xs: Sequence[Any]) -> Any:
        """What filter equivariance alone makes of another list: no class is assumed.

        Errors:
            Undetermined: the examples leave more than one answer; says which lists are missing.
            ListFunctionError: they leave none.
        """
        return self._space.predict(xs)

    def explain(self) -> str:
        """What fits and what does not, and what to ask next, as a text."""
        best = self.best
        lines = [
            "no function of these classes fits" if best is None else f"{best.name}  ({best.family})",
            *(f"  {show(xs)} -> {show(ys)}" for xs, ys in self.examples),
        ]
        for family in self.families:
            if not family.hypotheses:
                can = f" can, since {family.reason}" if family.complete else f": {family.reason}"
                lines.append(f"{family.name}: none of {family.scope}{can}")
                continue
            shown = "; ".join(each.name for each in family.hypotheses[:4])
            some = "some" if family.total is None else str(family.total)
            more = "; ..." if len(family.hypotheses) > 4 or not family.complete else ""
            lines.append(f"{family.name}: {some} of {family.scope}: {shown}{more}")
        if self.next_example is not None:
            parts, compared = self.groups
            lines.append(f"ask next: f({self.next_example}), which splits {compared} functions into {parts} groups")
        elif best is not None:
            lines.append(f"all that fit agree on all lists up to {QUESTION_LENGTH} elements that were tried")
        return "\n".join(lines)

    def __str__(self) -> str:
        """The explanation."""
        return self.explain()


def synthesize(
    examples: Sequence[Example],
    *,
    classes: Sequence[str] = CLASSES,
    max_size: int = 3,
    max_multiplicity: int = 4,
    max_hypotheses: int = 1000,
    keys: Mapping[str, Callable[[Any], Any]] | None = None,
    predicates: Mapping[str, Callable[[Any], Any]] | None = None,
    progress: bool = True,
) -> Synthesis:
    """Find the list functions that fit examples.

    Arguments:
        examples: pairs (list, its answer).
        classes: where to look. "natural": commute with every map of the values. "order-natural": with those that keep
            their order. "terms": a small language of named functions. "permutation": change nothing but the order, in a
            way that is specific to the values of the examples.
        max_size: leaves of the largest term, at most 5. 4 takes seconds, 5 a minute and more.
        max_multiplicity: copies that an `inflate` in a term makes; and copies that a natural function makes, where no
            example has an element and shows it.
        max_hypotheses: functions that are kept of a class; all are counted where possible.
        keys: what a term may sort by, by name, such as `{"abs": abs}`.
        predicates: what a term may keep, by name.
        progress: show a bar on a terminal after two seconds.

    Returns:
        What fits, and what to ask next.

    Errors:
        ArgumentError: an argument cannot be used.
        AlienValue, WrongMultiplicity, Contradiction, Cycle: no filter-equivariant function at all fits the examples.
            The error names the law, and the examples that break it.

    Source: arXiv 2507.08796 for the classes.
    """
    wanted = [name for name in CLASSES if name in classes]
    if isinstance(classes, str) or not wanted or set(classes) - set(CLASSES):
        raise ArgumentError("classes", f"some of {', '.join(CLASSES)}", classes)
    for argument, number in (("max_size", max_size), ("max_hypotheses", max_hypotheses)):
        count_of(argument, number, least=1)
    if max_size > MOST_LEAVES:
        raise ArgumentError("max_size", f"at most {MOST_LEAVES}", max_size)
    count_of("max_multiplicity", max_multiplicity)
    space = version_space(as_examples(examples))
    families: list[Family] = []
    for name in wanted:
        if name == "natural":
            families.append(_natural(space, max_multiplicity, max_hypotheses))
        elif name == "order-natural":
            families.append(_order_natural(space, max_multiplicity, max_hypotheses))
        elif name == "permutation":
            families.append(_permutation(space, max_hypotheses))
        else:
            names = (keys or {}, predicates or {})
            families.append(_terms(space, max_size, max_multiplicity, max_hypotheses, *names, progress))
    question, groups = _question(space, families)
    return Synthesis(space.examples, tuple(families), question, groups, space)


def _natural(space: VersionSpace, max_multiplicity: int, limit: int) -> Family:
    words = list(space.labelled)
    scope = "the natural functions"
    return _sum_family(
        "natural",
        words,
        ("id", "reverse"),
        lambda parts: Natural(tuple(Block(m, kind == "reverse") for m, kind in parts)),
        lambda: _why_not_natural(space),
        scope,
        max_multiplicity,
        limit,
        space,
    )


def _order_natural(space: VersionSpace, max_multiplicity: int, limit: int) -> Family:
    scope = "the order-natural functions"
    if any(len(set(xs)) < len(xs) for xs, _ in space.labelled):
        scope += " that are sums of blocks (with duplicates, as here, there are others)"
    rank = _ranks(space.alphabet.values)
    if rank is None:
        return Family("order-natural", (), 0, True, scope, "the values have no order")
    words = [(tuple(rank[x] for x in xs), tuple(rank[y] for y in ys)) for xs, ys in space.labelled]
    return _sum_family(
        "order-natural",
        words,
        KINDS,
        lambda parts: OrderNatural(tuple(OrderBlock(m, kind) for m, kind in parts)),
        lambda: _why_not_order_natural(space, words),
        scope,
        max_multiplicity,
        limit,
        space,
    )


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


Part = tuple[int, Kind]
"""A block of a sum: its multiplicity and its kind."""


def _sum_family(
    name: ClassName,
    words: Sequence[tuple[Word, Word]],
    kinds: Sequence[Kind],
    build: Callable[[Sequence[Part]], Program],
    why_not: Callable[[], str],
    scope: str,
    max_multiplicity: int,
    limit: int,
    space: VersionSpace,
) -> Family:
    """The sums of blocks that fit."""
    copies = {out / into for (_, into), (out, _) in space.counts.items()}
    if len(copies) > 1 or any(k != int(k) for k in copies):
        return Family(name, (), 0, True, scope, f"copies of elements are not multiplied alike: {_uneven(space)}")
    if copies:
        k = int(copies.pop())
        total, sums = _sums(words, k, kinds)
        scope += f" of multiplicity {k}"
        found = [build(parts) for parts in islice(sums, limit)]
    else:
        # No example has an element, so that all functions fit: those with few copies are listed.
        per_copies = [_sums(words, k, kinds) for k in range(max_multiplicity + 1)]
        total = sum(each for each, _ in per_copies)
        scope += f" of multiplicity up to {max_multiplicity} (the examples show none)"
        found = sorted((build(p) for _, sums in per_copies for p in islice(sums, limit)), key=lambda each: each.size)
    hypotheses = tuple(Hypothesis(name, each) for each in found[:limit])
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


def _permutation(space: VersionSpace, limit: int) -> Family:
    """The permutations that fit: pair by pair, with what the examples say of the pair."""
    values = space.alphabet.values
    scope = f"the filter-equivariant permutations of lists without duplicates over {show(values)}"
    changed = next(((x, into, out) for (x, into), (out, _) in space.counts.items() if into != out), None)
    if changed is not None:
        x, into, out = changed
        reason = f"{values[x]!r} goes in {_times(into)} and comes out {_times(out)}"
        return Family("permutation", (), 0, True, scope, reason)
    allowed: dict[tuple[int, int], set[tuple[Word, Word]]] = {}
    for part, (answer, _) in space.pair_words.items():
        i, j = sorted(set(part))
        options = allowed.setdefault((i, j), set(PAIR_ANSWERS))
        word, wanted = tuple(int(x == j) for x in part), tuple(int(x == j) for x in answer)
        options -= {option for option in options if _permuted(word, option) != wanted}
    if len(values) > PERMUTED:
        reason = f"there are more than {PERMUTED} values, and none was looked for"
        return Family("permutation", (), None, False, scope, reason)
    # Each takes time that grows with the pairs.
    limit = min(limit, DECISIONS // max(1, len(values) ** 2))
    found: list[PermutationType] = []
    complete = True
    try:
        for table in tables((1,) * len(values), allowed, DECISIONS):
            if len(found) == limit:
                complete = False
                break
            found.append(weak_order(values, table))
    except OutOfBudget:
        complete = False
    found.sort(key=lambda each: each.size)
    reason = "no order with ties, kept or reversed, gives these answers"
    if not complete:
        reason = f"none was found among the first {DECISIONS} choices"
    return Family(
        "permutation",
        tuple(Hypothesis("permutation", each) for each in found),
        len(found) if complete else None,
        complete,
        scope,
        "" if found else reason,
    )


def _permuted(word: Word, option: tuple[Word, Word]) -> Word:
    """What a permutation with these answers to [0, 1] and [1, 0] makes of a list of zeros and ones."""
    first, second = option
    if first == second:
        return tuple(sorted(word, reverse=first == (1, 0)))
    return word if first == (0, 1) else word[::-1]


def _terms(
    space: VersionSpace,
    max_size: int,
    max_multiplicity: int,
    limit: int,
    keys: Mapping[str, Callable[[Any], Any]],
    predicates: Mapping[str, Callable[[Any], Any]],
    progress: bool,
) -> Family:
    alphabet = Alphabet([*space.alphabet.values, *_fresh(space.alphabet.values)])
    available = leaves(alphabet.values, max_multiplicity, keys, predicates)
    # What is left of a long example with most values deleted is one too, and refutes most terms in less time.
    short = [(restrict(xs, set(xs[:3])), restrict(ys, set(xs[:3]))) for xs, ys in space.labelled if len(xs) > 16]
    found = search([*short, *space.labelled], alphabet, available, max_size, progress=progress)
    scope = f"the {found.tried} terms of size up to {max_size}"
    if found.dropped:
        scope += f" (without {', '.join(found.dropped)}, which fail on these values)"
    reason = "" if found.terms else f"no term of size up to {max_size} gives these answers"
    return Family(
        "terms",
        tuple(Hypothesis("terms", term) for term in found.terms[:limit]),
        len(found.terms),
        len(found.terms) <= limit,
        scope,
        reason,
    )


def _fresh(values: Sequence[Any]) -> list[Any]:
    """Two values that the examples do not have, where it is clear what these may be."""
    if not values:
        return [0, 1, 2]
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        return [max(values) + 1, max(values) + 2]
    if all(isinstance(value, str) and len(value) == 1 for value in values) and max(values) < "\U0010fff0":
        return [chr(ord(max(values)) + 1), chr(ord(max(values)) + 2)]
    return []


def _question(space: VersionSpace, families: Sequence[Family]) -> tuple[list[Any] | None, tuple[int, int]]:
    """The short list whose answers split the functions that fit best, and into how many groups.

    First the functions of the best class are to be told apart; if there is but one, those of all classes.
    """
    best = next((family for family in families if family.hypotheses), None)
    if best is None:
        return None, (0, 0)
    rivals = best.hypotheses if len(best.hypotheses) > 1 else [each for f in families for each in f.hypotheses]
    found = _best_split(space, rivals)
    if found[0] is None and len(best.hypotheses) > 1:
        found = _best_split(space, [each for f in families for each in f.hypotheses])
    return found


def _best_split(space: VersionSpace, hypotheses: Sequence[Hypothesis]) -> tuple[list[Any] | None, tuple[int, int]]:
    # The simplest ones, and some from the others.
    step = max(1, len(hypotheses) // COMPARED)
    compared = list(hypotheses[::step])[:COMPARED]
    chosen: list[Any] | None = None
    # Functions that would be left on average, times their number: what is to be small.
    least = len(compared) ** 2
    groups = 1
    for xs in _questions(space):
        try:
            answers = Counter(tuple(_places(xs, each(list(xs)))) for each in compared)
        except Exception:  # no question for all of them: a value that one does not know, or a key that raises
            continue
        left = sum(number**2 for number in answers.values())
        if left < least:
            chosen, least, groups = list(xs), left, len(answers)
            if groups == len(compared):
                break
    return chosen, (groups, len(compared))


def _places(xs: Sequence[Any], answer: Sequence[Any]) -> list[int]:
    """An answer by the places of its values in the list: also for values that cannot be hashed."""
    return [xs.index(y) for y in answer]


def _questions(space: VersionSpace) -> Iterator[tuple[Any, ...]]:
    """Short lists, the shortest first, of the values of the examples and of others; long ones without duplicates."""
    values = list(space.alphabet.values)
    pool = [*values[:3], *_fresh(values)][:QUESTION_LENGTH]
    for length in range(1, QUESTION_LENGTH + 1):
        yield from product(pool, repeat=length)
        if len(values) > len(pool) - 1:
            yield from permutations(values[:7], length)
