"""How many steps of training fit into a time."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def steps_within(
    minutes: float, step: Callable[[], None], look: Callable[[], None], looks_per_step: float, device: str
) -> int:
    """How many steps take so many minutes, with the looks at validation data between them.

    Arguments:
        minutes: that the run is to take.
        step: does what a step does, to a copy of the model.
        look: a part of a look at validation data.
        looks_per_step: how many such parts come on a step.
        device: cpu or cuda.
    """
    return max(1, round(60 * minutes / (time_of(step, device) + looks_per_step * time_of(look, device))))


def time_of(work: Callable[[], None], device: str) -> float:
    """Mean seconds of some work, after a start that is not counted."""
    for _ in range(2):
        work()
    if device == "cuda":
        torch.cuda.synchronize()
    start, count = time.monotonic(), 0
    while count < 5 or (time.monotonic() - start < 4.0 and count < 100):
        work()
        count += 1
        if device == "cuda":
            torch.cuda.synchronize()
    return (time.monotonic() - start) / count
