"""Draws numbers in proportion to their priorities: a tree of sums, whole batches at a time.

Every node holds the sum of sixteen below it, so that a million priorities need five levels, and a batch goes down a
level in a handful of array operations. Sums are always taken anew from what is below: nothing drifts.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from holdfast.errors import ArgumentError, count_of

FAN = 16
"""Children of a node."""


class SumTree:
    """Priorities of the numbers below a capacity, 0 at first.

    Arguments:
        capacity: how many numbers there are.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = count_of("capacity", capacity, least=1)
        sizes = [capacity]
        while sizes[-1] > 1:
            sizes.append(-(-sizes[-1] // FAN))
        # From the root to the leaves; a level is as long as the one above it has children.
        lengths = [1, *(FAN * size for size in reversed(sizes[1:]))]
        self._levels = [np.zeros(length) for length in lengths]

    @property
    def total(self) -> float:
        """Sum of all priorities."""
        return float(self._levels[0][0])

    def __getitem__(self, numbers: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Priorities of some numbers."""
        return np.asarray(self._levels[-1][numbers])

    def update(self, numbers: Int[np.ndarray, " n"], priorities: Float[np.ndarray, " n"]) -> None:
        """Set priorities; of a number that is there twice the last one counts.

        Arguments:
            numbers: whose they are.
            priorities: finite and not negative.

        Errors:
            ArgumentError: a priority is negative or not finite, or there is no such number.
        """
        if not (np.isfinite(priorities).all() and (priorities >= 0).all()):
            raise ArgumentError("priorities", "finite numbers that are not negative", repr(priorities))
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < self.capacity:
            raise ArgumentError("numbers", f"numbers from 0 to {self.capacity - 1}", repr(numbers))
        self._levels[-1][numbers] = priorities
        for above, level in zip(self._levels[-2::-1], self._levels[:0:-1], strict=True):
            numbers = numbers // FAN
            above[numbers] = level.reshape(-1, FAN)[numbers].sum(1)

    def find(self, masses: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """The numbers at some places, if each takes as much room as its priority.

        Arguments:
            masses: places from 0 to below `total`.

        Returns:
            Numbers, none of which has priority 0.

        Errors:
            ArgumentError: all priorities are 0.
        """
        if not self.total > 0:
            raise ArgumentError("masses", "a tree in which a priority is positive", "one without")
        numbers, rows, left = np.zeros(len(masses), np.int64), np.arange(len(masses)), masses.astype(np.float64)
        for level in self._levels[1:]:
            children = level.reshape(-1, FAN)[numbers]
            sums = children.cumsum(1)
            chosen = (sums <= left[:, None]).sum(1)
            # By rounding a place can be at the very end of a node: then it is in the last child that has any room.
            last = FAN - 1 - (children[:, ::-1] > 0).argmax(1)
            chosen = np.minimum(chosen, last)
            left = left - np.where(chosen > 0, sums[rows, chosen - 1], 0.0)
            numbers = FAN * numbers + chosen
        return numbers

    def sample(self, size: int, rng: np.random.Generator) -> Int[np.ndarray, " n"]:
        """Draw numbers, one from each of `size` equal parts of the total (Schaul et al. 2016, appendix B.2.1).

        Arguments:
            size: how many.
            rng: draws.
        """
        part = self.total / size
        return self.find((np.arange(size) + rng.random(size)) * part)
