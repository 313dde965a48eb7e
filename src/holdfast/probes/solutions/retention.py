"""What a network keeps of its earlier tasks, and how that is compared between optimisers without fooling oneself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.errors import ArgumentError
from holdfast.probes.rounds import interval

LEARNT = 0.9
"""Learning accuracy below which retention says nothing: what was not learnt cannot be forgotten."""

RESAMPLES = 10_000
"""Of the bootstrap over seeds."""


@dataclass(frozen=True)
class Retention:
    """Of tasks 1 to T, learnt one after the other; A[k, j] is the accuracy on task j after task k.

    Arguments:
        learn: mean of A[k, k], which is plasticity.
        old: mean of A[T, j] over j < T: what is left of all tasks but the last.
        final: mean of A[T, j] over all j.
        forgetting: mean over j < T of the highest A[k, j] before the end, less A[T, j].
        backward_transfer: mean over j < T of A[T, j] − A[j, j].
    """

    learn: float
    old: float
    final: float
    forgetting: float
    backward_transfer: float


def retention(accuracies: Float[Tensor, "tasks tasks"]) -> Retention:
    """The numbers of a matrix of accuracies.

    Arguments:
        accuracies: A[k, j]; above the diagonal, where a task has not been learnt yet, it may be NaN.

    Errors:
        ArgumentError: there are fewer than two tasks, or numbers are missing below the diagonal or outside of 0 to 1.

    Source: GEM, arXiv 1706.08840, and the names of Avalanche.
    """
    a = accuracies.double()
    if len(a) < 2:
        raise ArgumentError("accuracies", "at least two tasks", f"{len(a)}")
    known = a[torch.ones_like(a, dtype=torch.bool).tril()]
    if not bool(((known >= 0) & (known <= 1)).all()):
        raise ArgumentError("accuracies", "shares from 0 to 1 on the diagonal and below", "others")
    learnt, end = a.diagonal(), a[-1]
    highest = a[:-1, :-1].nan_to_num(nan=-math.inf).amax(0)
    return Retention(
        learn=float(learnt.mean()),
        old=float(end[:-1].mean()),
        final=float(end.mean()),
        forgetting=float((highest - end[:-1]).mean()),
        backward_transfer=float((end[:-1] - learnt[:-1]).mean()),
    )


@dataclass(frozen=True)
class RateResult:
    """One run of a sweep over learning rates.

    Arguments:
        rate: learning rate.
        learn: see `Retention`.
        old: see `Retention`.
    """

    rate: float
    learn: float
    old: float


def matched_retention(sweep: Sequence[RateResult], level: float) -> float:
    """`old` at a given `learn`, which makes optimisers comparable: a slow one forgets less at any fixed rate.

    Of the runs in the order of their rates the first two neighbours whose `learn` brackets the level are taken, and
    `old` is interpolated linearly between them. Nothing is ever extrapolated.

    Arguments:
        sweep: runs of one seed, at different rates.
        level: of `learn`.

    Returns:
        `old`, or NaN where no neighbours bracket the level.

    Errors:
        ArgumentError: a rate comes twice.
    """
    runs = sorted(sweep, key=lambda run: run.rate)
    if len({run.rate for run in runs}) < len(runs):
        raise ArgumentError("sweep", "one run of each learning rate", str([run.rate for run in runs]))
    for first, second in pairwise(runs):
        if min(first.learn, second.learn) <= level <= max(first.learn, second.learn):
            gap = second.learn - first.learn
            share = 0.0 if gap == 0 else (level - first.learn) / gap
            return first.old + share * (second.old - first.old)
    return math.nan


@dataclass(frozen=True)
class PairedDifference:
    """What one optimiser has more than another, seed by seed; or why they are not compared.

    Arguments:
        first: values by seed of one.
        second: of the other, at the same seeds.
        mean: of the differences, first less second; NaN where there is no comparison.
        interval: 95 % of the paired bootstrap over seeds; NaN of fewer than two.
        reason: why there is no comparison; empty where there is one.
    """

    first: dict[int, float]
    second: dict[int, float]
    mean: float
    interval: tuple[float, float]
    reason: str = ""

    @property
    def differences(self) -> dict[int, float]:
        """By seed."""
        return {seed: value - self.second[seed] for seed, value in self.first.items()}

    def __str__(self) -> str:
        """Return the difference with its interval, or "no comparison" and the reason."""
        if self.reason:
            return f"no comparison: {self.reason}"
        low, high = self.interval
        between = "" if math.isnan(low) else f" [{low:+.3f}, {high:+.3f}]"
        return f"{self.mean:+.3f}{between}, n = {len(self.first)}"


def paired_difference(first: Mapping[int, float], second: Mapping[int, float]) -> PairedDifference:
    """Differences at equal seeds, and the interval of their mean by the percentile bootstrap over seeds.

    Few seeds make an interval that is too narrow, so that their number stands beside it.

    Arguments:
        first: values by seed.
        second: values by seed.

    Errors:
        ArgumentError: the seeds differ, or there are none.
    """
    if not first or set(first) != set(second):
        raise ArgumentError("second", f"the seeds {sorted(first)}", str(sorted(second)))
    seeds = sorted(first)
    gaps = np.array([first[seed] - second[seed] for seed in seeds])
    between = (math.nan, math.nan)
    if len(gaps) > 1 and np.isfinite(gaps).all():
        drawn = np.random.default_rng(0).integers(len(gaps), size=(RESAMPLES, len(gaps)))
        between = interval(gaps[drawn].mean(1))
    one, other = ({seed: values[seed] for seed in seeds} for values in (first, second))
    return PairedDifference(one, other, float(gaps.mean()), between)


def compare_matched(
    first: Mapping[int, Sequence[RateResult]], second: Mapping[int, Sequence[RateResult]], *, level: float = 0.95
) -> PairedDifference:
    """Retention at matched plasticity: `old` of two optimisers where both have come to the same `learn`.

    Arguments:
        first: sweeps over learning rates, by seed.
        second: the same of another optimiser.
        level: of `learn`.

    Returns:
        The difference; without one, and with the reason, where a sweep of any seed does not bracket the level.

    Errors:
        ArgumentError: the seeds differ.
    """
    if not 0 < level <= 1:
        raise ArgumentError("level", "a learning accuracy above 0 and up to 1", level)
    found = [{seed: matched_retention(sweep, level) for seed, sweep in one.items()} for one in (first, second)]
    compared = paired_difference(*found)
    lacking = [f"{name} at seed {seed}" for name, one in zip(("first", "second"), found, strict=True)
               for seed, value in one.items() if math.isnan(value)]  # fmt: skip
    if not lacking:
        return compared
    reason = f"no two neighbouring rates bracket a learning accuracy of {level:g} ({', '.join(lacking)})"
    return _uncompared(compared, reason)


def compare_runs(
    first: Mapping[int, Retention], second: Mapping[int, Retention], *, force: bool = False
) -> PairedDifference:
    """`old` of two optimisers at the learning rates they were run with.

    Arguments:
        first: by seed.
        second: of another optimiser.
        force: compare even what was not learnt.

    Returns:
        The difference; without one, and with the reason, where either has a mean learning accuracy below 0.9.
    """
    compared = paired_difference(*({seed: run.old for seed, run in one.items()} for one in (first, second)))
    for name, one in (("first", first), ("second", second)):
        learn = sum(run.learn for run in one.values()) / len(one)
        if not (learn >= LEARNT or force):
            reason = f"not learnt, retention is meaningless: the {name} has a learning accuracy of {learn:.3f}, "
            return _uncompared(compared, f"{reason}below {LEARNT:g}")
    return compared


def _uncompared(compared: PairedDifference, reason: str) -> PairedDifference:
    return PairedDifference(compared.first, compared.second, math.nan, (math.nan, math.nan), reason)
