"""Where a sequence model stops being right about lists, found without a single label.

A filter-equivariant list function, such as sorting or reversing, answers a list without a value as it answers the whole
list, less that value. So two answers of a model check each other: where they differ, one of them is wrong. In range of
what a model has learnt the share of lists on which they differ follows its error; where it stops extrapolating, the
share jumps. A mistake that is itself filter equivariant, such as sorting downwards, does not show.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from holdfast.errors import ArgumentError
from holdfast.lists import Oracle
from holdfast.lists.values import Alphabet, as_given

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Interval = tuple[float, float]
"""Lower and upper end of a 95 % interval."""


@dataclass(frozen=True)
class LengthViolation:
    """How often a list function breaks the law at one length. Intervals are Wilson's.

    Arguments:
        length: elements of each list.
        lists: number of lists.
        violation: share of lists where the answer without a random value of the list is not the answer to the list
            without that value.
        interval: of `violation`.
        alien: share of lists where one of the two answers holds a value that its list did not.
        multiplicity: share where the two answers hold different numbers of copies of a value that both lists have.
        exact: share of lists that are answered as the reference does; NaN without a reference.
        exact_interval: of `exact`.
    """

    length: int
    lists: int
    violation: float
    interval: Interval
    alien: float
    multiplicity: float
    exact: float = math.nan
    exact_interval: Interval = (math.nan, math.nan)


@dataclass(frozen=True)
class ListReport:
    """What `probe_filter_equivariance` measured.

    Arguments:
        entries: one a length, ascending.
        queries: lists that the function was asked for.
    """

    entries: tuple[LengthViolation, ...]
    queries: int

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lengths probed, ascending."""
        return tuple(entry.length for entry in self.entries)

    def violations(self, limit: float) -> tuple[LengthViolation, ...]:
        """Lengths where more than a share `limit` of the lists break the law, worst first."""
        breaking = [entry for entry in self.entries if entry.violation > limit]
        return tuple(sorted(breaking, key=lambda entry: -entry.violation))

    def breaks_at(self, limit: float = 0.5) -> int | None:
        """The least length where more than a share `limit` of the lists break the law; `None`: no length probed."""
        return min((entry.length for entry in self.violations(limit)), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, dicts and numbers, ready for JSON: what is not finite becomes `None`."""
        from holdfast.probes.report import jsonable

        plain: dict[str, Any] = jsonable(asdict(self))
        return plain

    def plot(self, ax: Axes) -> None:
        """Draw the share of violations against length with its interval, and the error where it is known.

        Arguments:
            ax: Matplotlib axes to draw into.
        """
        shares = np.array([entry.violation for entry in self.entries])
        _draw(ax, self.lengths, shares, [entry.interval for entry in self.entries], "violation, no labels", "C0", "o")
        error = 1 - np.array([entry.exact for entry in self.entries])
        if not np.isnan(error).all():
            intervals = [(1 - high, 1 - low) for low, high in (entry.exact_interval for entry in self.entries)]
            _draw(ax, self.lengths, error, intervals, "error against the reference", "C1", "s")
        ax.set_ylim(-0.03, 1.03)
        ax.set_xlabel("length n")
        ax.set_ylabel("share of lists")
        ax.legend(fontsize="small")

    def __str__(self) -> str:
        """Return a table for people to read."""
        from holdfast.probes.report import shown, table

        header = ["n", "lists", "violation", "95 %", "alien", "multiplicity"]
        known = not all(math.isnan(entry.exact) for entry in self.entries)
        rows = []
        for entry in self.entries:
            row = [str(entry.length), str(entry.lists), shown(entry.violation, ".3f"), _interval(entry.interval)]
            row += [shown(share, ".3f") for share in (entry.alien, entry.multiplicity)]
            rows.append(row + ([shown(entry.exact, ".3f"), _interval(entry.exact_interval)] if known else []))
        lines = table(header + (["exact", "95 %"] if known else []), rows)
        length = self.breaks_at()
        if length is None:
            lines.append("at none of these lengths do most lists break the law")
        else:
            lines.append(f"from length {length} on most lists break the law")
        return "\n".join(lines)


def _interval(interval: Interval) -> str:
    return f"{interval[0]:.2f}-{interval[1]:.2f}"


def _draw(
    ax: Axes,
    lengths: Sequence[int],
    shares: Float[np.ndarray, " lengths"],
    intervals: Sequence[Interval],
    label: str,
    colour: str,
    marker: str,
) -> None:
    """One line with its intervals as a band."""
    low, high = np.array(intervals).T
    ax.plot(lengths, shares, marker=marker, markersize=3, color=colour, label=label)
    ax.fill_between(lengths, low, high, color=colour, alpha=0.15, linewidth=0)


def probe_filter_equivariance(
    f: Callable[..., Any],
    lengths: Iterable[int] | None = None,
    *,
    lists: Iterable[Sequence[Any]] | None = None,
    seed: int = 0,
    lists_per_length: int = 60,
    values: Sequence[Any] = range(128),
    reference: Callable[[Any], Any] | None = None,
) -> ListReport:
    """Measure, without labels, how often a list function breaks the law of filter equivariance, by length.

    For each list a random value of it is deleted, and the function is asked for the list with and without the value:
    two questions a list. Random states (torch, numpy's global one, Python's) are left as they were.

    Arguments:
        f: list -> list. Any model will do; see `lists.Oracle` for what counts as a list. An oracle whose function takes
            many lists at once (`Oracle(model, batched=True)`) calls it once a length.
        lengths: of the random lists, each at least 1. Or give `lists`.
        lists: the lists to probe on, none empty, of any lengths.
        seed: of the lists and of the values that are deleted.
        lists_per_length: random lists of each length.
        values: what random lists are drawn from, without replacement.
        reference: the right answers, one list at a time, where they are known: adds how often `f` is exactly right.

    Errors:
        ArgumentError: neither or both of `lengths` and `lists`, a length that cannot be drawn, an empty list, or values
            that are not distinct.
        BadAnswer: the function, or the reference, did not answer with a list.

    Source: the law f(filter p xs) = filter p (f xs) of arXiv 2507.08796; one deleted value at a time is enough, as
    every filter of a list is a chain of such deletions. A value that was not in the list breaks the law too: the list
    without it is the list.
    """
    from holdfast.probes.report import random_state_kept

    with random_state_kept():
        rng = np.random.default_rng(seed)
        by_length = _lists(lengths, lists, lists_per_length, values, rng)
        oracle = Oracle.of(f)
        queries_before = oracle.queries
        right = None if reference is None else Oracle.of(reference)
        entries = [_measure(oracle, right, length, by_length[length], rng) for length in sorted(by_length)]
        return ListReport(tuple(entries), oracle.queries - queries_before)


def _lists(
    lengths: Iterable[int] | None,
    lists: Iterable[Sequence[Any]] | None,
    lists_per_length: int,
    values: Sequence[Any],
    rng: np.random.Generator,
) -> dict[int, list[Any]]:
    """The lists to probe on, by length."""
    if (lengths is None) == (lists is None):
        raise ArgumentError("lengths", "lengths, or lists", "both" if lists is not None else "neither")
    by_length: dict[int, list[Any]] = {}
    if lists is not None:
        for xs in lists:
            if len(xs) == 0:
                raise ArgumentError("lists", "lists with an element to delete", "an empty list")
            by_length.setdefault(len(xs), []).append(xs)
        if not by_length:
            raise ArgumentError("lists", "at least one list", "none")
        return by_length
    wanted = sorted(set(lengths or ()))
    if lists_per_length < 1:
        raise ArgumentError("lists_per_length", "at least 1", lists_per_length)
    alphabet = Alphabet(values).values
    if len(alphabet) < len(values):
        raise ArgumentError("values", "distinct values", f"{len(values) - len(alphabet)} twice")
    if not wanted or wanted[0] < 1 or wanted[-1] > len(alphabet):
        raise ArgumentError("lengths", f"lengths from 1 to {len(alphabet)}, the number of values", wanted)
    for length in wanted:
        draws = (rng.permutation(len(alphabet))[:length].tolist() for _ in range(lists_per_length))
        by_length[length] = [[alphabet[label] for label in labels] for labels in draws]
    return by_length


def _measure(
    oracle: Oracle, right: Oracle | None, length: int, lists: Sequence[Any], rng: np.random.Generator
) -> LengthViolation:
    """Ask for each list with and without a value, and compare."""
    alphabets = [Alphabet(xs, oracle.key) for xs in lists]
    deleted = [int(rng.integers(len(alphabet.values))) for alphabet in alphabets]
    shorter = [
        as_given(xs, [x for x, label in zip(xs, alphabet.labels, strict=True) if label != gone])
        for xs, alphabet, gone in zip(lists, alphabets, deleted, strict=True)
    ]
    answers = oracle.ask([*lists, *shorter])
    count = len(lists)
    violation = alien = multiplicity = exact = 0
    for number, (alphabet, gone) in enumerate(zip(alphabets, deleted, strict=True)):
        whole, part = (alphabet.encode(answer) for answer in (answers[number], answers[count + number]))
        strange = bool((whole < 0).any() or (part < 0).any() or (part == gone).any())
        left = whole[whole != gone]
        copies = [np.bincount(labels[labels >= 0], minlength=len(alphabet.values)) for labels in (left, part)]
        alien += strange
        multiplicity += bool(np.delete(copies[0] != copies[1], gone).any())
        violation += strange or not np.array_equal(left, part)
    if right is not None:
        exact = sum(answer == gold for answer, gold in zip(answers, right.ask(lists), strict=False))
    return LengthViolation(
        length,
        count,
        violation / count,
        _wilson(violation, count),
        alien / count,
        multiplicity / count,
        *(() if right is None else (exact / count, _wilson(exact, count))),
    )


def _wilson(hits: int, count: int) -> Interval:
    from scipy.stats import binomtest

    interval = binomtest(hits, count).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)
