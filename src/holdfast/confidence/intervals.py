"""Estimates with intervals over questions, and Holm's correction.

Trials of one question are not independent, so questions are what is drawn again: 2,000 resamples, all at once, as a
matrix of weights that means are multiplied with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from holdfast.confidence.trials import FloatArray
from holdfast.errors import count_of

RESAMPLES = 2000
"""Enough for 95 % limits that move by a fiftieth of the interval from one seed to the next."""

FEWEST = 6
"""Questions below which there is no interval: no resample leaves the range of the data, which misses the median of what
it is drawn from in 2 of 2 ** n cases, more than 5 % of them."""

LEVEL = 0.05
"""Chance of a false word, shared by a family of verdicts."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval over questions; NaN with the reason where there is none.

    Arguments:
        value: the estimate.
        low: lower end of the interval.
        high: upper end of it.
        reason: why it is refused; empty where it is not.
    """

    value: float
    low: float
    high: float
    reason: str = ""

    @property
    def known(self) -> bool:
        """Whether there is a number."""
        return not math.isnan(self.value)

    def excludes(self, value: float) -> bool:
        """Whether the interval lies on one side of a value."""
        return self.low > value or self.high < value

    def __str__(self) -> str:
        """Return the value and its interval, or why there is none."""
        if not self.known:
            return f"- ({self.reason})" if self.reason else "-"
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def refused(reason: str) -> Estimate:
    """No number, and why."""
    return Estimate(math.nan, math.nan, math.nan, reason)


def question_weights(questions: int, resamples: int = RESAMPLES, seed: int = 0) -> FloatArray:
    """(resamples, questions) How often each question is drawn, divided by how many are drawn: rows sum to 1."""
    count_of("questions", questions, 1)
    rng = np.random.default_rng(count_of("seed", seed))
    weights = np.empty((count_of("resamples", resamples, 1), questions))
    for row in weights:
        row[:] = np.bincount(rng.integers(0, questions, questions), minlength=questions)
    return weights / questions


def interval(value: float, resampled: FloatArray, questions: int) -> Estimate:
    """An estimate with its 95 % interval: percentiles of the resamples, wider than the middle 95 % of few questions.

    The spread of resamples is too small by sqrt((n - 1) / n), and a normal quantile too near; Hesterberg (The American
    Statistician, 2015, section 5.2) takes percentiles that make up for both where the estimate is a mean.

    Arguments:
        value: the estimate.
        resampled: the estimate of each resample.
        questions: number of questions; below `FEWEST` the interval has no ends.
    """
    if questions < FEWEST:
        return Estimate(float(value), -math.inf, math.inf)
    tail = stats.norm.cdf(_widened(questions) * stats.t.ppf(LEVEL / 2, questions - 1))
    low, high = np.quantile(resampled, (tail, 1 - tail))
    return Estimate(float(value), float(low), float(high))


def p_value(value: float, resampled: FloatArray, null: float, questions: int) -> float:
    """Two-sided p-value of a Student's test with the spread of the resamples as standard error.

    Arguments:
        value: the estimate.
        resampled: the estimate of each resample.
        null: what it is compared with.
        questions: number of questions.

    Returns:
        The p-value; 1 where nothing varies and nothing differs; NaN for fewer questions than `FEWEST`.
    """
    if questions < FEWEST:
        return math.nan
    error = _widened(questions) * float(np.std(resampled, ddof=1))
    if error == 0:
        return 1.0 if value == null else 0.0
    return float(2 * stats.t.sf(abs(value - null) / error, questions - 1))


def _widened(questions: int) -> float:
    """By how much the spread of resamples is too small."""
    return math.sqrt(questions / (questions - 1))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p-values of a family; those that are NaN stay so and count for nothing.

    Arguments:
        p_values: by name.
    """
    usable = sorted((p, name) for name, p in p_values.items() if not math.isnan(p))
    adjusted, highest = dict.fromkeys(p_values, math.nan), 0.0
    for place, (p, name) in enumerate(usable):
        highest = max(highest, min(1.0, p * (len(usable) - place)))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}
