"""How long something takes, beside others that are timed in turn with it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

K = TypeVar("K")
Clock = Callable[[], float]


def clock_of(device: str) -> Clock:
    """Seconds that this process has computed; on CUDA seconds that have passed, once all work is done."""
    if not device.startswith("cuda"):
        return time.process_time
    import torch

    def waited() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return waited


def least_seconds(
    calls: Mapping[K, Callable[[], object]], clock: Clock, *, rounds: int, least: float = 0.02
) -> dict[K, float]:
    """Least seconds that a call takes, of several rounds in which all take turns.

    Arguments:
        calls: by name. A call that the device refuses or has no memory for is left out of the answer.
        clock: tells seconds.
        rounds: how many; each call is made once before, which counts if it takes a second or more.
        least: a shorter call is repeated within a round until they take so many seconds.
    """
    best: dict[K, float] = {}
    repeats: dict[K, int] = {}
    for name, call in calls.items():
        try:
            first = _seconds(call, clock, 1)
        except RuntimeError as error:
            if not cannot(error):
                raise
            continue
        repeats[name] = max(1, math.ceil(least / max(first, 1e-6)))
        best[name] = first if first >= 1 else math.inf
    for _ in range(rounds):
        for name, count in repeats.items():
            best[name] = min(best[name], _seconds(calls[name], clock, count) / count)
    return best


def cannot(error: RuntimeError) -> bool:
    """Whether the device has no memory for a call, or no kernel that takes it: the call itself is right."""
    text = str(error).lower()
    return any(words in text for words in ("out of memory", "not enough memory", "no available kernel"))


def _seconds(call: Callable[[], object], clock: Clock, count: int) -> float:
    begin = clock()
    for _ in range(count):
        call()
    return clock() - begin
