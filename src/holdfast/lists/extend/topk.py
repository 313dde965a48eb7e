"""The best k of a list, by a function or a model that orders a few elements at a time.

best = topk(rank_twenty, documents, k=10, capacity=20)
best.output
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from holdfast.bar import Bar
from holdfast.errors import ArgumentError, count_of
from holdfast.lists.errors import AlienValue, BadAnswer, ListFunctionError, NotExtendable, OutOfBudget
from holdfast.lists.extend.labels import Translator
from holdfast.lists.extend.pairs import Labels
from holdfast.lists.extend.rounds import as_sequence
from holdfast.lists.extend.selection import Selection
from holdfast.lists.extend.votes import Votes
from holdfast.lists.oracle import Oracle
from holdfast.lists.values import as_given

ONE_ORDER = "an answer orders its elements as earlier answers do"


@dataclass(frozen=True, eq=False)
class Top:
    """The best of a list, and what it rests on.

    Arguments:
        output: the best elements, best first, in the type of the list.
        places: where in the list each of them stands.
        tiers: the same elements in tiers; those of one tier are tied. `None`: ties were not asked for.
        tied_out: elements seen to be tied with the last ones, for which there was no place.
        queries: lists that were asked for; with several functions, of all of them.
        longest: elements of the longest of these.
        calls: rounds of questions; a batched function is called at most once in each.
        contradictions: pairs that an answer ordered otherwise than the answers before it, which were believed.
        confidence: share of the votes in all windows that agree with what was made of them; 1 with one vote.
        discarded: answers that cast no vote.
    """

    output: Any
    places: tuple[int, ...]
    tiers: tuple[tuple[Any, ...], ...] | None = None
    tied_out: tuple[Any, ...] = ()
    queries: int = 0
    longest: int = 0
    calls: int = 0
    contradictions: int = 0
    confidence: float = 1.0
    discarded: int = 0

    @property
    def consistent(self) -> bool:
        """No answer contradicts another one. A warning light and no certificate: few pairs are asked for twice."""
        return self.contradictions == 0 and self.confidence == 1


def topk(
    f: Callable[..., Any] | Sequence[Callable[..., Any]],
    xs: Any,
    k: int,
    capacity: int,
    *,
    votes: int = 1,
    weights: Sequence[int] | None = None,
    tiers: bool = False,
    on_inconsistent: str = "raise",
    seed: int = 0,
) -> Top:
    """The first k elements of `f(xs)`, though `f` can order only a few elements at a time.

    Exact for every function that orders its list and is filter equivariant: sorting by any key, ties in the order shown
    or against it, and a judge that always compares two elements alike. Nothing is tried first:
    `check_filter_equivariance` and `check_order_invariance` tell whether a function is one. To find 10 of 1,000 with
    windows of 20 takes about 55 queries; no method can find even the first with less than 53.

    Equal elements are ranked once and stand together.

    Arguments:
        f: list -> the same elements, best first; or an `Oracle` of such a function, which says how it is asked (many
            lists at once, within a budget, from a cache that a later run goes on with); or several of them, a panel.
        xs: a list, tuple or text.
        k: how many elements are wanted; all of them, if there are fewer.
        capacity: most elements that `f` may be shown at once, the window.
        votes: how often each function orders each window: as its elements stand in the list, the other way round, and
            then shuffled; more than 1 for a function that errs, or favours what it sees first.
        weights: votes that one answer of each function counts for; `None`: 1.
        tiers: tell ties as well, by the elements whose order turns with that of the list; twice the queries.
        on_inconsistent: what to do where an answer contradicts earlier ones. `"raise"`: an error. `"repair"`: believe
            the earlier ones, count it, and do without answers that are no order of their window as long as another
            vote for it is left.
        seed: of the shuffles, and of what decides between equal votes.

    Errors:
        ArgumentError: an argument is out of range, or two do not go together.
        AlienValue, BadAnswer: an answer is no order of the elements that were shown.
        NotExtendable: answers contradict each other.
        OutOfBudget: more queries are needed than an oracle allows.

    Source: this project's own, see docs/systems/lists.md.
    """
    panel = _panel(f, capacity)
    counts = _weights(weights, len(panel))
    count_of("k", k, 1)
    count_of("votes", votes, 1)
    count_of("seed", seed)
    if not isinstance(tiers, bool):
        raise ArgumentError("tiers", "True or False", type(tiers).__name__)
    if on_inconsistent not in ("raise", "repair"):
        raise ArgumentError("on_inconsistent", "one of raise, repair", on_inconsistent)
    if tiers and votes > 1:
        raise ArgumentError("votes", "1 with tiers, which are told by one vote in either order", votes)
    xs = as_sequence(xs)
    translator = Translator(xs, panel[0].key, isinstance(xs, str))
    booth = _Booth(panel, counts, votes, on_inconsistent == "repair", translator, np.random.default_rng(seed))
    sizes = np.bincount(translator.labels, minlength=translator.size).tolist()
    ways = [_Way(Selection(sizes, k, capacity), turned) for turned in (False, True)[: 1 + tiers]]
    with Bar("topk", len(ways) * -(-translator.size // (capacity - 1)), wanted=panel[0].progress) as bar:
        while asking := [way for way in ways if not way.selection.done]:
            windows = [(way, sorted(window)) for way in asking for window in way.selection.windows()]
            shown = [window[::-1] if way.turned else window for way, window in windows]
            for (way, _), order in zip(windows, booth.orders(shown), strict=True):
                way.learn(order, booth)
            bar.advance(len(shown))
    return _top(xs, k, ways, booth)


@dataclass(frozen=True, eq=False)
class _Way:
    """A selection, and whether its windows are shown the other way round."""

    selection: Selection
    turned: bool

    def learn(self, order: list[int], booth: _Booth) -> None:
        if not booth.tolerant:
            alive = self.selection.fit(order)
            inside = set(alive)
            got = [label for label in order if label in inside]
            if alive != got:
                query, want, said = (booth.show(labels) for labels in (sorted(got, reverse=self.turned), alive, got))
                raise NotExtendable(ONE_ORDER, query, want, said)
        self.selection.learn(order)


class _Booth:
    """Where windows are put to the vote."""

    def __init__(
        self,
        panel: Sequence[Oracle],
        weights: Sequence[int],
        votes: int,
        tolerant: bool,
        translator: Translator,
        rng: np.random.Generator,
    ) -> None:
        self.tolerant = tolerant
        self.queries = self.longest = self.calls = self.discarded = 0
        self._panel, self._weights, self._votes = panel, weights, votes
        self.translator, self._rng = translator, rng
        self._asked: set[tuple[int, ...]] = set()
        self._agree = self._cast = 0

    @property
    def confidence(self) -> float:
        return self._agree / self._cast if self._cast else 1.0

    def show(self, labels: Sequence[int]) -> list[Any]:
        return self.translator.show(np.array(labels, dtype=np.int64))

    def orders(self, windows: Sequence[list[int]]) -> list[list[int]]:
        """What the votes make of each window. All windows are one batch for each function."""
        shown = [(number, order) for number, window in enumerate(windows) for order in self._presentations(window)]
        queries = [self.translator.query(np.array(order, dtype=np.int64)) for _, order in shown]
        anew = []
        for _, order in shown:
            anew.append(tuple(order) in self._asked)
            self._asked.add(tuple(order))
        ballots: list[list[tuple[list[int], int]]] = [[] for _ in windows]
        problems: dict[int, ListFunctionError] = {}
        for oracle, weight in zip(self._panel, self._weights, strict=True):
            for (number, order), answer in zip(shown, self._ask(oracle, queries, anew), strict=True):
                read = self._read(order, answer)
                if isinstance(read, ListFunctionError):
                    if not self.tolerant:
                        raise read
                    problems.setdefault(number, read)
                    self.discarded += 1
                else:
                    ballots[number].append((read, weight))
        self.queries += len(queries) * len(self._panel)
        self.longest = max([self.longest, *map(len, queries)])
        self.calls += 1
        for number, problem in problems.items():
            if not ballots[number]:
                raise problem
        return [self._count(window, cast) for window, cast in zip(windows, ballots, strict=True)]

    def _presentations(self, window: list[int]) -> list[list[int]]:
        """A window as it is, turned round, and shuffled."""
        shuffles = [self._rng.permutation(window).tolist() for _ in range(self._votes - 2)]
        return [window, window[::-1], *shuffles][: self._votes]

    def _ask(self, oracle: Oracle, queries: list[Any], anew: list[bool]) -> list[list[Any] | BadAnswer]:
        try:
            if self.tolerant:
                return oracle.attempt(queries, fresh=anew)
            return [*oracle.ask(queries, fresh=anew)]
        except OutOfBudget as error:
            raise OutOfBudget(error.budget, error.needed, error.hint or "a larger capacity needs fewer") from None

    def _read(self, shown: list[int], answer: list[Any] | BadAnswer) -> list[int] | ListFunctionError:
        """An answer as labels, or what is wrong with it."""
        if isinstance(answer, BadAnswer):
            return answer
        labels: list[int] = self.translator.read([answer])[0].tolist()
        alien = next((at for at, label in enumerate(labels) if label not in set(shown)), None)
        if alien is not None:
            return AlienValue(self.show(shown), answer, answer[alien])
        copies = Counter(labels)
        wrong = next((label for label in shown if copies[label] != 1), None)
        if wrong is not None:
            what = "repeats" if copies[wrong] else "leaves out"
            return BadAnswer(self.show(shown), f"{what} {self.show([wrong])[0]!r} in its answer, which is no order")
        return labels

    def _count(self, window: list[int], cast: list[tuple[list[int], int]]) -> list[int]:
        """The order with the fewest votes against it that is found."""
        if len(cast) == 1:
            return cast[0][0]
        local = {label: number for number, label in enumerate(window)}
        votes = Votes(len(window))
        for order, weight in cast:
            votes.add(range(len(window)), [local[label] for label in order], weight=weight)
        ranking = votes.glue(int(self._rng.integers(1 << 31)), by_place=False)
        total = sum(weight for _, weight in cast) * len(window) * (len(window) - 1) // 2
        self._cast += total
        self._agree += total - ranking.cost
        return [window[number] for number in ranking.labels.tolist()]


def _top(xs: Any, k: int, ways: Sequence[_Way], booth: _Booth) -> Top:
    """What the selections come to."""
    translator = booth.translator
    where = _where(translator.labels, translator.size)
    best = ways[0].selection.best
    places = [place for label in best for place in where[label]][:k]
    output = [xs[place] for place in places]
    tiers: tuple[tuple[Any, ...], ...] | None = None
    tied_out: tuple[Any, ...] = ()
    if len(ways) > 1:
        turned = ways[1].selection.best
        # Equal elements are tied, so that a tier ends between two values or at k.
        ends = np.cumsum([len(where[label]) for label in best]).tolist()
        cuts = [0, *(ends[at - 1] for at in range(1, len(best)) if set(best[:at]) == set(turned[:at])), len(output)]
        tiers = tuple(tuple(output[start:end]) for start, end in pairwise(cuts) if start < end)
        others = [place for label in turned if label not in set(best) for place in where[label]]
        rest = [place for label in best for place in where[label]][k:]
        tied_out = tuple(xs[place] for place in sorted([*rest, *others]))
    return Top(
        as_given(xs, output),
        tuple(places),
        tiers,
        tied_out,
        booth.queries,
        booth.longest,
        booth.calls,
        sum(way.selection.contradictions for way in ways),
        booth.confidence,
        booth.discarded,
    )


def _where(labels: Labels, size: int) -> list[list[int]]:
    """Where each value stands in the list."""
    where: list[list[int]] = [[] for _ in range(size)]
    for place, label in enumerate(labels.tolist()):
        where[label].append(place)
    return where


def _panel(f: Any, capacity: int) -> list[Oracle]:
    count_of("capacity", capacity, 2)
    panel = [Oracle.of(judge) for judge in f] if isinstance(f, list | tuple) else [Oracle.of(f)]
    if not panel:
        raise ArgumentError("f", "a function of lists, or several", f)
    for oracle in panel:
        if oracle.capacity is not None and oracle.capacity < capacity:
            raise ArgumentError("capacity", f"at most {oracle.capacity}, the capacity of the oracle", capacity)
    return panel


def _weights(weights: Sequence[int] | None, judges: int) -> list[int]:
    if weights is None:
        return [1] * judges
    if not isinstance(weights, Sequence) or len(weights) != judges:
        raise ArgumentError("weights", f"{judges}, one for each function", weights)
    return [count_of("weights", weight, 1) for weight in weights]
