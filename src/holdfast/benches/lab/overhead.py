"""What the lab adds to a trial: trials that do nothing, computed by two workers, then read back.

The peer is the standard library's process pool on the same trials, which stores nothing.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from holdfast.benches.harness.report import Report, Row
from holdfast.benches.harness.timing import Arm, interleaved, on_cpu, ratio
from holdfast.benches.registry import Tell
from holdfast.lab import Config, Study, Trial

WORKERS = 2


@dataclass(frozen=True)
class Options:
    """What the lab adds to a trial, beside the standard library's process pool."""

    trials: int = 500
    """Trials, which do nothing."""
    rounds: int = 3
    """Timed rounds."""


TOY = Options(trials=4, rounds=1)


def trials(config: Config) -> list[Trial[Config]]:
    """One trial a seed."""
    return [Trial(seed, config) for seed in config.seed_range]


def nothing(trial: Trial[Config]) -> dict[str, float]:
    """Return a number."""
    return {"seed_again": float(trial.seeds[0])}


study = Study("nothing", "What does the lab cost?", {"quick": Config()}, trials, nothing, [])


def run(options: Options, tell: Tell) -> Report:
    """Time computing, reading back and the pool in turn.

    Arguments:
        options: the settings.
        tell: called with each row.

    Returns:
        The report; times in milliseconds a trial.

    Errors:
        ArgumentError: no trial or no round is asked for.
    """
    from holdfast.errors import count_of
    from holdfast.lab.engines.local import LocalEngine
    from holdfast.lab.run import Job
    from holdfast.lab.run import run as run_jobs
    from holdfast.lab.store import Store

    count = count_of("trials", options.trials, 1)
    count_of("rounds", options.rounds, 1)
    with tempfile.TemporaryDirectory() as folder:
        stores = iter(Path(folder) / str(number) for number in range(options.rounds))
        used: list[Path] = []

        def lab(store: Path) -> None:
            run_jobs([Job.of(study, "quick", seeds=count)], Store(store), LocalEngine(WORKERS))

        def compute() -> None:
            used.append(next(stores))
            lab(used[-1])

        def pool() -> None:
            with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn")) as executor:
                list(executor.map(nothing, trials(Config(seeds=count))))

        arms = {"pool": Arm(pool), "lab": Arm(compute), "lab, read back": Arm(lambda: lab(used[-1]))}
        milliseconds = interleaved(arms, on_cpu, rounds=options.rounds, warmup=0)
    rows: list[Row] = []
    for name, taken in milliseconds.items():
        to_peer = ratio(taken, milliseconds["pool"])
        rows.append(
            {
                "arm": name,
                "ms_per_trial": statistics.median(taken) / count,
                "to_pool": to_peer.median,
                "low": to_peer.low,
                "high": to_peer.high,
            }
        )
        tell(rows[-1])
    words = f"{rows[1]['ms_per_trial']:.3g} ms a trial, {rows[1]['to_pool']:.2f} x the time of a process pool"
    return Report(asdict(options) | {"workers": WORKERS}, tuple(rows), words, rows[1]["to_pool"])
