"""Times of several arms in turn, and their ratios within a round: what slows the machine slows all arms alike."""

from __future__ import annotations

import contextlib
import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

Clock = Callable[[Callable[[], object]], float]
"""Calls once and returns milliseconds."""


@dataclass(frozen=True)
class Arm:
    """One of the things compared.

    Arguments:
        call: what is timed.
        setting: entered around the call, and not timed.
    """

    call: Callable[[], object]
    setting: Callable[[], AbstractContextManager[object]] = nullcontext


@dataclass(frozen=True)
class Ratio:
    """Time of one arm divided by that of another in the same round: median and quartiles over the rounds."""

    median: float
    low: float
    high: float


def interleaved(
    arms: Mapping[str, Arm],
    clock: Clock,
    *,
    rounds: int,
    warmup: int = 3,
    budget_s: float = math.inf,
    least: int = 3,
    shuffled: bool = False,
) -> dict[str, list[float]]:
    """Milliseconds of each arm, by round.

    Arguments:
        arms: what is compared, by name; each runs once in every round.
        clock: how it is timed.
        rounds: rounds that are timed.
        warmup: rounds before them that are not.
        budget_s: after this long no further round begins. A quarter of it ends the warm-up, of which one round stays.
        least: timed rounds that are made whatever they take, unless `rounds` is less.
        shuffled: whether the order is drawn anew in each round. In a fixed one an arm always finds the caches of the
            processor as the same other arm has left them.
    """
    order, drawn = list(arms), random.Random(0)
    milliseconds: dict[str, list[float]] = {name: [] for name in arms}
    started = time.monotonic()
    for turn in range(-warmup, rounds):
        elapsed = time.monotonic() - started
        if -warmup < turn < 0 and elapsed > budget_s / 4:
            continue
        if turn >= least and elapsed > budget_s:
            break
        if shuffled:
            drawn.shuffle(order)
        for name in order:
            with arms[name].setting():
                took = clock(arms[name].call)
            if turn >= 0:
                milliseconds[name].append(took)
    return milliseconds


def ratio(milliseconds: Sequence[float], peer: Sequence[float]) -> Ratio:
    """Ratios within each round, in short."""
    ratios = [own / other for own, other in zip(milliseconds, peer, strict=True)]
    if len(ratios) == 1:
        return Ratio(ratios[0], ratios[0], ratios[0])
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Ratio(middle, low, high)


def on_cpu(call: Callable[[], object]) -> float:
    """Milliseconds of the wall clock."""
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1e3


def on_gpu(call: Callable[[], object]) -> float:
    """Milliseconds between two events on the current CUDA stream, gaps between launches included."""
    import torch

    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    call()
    stop.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(stop))


def peak_on_gpu(arm: Arm) -> int:
    """Most bytes that one call allocates at a time, its result included."""
    import torch

    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    with arm.setting():
        arm.call()
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated() - before)


def peak_on_cpu(arm: Arm) -> int | None:
    """Bytes by which one call makes the process grow at most; `None` where the system does not tell.

    Memory that the process already holds and uses again is not counted.
    """
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux sets the highest resident size back to the present one
        before = _status_bytes("VmRSS")
    except (OSError, KeyError):
        return None
    with arm.setting():
        arm.call()
    with contextlib.suppress(OSError, KeyError):
        return max(0, _status_bytes("VmHWM") - before)
    return None


def _status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    values = {key: value for key, _, value in (line.partition(":") for line in lines)}
    return int(values[name].split()[0]) * 1024
