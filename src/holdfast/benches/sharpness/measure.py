"""From cases of attention to the rows of a report."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch

from holdfast.benches.harness.report import Row
from holdfast.benches.harness.timing import Arm, interleaved, on_cpu, on_gpu, peak_on_cpu, peak_on_gpu, ratio
from holdfast.benches.registry import Tell
from holdfast.benches.sharpness.arms import Case, Comparison, Kernels, compare, kernels
from holdfast.nn import Plain, adaptive_attention

COMPILED_KEYS = 2048
"""Keys of the calls that compile ahead: past the length from which the kernel has its sizes for long inputs."""


@dataclass(frozen=True)
class Plan:
    """How cases are measured.

    Arguments:
        device: `"cpu"` or `"cuda"`.
        ours: what computes our arms.
        rounds: timed rounds.
        budget_s: seconds for the rounds of one case.
        eager_up_to: keys up to which the arm `eager` is timed, where ours is the kernel.
    """

    device: str
    ours: Kernels
    rounds: int
    budget_s: float
    eager_up_to: int

    @property
    def gpu(self) -> bool:
        """Whether times are those of CUDA events."""
        return self.device == "cuda"

    def milliseconds(self, arms: Mapping[str, Arm]) -> dict[str, list[float]]:
        """Times of each arm by round."""
        return interleaved(arms, on_gpu if self.gpu else on_cpu, rounds=self.rounds, budget_s=self.budget_s)


def measure(cases: Sequence[Case], plan: Plan, tell: Tell) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """Check and time all cases, the first ones first.

    Arguments:
        cases: the calls.
        plan: how.
        tell: called with each row.

    Returns:
        The rows, and what went wrong: such a case or arm has no time.
    """
    rows: list[Row] = []
    failures: list[str] = []
    if plan.gpu and plan.ours == "triton":
        compile_ahead(cases)
    compared: list[tuple[Case, Comparison]] = []
    for case in cases:
        try:
            eager = plan.ours == "triton" and case.keys <= plan.eager_up_to
            comparison = compare(case, plan.device, plan.ours, eager=eager)
            failures += [f"{_name(case)}: {arm}: {why}" for arm, why in comparison.wrong.items()]
            for row in _rows(case, comparison, plan):
                tell(row)
                rows.append(row)
            if plan.gpu and case.queries == 1:
                compared.append((case, comparison))
        except Exception as error:
            failures.append(f"{_name(case)}: {type(error).__name__}: {error}".splitlines()[0])
    for case, comparison in compared:  # last: a capture that fails can leave the device unusable
        try:
            for row in _graph_rows(case, comparison, plan):
                tell(row)
                rows.append(row)
        except Exception as error:
            failures.append(f"{_name(case)}: as a graph: {type(error).__name__}: {error}".splitlines()[0])
    return tuple(rows), tuple(failures)


def _name(case: Case) -> str:
    return f"{case.dtype}, {case.head_dim} dimensions, {case.keys} keys{', causal' if case.causal else ''}"


def headline(cases: Sequence[Case], rows: Sequence[Row]) -> tuple[str, float | None]:
    """The first case in which our law was timed, in words, and its ratio to the peer; as a graph where there is one."""
    timed = [row for row in rows if row["arm"] == "adaptive"]
    for case in cases:
        same = [row for row in timed if (row["dtype"], row["head_dim"], row["keys"], row["causal"]) == _key(case)]
        if same:
            ways = [row["peer"] + (", graph" if row["launch"] == "graph" else "") for row in same]
            ratios = [f"{row['to_sdpa']:.3g} x the time of sdpa ({way})" for row, way in zip(same, ways, strict=True)]
            words = f"{_name(case)}: {', '.join(ratios)}"
            if same[0]["to_eager"] is not None:
                words += f", {same[0]['to_eager']:.3g} x that of eager"
            return words, same[-1]["to_sdpa"]
    return "no time was measured", None


def _key(case: Case) -> tuple[str, int, int, bool]:
    return case.dtype, case.head_dim, case.keys, case.causal


def compile_ahead(cases: Sequence[Case]) -> None:
    """Compile the kernels of all cases at once, each in a process of its own, into Triton's cache on disk.

    In turn they take minutes. What fails here fails again, and is reported, where it is checked.
    """
    kinds = [replace(case, batch=1, keys=COMPILED_KEYS, queries=min(case.queries, COMPILED_KEYS)) for case in cases]
    calls = [(case, adaptive) for case in dict.fromkeys(kinds) for adaptive in (True, False)]
    if len(calls) <= 2:
        return
    workers = min(len(calls), max(1, (os.cpu_count() or 1) // 2))
    with contextlib.suppress(Exception):
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as executor:
            list(executor.map(_compile, *zip(*calls, strict=True)))


def _compile(case: Case, adaptive: bool) -> None:
    query, key, value = case.tensors("cuda")
    with contextlib.suppress(Exception), kernels("triton"), torch.no_grad():
        adaptive_attention(query, key, value, causal=case.causal, normaliser=None if adaptive else Plain())


def _rows(case: Case, comparison: Comparison, plan: Plan) -> list[Row]:
    arms = comparison.arms
    with torch.no_grad():
        peaks = {name: peak_on_gpu(arm) if plan.gpu else peak_on_cpu(arm) for name, arm in arms.items()}
        milliseconds = plan.milliseconds(arms)
    return [
        {
            **_row(case, name, comparison, milliseconds),
            "peak_mib": None if peaks[name] is None else round((peaks[name] or 0) / 2**20, 2),
            "error": comparison.errors.get(name),
        }
        for name in arms
    ]


def _graph_rows(case: Case, comparison: Comparison, plan: Plan) -> list[Row]:
    """The same calls captured as CUDA graphs, which shows the time without the gaps between launches."""
    replays: dict[str, Arm] = {}
    with torch.no_grad():
        for name, arm in comparison.arms.items():
            if name == "eager":  # it waits for the host, which cannot be captured
                continue
            graph = torch.cuda.CUDAGraph()
            with arm.setting(), torch.cuda.graph(graph):
                arm.call()
            replays[name] = Arm(graph.replay)
        milliseconds = plan.milliseconds(replays)
    return [_row(case, name, comparison, milliseconds) | {"launch": "graph"} for name in replays]


def _row(case: Case, arm: str, comparison: Comparison, milliseconds: Mapping[str, list[float]]) -> dict[str, Any]:
    own = milliseconds[arm]
    to_peer = ratio(own, milliseconds["sdpa"])
    return {
        "dtype": case.dtype,
        "head_dim": case.head_dim,
        "keys": case.keys,
        "causal": case.causal,
        "launch": "host",
        "peer": comparison.peer,
        "arm": arm,
        "ms": statistics.median(own),
        "to_sdpa": to_peer.median,
        "low": to_peer.low,
        "high": to_peer.high,
        **{
            f"to_{other}": ratio(own, milliseconds[other]).median if other in milliseconds else None
            for other in ("off", "eager")
        },
        "rounds": len(own),
    }
