"""What a trial does to its process reaches no other trial, and nothing is left of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from holdfast.lab.engines import Event, Failed, Finished, LocalEngine, Progress, Task
from holdfast.lab.locate import FunctionRef, find
from tests.lab.conftest import with_word, workers_of

MISCHIEF = Path(__file__).parent / "mischief.py"

FAILURES = {
    "close all": "its worker died 2 times (exit status 1)",
    "own group": "its worker died 2 times (SIGKILL, perhaps out of memory)",
    "raise from itself": "ZeroDivisionError: again",
    "exit": "SystemExit: 0",
    "exit at once": "its worker died 2 times (exit status 5)",
    "orphan": "its worker died 2 times (exit status 4)",
    "interrupt": "its worker died 2 times (SIGTERM)",
    "hang": "it took longer than 5 s and was stopped",
    "raise": "Unspeakable: its text raised ValueError",
}
"""Deeds without a result; all others have one."""


def tasks() -> list[Task]:
    study = find(str(MISCHIEF))
    reference = FunctionRef.of(study.parts[0].run)
    return [
        Task(str(i), reference, trial, timeout=5.0 if trial.labels["deed"] == "hang" else None)
        for i, trial in enumerate(study.trials(study.scales["quick"]))
    ]


def ends(events: Iterator[Event]) -> dict[str, Finished | Failed]:
    return {event.task.key: event for event in events if not isinstance(event, Progress)}


def test_mischief_reaches_no_other_trial() -> None:
    """With one worker as with ten, which takes so long that one test looks at all of it."""
    found = {workers: ends(LocalEngine(workers).map(tasks())) for workers in (1, 10)}
    each_fails_or_has_a_result_by_itself(found)
    no_trial_can_tell_which_were_before_it(found)
    assert not workers_of()
    assert not psutil.wait_procs(with_word("7654321"), timeout=10)[1]


def each_fails_or_has_a_result_by_itself(found: dict[int, dict[str, Finished | Failed]]) -> None:
    for by_key in found.values():
        assert set(by_key) == {task.key for task in tasks()}
        for event in by_key.values():
            deed, misbehaves = event.task.trial.labels["deed"], event.task.trial.labels["misbehaves"]
            if misbehaves and deed in FAILURES:
                assert isinstance(event, Failed), deed
                assert event.reason == FAILURES[str(deed)]
                assert f"about to: {deed}" in event.log
            else:
                assert isinstance(event, Finished), (deed, event)


def no_trial_can_tell_which_were_before_it(found: dict[int, dict[str, Finished | Failed]]) -> None:
    by_seed: dict[Any, set[Any]] = {}
    for by_key in found.values():
        for event in by_key.values():
            if isinstance(event, Finished):
                [record] = event.outcome.records
                by_seed.setdefault(event.task.trial.labels["libraries"], set()).add(tuple(record.items()))
    assert [len(seen) for seen in by_seed.values()] == [1, 1]
    seen = dict(next(iter(by_seed[True])))
    assert seen["folder"] == os.getcwd()
    assert seen["errors"] == 0
    assert seen["tiny"] > 0
    assert seen["settings"] == "(torch.float32, True, False, 1, False, False, True)"


KEPT = """
import os
from holdfast.lab import Config, Study, Trial
def trials(config): return [Trial(s, config) for s in config.seed_range]
def run(trial):
    import kept_helper
    return {"pid": os.getpid(), "drawn": kept_helper.draw(), "state": str(kept_helper.numpy.geterr())}
study = Study("kept", "?", {"quick": Config(seeds=3)}, trials, run)
"""


def test_a_trial_that_does_nothing_odd_keeps_its_worker(tmp_path: Path) -> None:
    """Though its first one imports a file of the project, and that libraries with settings and random states.

    A module of one of them, which loads by itself, changes how the process warns.
    """
    (tmp_path / "kept_helper.py").write_text(
        "import numpy, scipy, scipy.sparse\ndef draw(): return numpy.random.random()\n", encoding="utf-8"
    )
    (tmp_path / "kept.py").write_text(KEPT, encoding="utf-8")
    study = find(str(tmp_path / "kept.py"))
    reference = FunctionRef.of(study.parts[0].run)
    work = [Task(str(i), reference, trial) for i, trial in enumerate(study.trials(study.scales["quick"]))]
    records = []
    for event in ends(LocalEngine(1).map(work)).values():
        assert isinstance(event, Finished)
        records += event.outcome.records
    assert [len({record[name] for record in records}) for name in ("pid", "drawn", "state")] == [1, 3, 1]


DIRTY = """
import random
VALUE = random.random()
"""

LAZY = """
from holdfast.lab import Config, Study, Trial
def trials(config): return [Trial(s, config) for s in config.seed_range]
def run(trial):
    import dirty
    return {"v": dirty.VALUE}
study = Study("lazy", "?", {"quick": Config(seeds=4)}, trials, run)
"""


def test_what_a_file_does_as_a_trial_imports_it_is_done_for_each_trial(tmp_path: Path) -> None:
    """It draws at random while it is imported: with one worker as with many, from the seed of the trial."""
    (tmp_path / "dirty.py").write_text(DIRTY, encoding="utf-8")
    (tmp_path / "lazy.py").write_text(LAZY, encoding="utf-8")
    study = find(str(tmp_path / "lazy.py"))
    reference = FunctionRef.of(study.parts[0].run)
    work = [Task(str(i), reference, trial) for i, trial in enumerate(study.trials(study.scales["quick"]))]
    values = []
    for workers in (1, 4):
        by_key = ends(LocalEngine(workers).map(work))
        assert all(isinstance(event, Finished) for event in by_key.values())
        values.append({key: event.outcome.records[0]["v"] for key, event in by_key.items()})  # type: ignore[union-attr]
    assert values[0] == values[1]
    assert len(set(values[0].values())) == 4
