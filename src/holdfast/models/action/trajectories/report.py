"""What trajectories are like before a policy is trained on them: a sentence, a table, numbers for JSON, a picture."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Integer, Num

from holdfast.errors import ArgumentError, count_of
from holdfast.models.action.domain import Continuous, Discrete, Domain
from holdfast.models.action.trajectories.trajectory import (
    FEWEST_STEPS,
    OUT_OF_BOUNDS,
    Census,
    Trajectories,
    Trajectory,
    count,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 80
"""Columns of a report."""

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of returns."""

REPEATING = 0.5
"""Share of repeated actions from which on repeating the last one is the better half of a policy."""

ABOVE_CHANCE = 0.1
"""What that share is to exceed the one by chance by: who has one favourite action repeats it too."""

COLUMNS = {
    "n": "trajectories that can be learnt from",
    "steps": "transitions in them",
    "length": "median number of steps",
    "ended": "share that ends with the task or its limit of time; the others are cut off",
    "return": "least, median and greatest sum of an episode's rewards",
    "outside": "share of the numbers of actions that lie outside of the bounds, and are moved to them",
    "same": "share of actions that fall in the same bin as the one before (the same id)",
    "chance": "what that share would be if the same actions came in any order",
    "move": "mean distance of an action from the one before, in standard deviations of the actions",
}
"""What the columns of the table say."""


@dataclass(frozen=True)
class DomainReport:
    """One domain's trajectories. Actions are those that were taken.

    Arguments:
        name: of the domain.
        tasks: number of tasks.
        census: what was counted, with what is wrong.
        low: lower bounds of actions; `None`: actions are ids.
        high: upper bounds.
        actions: number of ids; `None`: actions are continuous.
        lengths: quantiles 0, 1/4, 1/2, 3/4 and 1 of the numbers of steps.
        returns: the same of the returns that are known; NaN: none.
        returns_unknown: trajectories without a known return.
        ended: share of trajectories that end with the task or its limit of time.
        labelled: share of trajectories whose actions to learn are not those taken.
        same_bin: share of numbers of actions in the same bin as the one before.
        same_bin_by_chance: what it would be if the order of the actions said nothing.
        mean_move: mean of |a_t - a_{t-1}| over the standard deviation, averaged over dimensions that vary; NaN for ids.
    """

    name: str
    tasks: int
    census: Census
    low: tuple[float, ...] | None
    high: tuple[float, ...] | None
    actions: int | None
    lengths: tuple[float, ...]
    returns: tuple[float, ...]
    returns_unknown: int
    ended: float
    labelled: float
    same_bin: float
    same_bin_by_chance: float
    mean_move: float

    @property
    def usable(self) -> bool:
        """Whether there is something to learn from, and nothing that forbids it."""
        return not self.census.bad and self.census.transitions > 0

    @property
    def repeats(self) -> bool:
        """Whether actions mostly repeat, and more than by chance."""
        return self.same_bin >= max(REPEATING, self.same_bin_by_chance + ABOVE_CHANCE)


@dataclass(frozen=True)
class DataReport:
    """What `report_on` counted.

    Arguments:
        domains: one entry a domain.
        bins: that a dimension of actions was divided in.
    """

    domains: tuple[DomainReport, ...]
    bins: int

    @property
    def verdict(self) -> str:
        """One sentence: whether the data can be trained on, and what to mind."""
        broken = [domain for domain in self.domains if not domain.usable]
        if broken:
            reasons = [domain.census.bad or f"{domain.name} has no trajectory of two steps" for domain in broken]
            more = f" (and {len(reasons) - 1} domains more)" if len(reasons) > 1 else ""
            return f"These trajectories cannot be trained on: {reasons[0]}{more}."
        steps = sum(domain.census.transitions for domain in self.domains)
        count_of_domains = f"{len(self.domains)} domains" if len(self.domains) > 1 else self.domains[0].name
        clauses = [f"{count_of_domains} with {steps:,} transitions can be trained on"]
        outside = [domain for domain in self.domains if domain.census.out_of_bounds_share > OUT_OF_BOUNDS]
        if outside:
            worst = max(outside, key=lambda domain: domain.census.out_of_bounds_share)
            clauses.append(
                f"{worst.census.out_of_bounds_share:.1%} of {worst.name}'s actions lie outside of the bounds"
            )
        unknown = [domain for domain in self.domains if domain.returns_unknown]
        if unknown:
            clauses.append(f"returns are not all known in {_names(unknown)}, which can only be imitated")
        short = sum(domain.census.left_out for domain in self.domains)
        if short:
            clauses.append(f"{short} trajectories of less than {FEWEST_STEPS} steps are left out")
        repeating = [domain for domain in self.domains if domain.repeats]
        if repeating:
            worst = max(repeating, key=lambda domain: domain.same_bin)
            clauses.append(
                f"in {_names(repeating)} an action mostly repeats the one before ({worst.same_bin:.0%} in "
                f"{worst.name}), "
                "so that a policy that sees its past actions may learn to copy them: leave them out of its context"
            )
        return f"{'; '.join(clauses)}."

    def explain(self) -> str:
        """What the columns of the table say, one on a line."""
        width = max(map(len, COLUMNS))
        return "\n".join(f"{name:<{width}}  {text}" for name, text in COLUMNS.items())

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, dicts and numbers, ready for JSON: what is not finite becomes `None`."""
        domains = [
            {**asdict(domain), "out_of_bounds_share": domain.census.out_of_bounds_share, "repeats": domain.repeats}
            for domain in self.domains
        ]
        plain: dict[str, Any] = _jsonable({"verdict": self.verdict, "bins": self.bins, "domains": domains})
        return plain

    def plot(self, ax: Axes) -> None:
        """Draw how often actions repeat, a bar a domain, and how often they would by chance.

        Arguments:
            ax: Matplotlib axes to draw into.
        """
        places = np.arange(len(self.domains))
        ax.barh(places, [domain.same_bin for domain in self.domains], color="C0", label="as recorded")
        chance = [domain.same_bin_by_chance for domain in self.domains]
        ax.plot(chance, places, "k|", markersize=14, markeredgewidth=2, label="in any order")
        ax.set_yticks(places, [domain.name for domain in self.domains])
        ax.invert_yaxis()
        ax.set_xlim(0, 1)
        ax.set_xlabel("share of actions in the bin of the one before")
        ax.legend()

    def __str__(self) -> str:
        """Return the sentence and a table, one line a domain."""
        rows = [("domain", *COLUMNS)]
        for domain in self.domains:
            usable = domain.census.trajectories - domain.census.left_out
            returns = [f"{value:.4g}" for value in domain.returns[::2]]
            rows.append(
                (
                    domain.name,
                    f"{usable:,}",
                    f"{domain.census.transitions:,}",
                    _shown(domain.lengths[2], ".0f"),
                    _shown(domain.ended, ".0%"),
                    " ".join(returns) if math.isfinite(domain.returns[2]) else "-",
                    f"{domain.census.out_of_bounds_share:.1%}",
                    _shown(domain.same_bin, ".0%"),
                    _shown(domain.same_bin_by_chance, ".0%"),
                    _shown(domain.mean_move, ".2f"),
                )
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.rjust(width) if place else cell.ljust(width) for place, cell, width in _cells(row, widths))
            for row in rows
        ]
        return "\n".join([*textwrap.wrap(self.verdict, WIDTH), "", *lines])


def report_on(data: Sequence[Trajectories | tuple[Domain, Sequence[Trajectory]]], *, bins: int = 256) -> DataReport:
    """Look at trajectories before training; what cannot be trained on is reported and not refused.

    Arguments:
        data: one entry a domain; a domain with trajectories that were not looked at yet is a pair.
        bins: that each dimension of continuous actions is divided in, as the policy's.

    Errors:
        ArgumentError: there is no domain, or trajectories have another shape than their domain.
    """
    count_of("bins", bins, least=2)
    if not data:
        raise ArgumentError("data", "trajectories of at least one domain", "none")
    reports = []
    for part in data:
        if isinstance(part, Trajectories):
            reports.append(_domain_report(part.domain, part.items, part.census, bins))
        else:
            domain, items = part
            census = count(domain, items)
            kept = [item for item in items if len(item) >= FEWEST_STEPS]
            reports.append(_domain_report(domain, kept, census, bins))
    return DataReport(tuple(reports), bins)


def _domain_report(domain: Domain, items: Sequence[Trajectory], census: Census, bins: int) -> DomainReport:
    returns = np.array([item.total_return for item in items])
    known = returns[np.isfinite(returns)]
    continuous = isinstance(domain.action, Continuous)
    same, chance, move = (math.nan,) * 3 if census.bad or not items else _copy_statistics(domain, items, bins)
    return DomainReport(
        name=domain.name,
        tasks=len({item.task for item in items}),
        census=census,
        low=domain.action.low if isinstance(domain.action, Continuous) else None,
        high=domain.action.high if isinstance(domain.action, Continuous) else None,
        actions=domain.action.n if isinstance(domain.action, Discrete) else None,
        lengths=_quantiles(np.array([len(item) for item in items], float)),
        returns=_quantiles(known),
        returns_unknown=len(returns) - len(known),
        ended=_mean([item.terminated or item.truncated for item in items]),
        labelled=_mean([item.labels is not None for item in items]),
        same_bin=same,
        same_bin_by_chance=chance,
        mean_move=move if continuous else math.nan,
    )


def _copy_statistics(domain: Domain, items: Sequence[Trajectory], bins: int) -> tuple[float, float, float]:
    """Share of actions in the bin of the one before, the same by chance, and the mean move in standard deviations."""
    pairs = np.zeros(domain.action.dims)
    moves = np.zeros(domain.action.dims)
    number_of_pairs = 0
    for item in items:
        actions = item.actions.reshape(len(item), -1).astype(np.float64)
        binned = _binned(domain, actions, bins)
        pairs += (binned[1:] == binned[:-1]).sum(axis=0)
        moves += np.abs(np.diff(actions, axis=0)).sum(axis=0)
        number_of_pairs += len(item) - 1
    every = np.concatenate([item.actions.reshape(len(item), -1).astype(np.float64) for item in items])
    binned = _binned(domain, every, bins)
    chance = [float(((np.unique(column, return_counts=True)[1] / len(column)) ** 2).sum()) for column in binned.T]
    spread = every.std(axis=0)
    varies = spread > 0
    move = float((moves[varies] / number_of_pairs / spread[varies]).mean()) if varies.any() else 0.0
    return float(pairs.mean()) / number_of_pairs, float(np.mean(chance)), move


def _binned(domain: Domain, actions: Num[np.ndarray, "time dims"], bins: int) -> Integer[np.ndarray, "time dims"]:
    """Equal bins between the bounds, or the id."""
    if isinstance(domain.action, Discrete):
        return actions.astype(np.int64)
    low, high = np.array(domain.action.low), np.array(domain.action.high)
    return np.asarray(np.clip(np.floor((actions - low) / (high - low) * bins), 0, bins - 1), np.int64)


def _quantiles(values: Float[np.ndarray, " values"]) -> tuple[float, ...]:
    if not len(values):
        return (math.nan,) * len(QUANTILES)
    return tuple(float(value) for value in np.quantile(values, QUANTILES))


def _mean(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else math.nan


def _names(domains: Sequence[DomainReport]) -> str:
    names = [domain.name for domain in domains]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _shown(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)


def _cells(row: Sequence[str], widths: Sequence[int]) -> list[tuple[int, str, int]]:
    return [(place, cell, width) for place, (cell, width) in enumerate(zip(row, widths, strict=True))]


def _jsonable(value: Any) -> Any:
    """Replace tuples by lists, and numbers that JSON lacks by None."""
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_jsonable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
