"""How a claim is judged: evidence from the results, Holm's correction over a family of claims, then a verdict.

Each test here takes values keyed by seed and returns `Evidence`: an effect, its 95 % interval over seeds, and the
two-sided p-value against the claim's threshold. Input that no test can use (one seed, NaN, a missing arm) gives
evidence without a p-value, and the verdict *inconclusive* with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from holdfast.errors import ArgumentError
from holdfast.lab.results import Results
from holdfast.lab.trial import SCALES

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.05
"""Chance of a false verdict, shared by the claims of a family."""

MIN_SEEDS = 3
"""Below this a t interval says next to nothing."""

MIN_SEEDS_BOOTSTRAP = 10
"""Below this bootstrap intervals are far too short."""

BySeed: TypeAlias = Mapping[int, float]
Alternative: TypeAlias = Literal["greater", "less"]


class Status(StrEnum):
    """What a study found about a claim."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Evidence:
    """What the results say about a claim, before the correction for the other claims of its family.

    Arguments:
        effect: the estimate, in the claim's units.
        low: lower end of its 95 % interval over seeds.
        high: upper end of it.
        favours: whether the estimate lies on the claim's side of the threshold.
        p_value: two-sided, against the threshold; `None` where nothing can be tested.
        n: number of seeds (pairs, for paired tests), or of cases checked.
        test: the test and the kind of interval.
        reason: why nothing can be said; empty otherwise.
        threshold: what the claim compares the effect with; NaN where there is none.
        needs: the scale that can judge the claim, where the one that was run cannot.
    """

    effect: float = math.nan
    low: float = math.nan
    high: float = math.nan
    favours: bool = False
    p_value: float | None = None
    n: int = 0
    test: str = ""
    reason: str = ""
    threshold: float = math.nan
    needs: str = ""


@dataclass(frozen=True)
class Claim:
    """A checkable statement, and the function that tests it.

    Arguments:
        name: short and unique within the study; stands in tables.
        text: the statement with its threshold, in one sentence.
        test: maps the results of all parts to `Evidence`; see this module for the tests to choose from.
        paper: the paper's own figure, with the place where it stands.
        family: claims of one family share a 5 % chance of a false verdict (Holm's correction).
        headline: whether it is one of the at most six claims that a study is remembered for; they come first.
        scale: the smallest scale that can judge it; below it the verdict is *inconclusive*.

    Errors:
        ArgumentError: there is no such scale.
    """

    name: str
    text: str
    test: Callable[[Results], Evidence]
    paper: str = ""
    family: str = "claims"
    headline: bool = False
    scale: str = "quick"

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise ArgumentError("Claim.scale", f"one of {', '.join(SCALES)}", self.scale)


@dataclass(frozen=True)
class Verdict:
    """A claim's status with the evidence for it.

    Arguments:
        claim: name of the claim.
        text: the claim.
        status: supported, contradicted or inconclusive.
        evidence: effect, interval, test and number of seeds.
        p_adjusted: the p-value after Holm's correction; `None` where nothing could be tested.
        paper: the paper's own figure.
        headline: whether the claim is one of those that the study is remembered for.
    """

    claim: str
    text: str
    status: Status
    evidence: Evidence
    p_adjusted: float | None
    paper: str
    headline: bool = False

    @property
    def reason(self) -> str:
        """Why the verdict is inconclusive, or an empty string."""
        if self.status is not Status.INCONCLUSIVE:
            return ""
        if self.evidence.reason:
            return self.evidence.reason
        if self.p_adjusted is None:
            return "nothing could be tested"
        return f"the data cannot tell (adjusted p = {self.p_adjusted:.2g} ≥ {LEVEL})"


def unusable(reason: str, n: int = 0) -> Evidence:
    """Evidence that decides nothing, with the reason."""
    return Evidence(reason=reason, n=n)


def needs_scale(scale: str) -> Evidence:
    """Evidence that decides nothing since the scale that was run is too small for the claim."""
    return Evidence(reason=f"this scale is too small to judge it; scale={scale!r} can", needs=scale)


def _problem(values: BySeed, name: str) -> str:
    if not values:
        missing = getattr(values, "missing", "")  # what `Results.by_seed` knows about it
        return f"no results for {name}{': ' if missing else ''}{missing}"
    bad = sorted(seed for seed, value in values.items() if not math.isfinite(value))
    if bad:
        return f"{name} is not finite for seed{'s' * (len(bad) > 1)} {', '.join(map(str, bad))}"
    return ""


def _t_evidence(
    values: np.ndarray[Any, Any],
    threshold: float,
    alternative: Alternative,
    label: str,
    noise: float,
    confidence: float = 0.95,
) -> Evidence:
    import numpy as np
    from scipy import stats

    n = len(values)
    mean = float(values.mean())
    favours = mean > threshold if alternative == "greater" else mean < threshold
    # A constant difference leaves rounding noise for a spread, and a t statistic made of noise.
    if np.ptp(values) <= noise:
        p_value = 1.0 if math.isclose(mean, threshold, rel_tol=1e-9, abs_tol=noise) else 0.0
        return Evidence(mean, mean, mean, favours, p_value, n, f"{label}, the same in all seeds")
    result = stats.ttest_1samp(values, threshold)
    interval = result.confidence_interval(confidence)
    return Evidence(
        mean,
        float(interval.low),
        float(interval.high),
        favours,
        float(result.pvalue),
        n,
        f"{label}, t interval",
    )


def _bootstrap_evidence(
    values: np.ndarray[Any, Any],
    threshold: float,
    alternative: Alternative,
    label: str,
    noise: float,
    resamples: int = 10_000,
) -> Evidence:
    import numpy as np
    from scipy import stats

    mean = float(values.mean())
    favours = mean > threshold if alternative == "greater" else mean < threshold
    if np.ptp(values) <= noise:
        return _t_evidence(values, threshold, alternative, label, noise)
    result = stats.bootstrap(
        (values,), np.mean, n_resamples=resamples, method="percentile", rng=np.random.default_rng(0)
    )
    # The p-value is that of the percentile interval which just touches the threshold; +1 keeps it above zero.
    means = result.bootstrap_distribution
    below = (1 + int((means <= threshold).sum())) / (resamples + 1)
    above = (1 + int((means >= threshold).sum())) / (resamples + 1)
    interval = result.confidence_interval
    return Evidence(
        mean,
        float(interval.low),
        float(interval.high),
        favours,
        min(1.0, 2 * min(below, above)),
        len(values),
        f"{label}, bootstrap percentile interval",
    )


def _test(
    values: BySeed,
    threshold: float,
    alternative: Alternative,
    label: str,
    interval: str,
    min_seeds: int,
    scale: float,
) -> Evidence:
    """The chosen test; `scale` is the size of the numbers that the values were computed from."""
    import numpy as np

    if alternative not in ("greater", "less"):
        raise ArgumentError("alternative", "'greater' or 'less'", alternative)
    if interval not in ("t", "bootstrap"):
        raise ArgumentError("interval", "'t' or 'bootstrap'", interval)
    if not math.isfinite(threshold):
        raise ArgumentError("threshold", "a finite number", threshold)
    needed = max(min_seeds, MIN_SEEDS_BOOTSTRAP) if interval == "bootstrap" else min_seeds
    if len(values) < needed:
        mean = float(np.mean(list(values.values()))) if values else math.nan
        reason = f"{len(values)} seed{'s' * (len(values) != 1)}, at least {needed} needed"
        return Evidence(effect=mean, n=len(values), reason=reason)
    array = np.array([values[seed] for seed in sorted(values)], dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        if not math.isfinite(float(array.var(ddof=1))):
            return unusable("the values are too large to test", len(values))
    judge = _bootstrap_evidence if interval == "bootstrap" else _t_evidence
    return replace(judge(array, threshold, alternative, label, 1e-12 * max(1.0, scale)), threshold=threshold)


def mean_of(
    values: BySeed,
    *,
    threshold: float,
    alternative: Alternative = "greater",
    interval: Literal["t", "bootstrap"] = "t",
    min_seeds: int = MIN_SEEDS,
    name: str = "the metric",
) -> Evidence:
    """Is the mean over seeds above (or below) a threshold? One-sample t-test or bootstrap.

    Arguments:
        values: the metric by seed.
        threshold: what the claim compares with.
        alternative: the claim's side of the threshold.
        interval: `"t"`, or `"bootstrap"` (percentile, 10,000 resamples; needs 10 seeds).
        min_seeds: fewer seeds are *inconclusive*.
        name: how to call the metric in a reason.
    """
    problem = _problem(values, name)
    if problem:
        return unusable(problem, len(values))
    scale = max(map(abs, values.values()))
    return _test(values, threshold, alternative, "mean over seeds", interval, max(min_seeds, MIN_SEEDS), scale)


def paired_difference(
    treatment: BySeed,
    control: BySeed,
    *,
    threshold: float = 0.0,
    alternative: Alternative = "greater",
    interval: Literal["t", "bootstrap"] = "t",
    min_seeds: int = MIN_SEEDS,
    names: tuple[str, str] = ("the treatment", "the control"),
) -> Evidence:
    """Is treatment minus control above (or below) a threshold? Paired over the seeds that the two arms share.

    Arguments:
        treatment: the metric of one arm by seed.
        control: the metric of the other arm; it must have the same seeds.
        threshold: what the mean difference is compared with.
        alternative: the claim's side of the threshold.
        interval: `"t"`, or `"bootstrap"` (percentile, 10,000 resamples; needs 10 seeds).
        min_seeds: fewer pairs are *inconclusive*.
        names: how to call the arms in a reason.
    """
    for values, name in zip((treatment, control), names, strict=True):
        problem = _problem(values, name)
        if problem:
            return unusable(problem, len(values))
    if set(treatment) != set(control):
        odd = sorted(set(treatment) ^ set(control))
        return unusable(f"seeds without a partner: {', '.join(map(str, odd))}", len(set(treatment) & set(control)))
    differences = {seed: treatment[seed] - control[seed] for seed in treatment}
    scale = max(abs(value) for values in (treatment, control) for value in values.values())
    return _test(differences, threshold, alternative, "paired difference", interval, max(min_seeds, MIN_SEEDS), scale)


def equivalent(
    treatment: BySeed,
    control: BySeed,
    *,
    margin: float,
    min_seeds: int = MIN_SEEDS,
    names: tuple[str, str] = ("the treatment", "the control"),
) -> Evidence:
    """Is the mean paired difference within ± `margin`? Two one-sided t-tests.

    The p-value is against the nearer bound: small and inside supports the claim, small and outside contradicts it.

    Arguments:
        treatment: the metric of one arm by seed.
        control: the metric of the other arm.
        margin: largest difference that still counts as none.
        min_seeds: fewer pairs are *inconclusive*.
        names: how to call the arms in a reason.
    """
    if not margin > 0:
        raise ArgumentError("margin", "a positive number", margin)
    centre = paired_difference(treatment, control, min_seeds=min_seeds, names=names)
    if centre.p_value is None:
        return centre
    bound = math.copysign(margin, centre.effect)
    nearer = paired_difference(treatment, control, threshold=bound, names=names)
    return Evidence(
        centre.effect,
        centre.low,
        centre.high,
        abs(centre.effect) < margin,
        nearer.p_value,
        centre.n,
        f"{centre.test}, two one-sided tests",
        threshold=bound,
    )


def exact(*, holds: bool, effect: float, n: int, test: str) -> Evidence:
    """Evidence without chance in it: an enumeration, an identity, a bound that may have no exception.

    Arguments:
        holds: whether every case agrees with the claim.
        effect: the number to show: the worst error, the count of exceptions, the smallest slack.
        n: how many cases were checked.
        test: what was checked.
    """
    if n < 1:
        return unusable("no case was checked")
    if not math.isfinite(effect):
        return unusable(f"the effect is {effect}", n)
    return Evidence(effect, effect, effect, holds, 0.0, n, test)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of a family of p-values, in the order given."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, (len(p_values) - rank) * p_values[i])
        adjusted[i] = min(1.0, running)
    return adjusted


def judge(claims: Sequence[Claim], evidence: Sequence[Evidence]) -> list[Verdict]:
    """Turn evidence into verdicts.

    A claim that could not be tested still counts in its family, so that a lost arm never makes its siblings easier.

    Arguments:
        claims: the claims of one study.
        evidence: what the results say of each, in the same order.
    """
    p_values = [1.0 if item.p_value is None or math.isnan(item.p_value) else item.p_value for item in evidence]
    adjusted = [1.0] * len(claims)
    for family in {claim.family for claim in claims}:
        members = [i for i, claim in enumerate(claims) if claim.family == family]
        for i, p in zip(members, holm([p_values[i] for i in members]), strict=True):
            adjusted[i] = p
    verdicts = []
    for claim, item, p in zip(claims, evidence, adjusted, strict=True):
        decided = Status.SUPPORTED if item.favours else Status.CONTRADICTED
        status = decided if p < LEVEL else Status.INCONCLUSIVE
        tested = item.p_value is not None and not math.isnan(item.p_value)
        verdicts.append(
            Verdict(claim.name, claim.text, status, item, p if tested else None, claim.paper, claim.headline)
        )
    return verdicts
