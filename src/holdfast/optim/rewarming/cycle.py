"""The course of the learning rate from one re-warming to the next, in closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.errors import ArgumentError, count_of


@dataclass(frozen=True)
class Cycle:
    """A linear warm-up, then half a cosine down to the final rate, which is held (arXiv 2507.20057, section 3.2).

    Arguments:
        peak: rate after the warm-up of the first cycle.
        final: rate at its end.
        warmup: steps from `low` to the peak; 0 begins at the peak.
        period: steps of a cycle, warm-up included.
        low: rate at the beginning of a warm-up; `final` if `None`.
        peaks: of the cycles after the first: their rates, of which the last holds for all that follow; or a number, by
            which each is its predecessor's multiple. A peak below `final` is `final`.
        count: cycles after which the final rate is held for good; `None` for no end.

    Errors:
        ArgumentError: a rate or a number of steps outside its range.
    """

    peak: float
    final: float
    warmup: int
    period: int
    low: float | None = None
    peaks: Sequence[float] | float | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.peak) and self.peak > 0):
            raise ArgumentError("peak", "a learning rate above 0", self.peak)
        for name, rate in (("final", self.final), ("low", self.low)):
            if rate is not None and not 0 <= rate <= self.peak:
                raise ArgumentError(name, f"a learning rate of 0 to the peak, {self.peak}", rate)
        count_of("period", self.period, 1)
        count_of("warmup", self.warmup)
        if self.warmup >= self.period:
            raise ArgumentError("warmup", f"fewer steps than the period, {self.period}", self.warmup)
        if self.count is not None:
            count_of("max_cycles", self.count, 1)
        if self.peaks is None:
            return
        listed = not isinstance(self.peaks, float | int)
        every = (self.peaks,) if isinstance(self.peaks, float | int) else tuple(float(peak) for peak in self.peaks)
        if not every or not all(math.isfinite(peak) and peak > 0 for peak in every):
            raise ArgumentError("peaks", "rates above 0, or one factor above 0", self.peaks)
        if not listed and every[0] > 1 and self.count is None:
            raise ArgumentError("peaks", "a factor of at most 1, a list of rates, or max_cycles beside it", self.peaks)
        if listed:
            object.__setattr__(self, "peaks", every)

    def peak_of(self, cycle: int) -> float:
        """Peak of a cycle; the first is 0."""
        if cycle == 0 or self.peaks is None:
            return self.peak
        if isinstance(self.peaks, float | int):
            return max(self.peak * self.peaks**cycle, self.final)
        return max(self.peaks[min(cycle, len(self.peaks)) - 1], self.final)

    def rate(self, step: int, cycle: int = 0) -> float:
        """Learning rate at a step of a cycle.

        Arguments:
            step: steps since the cycle began; from `period` on the rate is `final`.
            cycle: which one, from 0.
        """
        if step >= self.period or (self.count is not None and cycle >= self.count):
            return self.final
        peak = self.peak_of(cycle)
        if step < self.warmup:
            low = self.final if self.low is None else self.low
            return low + (peak - low) * step / self.warmup
        share = 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / (self.period - self.warmup)))
        return self.final * (1 - share) + peak * share
