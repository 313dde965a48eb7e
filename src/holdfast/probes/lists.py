"""Where a sequence model stops being right about lists, found without a single label.

A filter-equivariant list function, such as sorting or reversing, answers a list without a value as it answers the whole
list, less that value. So two answers of a model check each other: where they differ, one of them is wrong. In range of
what a model has learnt the share of lists on which they differ follows its error; where it stops extrapolating, the
share jumps. A mistake that is itself filter equivariant, such as sorting downwards, does not show.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from holdfast.errors import ArgumentError, count_of
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


COLUMNS = {
    "n": "elements of each list",
    "lists": "lists that were tried",
    "violation": "share of lists where deleting a value before the function and after it gives two different answers",
    "95 %": "interval of the share to its left (Wilson's)",
    "alien": "share where an answer holds a value that its list did not",
    "multiplicity": "share where the two answers hold different numbers of copies of a value",
    "exact": "share of lists that are answered as the reference does",
}
"""What the columns of the table say."""

MOST = 0.5
"""Share of lists from which on a length counts as broken."""


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
    def verdict(self) -> str:
        """One sentence: whether the function stops following the rule, how bad it is, and what to try."""
        worst = max(self.entries, key=lambda entry: entry.violation)
        longest = self.entries[-1].length
        share = f"{worst.violation:.0%} of the lists at length {worst.length}"
        at = self.breaks_at(MOST)
        if worst.violation == 0:
            most = max(entry.interval[1] for entry in self.entries)
            return (
                f"Up to length {longest} the function follows the rule on every list tried (at any one length it may "
                f"break it on up to {most:.0%} of them): go on to greater lengths, and mind that mistakes which follow "
                "the rule do not show."
            )
        if at is None:
            where = "the length" if len(self.entries) == 1 else "every length"
            return (
                f"The function breaks the rule now and then, on {share} at worst, and on few lists of {where} tried: "
                "extrapolate with votes, which repairs answers that err."
            )
        kept = [entry.length for entry in self.entries if entry.length < at]
        if not kept:
            return (
                f"The function breaks the rule on most lists from length {at} on ({share}), the least that was tried: "
                "try shorter lists, and if it breaks it there too, amalgamation does not fit this function."
            )
        return (
            f"The function stops following the rule between lengths {kept[-1]} and {at} ({share}): "
            f"extrapolate(f, capacity={kept[-1]}) asks for no list longer than {kept[-1]} elements, and answers any."
        )

    def explain(self) -> str:
        """What the columns of the table say, one on a line."""
        known = not all(math.isnan(entry.exact) for entry in self.entries)
        columns = {name: text for name, text in COLUMNS.items() if known or name != "exact"}
        width = max(map(len, columns))
        return "\n".join(f"{name:<{width}}  {text}" for name, text in columns.items())

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

        plain: dict[str, Any] = jsonable({"verdict": self.verdict, **asdict(self)})
        return plain

    def plot(self, ax: Axes) -> None:
        """Draw the share of violations against length with its interval, and the error where it is known.

        Arguments:
            ax: Matplotlib axes to draw into.
        """
        shares = np.array([entry.violation for entry in self.entries])
        _draw(ax, self.lengths, shares, [entry.interval for entry in self.entries], "contradicts itself", "C0", "o")
        error = 1 - np.array([entry.exact for entry in self.entries])
        if not np.isnan(error).all():
            intervals = [(1 - high, 1 - low) for low, high in (entry.exact_interval for entry in self.entries)]
            _draw(ax, self.lengths, error, intervals, "wrong, by the reference", "C1", "s")
        ax.set_ylim(-0.03, 1.03)
        ax.set_xlabel("elements of a list")
        ax.set_ylabel("share of lists")
        ax.legend(fontsize="small")

    def __str__(self) -> str:
        """The verdict, and a table for people to read; `explain` says what its columns are."""
        from holdfast.probes.report import shown, table

        header = ["n", "lists", "violation", "95 %", "alien", "multiplicity"]
        known = not all(math.isnan(entry.exact) for entry in self.entries)
        rows = []
        for entry in self.entries:
            row = [str(entry.length), str(entry.lists), shown(entry.violation, ".3f"), _interval(entry.interval)]
            row += [shown(share, ".3f") for share in (entry.alien, entry.multiplicity)]
            rows.append(row + ([shown(entry.exact, ".3f"), _interval(entry.exact_interval)] if known else []))
        lines = table(header + (["exact", "95 %"] if known else []), rows)
        return "\n".join([textwrap.fill(self.verdict, 100), "", *lines])


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
    lists_per_length: int | None = None,
    values: Sequence[Any] | None = None,
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
        lists_per_length: random lists of each length; `None`: 60.
        values: what random lists are drawn from, without replacement; `None`: the numbers from 0 to 127.
        reference: the right answers, one list at a time, where they are known: adds how often `f` is exactly right.

    Errors:
        ArgumentError: neither or both of `lengths` and `lists`, a length that cannot be drawn, an empty list, values
            that are not distinct, or an option of random lists beside lists of your own.
        BadAnswer: the function, or the reference, did not answer with a list.

    Source: the law f(filter p xs) = filter p (f xs) of arXiv 2507.08796; one deleted value at a time is enough, as
    every filter of a list is a chain of such deletions. A value that was not in the list breaks the law too: the list
    without it is the list.
    """
    from holdfast.probes.report import random_state_kept

    count_of("seed", seed)
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
    lists_per_length: int | None,
    values: Sequence[Any] | None,
    rng: np.random.Generator,
) -> dict[int, list[Any]]:
    """The lists to probe on, by length."""
    if (lengths is None) == (lists is None):
        raise ArgumentError("lengths", "lengths, or lists", "both" if lists is not None else "neither")
    if lists is not None:
        for name, option in (("lists_per_length", lists_per_length), ("values", values)):
            if option is not None:
                raise ArgumentError(name, "none beside lists of your own", option)
        return _by_length(lists)
    count = 60 if lists_per_length is None else count_of("lists_per_length", lists_per_length, least=1)
    given = range(128) if values is None else values
    if not isinstance(given, Sequence):
        raise ArgumentError("values", "a sequence of values", type(given).__name__)
    if not isinstance(lengths, Iterable):
        raise ArgumentError("lengths", "lengths, such as (3, 6, 12)", lengths)
    wanted = [count_of("lengths", length) for length in lengths]
    alphabet = Alphabet(given).values
    if len(alphabet) < len(given):
        raise ArgumentError("values", "distinct values", f"{len(given) - len(alphabet)} twice")
    if not wanted or min(wanted) < 1 or max(wanted) > len(alphabet):
        raise ArgumentError("lengths", f"lengths from 1 to {len(alphabet)}, the number of values", sorted(set(wanted)))
    by_length: dict[int, list[Any]] = {}
    for length in sorted(set(wanted)):
        draws = (rng.permutation(len(alphabet))[:length].tolist() for _ in range(count))
        by_length[length] = [[alphabet[label] for label in labels] for labels in draws]
    return by_length


def _by_length(lists: Iterable[Sequence[Any]]) -> dict[int, list[Any]]:
    """Lists of the caller's."""
    by_length: dict[int, list[Any]] = {}
    if not isinstance(lists, Iterable):
        raise ArgumentError("lists", "lists", lists)
    for xs in lists:
        if not isinstance(xs, Sequence):
            raise ArgumentError("lists", "lists, tuples or texts", type(xs).__name__)
        if len(xs) == 0:
            raise ArgumentError("lists", "lists with an element to delete", "an empty list")
        by_length.setdefault(len(xs), []).append(xs)
    if not by_length:
        raise ArgumentError("lists", "at least one list", "none")
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
