"""The laws that a list function may keep, each tried on one list at a time, and how one is seen to be broken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations, product
from math import comb, perm
from random import Random
from typing import Any, Literal, Protocol

from holdfast.errors import ArgumentError
from holdfast.lists.values import Alphabet, Key

Ask = Callable[[Sequence[Sequence[Any]]], list[list[Any]]]
"""Lists -> their answers."""
Maps = Literal["map", "injective", "order"]

ALL_ORDERS = 3
"""Elements of the longest list of which all orders are tried."""
SOME_ORDERS = 3
"""Random orders that are tried of a longer one, beside the reverse."""
ALL_MAPS = 64
"""Up to so many maps of the values of a list are all tried; beyond it `SOME_MAPS` are, of either kind."""
SOME_MAPS = 8


@dataclass(frozen=True)
class Violation:
    """A list on which a function breaks a law.

    Arguments:
        xs: the list.
        broken: "alien value" (the answer holds a value that the list does not), "multiplicity" (a value does not come
            out as many times as it must), "deletion" (the order of what stays depends on what is deleted), "renaming"
            (the answer to the renamed list is not the renamed answer), "presentation" (the same elements in another
            order have another answer), "bad answer" (no list came) or "not deterministic" (the same list has two
            answers).
        answer: what the function gives for `xs`; `None` where that was no list.
        shown: the list as it was changed; `xs` where the answer to it is wrong by itself.
        want: what the law says the function must give for `shown`; `None` where it allows several lists.
        got: what the function gives for `shown`; `None` where that was no list.
        dropped: the value that was deleted from `xs`, if `want` is about a deleted value.
        mapping: pairs of a value and its new name; values without a pair keep theirs.
        position: where the deleted element stands in `xs`.
        copies: how many copies of it come out where it goes in alone.
        problem: what the function did instead of giving a list.
    """

    xs: tuple[Any, ...]
    broken: str
    answer: tuple[Any, ...] | None
    shown: tuple[Any, ...]
    want: tuple[Any, ...] | None
    got: tuple[Any, ...] | None
    dropped: Any = None
    mapping: tuple[tuple[Any, Any], ...] = ()
    position: int | None = None
    copies: int | None = None
    problem: str = ""


class Law(Protocol):
    """A law of list functions."""

    @property
    def name(self) -> str:
        """As a message calls it."""

    @property
    def key(self) -> Key:
        """What decides whether two elements are the same value."""

    def violation(self, ask: Ask, xs: list[Any]) -> Violation | None:
        """How the function breaks the law on a list; `None` if it keeps it there."""

    def rows(self, violation: Violation) -> list[tuple[str, str]]:
        """A violation in words: what is shown, and its value."""

    def code(self, violation: Violation) -> list[str]:
        """Lines of Python that fail for a function `f` that breaks the law in this way."""


@dataclass(frozen=True)
class Filters:
    """f . filter p == filter p . f.

    Deleting one value at a time is enough, for every filter of a list is a composition of such deletions. Values of the
    answer that the list does not hold are deleted too.
    """

    key: Key = None
    name: str = "filter equivariance"

    def violation(self, ask: Ask, xs: list[Any]) -> Violation | None:
        alphabet = Alphabet(xs, self.key)
        [answer] = ask([xs])
        labels, out = alphabet.labels.tolist(), alphabet.encode(answer).tolist()
        if -1 in out:
            alien = answer[out.index(-1)]
            want = [y for y in answer if not _same(y, alien, self.key)]
            return _violation(xs, "alien value", answer, xs, want, answer, dropped=alien)
        shorter = [[x for x, label in zip(xs, labels, strict=True) if label != v] for v in range(len(alphabet.values))]
        for v, (shown, got) in enumerate(zip(shorter, ask(shorter), strict=True)):
            wanted, came = [y for y in out if y != v], alphabet.encode(got).tolist()
            if wanted == came:
                continue
            if -1 in came or v in came:
                broken = "alien value"
            else:
                broken = "deletion" if Counter(wanted) == Counter(came) else "multiplicity"
            want = [y for y, label in zip(answer, out, strict=True) if label != v]
            return _violation(xs, broken, answer, shown, want, got, dropped=alphabet.values[v])
        return None

    def rows(self, violation: Violation) -> list[tuple[str, str]]:
        dropped = repr(violation.dropped)
        return [
            ("xs", _list(violation.xs)),
            ("f(xs)", _list(violation.answer)),
            (f"f(xs) without {dropped}", _list(violation.want)),
            (f"f(xs without {dropped})", _list(violation.got)),
        ]

    def code(self, violation: Violation) -> list[str]:
        if violation.shown == violation.xs:
            return _alien_code(violation, self.key)
        x, y, value = (name if self.key is None else f"key({name})" for name in ("x", "y", "value"))
        return [
            f"xs, value = {_list(violation.xs)}, {violation.dropped!r}",
            f"want = [y for y in f(list(xs)) if {y} != {value}]",
            f"got = list(f([x for x in xs if {x} != {value}]))",
            'assert got == want, f"{got} is not {want}"',
        ]


@dataclass(frozen=True)
class Renamings:
    """f . map m == map m . f, for all maps m, for the injective ones, or for the strictly increasing ones.

    Arguments:
        maps: which maps.
        pool: new names of which all choices are tried, where they are few.
        more: new names from which the other maps are drawn.
        seed: of the drawn maps; for each list they are always the same ones.
    """

    maps: Maps
    pool: tuple[Any, ...]
    more: tuple[Any, ...]
    seed: int = 0
    key: Key = None

    @property
    def name(self) -> str:
        kinds = {"map": "map equivariance", "injective": "injective equivariance", "order": "order equivariance"}
        return kinds[self.maps]

    def violation(self, ask: Ask, xs: list[Any]) -> Violation | None:
        alphabet = Alphabet(xs, self.key)
        [answer] = ask([xs])
        aliens = [y for y, label in zip(answer, alphabet.encode(answer).tolist(), strict=True) if label < 0]
        broken = "alien value" if aliens else "renaming"
        try:
            domain = Alphabet([*alphabet.values, *aliens], self.key)
            maps = list(self._maps(domain.values, alphabet.labels.tolist()))
        except Exception:
            if not aliens:
                raise
            return _violation(xs, broken, answer, xs, None, answer)  # the alien is NaN or the like
        labels, out = alphabet.labels.tolist(), domain.encode(answer).tolist()
        renamed = [[m[label] for label in labels] for m in maps]
        for m, shown, got in zip(maps, renamed, ask(renamed), strict=True):
            want = [m[label] for label in out]
            names = Alphabet(want, self.key)
            if names.encode(got).tolist() == names.labels.tolist():
                continue
            pairs = zip(domain.values, m, strict=True)
            moved = tuple((old, new) for old, new in pairs if not _same(old, new, self.key))
            return _violation(xs, broken, answer, shown, want, got, mapping=moved)
        return None

    def _maps(self, values: Sequence[Any], labels: Sequence[int]) -> Iterator[tuple[Any, ...]]:
        """New names of the values, in their order."""
        size, n = len(values), len(self.pool)
        places = self._sorted(values) if self.maps == "order" else list(range(size))
        count = {"map": n**size, "injective": perm(n, size), "order": comb(n, size)}[self.maps]
        if 0 < count <= ALL_MAPS:
            if self.maps == "map":
                yield from product(self.pool, repeat=size)
            elif self.maps == "injective":
                yield from permutations(self.pool, size)
            else:
                for chosen in combinations(self._ordered(self.pool), size):
                    yield _put(chosen, places)
            return
        rng = Random(f"{self.seed} {size} {labels}")
        names = Alphabet([*self.more, *values], self.key).values
        for _ in range(SOME_MAPS):
            if self.maps == "map":
                yield tuple(rng.choices(names, k=size))
            elif self.maps == "injective":
                yield tuple(rng.sample(names, size))
            else:
                yield _put(self._ordered(rng.sample(names, size)), places)
        for _ in range(SOME_MAPS):
            # Every map is a composition of moves of one value.
            moved = rng.randrange(size)
            m = (*values[:moved], rng.choice(names), *values[moved + 1 :])
            if self.maps == "map" or (self._fits(m, places) if self.maps == "order" else self._distinct(m)):
                yield m

    def _distinct(self, names: Sequence[Any]) -> bool:
        return len(Alphabet(names, self.key).values) == len(names)

    def _fits(self, m: Sequence[Any], places: Sequence[int]) -> bool:
        names = [m[place] for place in places]
        return self._distinct(names) and self._sorted(names) == list(range(len(names)))

    def _sorted(self, values: Sequence[Any]) -> list[int]:
        """Places of the values, the smallest value first."""
        try:
            return sorted(range(len(values)), key=values.__getitem__)
        except (TypeError, ValueError):
            kinds = ", ".join(sorted({type(value).__name__ for value in values}))
            raise ArgumentError("elements", "values that < can order", kinds) from None

    def _ordered(self, values: Sequence[Any]) -> list[Any]:
        return [values[place] for place in self._sorted(values)]

    def rows(self, violation: Violation) -> list[tuple[str, str]]:
        if violation.want is None:
            return [("xs", _list(violation.xs)), ("f(xs)", _list(violation.answer))]
        return [
            ("xs", _list(violation.xs)),
            ("new names", ", ".join(f"{old!r} -> {new!r}" for old, new in violation.mapping)),
            ("f(xs)", _list(violation.answer)),
            ("f(xs), renamed", _list(violation.want)),
            ("f(xs renamed)", _list(violation.got)),
        ]

    def code(self, violation: Violation) -> list[str]:
        if violation.want is None:
            return _alien_code(violation, self.key)
        same = "old == x" if self.key is None else "key(old) == key(x)"
        return [
            f"xs, names = {_list(violation.xs)}, {list(violation.mapping)!r}",
            f"rename = lambda x: next((new for old, new in names if {same}), x)",
            "want = [rename(y) for y in f(list(xs))]",
            "got = list(f([rename(x) for x in xs]))",
            'assert got == want, f"{got} is not {want}"',
        ]


@dataclass(frozen=True)
class Positions:
    """Deleting one element x deletes as many x from the answer as a lone x gives, and moves nothing else.

    It implies filter equivariance: deleting all copies of a value one by one deletes the value.
    """

    key: Key = None
    name: str = "positional equivariance"

    def violation(self, ask: Ask, xs: list[Any]) -> Violation | None:
        alphabet = Alphabet(xs, self.key)
        [answer] = ask([xs])
        labels, out = alphabet.labels.tolist(), alphabet.encode(answer).tolist()
        if -1 in out:
            return _violation(xs, "alien value", answer, xs, None, answer)
        shorter = [xs[:position] + xs[position + 1 :] for position in range(len(xs))]
        answers = ask([*shorter, *([value] for value in alphabet.values)])
        lone = answers[len(xs) :]
        for position, (shown, got) in enumerate(zip(shorter, answers, strict=False)):
            x = labels[position]
            if set(alphabet.encode(lone[x]).tolist()) - {x}:
                value = [alphabet.values[x]]
                return _violation(value, "alien value", lone[x], value, None, lone[x])
            came = alphabet.encode(got).tolist()
            rest = Counter(out)
            rest[x] -= len(lone[x])
            if -1 in came or (x in came and x not in labels[:position] + labels[position + 1 :]):
                broken = "alien value"
            elif rest != Counter(came):
                broken = "multiplicity"
            elif not _within(came, out):
                broken = "deletion"
            else:
                continue
            return _violation(xs, broken, answer, shown, None, got, position=position, copies=len(lone[x]))
        return None

    def rows(self, violation: Violation) -> list[tuple[str, str]]:
        place = violation.position
        rows = [("xs", _list(violation.xs)), ("f(xs)", _list(violation.answer))]
        if place is not None:
            lone = [violation.xs[place]]
            rows += [
                (f"f({lone!r})", _list(lone * (violation.copies or 0))),
                (f"f(xs without xs[{place}])", _list(violation.got)),
            ]
        return rows

    def code(self, violation: Violation) -> list[str]:
        if violation.position is None:
            return _alien_code(violation, self.key)
        names = "list" if self.key is None else "lambda ys: [key(y) for y in ys]"
        return [
            f"xs, position = {_list(violation.xs)}, {violation.position}",
            f"names = {names}",
            "longer, shorter = names(f(list(xs))), names(f(xs[:position] + xs[position + 1 :]))",
            "gone = names(f([xs[position]]))",
            "assert sorted(map(repr, shorter + gone)) == sorted(map(repr, longer)), (shorter, gone, longer)",
            "rest = iter(longer)",
            "assert all(y in rest for y in shorter), (shorter, longer)",
        ]


@dataclass(frozen=True)
class Orderings:
    """f xs == f ys for every list ys of the same elements: what sorts and judges keep, and position bias breaks.

    All orders of a short list are tried, of a longer one the reverse and some random ones.

    Arguments:
        key: what decides whether two elements are the same value.
        seed: of the random orders; for each list they are always the same ones.
    """

    key: Key = None
    seed: int = 0
    name: str = "order invariance"

    def violation(self, ask: Ask, xs: list[Any]) -> Violation | None:
        if len(xs) < 2:
            return None
        alphabet = Alphabet(xs, self.key)
        labels = alphabet.labels.tolist()
        others = [[xs[place] for place in order] for order in self._orders(labels)]
        answer, *answers = ask([xs, *others])
        out = alphabet.encode(answer).tolist()
        if -1 in out:
            return _violation(xs, "alien value", answer, xs, None, answer)
        for shown, got in zip(others, answers, strict=True):
            if alphabet.encode(got).tolist() != out:
                return _violation(xs, "presentation", answer, shown, answer, got)
        return None

    def _orders(self, labels: Sequence[int]) -> list[tuple[int, ...]]:
        """Orders of the places that make another list."""
        places = range(len(labels))
        if len(labels) <= ALL_ORDERS:
            orders = list(permutations(places))
        else:
            rng = Random(f"{self.seed} {labels}")
            orders = [tuple(reversed(places)), *(tuple(rng.sample(places, len(labels))) for _ in range(SOME_ORDERS))]
        different = {tuple(labels[place] for place in order): order for order in reversed(orders)}
        different.pop(tuple(labels), None)
        return list(reversed(different.values()))

    def rows(self, violation: Violation) -> list[tuple[str, str]]:
        if violation.want is None:
            return [("xs", _list(violation.xs)), ("f(xs)", _list(violation.answer))]
        return [
            ("xs", _list(violation.xs)),
            ("f(xs)", _list(violation.answer)),
            ("in another order", _list(violation.shown)),
            ("f(in another order)", _list(violation.got)),
        ]

    def code(self, violation: Violation) -> list[str]:
        if violation.want is None:
            return _alien_code(violation, self.key)
        names = "list" if self.key is None else "lambda ys: [key(y) for y in ys]"
        return [
            f"names = {names}",
            f"want = names(f({_list(violation.xs)}))",
            f"got = names(f({_list(violation.shown)}))",
            'assert got == want, f"{got} is not {want}"',
        ]


def _violation(
    xs: Sequence[Any],
    broken: str,
    answer: Sequence[Any],
    shown: Sequence[Any],
    want: Sequence[Any] | None,
    got: Sequence[Any],
    **more: Any,
) -> Violation:
    wanted = None if want is None else tuple(want)
    return Violation(tuple(xs), broken, tuple(answer), tuple(shown), wanted, tuple(got), **more)


def _alien_code(violation: Violation, key: Key) -> list[str]:
    inside = "y in xs" if key is None else "key(y) in map(key, xs)"
    return [f"xs = {_list(violation.xs)}", f"assert all({inside} for y in f(list(xs)))"]


def _list(xs: Sequence[Any] | None) -> str:
    return "no list" if xs is None else repr(list(xs))


def _same(x: Any, y: Any, key: Key) -> bool:
    """Whether two elements, which may be anything, are the same value."""
    try:
        return x is y or bool(x == y if key is None else key(x) == key(y))
    except Exception:
        return False


def _put(names: Sequence[Any], places: Sequence[int]) -> tuple[Any, ...]:
    """The n-th name at the n-th place."""
    placed: list[Any] = [None] * len(places)
    for name, place in zip(names, places, strict=True):
        placed[place] = name
    return tuple(placed)


def _within(shorter: Sequence[int], out: Sequence[int]) -> bool:
    """Whether a list comes from another one by deleting elements."""
    rest = iter(out)
    return all(label in rest for label in shorter)
