"""Latency of the server of action models, beside the same server without a model.

Each client is a control loop: it steps at its rate, and a step that is answered after the next one is due costs that
one. A server without a model, which answers at once, is asked by the same loops in turn: it is what HTTP, JSON, the
clients and the rest of the machine cost.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise

from holdfast.benches.harness.report import Report, Row
from holdfast.benches.registry import Tell

PROCESSOR = "process_cpu_seconds_total"
ROWS, BATCHES = "holdfast_action_batch_rows_sum", "holdfast_action_batch_rows_count"

LONGEST_S = 30.0
"""Seconds that a server is waited for."""


@dataclass(frozen=True)
class Options:
    """Latency of the server of action models, beside the same server without a model."""

    dims: tuple[int, ...] = (128,)
    """Widths of the models, xLSTM[1:0] with random weights."""
    layers: int = 4
    """Of each."""
    heads: int = 4
    """Of each layer."""
    observation: int = 17
    """Numbers of an observation."""
    action: int = 6
    """Dimensions of an action, of 256 bins each."""
    clients: int = 4
    """Control loops at once."""
    hz: float = 100.0
    """Steps a second of each."""
    steps: int = 600
    """Steps that each loop takes with each server, in all."""
    rounds: int = 6
    """Turns that they are taken in."""
    deadline_ms: int = 0
    """After which the fallback is answered; 0: none, so that every latency is the model's."""


TOY = Options(dims=(32,), layers=1, heads=2, clients=2, hz=200.0, steps=10, rounds=2)


@dataclass
class Loop:
    """What a control loop has met.

    Arguments:
        latencies: seconds from each step to its answer.
        skipped: steps that were due before the last one was answered, and not taken.
        fallbacks: answers that were not the model's.
        error: what ended it.
    """

    latencies: list[float] = field(default_factory=list)
    skipped: int = 0
    fallbacks: int = 0
    error: str = ""


def run(options: Options, tell: Tell) -> Report:
    """Let loops step at all servers in turn.

    Arguments:
        options: the settings.
        tell: called with each row.

    Returns:
        The report: milliseconds from a step to its answer as the clients see it, the share of steps that took longer
        than the time between two, and processor time of the server for each step.

    Errors:
        ArgumentError: a number is not positive.
        MissingExtraError: starlette, uvicorn or prometheus-client is not installed.
    """
    from holdfast.errors import ArgumentError, count_of, require

    for module in ("starlette", "uvicorn", "prometheus_client"):
        require(module, "serving")
    for name in ("layers", "heads", "observation", "action", "clients", "steps", "rounds"):
        count_of(name, getattr(options, name), least=1)
    for dim in options.dims:
        count_of("dims", dim, least=1)
    if not 0 < options.hz < math.inf:
        raise ArgumentError("hz", "a positive number", options.hz)
    arms = {"no model": 0, **{f"D{dim}": dim for dim in options.dims}}
    loops: dict[str, list[Loop]] = {name: [] for name in arms}
    used = {name: Counter[str]() for name in arms}
    shares = [len(part) for part in _parts(options.steps, options.rounds)]
    with ExitStack() as stack:
        addresses = {name: stack.enter_context(_server(options, dim)) for name, dim in arms.items()}
        for address in addresses.values():
            _step_all(options, address, min(20, options.steps))  # what is computed for the first time
        for steps in shares:
            for name, address in addresses.items():
                before = _metrics(address)
                loops[name] += _step_all(options, address, steps)
                after = _metrics(address)
                used[name].update({of: after[of] - before[of] for of in after})
    rows = [_row(options, name, loops[name], used[name]) for name in arms]
    for row in rows:
        tell(row)
    failures = [f"{name}: {loop.error}" for name, met in loops.items() for loop in met if loop.error]
    last, floor = rows[-1], rows[0]
    phrase = (
        f"p99 {last['p99_ms']:.1f} ms of {last['arm']} for {options.clients} clients at {options.hz:g} Hz; "
        f"{floor['p99_ms']:.1f} ms without a model"
    )
    return Report(asdict(options), tuple(rows), phrase, last["p50_ms"] / floor["p50_ms"], tuple(failures))


def _row(options: Options, name: str, loops: Sequence[Loop], used: Mapping[str, float]) -> Row:
    latencies = sorted(latency * 1e3 for loop in loops for latency in loop.latencies)
    period = 1e3 / options.hz

    def quantile(share: float) -> float:
        return latencies[min(len(latencies) - 1, math.ceil(share * len(latencies)) - 1)] if latencies else math.nan

    taken = max(1, len(latencies))
    return {
        "arm": name,
        "requests": len(latencies),
        "p50_ms": quantile(0.5),
        "p99_ms": quantile(0.99),
        "max_ms": quantile(1.0),
        "late_share": sum(latency > period for latency in latencies) / taken,
        "fallbacks": sum(loop.fallbacks for loop in loops),
        "skipped": sum(loop.skipped for loop in loops),
        "together": used[ROWS] / max(1.0, used[BATCHES]),
        "cpu_ms": used[PROCESSOR] * 1e3 / taken,
        "load": os.getloadavg()[0],
    }


def _step_all(options: Options, address: str, steps: int) -> list[Loop]:
    """All loops at once, which begin evenly within the time between two steps."""
    loops = [Loop() for _ in range(options.clients)]
    start = time.monotonic() + 0.05
    threads = [
        threading.Thread(
            target=_steps, args=(options, address, steps, start + place / options.clients / options.hz, loop)
        )
        for place, loop in enumerate(loops)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return loops


def _steps(options: Options, address: str, steps: int, start: float, loop: Loop) -> None:
    """One loop."""
    import numpy as np

    from holdfast.errors import HoldfastError
    from holdfast.serving import Client

    observation = np.linspace(-1, 1, options.observation, dtype=np.float32)
    try:
        with Client(address) as client:
            due = start
            for step in range(steps):
                time.sleep(max(0.0, due - time.monotonic()))
                sent = time.perf_counter()
                answer = client.act(observation, 0.1 if step else None)
                loop.latencies.append(time.perf_counter() - sent)
                loop.fallbacks += answer.fallback
                due += 1 / options.hz
                missed = max(0, math.floor((time.monotonic() - due) * options.hz) + 1)
                loop.skipped += missed
                due += missed / options.hz
    except HoldfastError as error:
        loop.error = str(error)


def _parts(steps: int, rounds: int) -> list[range]:
    """As many steps in each round, or one more."""
    bounds = [round(steps * number / rounds) for number in range(rounds + 1)]
    return [range(low, high) for low, high in pairwise(bounds) if high > low]


def _metrics(address: str) -> dict[str, float]:
    """What a server has used, as its metrics say."""
    with urllib.request.urlopen(f"{address}/metrics", timeout=LONGEST_S) as response:
        lines = response.read().decode().splitlines()
    return {words[0]: float(words[1]) for line in lines if (words := line.split())[0] in (PROCESSOR, ROWS, BATCHES)}


@contextmanager
def _server(options: Options, dim: int) -> Iterator[str]:
    """A server, in a process of its own; gives its address."""
    numbers = (dim, options.layers, options.heads, options.observation, options.action, options.deadline_ms)
    command = [sys.executable, "-m", "holdfast.benches.action.served", *map(str, numbers)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()
            try:
                process.wait(LONGEST_S)
            except subprocess.TimeoutExpired:
                process.kill()
