"""What few seeds can tell of a mean: interval and p-value of many samples at once.

A verdict asks about one sample and a simulation about thousands; both ask here. The plain form is Student's t. It is
wrong in three ways when seeds are few, and each has its answer:

- identical values have no spread, and their t interval is a point. Shares of counted cases have an exact interval
  (Clopper and Pearson, 1934), bounded values that of a mean whose unseen part may lie at the far bound, others none;
- a share near 0 or 1 may vary less over few seeds than its cases allow, so that its interval is the wider of the two;
- where a long tail points to the threshold the sample may not have met it yet: then `skewed` says so, unless there are
  many seeds and the threshold is many standard errors away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

CONFIDENCE = 0.95

ROUNDING = 1e-12
"""Spread, relative to the values, that arithmetic alone can leave in a constant."""

NEAR = 0.5
"""A threshold is near a sample if it is at most so many of the sample's ranges away from it."""

MANY, UNLIKELY = 20, 1e-5
"""From so many seeds on a p-value below this decides in spite of a long tail.

The greatest power of ten with which simulated verdicts on exponential and lognormal values (sigma 1.5) are false in at
most 5 % of studies of 20 seeds or more: see the bench `lab-verdicts`.
"""

SKEWNESS = {3: 0.6876, 4: 0.9076, 5: 0.9246, 6: 0.9030, 7: 0.8826, 8: 0.8653, 9: 0.8444, 10: 0.8234}
"""The 85 % quantile of |m3 / m2^1.5| in normal samples by their size; from 2,000,000 samples each."""


@dataclass(frozen=True)
class Comparison:
    """What samples say about their means, one entry a sample.

    Arguments:
        mean: of each sample.
        low: lower end of the 95 % interval; NaN where identical values give none.
        high: upper end.
        p_value: two-sided, against the threshold; NaN where there is no interval.
        same: whether the values of a sample are identical.
        skewed: whether the sample is skewed towards a threshold near it, so that its p-value cannot be trusted.
    """

    mean: Float[np.ndarray, " sample"]
    low: Float[np.ndarray, " sample"]
    high: Float[np.ndarray, " sample"]
    p_value: Float[np.ndarray, " sample"]
    same: Bool[np.ndarray, " sample"]
    skewed: Bool[np.ndarray, " sample"]

    def decided(self, level: float) -> Bool[np.ndarray, " sample"]:
        """Whether a sample tells its mean from the threshold, with the chance `level` of a false answer."""
        return np.asarray((self.p_value < level) & ~self.skewed)


def compare_means(
    values: Float[np.ndarray, "sample seed"],
    threshold: float,
    *,
    control: Float[np.ndarray, "sample seed"] | None = None,
    cases: int | None = None,
    bounds: tuple[float, float] | None = None,
) -> Comparison:
    """Compare the mean of each sample, or its mean difference from a control, with a threshold.

    Arguments:
        values: at least 2 finite values a sample.
        threshold: what means are compared with.
        control: what to subtract, seed by seed.
        cases: the values are shares of so many cases each.
        bounds: least and greatest value that is possible, of both arms; (0, 1) for shares.
    """
    n = values.shape[1]
    differences = values if control is None else values - control
    size = np.abs(values).max(axis=1) if control is None else np.abs([values, control]).max(axis=(0, 2))
    mean = differences.mean(axis=1)
    same = np.ptp(differences, axis=1) <= ROUNDING * np.maximum(1.0, size)
    low, high, p_value = _student(differences, mean, threshold)
    low, high, p_value = (np.where(same, blank, of_t) for blank, of_t in ((mean, low), (mean, high), (0.0, p_value)))
    if cases is not None:
        bounds = (0.0, 1.0)
    if bounds is not None and control is not None:
        bounds = (bounds[0] - bounds[1], bounds[1] - bounds[0])

    if cases is not None and control is None:
        wider = _share(values.sum(axis=1) * cases, n * cases, threshold)
        low, high, p_value = np.minimum(low, wider[0]), np.maximum(high, wider[1]), np.maximum(p_value, wider[2])
    elif cases is not None and control is not None:
        # The arms share their cases, which a pair's difference knows and their pooled counts do not: t goes first.
        pooled = _difference(values.sum(axis=1) * cases, control.sum(axis=1) * cases, n * cases, threshold)
        low, high, p_value = (np.where(same, a, b) for a, b in zip(pooled, (low, high, p_value), strict=True))
    elif bounds is not None:
        bounded = _bounded(mean, n, bounds, threshold)
        low, high, p_value = (np.where(same, a, b) for a, b in zip(bounded, (low, high, p_value), strict=True))
    else:
        low, high, p_value = (np.where(same, np.nan, a) for a in (low, high, p_value))
    if bounds is not None:
        low, high = np.clip(low, *bounds), np.clip(high, *bounds)
    on_it = same & (np.abs(mean - threshold) <= np.maximum(ROUNDING * np.maximum(1.0, size), 1e-9 * abs(threshold)))
    p_value = np.where(on_it & ~np.isnan(p_value), 1.0, p_value)
    skewed = ~same & _skewed(differences, mean, threshold)
    if n >= MANY:
        skewed &= ~(p_value < UNLIKELY)
    return Comparison(mean, low, high, p_value, same, skewed)


def skewness_limit(n: int) -> float:
    """The size of skewness that 85 % of normal samples of n values do not exceed.

    Beyond the table it is 1.42 standard deviations of the skewness (Fisher, 1930), which is within 1.5 % of it.
    """
    return SKEWNESS[n] if n in SKEWNESS else 1.42 * math.sqrt(6 * (n - 2) / ((n + 1) * (n + 3)))


Interval = tuple["Float[np.ndarray, ' sample']", "Float[np.ndarray, ' sample']", "Float[np.ndarray, ' sample']"]
"""Lower and upper end of an interval, and the p-value."""


def _student(
    values: Float[np.ndarray, "sample seed"], mean: Float[np.ndarray, " sample"], threshold: float
) -> Interval:
    from scipy import stats

    n = values.shape[1]
    error = values.std(axis=1, ddof=1) / math.sqrt(n)
    with np.errstate(divide="ignore", invalid="ignore"):
        p_value = 2 * stats.t.sf(np.abs(mean - threshold) / error, n - 1)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * error
    return mean - half, mean + half, p_value


def _skewed(
    values: Float[np.ndarray, "sample seed"], mean: Float[np.ndarray, " sample"], threshold: float
) -> Bool[np.ndarray, " sample"]:
    centred = values - mean[:, None]
    scale = np.abs(centred).max(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        centred = centred / scale  # cubes of large values would overflow
        skewness = (centred**3).mean(axis=1) / (centred**2).mean(axis=1) ** 1.5
    least, greatest = values.min(axis=1), values.max(axis=1)
    gap = np.maximum(least - threshold, threshold - greatest)
    towards = skewness * np.sign(threshold - mean) > skewness_limit(values.shape[1])
    return np.asarray(towards & (gap <= NEAR * (greatest - least)))


def _at_least(count: Float[np.ndarray, " sample"], of: int, share: Float[np.ndarray, " sample"] | float) -> np.ndarray:
    """Chance of so many cases or more, if each has the chance `share`; a share below 0 gives none, nor even 0 cases."""
    from scipy import stats

    return np.where(
        count <= 0, np.asarray(share) >= 0, stats.beta.cdf(share, np.maximum(count, 1e-300), of - count + 1)
    )


def _at_most(count: Float[np.ndarray, " sample"], of: int, share: Float[np.ndarray, " sample"] | float) -> np.ndarray:
    """Chance of so many cases or fewer."""
    return _at_least(of - count, of, 1 - np.asarray(share))


def _clopper_pearson(count: Float[np.ndarray, " sample"], of: int, tail: float) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bound of a share, each missed with at most the chance `tail`."""
    from scipy import stats

    low = np.where(count <= 0, 0.0, stats.beta.ppf(tail, np.maximum(count, 1e-300), of - count + 1))
    high = np.where(count >= of, 1.0, stats.beta.isf(tail, count + 1, np.maximum(of - count, 1e-300)))
    return low, high


def _whole(count: Float[np.ndarray, " sample"]) -> Float[np.ndarray, " sample"]:
    """Counts that were recovered from shares, without the rounding."""
    whole = np.rint(count)
    return np.where(np.abs(count - whole) <= 1e-6, whole, count)


def _share(count: Float[np.ndarray, " sample"], of: int, threshold: float) -> Interval:
    """The exact interval of a share of all cases together."""
    count = _whole(count)
    p_value = 2 * np.minimum(_at_least(count, of, threshold), _at_most(count, of, threshold))
    return *_clopper_pearson(count, of, (1 - CONFIDENCE) / 2), np.minimum(1.0, p_value)


def _difference(
    count: Float[np.ndarray, " sample"], control: Float[np.ndarray, " sample"], of: int, threshold: float
) -> Interval:
    """An interval of the difference of two shares, however their cases hang together: half of the chance each."""
    count, control = _whole(count), _whole(control)
    tail = (1 - CONFIDENCE) / 4
    (low, high), (low_control, high_control) = (_clopper_pearson(part, of, tail) for part in (count, control))
    # Above the threshold if the one share is above c + threshold and the other one below c, for any c.
    above = _least_chance(count, control, of, threshold)
    below = _least_chance(control, count, of, -threshold)
    return low - high_control, high - low_control, np.minimum(1.0, 4 * np.minimum(above, below))


def _least_chance(
    large: Float[np.ndarray, " sample"], small: Float[np.ndarray, " sample"], of: int, threshold: float
) -> np.ndarray:
    """The least over c of the greater chance: of counts as large at c + threshold, and as small at c; by bisection."""
    left, right = np.full(large.shape, -1.0), np.full(large.shape, 2.0)
    for _ in range(60):
        middle = (left + right) / 2
        over = _at_least(large, of, middle + threshold) > _at_most(small, of, middle)
        left, right = np.where(over, left, middle), np.where(over, middle, right)
    # Both sides of the crossing, since a chance jumps where its share leaves 0 to 1.
    chances = [np.maximum(_at_least(large, of, c + threshold), _at_most(small, of, c)) for c in (left, right)]
    return np.asarray(np.minimum(*chances))


def _bounded(mean: Float[np.ndarray, " sample"], n: int, bounds: tuple[float, float], threshold: float) -> Interval:
    """For n identical values within bounds.

    What was never seen may lie at the far bound. It has the chance 1 - q at most, if q^n is at least the chance that
    is allowed to an end of the interval; for values of 0 and 1 this is the exact interval of n of n cases.
    """
    least, greatest = bounds
    share = ((1 - CONFIDENCE) / 2) ** (1 / n)
    with np.errstate(divide="ignore", invalid="ignore"):
        seen = np.where(
            threshold < mean, (threshold - least) / (mean - least), (greatest - threshold) / (greatest - mean)
        )
    p_value = np.minimum(1.0, 2 * np.clip(seen, 0.0, 1.0) ** n)
    return least + (mean - least) * share, greatest - (greatest - mean) * share, p_value
