"""From subjects to the rows of a report, and from these to what they say: aims, crossover, and where RAT loses."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from holdfast.benches.harness.report import Row
from holdfast.benches.harness.timing import interleaved, on_gpu, peak_on_cpu, peak_on_gpu, ratio
from holdfast.benches.rat.floors import Machine, floor_ms
from holdfast.benches.rat.peers import graphed
from holdfast.benches.rat.subjects import Subject
from holdfast.benches.registry import Tell

Aim = Callable[[Subject], float | None]
"""The least speed-up of `rat-auto` over `sdpa` that a subject is to show; `None`: none is set."""


@dataclass(frozen=True)
class Plan:
    """How subjects are measured.

    Arguments:
        rounds: timed rounds.
        budget_s: seconds after which no further round of a subject begins, once there are three.
        aim: of a subject.
        machine: what a GPU can do, for floors; `None`: no floors.
    """

    rounds: int
    budget_s: float
    aim: Aim
    machine: Machine | None = None


def measure(
    makers: Iterable[tuple[str, Callable[[], Subject]]], plan: Plan, tell: Tell
) -> tuple[tuple[Row, ...], tuple[str, ...], tuple[str, ...]]:
    """Make and time all subjects, the first ones first.

    Arguments:
        makers: what makes each, and its name where that fails.
        plan: how.
        tell: called with each row.

    Returns:
        The rows; what went wrong, which has no time; and what the GPU has no memory for.
    """
    rows: list[Row] = []
    failures: list[str] = []
    too_large: list[str] = []
    for name, make in makers:
        try:
            subject = make()
            failures += [f"{name}: {arm}: {why}" for arm, why in subject.wrong.items()]
            for row in _rows(subject, plan):
                tell(row)
                rows.append(row)
        except torch.OutOfMemoryError:
            too_large.append(name)
        except Exception as error:
            failures.append(f"{name}: {type(error).__name__}: {error}".splitlines()[0])
    return tuple(rows), tuple(failures), tuple(too_large)


def processor_time(call: Callable[[], object]) -> float:
    """Milliseconds that the process computed, which on one thread is the wall clock without what others took of it."""
    started = time.process_time()
    call()
    return (time.process_time() - started) * 1e3


def _rows(subject: Subject, plan: Plan) -> list[Row]:
    """One for each arm; a decode step on a GPU is timed as a CUDA graph, which gaps between launches do not hide."""
    gpu = subject.shape.device == "cuda"
    arms = dict(subject.arms)
    peaks = {name: (peak_on_gpu if gpu else peak_on_cpu)(arm) for name, arm in arms.items()}
    if gpu and subject.name == "decode":
        arms = {name: graphed(arm) for name, arm in arms.items()}
    milliseconds = interleaved(arms, on_gpu if gpu else processor_time, rounds=plan.rounds, budget_s=plan.budget_s)
    rows: list[Row] = []
    for name, times in milliseconds.items():
        ours, peak = name.startswith("rat"), peaks[name]
        # Of the peer's time and ours within each round.
        over_sdpa = ratio(milliseconds["sdpa"], times)
        floor = floor_ms(subject.name, subject.shape, plan.machine) if ours and plan.machine else None
        middle = statistics.median(times)
        rows.append(
            {
                "subject": subject.name,
                "batch": subject.shape.batch,
                "tokens": subject.shape.tokens,
                "chunk_size": subject.shape.chunk_size if ours else None,
                "arm": name,
                "kernel": subject.kernels.get(name, ""),
                "ms": middle,
                "over_sdpa": over_sdpa.median,
                "low": over_sdpa.low,
                "high": over_sdpa.high,
                "over_gqa": ratio(milliseconds["gqa"], times).median if "gqa" in milliseconds else None,
                "aim": plan.aim(subject) if name == "rat-auto" else None,
                "peak_mib": None if peak is None else round(peak / 2**20, 2),
                "cache_bytes": subject.cache_bytes.get(name),
                "floor_ms": floor,
                "percent_of_floor": None if floor is None else round(100 * floor / middle, 1),
                "error": subject.errors.get(name),
                "rounds": len(times),
            }
        )
    return rows


def slope(rows: Sequence[Row], subject: str, first: int, last: int) -> float | None:
    """How fast RAT's time grows between two lengths: the exponent of the length; 1 is linear, attention's is 2."""
    times = {row["tokens"]: row["ms"] for row in rows if row["subject"] == subject and row["arm"] == "rat-auto"}
    if first not in times or last not in times:
        return None
    return math.log(times[last] / times[first]) / math.log(last / first)


def crossover(rows: Sequence[Row], subject: str, column: str) -> str:
    """From which measured length on RAT is faster at every length, for each batch."""
    ours = [row for row in rows if row["subject"] == subject and row["arm"] == "rat-auto" and row[column] is not None]
    phrases = []
    for batch in sorted({row["batch"] for row in ours}):
        by_length = sorted((row["tokens"], row[column]) for row in ours if row["batch"] == batch)
        wins = None
        for tokens, speed_up in reversed(by_length):
            if speed_up < 1:
                break
            wins = tokens
        peer, which = column.removeprefix("over_"), f" (batch {batch})" if batch > 1 else ""
        if wins is None:
            phrases.append(f"{subject} never wins over {peer} up to {by_length[-1][0]} tokens{which}")
        else:
            phrases.append(f"{subject} wins over {peer} from {wins} tokens on{which}")
    return "; ".join(phrases)


def summary(
    rows: Sequence[Row], checks: Sequence[tuple[str, bool]], columns: Sequence[str] = ("over_sdpa", "over_gqa")
) -> tuple[str, float | None]:
    """The greatest length first, then aims, crossovers and losses; and time divided by the peer's there.

    Arguments:
        rows: all of them.
        checks: aims that are not those of a row: what was measured, and whether it is met.
        columns: peers for which the crossover is told.
    """
    ours = [row for row in rows if row["arm"] == "rat-auto"]
    if not ours:
        return "no time was measured", None
    longest = max(ours, key=lambda row: (row["tokens"], row["subject"] == ours[0]["subject"]))
    aimed = [
        (_named(row) + f" {row['over_sdpa']:.3g} x", row["over_sdpa"] >= row["aim"], row["aim"])
        for row in ours
        if row["aim"]
    ]
    missed = [f"{text} is below {aim:g}" for text, met, aim in aimed if not met]
    missed += [f"{text}, missed" for text, met in checks if not met]
    total = len(aimed) + len(checks)
    words = [f"{_named(longest)}: {longest['over_sdpa']:.3g} x as fast as sdpa"]
    if total:
        words.append(f"{total - len(missed)} of {total} aims are met")
    words += missed + [text for text, met in checks if met]
    subjects = list(dict.fromkeys(row["subject"] for row in ours))
    words += filter(None, (crossover(rows, subject, column) for subject in subjects for column in columns))
    return "; ".join(words), 1 / longest["over_sdpa"]


def _named(row: Row) -> str:
    batch = f", batch {row['batch']}" if row["batch"] > 1 else ""
    return f"{row['subject']}, {row['tokens']} tokens{batch}"
