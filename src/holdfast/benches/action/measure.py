"""From arms to the rows of a report, and from these to what they say."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from holdfast.benches.action.subjects import Case, Subject
from holdfast.benches.harness.report import Row
from holdfast.benches.harness.timing import Arm, Clock, interleaved, on_gpu, peak_on_cpu, peak_on_gpu, ratio
from holdfast.benches.rat.measure import processor_time
from holdfast.benches.rat.peers import graphed
from holdfast.benches.registry import Tell

Key = tuple[str, int]
"""Name of an arm and number of timesteps or tokens."""

NOT_AS_GRAPH = ("nxai",)
"""Arms that allocate as they go, which a CUDA graph cannot hold."""


@dataclass(frozen=True)
class Plan:
    """How arms are timed.

    Arguments:
        rounds: that are timed, at most.
        budget_s: seconds after which no further round of a subject begins, once there are three.
        reference: name of the arm that the others are divided by, at its greatest length.
        unit: what lengths are numbers of.
        graphs: whether a GPU is to time CUDA graphs too.
    """

    rounds: int
    budget_s: float
    reference: str
    unit: str
    graphs: bool = False


def measure(
    cases: Sequence[tuple[Case, str, Callable[[], Subject]]], plan: Plan, tell: Tell
) -> tuple[tuple[Row, ...], tuple[str, ...], tuple[str, ...]]:
    """Make and time all subjects.

    Arguments:
        cases: each with a name of its subject and what makes it.
        plan: how.
        tell: called with each row.

    Returns:
        The rows; what went wrong; and what was left out, which is no failure.
    """
    rows: list[Row] = []
    failures: list[str] = []
    left_out: list[str] = []
    for case, name, make in cases:
        title = f"{name}, {case.size}, batch {case.batch}"
        try:
            subject = make()
            failures += [f"{title}: {text}" for text in subject.wrong]
            left_out += [f"{title}: {text}" for text in subject.left_out]
            for launch in ("host", "graph") if plan.graphs and case.device == "cuda" else ("host",):
                arms = subject.arms
                if launch == "graph":
                    arms, refused = _graphs(arms)
                    left_out += [f"{title}: {text}" for text in refused]
                for row in _rows(case, name, subject, arms, plan, launch):
                    tell(row)
                    rows.append(row)
        except Exception as error:
            failures.append(f"{title}: {type(error).__name__}: {error}".splitlines()[0])
    return tuple(rows), tuple(failures), tuple(left_out)


def _graphs(arms: Mapping[Key, Arm]) -> tuple[dict[Key, Arm], list[str]]:
    """Arms as CUDA graphs, and why others are none: what waits for the GPU cannot be one."""
    graphs, refused = {}, []
    for key, arm in arms.items():
        try:
            if key[0] not in NOT_AS_GRAPH:
                graphs[key] = graphed(arm)
        except Exception as error:
            refused.append(f"{key[0]}, as CUDA graph: {type(error).__name__}: {error}".splitlines()[0])
    return graphs, list(dict.fromkeys(refused))


def _rows(case: Case, name: str, subject: Subject, arms: Mapping[Key, Arm], plan: Plan, launch: str) -> list[Row]:
    """One for each arm; none without one of the reference."""
    gpu = case.device == "cuda"
    if not any(arm == plan.reference for arm, _ in arms):
        return []
    peaks = {key: (peak_on_gpu if gpu else peak_on_cpu)(arm) for key, arm in arms.items()}
    clock: Clock = on_gpu if gpu else processor_time
    by_word: dict[str, Arm] = {f"{arm} {length}": call for (arm, length), call in arms.items()}
    times = interleaved(by_word, clock, rounds=plan.rounds, budget_s=plan.budget_s, shuffled=True)
    longest = max(length for arm, length in arms if arm == plan.reference)
    reference = times[f"{plan.reference} {longest}"]
    rows: list[Row] = []
    for key in arms:
        arm, length = key
        taken = times[f"{arm} {length}"]
        to_ours, peak, kept = ratio(taken, reference), peaks[key], subject.kept.get(key)
        rows.append(
            {
                "subject": name,
                "size": case.size,
                "batch": case.batch,
                plan.unit: length or None,
                "arm": arm,
                "launch": launch,
                "ms": statistics.median(taken),
                "slowest_ms": max(taken),
                f"to_{plan.reference}": to_ours.median,
                "low": to_ours.low,
                "high": to_ours.high,
                "state_mib": None if kept is None else round(kept / 2**20, 3),
                "peak_mib": None if peak is None else round(peak / 2**20, 2),
                "rounds": len(taken),
            }
        )
    return rows


def of(rows: Sequence[Row], **wanted: object) -> list[Row]:
    """The rows with these values."""
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def groups(rows: Sequence[Row], *names: str) -> list[list[Row]]:
    """Rows that are alike in some columns, in their order."""
    keys = dict.fromkeys(tuple(row[name] for name in names) for row in rows)
    return [of(rows, **dict(zip(names, key, strict=True))) for key in keys]
