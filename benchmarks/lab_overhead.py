"""What the lab adds to a trial: 500 trials that do nothing, computed by two workers, then read back.

    python benchmarks/lab_overhead.py [--trials 500]

The peer is the standard library's process pool on the same trials, which stores nothing.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from holdfast.lab import Config, Study, Trial
from holdfast.lab.engines import LocalEngine
from holdfast.lab.environment import environment
from holdfast.lab.run import Job, run
from holdfast.lab.store import Store

WORKERS = 2


def trials(config: Config) -> list[Trial[Config]]:
    return [Trial(seed, config) for seed in config.seed_range]


def nothing(trial: Trial[Config]) -> dict[str, float]:
    return {"seed_again": float(trial.seeds[0])}


study = Study("nothing", "What does the lab cost?", {"quick": Config()}, trials, nothing, [])


def lab(count: int, store: Path) -> float:
    started = time.perf_counter()
    run([Job.of(study, "quick", seeds=count)], Store(store), LocalEngine(WORKERS))
    return time.perf_counter() - started


def pool(count: int) -> float:
    started = time.perf_counter()
    with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn")) as executor:
        list(executor.map(nothing, trials(Config(seeds=count))))
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    computed, reread, peer = [], [], []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            computed.append(lab(options.trials, Path(folder)))
            reread.append(lab(options.trials, Path(folder)))
        peer.append(pool(options.trials))
    milliseconds = {
        "lab_ms_per_trial": statistics.median(computed) / options.trials * 1e3,
        "lab_reread_ms_per_trial": statistics.median(reread) / options.trials * 1e3,
        "process_pool_ms_per_trial": statistics.median(peer) / options.trials * 1e3,
    }
    print(json.dumps({"trials": options.trials, "workers": WORKERS, **milliseconds, "environment": environment()}))


if __name__ == "__main__":
    main()
