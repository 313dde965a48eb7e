"""A study for the tests of the lab: small, quick, and able to misbehave on request.

Each trial that begins writes a line to the file named by TOY_LEDGER, so that a test can see what was computed.
"""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from holdfast.lab import Claim, Config, Figure, Outcome, Study, Trial, paired_difference
from holdfast.lab.progress import report


@dataclass(frozen=True)
class Toy(Config):
    """How the toy behaves.

    Arguments:
        sleep_s: how long a trial takes.
        misbehave: what the trial with seed 1 of arm "new" does.
        scratch: folder where a trial remembers that it has misbehaved once.
    """

    sleep_s: float = 0.0
    misbehave: str = ""
    scratch: str = ""


def trials(config: Toy) -> list[Trial[Toy]]:
    return [Trial(seed, config, {"arm": arm}) for seed in config.seed_range for arm in ("old", "new")]


def run(trial: Trial[Toy]) -> Outcome:
    config, arm = trial.config, trial.labels["arm"]
    ledger = os.environ.get("TOY_LEDGER")
    if ledger:
        with open(ledger, "a", encoding="utf-8") as file:
            file.write(f"{trial.seed} {arm} {os.getpid()}\n")
    if config.misbehave and trial.seed == 1 and arm == "new":
        misbehave(config)
    for i in range(4):
        time.sleep(config.sleep_s / 4)
        report((i + 1) / 4, score=float(i))
    rng = random.Random(f"{trial.seed} {arm}")
    score = rng.gauss(1.0 if arm == "new" else 0.0, 0.2)
    curve = [{"step": step, "loss": rng.random()} for step in range(5)]
    return Outcome([{"score": score, "odd": float("nan")}], {"training": curve})


def misbehave(config: Toy) -> None:
    print("about to misbehave", flush=True)
    if config.misbehave == "raise":
        raise ValueError("the toy raised")
    if config.misbehave == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if config.misbehave == "die once":
        mark = Path(config.scratch) / "died"
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    if config.misbehave == "exit":
        os._exit(7)


def draw(results, axes):
    rows = results.curve("training", arm="new", seed=0)
    axes.plot([row["step"] for row in rows], [row["loss"] for row in rows])
    return rows


study = Study(
    name="toy",
    question="Is new better than old?",
    scales={"quick": Toy(), "laptop": Toy(seeds=8)},
    trials=trials,
    run=run,
    claims=[
        Claim(
            "better",
            "new scores more than old",
            lambda results: paired_difference(results.by_seed("score", arm="new"), results.by_seed("score", arm="old")),
        )
    ],
    figures=[Figure("training", "Loss of seed 0.", draw)],
)
