"""How a claim is judged: evidence from the results, Holm's correction over a family of claims, then a verdict.

Each test here takes values keyed by seed and returns `Evidence`: an effect, its 95 % interval over seeds, and the
two-sided p-value against the claim's threshold. Input that no test can use (one seed, NaN, a missing arm, a seed that
failed) gives evidence without a p-value, and the verdict *inconclusive* with the reason. The arithmetic is in
`holdfast.lab.few_seeds`.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal, TypeAlias

from holdfast.errors import ArgumentError
from holdfast.lab.results import LeftOut, Results
from holdfast.lab.trial import SCALES

LEVEL = 0.05
"""Chance of a false verdict, shared by the claims of a family."""

MIN_SEEDS = 3
"""Below this a t interval says next to nothing."""

ASYMMETRY_SHOWS = 10
"""Below this number of seeds a long tail is too seldom seen in the sample itself."""

BySeed: TypeAlias = Mapping[int, float]
Alternative: TypeAlias = Literal["greater", "less"]
Bounds: TypeAlias = tuple[float, float]


DIFFERENCE = "paired difference"
"""How the tests of two arms begin; the report shows such effects with their sign."""


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
        left_out: the parts that can judge it, where the run left them out.
        counts: what `n` counts: seeds, or cases.
        points: what each seed says, in the effect's units, where seeds were averaged.
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
    left_out: tuple[str, ...] = ()
    counts: str = "seeds"
    points: tuple[float, ...] = ()


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
        plain: the statement in a few plain words, without its threshold, as a clause that begins in lower case: the
            report's first screen says of each headline claim whether this holds. By default it is `text`.
        figure: name of the study's figure that shows it.

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
    plain: str = ""
    figure: str = ""

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


def needs_parts(left_out: LeftOut) -> Evidence:
    """Evidence that decides nothing since the run left out what the claim looks at."""
    return Evidence(reason=str(left_out), left_out=left_out.parts)


def _problem(values: BySeed, name: str, bounds: Bounds | None) -> str:
    if not values:
        missing = getattr(values, "missing", "")  # what `Results.by_seed` knows about it
        return f"no results for {name}{': ' if missing else ''}{missing}"
    bad = sorted(seed for seed, value in values.items() if not math.isfinite(value))
    if bad:
        return f"{name} is not finite for {_seeds(bad)}"
    if bounds is not None:
        low, high = bounds
        margin = 1e-9 * (high - low)  # what rounding may do to a mean
        bad = sorted(seed for seed, value in values.items() if not low - margin <= value <= high + margin)
        if bad:
            return f"{name} is not within {low:g} and {high:g} for {_seeds(bad)}"
    return ""


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def failed_seeds(failed: Mapping[int, str]) -> str:
    """Which seeds have no result, and why the first of them has none."""
    why = textwrap.shorten(failed[min(failed)], 100, placeholder=" ...")
    return f"no result for {_seeds(sorted(failed))} ({why}{', ...' * (len(failed) > 1)})"


@dataclass(frozen=True)
class _Question:
    """What is asked of the values, beside the values."""

    threshold: float
    alternative: Alternative
    cases: int | None
    bounds: Bounds | None
    min_seeds: int
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.alternative not in ("greater", "less"):
            raise ArgumentError("alternative", "'greater' or 'less'", self.alternative)
        if not math.isfinite(self.threshold):
            raise ArgumentError("threshold", "a finite number", self.threshold)
        if self.cases is not None:
            if self.cases < 1:
                raise ArgumentError("cases", "at least 1", self.cases)
            if self.bounds not in (None, (0, 1)):
                raise ArgumentError("bounds", "(0, 1), as a share of cases has", self.bounds)
            object.__setattr__(self, "bounds", (0.0, 1.0))
        if self.bounds is not None:
            low, high = self.bounds
            if not -math.inf < low < high < math.inf:
                raise ArgumentError("bounds", "two finite numbers, the lower one first", self.bounds)
            least, most = (low - high, high - low) if self.paired else (low, high)
            if not least <= self.threshold <= most:
                raise ArgumentError("threshold", f"a number from {least:g} to {most:g}, as bounds say", self.threshold)

    @property
    def paired(self) -> bool:
        return len(self.names) > 1

    def worst(self, *, above: bool) -> tuple[float, ...]:
        """The value of each arm that says most against a mean above the threshold, or below it."""
        assert self.bounds is not None
        low, high = self.bounds
        return ((low, high) if above else (high, low))[: len(self.names)]


def _test(arms: tuple[BySeed, ...], question: _Question) -> Evidence:
    """Judge one arm, or the difference of two."""
    for values, name in zip(arms, question.names, strict=True):
        problem = _problem(values, name, question.bounds)
        if problem:
            return unusable(problem, len(values))
    failed: dict[int, str] = {}
    for values in arms:
        failed.update(getattr(values, "failed", {}))
    odd = sorted({seed for values in arms for seed in values if any(seed not in other for other in arms)} - set(failed))
    complete = sorted(set.intersection(*map(set, arms)) - set(failed))
    n = len(complete)
    if odd:
        return unusable(f"seeds without a partner: {', '.join(map(str, odd))}", n)
    if n < question.min_seeds:
        effect = _mean([arms[0][seed] - (arms[1][seed] if question.paired else 0.0) for seed in complete])
        also = f"; {failed_seeds(failed)}" if failed else ""
        return Evidence(
            effect=effect, n=n, reason=f"{n} seed{'s' * (n != 1)}, at least {question.min_seeds} needed{also}"
        )
    evidence = _compare([[values[seed] for seed in complete] for values in arms], question)
    if not failed:
        return evidence
    if evidence.p_value is None:
        return replace(evidence, reason=f"{evidence.reason}; {failed_seeds(failed)}")
    if question.bounds is None:
        return replace(evidence, p_value=None, reason=failed_seeds(failed))
    # Against what the other seeds say, whichever side of the threshold that is.
    worst = question.worst(above=evidence.effect > question.threshold)
    filled = [
        [values.get(seed, value) for seed in sorted({*complete, *failed})]
        for values, value in zip(arms, worst, strict=True)
    ]
    with_failed = _compare(filled, question, skewed_too=True)  # a tail that was put there is none that was seen
    counted = _counted(arms, worst, sorted(failed), question.names)
    decides = with_failed.p_value is not None and with_failed.p_value < LEVEL
    if decides and with_failed.favours == evidence.favours:
        return replace(with_failed, test=f"{with_failed.test}; failed {counted}")
    return replace(evidence, p_value=None, reason=f"{failed_seeds(failed)}; with {counted}, the data cannot tell")


def _counted(arms: tuple[BySeed, ...], worst: tuple[float, ...], failed: Sequence[int], names: tuple[str, ...]) -> str:
    """Which values stand for those that failed seeds lack; an arm that has its own keeps it."""
    told = []
    for values, value, name in zip(arms, worst, names, strict=True):
        lacking = [seed for seed in failed if seed not in values]
        if lacking:
            arm = f" of {name}" if len(arms) > 1 else ""
            told.append(f"{_seeds(lacking)}{arm} counted as {value:g}")
    return " and ".join(told)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _compare(arms: Sequence[Sequence[float]], question: _Question, *, skewed_too: bool = False) -> Evidence:
    """The comparison with the threshold, in words; of skewed values only if they are to be judged too."""
    import numpy as np

    from holdfast.lab.few_seeds import compare_means

    rows = [np.array([values], dtype=np.float64) for values in arms]
    n = rows[0].shape[1]
    with np.errstate(over="ignore", invalid="ignore"):
        differences = rows[0] - rows[1] if question.paired else rows[0]
        if not math.isfinite(float(differences.var(ddof=1))):
            return unusable("the values are too large to test", n)
    of_all = compare_means(
        rows[0],
        question.threshold,
        control=rows[1] if question.paired else None,
        cases=question.cases,
        bounds=question.bounds,
    )
    mean, low, high, p = (float(x[0]) for x in (of_all.mean, of_all.low, of_all.high, of_all.p_value))
    evidence = Evidence(
        mean,
        low,
        high,
        mean > question.threshold if question.alternative == "greater" else mean < question.threshold,
        None if math.isnan(p) else p,
        n,
        _words(question, n, same=bool(of_all.same[0])),
        threshold=question.threshold,
        points=tuple(map(float, differences[0])),
    )
    if evidence.p_value is None:
        what = "the difference" if question.paired else question.names[0]
        return replace(evidence, reason=f"{what} is {mean:.6g} in all {n} seeds: identical values decide nothing")
    if p < LEVEL and not skewed_too and not of_all.decided(LEVEL)[0]:
        reason = "the values are skewed towards the threshold, which is near them: more seeds could tell"
        return replace(evidence, p_value=None, reason=reason)
    return evidence


def _words(question: _Question, n: int, *, same: bool) -> str:
    """Name of the test, with the kind of interval and what it rests on."""
    label, what = (DIFFERENCE, "differences") if question.paired else ("mean over seeds", "values")
    if same:
        exact_too = f"pooled exact interval of {n * question.cases} cases" if question.cases is not None else ""
        within = "{:g} to {:g}".format(*question.bounds) if question.bounds is not None else ""
        kind = exact_too or (f"interval that so many seeds earn within {within}" if within else "no interval")
        return f"{label}, the same in all {n} seeds, {kind}"
    wider = question.cases is not None and not question.paired
    kind = "wider of t and pooled exact interval" if wider else "t interval"
    few = f"; with {n} seeds it rests on symmetric {what}" if n < ASYMMETRY_SHOWS else ""
    return f"{label}, {kind}{few}"


def mean_of(
    values: BySeed,
    *,
    threshold: float,
    alternative: Alternative = "greater",
    cases: int | None = None,
    bounds: Bounds | None = None,
    min_seeds: int = MIN_SEEDS,
    name: str = "the metric",
) -> Evidence:
    """Is the mean over seeds above (or below) a threshold?

    Arguments:
        values: the metric by seed.
        threshold: what the claim compares with.
        alternative: the claim's side of the threshold.
        cases: for a share: on how many cases, drawn anew for every seed, each seed's value was measured.
        bounds: least and greatest value that the metric can have.
        min_seeds: fewer seeds are *inconclusive*.
        name: how to call the metric in a reason.
    """
    question = _Question(threshold, alternative, cases, bounds, max(min_seeds, MIN_SEEDS), (name,))
    return _test((values,), question)


def paired_difference(
    treatment: BySeed,
    control: BySeed,
    *,
    threshold: float = 0.0,
    alternative: Alternative = "greater",
    cases: int | None = None,
    bounds: Bounds | None = None,
    min_seeds: int = MIN_SEEDS,
    names: tuple[str, str] = ("the treatment", "the control"),
) -> Evidence:
    """Is treatment minus control above (or below) a threshold? Paired over the seeds that the two arms share.

    Arguments:
        treatment: the metric of one arm by seed.
        control: the metric of the other arm; it must have the same seeds.
        threshold: what the mean difference is compared with.
        alternative: the claim's side of the threshold.
        cases: for shares: on how many cases, drawn anew for every seed, each seed's value was measured.
        bounds: least and greatest value that the metric can have in either arm.
        min_seeds: fewer pairs are *inconclusive*.
        names: how to call the arms in a reason.
    """
    question = _Question(threshold, alternative, cases, bounds, max(min_seeds, MIN_SEEDS), names)
    return _test((treatment, control), question)


def equivalent(
    treatment: BySeed,
    control: BySeed,
    *,
    margin: float,
    cases: int | None = None,
    bounds: Bounds | None = None,
    min_seeds: int = MIN_SEEDS,
    names: tuple[str, str] = ("the treatment", "the control"),
) -> Evidence:
    """Is the mean paired difference within ± `margin`? Two one-sided tests.

    The evidence is that against the bound which is harder to tell from: small p-values inside support the claim, and
    outside contradict it.

    Arguments:
        treatment: the metric of one arm by seed.
        control: the metric of the other arm.
        margin: largest difference that still counts as none.
        cases: as for `paired_difference`.
        bounds: likewise.
        min_seeds: fewer pairs are *inconclusive*.
        names: how to call the arms in a reason.
    """
    if not margin > 0:
        raise ArgumentError("margin", "a positive number", margin)
    least = max(min_seeds, MIN_SEEDS)
    arms = (treatment, control)
    above = _test(arms, _Question(-margin, "greater", cases, bounds, least, names))
    below = _test(arms, _Question(margin, "less", cases, bounds, least, names))
    outside = [side for side in (above, below) if not side.favours]
    weaker = max(outside or (above, below), key=lambda side: (side.p_value is None, side.p_value))
    return replace(weaker, test=weaker.test.replace(DIFFERENCE, f"{DIFFERENCE}, two one-sided tests"))


def exact(*, holds: bool, effect: float, n: int, test: str, failed: Mapping[int, str] | None = None) -> Evidence:
    """Evidence without chance in it: an enumeration, an identity, a bound that may have no exception.

    Arguments:
        holds: whether every case agrees with the claim.
        effect: the number to show: the worst error, the count of exceptions, the smallest slack.
        n: how many cases were checked.
        test: what was checked.
        failed: seeds whose cases are missing, with the reason (see `Results.failed`): a claim that holds without
            them is *inconclusive*, one that does not is contradicted.
    """
    if failed and holds:
        return replace(unusable(failed_seeds(failed), n), counts="cases")
    if n < 1:
        return replace(unusable("no case was checked"), counts="cases")
    if not math.isfinite(effect):
        return replace(unusable(f"the effect is {effect}", n), counts="cases")
    return Evidence(effect, effect, effect, holds, 0.0, n, test, counts="cases")


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
