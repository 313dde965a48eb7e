"""The search for a list that breaks a law: all short lists, then random ones; what is found is made smaller."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from itertools import islice, product
from pathlib import Path
from random import Random
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any

from holdfast.errors import ArgumentError, count_of, require
from holdfast.lists.check.laws import Law, Maps, Renamings, Violation
from holdfast.lists.errors import BadAnswer
from holdfast.lists.oracle import Oracle
from holdfast.lists.values import Alphabet, Key

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

MOST_LISTS = 1_000_000
"""Lists that the exhaustive search may take."""
BATCH = 1024
"""Lists that the exhaustive search asks for together, where that is possible."""
REPEATS = 4
"""Times that a list is asked again to see whether its answer stays."""
WIDE_LISTS = 4
"""Random lists of all values, once each: chance seldom draws one."""


@dataclass(frozen=True)
class Plan:
    """The options of a check, looked over."""

    elements: Any = None
    max_length: int = 12
    max_examples: int = 500
    exhaustive: tuple[int, int] = (3, 5)
    seed: int = 0
    key: Key = None

    def __post_init__(self) -> None:
        count_of("max_length", self.max_length, least=1)
        count_of("max_examples", self.max_examples)
        count_of("seed", self.seed)
        match self.exhaustive:
            case (int(size), int(length)) if size >= 1 and length >= -1:
                pass
            case other:
                raise ArgumentError("exhaustive", "a number of values from 1 and a length from -1", other)
        if (length + 1 if size == 1 else size ** (length + 1)) > MOST_LISTS:
            raise ArgumentError("exhaustive", f"values ** length of at most {MOST_LISTS}", self.exhaustive)
        assert self.values  # refuses elements that cannot be used

    @cached_property
    def values(self) -> tuple[Any, ...]:
        """Values that lists are made of; of a strategy, some that it gives, those first that are short to write."""
        if self.elements is None:
            return tuple(range(10))
        if is_strategy(self.elements):
            drawn = sorted(
                self.alphabet(_drawn(self.elements)).values, key=lambda value: (len(repr(value)), repr(value))
            )
        elif isinstance(self.elements, Iterable):
            drawn = list(self.alphabet(self.elements).values)
        else:
            raise ArgumentError("elements", "a collection of values or a strategy of Hypothesis", self.elements)
        if not drawn:
            raise ArgumentError("elements", "at least one value", self.elements)
        return tuple(drawn)

    def alphabet(self, elements: Iterable[Any]) -> Alphabet:
        try:
            return Alphabet(elements, self.key)
        except ArgumentError as error:
            raise _of_elements(error) from None

    def renamings(self, maps: Maps) -> Renamings:
        size = self.exhaustive[0]
        pool = self.values[: size if maps == "map" else size + 1]
        more = tuple(range(20)) if self.elements is None else self.values
        return Renamings(maps, pool, more, self.seed, self.key)

    def strategy(self) -> SearchStrategy[list[Any]]:
        """Lists for Hypothesis: short and long, of many values and of few."""
        from hypothesis import strategies as st

        if is_strategy(self.elements):
            few = st.lists(self.elements, min_size=1, max_size=3)
            crowded = few.flatmap(lambda pool: st.lists(st.sampled_from(pool), max_size=self.max_length))
            kinds = [self.elements]
        else:
            uneven = [self.values[0]] * 6 + list(self.values[:3])
            crowded = st.lists(st.sampled_from(uneven), min_size=self.max_length // 2, max_size=self.max_length)
            kinds = [st.sampled_from(self.values[:size]) for size in sorted({3, len(self.values)})]
        least = sorted({0, self.max_length // 2, 3 * self.max_length // 4})
        lists = [st.lists(kind, min_size=n, max_size=self.max_length) for n in least for kind in kinds]
        return st.one_of(*lists, crowded)

    def draw(self, rng: Random) -> list[Any]:
        """A list without Hypothesis, of the same kinds."""
        size = rng.choice((2, 3, 3, len(self.values)))
        values = rng.sample(self.values, min(size, len(self.values)))
        weights = [rng.choice((1, 1, 4, 12)) for _ in values]
        least = rng.choice((0, self.max_length // 2, 3 * self.max_length // 4))
        return rng.choices(values, weights, k=rng.randint(least, self.max_length))


class Search:
    """One check under way: what was tried, and what ended it."""

    def __init__(self, plan: Plan, oracle: Oracle, law: Law) -> None:
        self.plan, self.oracle, self.law = plan, oracle, law
        self.n_checked = 0
        self.longest: list[Any] = []
        self.stuck: Violation | ArgumentError | None = None
        """What makes it pointless to go on: a call that never returned, elements that cannot be used."""

    def __call__(self, xs: list[Any]) -> Violation | None:
        """How the law is broken on a list; `None` from the moment that something is `stuck`."""
        if self.stuck is not None:
            return None
        try:
            return self.law.violation(self.oracle.ask, xs)
        except BadAnswer as error:
            query = tuple(error.query)
            violation = Violation(query, "bad answer", None, query, None, None, problem=error.problem)
            if not error.problem.startswith("did not return"):
                return violation
            self.stuck = violation
        except ArgumentError as error:
            self.stuck = _of_elements(error)
        return None

    def first(self, lists: Iterable[list[Any]]) -> Violation | None:
        """The first list on which the law is broken; counts."""
        for xs in lists:
            self.n_checked += 1
            if len(xs) > len(self.longest):
                self.longest = xs
            violation = self(xs)
            if violation is not None or self.stuck is not None:
                return violation
        return None

    def all_lists(self) -> Iterator[list[Any]]:
        """All short lists, in the order of length and dictionary."""
        size, longest = self.plan.exhaustive
        for length in range(longest + 1):
            lists = [list(xs) for xs in product(self.plan.values[:size], repeat=length)]
            if self.oracle.batched or self.oracle.is_async:
                for start in range(0, len(lists), BATCH):
                    # A bad answer comes up again with its own list.
                    with suppress(BadAnswer):
                        self.oracle.ask(lists[start : start + BATCH])
                    yield from lists[start : start + BATCH]
            else:
                yield from lists

    def drawn(self) -> Violation | None:
        """Look among random lists, with Hypothesis where it is installed and not at work already."""
        rng = Random(self.plan.seed)
        wide = [rng.sample(self.plan.values, len(self.plan.values))[: self.plan.max_length] for _ in range(WIDE_LISTS)]
        wide = wide[: self.plan.max_examples]
        violation = self.first(wide)
        more = self.plan.max_examples - len(wide)
        if violation is not None or more == 0:
            return violation
        if find_spec("hypothesis") is None or inside_hypothesis():
            return self.first(self.plan.draw(rng) for _ in range(more))
        hypothesis = load_hypothesis()

        violations: list[Violation] = []

        def breaks(xs: list[Any]) -> bool:
            violation = self(xs) if violations or self.stuck else self.first([xs])
            if violation is not None:
                violations.append(violation)
            return violation is not None

        settings = hypothesis.settings(
            max_examples=more,
            derandomize=True,
            database=None,
            deadline=None,
            phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
        )
        try:
            xs = hypothesis.find(self.plan.strategy(), breaks, settings=settings, random=Random(self.plan.seed))
        except hypothesis.errors.NoSuchExample:
            return None
        except hypothesis.errors.Flaky:
            return violations[0] if violations else None
        return self(xs) or violations[-1]

    def smaller(self, violation: Violation) -> Violation:
        """The smallest list that can be found: shorter ones first, of equal length the first in the dictionary.

        The order of the dictionary is that of the plan's values; others follow in the order in which they come up.
        """
        tries = 4 * self.plan.max_examples
        alphabet = self.plan.alphabet([*self.plan.values, *violation.xs])
        way: list[tuple[Violation, list[int]]] = [(violation, alphabet.encode(violation.xs).tolist())]
        """Violations, each smaller than the one before, and the labels of their lists."""

        def labels() -> list[int]:
            return way[-1][1]

        def step(candidate: list[int]) -> bool:
            """Go on to a candidate if the law is broken there."""
            violation = self(alphabet.decode(candidate))
            at = [] if violation is None else alphabet.encode(violation.xs).tolist()
            if violation is None or -1 in at or (len(at), at) >= (len(labels()), labels()):
                return False
            way.append((violation, at))
            return True

        before = 0
        while before < len(way) and tries > 0:
            before = len(way)
            for candidate in islice(_simpler(labels), tries):
                tries -= 1
                step(candidate)
        size, known = self.plan.exhaustive
        values = max(*labels(), min(size, len(self.plan.values)) - 1, 0) + 1 if labels() else 1
        if sum(values**length for length in range(len(labels()) + 1)) > tries:
            return way[-1][0]
        for length in range(len(labels()) + 1):
            for xs in product(range(values), repeat=length):
                if length <= known and all(x < size for x in xs):
                    continue
                if (length, list(xs)) >= (len(labels()), labels()) or step(list(xs)):
                    return way[-1][0]
        return way[-1][0]

    def changing(self, violation: Violation | None) -> Violation | None:
        """A list whose answer does not stay, among those that the verdict rests on."""
        lists = [self.longest] if violation is None else [list(violation.xs), list(violation.shown)]
        for xs in lists[:1] if violation and violation.shown == violation.xs else lists:
            if violation is not None and violation.broken == "bad answer":
                first, problem = None, violation.problem
            else:
                first, problem = self._answer(xs, fresh=False)
            for _ in range(REPEATS):
                again, new_problem = self._answer(xs, fresh=True)
                if not _alike(first, again):
                    what = problem or new_problem
                    return Violation(tuple(xs), "not deterministic", first, tuple(xs), first, again, problem=what)
        return None

    def _answer(self, xs: list[Any], fresh: bool) -> tuple[tuple[Any, ...] | None, str]:
        """The answer, or `None` and what came instead."""
        try:
            [answer] = self.oracle.ask([xs], fresh=fresh)
        except BadAnswer as error:
            return None, error.problem
        return tuple(answer), ""


def _simpler(now: Callable[[], list[int]]) -> Iterator[list[int]]:
    """Lists that may be smaller than the one that `now` gives, which changes when one of them is taken.

    Without one value, without a stretch, sorted, with a value or an element replaced by a lower one.
    """
    for label in dict.fromkeys(now()):
        yield [x for x in now() if x != label]
    length = len(now()) // 2
    while length:
        for start in range(len(now()) - length, -1, -1):
            yield now()[:start] + now()[start + length :]
        length //= 2
    names = {label: number for number, label in enumerate(dict.fromkeys(now()))}
    yield [names[x] for x in now()]
    yield sorted(now())
    for label in dict.fromkeys(now()):
        for lower in range(label):
            yield [lower if x == label else x for x in now()]
    for position, label in enumerate(now()):
        for lower in range(label):
            if position < len(now()):
                yield [*now()[:position], lower, *now()[position + 1 :]]
    for position in range(len(now()) - 1):
        xs = now()[:]
        xs[position : position + 2] = sorted(xs[position : position + 2])
        yield xs


def _alike(first: tuple[Any, ...] | None, second: tuple[Any, ...] | None) -> bool:
    """Whether two answers are the same; NaN and arrays are, if they are written the same."""
    if first is None or second is None:
        return first is second
    try:
        return first == second or repr(first) == repr(second)
    except Exception:
        return repr(first) == repr(second)


def _of_elements(error: ArgumentError) -> ArgumentError:
    """What is wrong with a list that was drawn is wrong with `elements`."""
    return ArgumentError("elements" if error.argument == "xs" else error.argument, error.expected, error.got)


def is_strategy(elements: Any) -> bool:
    strategies = sys.modules.get("hypothesis.strategies")
    return strategies is not None and isinstance(elements, strategies.SearchStrategy)


def load_hypothesis() -> Any:
    """Hypothesis; unless somebody else has it loaded, as a test runner has, it leaves the working folder alone."""
    if "hypothesis" not in sys.modules:
        os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(Path(gettempdir()) / "holdfast-hypothesis"))
    return require("hypothesis", "test")


def inside_hypothesis() -> bool:
    """Whether a Hypothesis test is under way: another one within it would fail its health check."""
    hypothesis = sys.modules.get("hypothesis")
    return hypothesis is not None and bool(hypothesis.currently_in_test_context())


def _drawn(elements: SearchStrategy[Any], count: int = 50) -> list[Any]:
    """Some values of a strategy, always the same ones."""
    import hypothesis

    if inside_hypothesis():
        raise ArgumentError("elements", "a collection of values, inside of a Hypothesis test", elements)
    values: list[Any] = []

    @hypothesis.settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(elements)
    def draw(value: Any) -> None:
        values.append(value)

    draw()
    return values
