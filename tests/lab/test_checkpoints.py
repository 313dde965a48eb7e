"""A killed trial goes on where it was; what other code has kept is discarded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast.lab import progress
from holdfast.lab.engines import Finished, LocalEngine, Progress, Task
from holdfast.lab.locate import FunctionRef, find

LONG = """
import json, os, signal
from pathlib import Path
from holdfast.lab import Config, Study, Trial, progress
FACTOR = 1

def trials(config): return [Trial(s, config) for s in config.seed_range]

def run(trial):
    here = Path(__file__).parent
    data = int((here / "data.txt").read_text())  # read by the first attempt only, were it not for the second
    kept = progress.last_checkpoint()
    state = {"step": 0, "total": 0} if kept is None else json.loads((kept / "state.json").read_text())
    begun = state["step"]
    while state["step"] < 6:
        state = {"step": state["step"] + 1, "total": state["total"] + FACTOR * data}
        folder = here / "new"
        folder.mkdir()
        (folder / "state.json").write_text(json.dumps(state))
        progress.checkpoint(folder)
        if state["step"] == 4 and not (here / "died").exists():
            (here / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return {"total": state["total"], "begun": begun}

study = Study("long", "?", {"quick": Config(seeds=1)}, trials, run)
"""


def compute(folder: Path, retries: int) -> Finished | None:
    study = find(str(folder / "long.py"))
    trial = next(iter(study.trials(study.scales["quick"])))
    where = str(folder / "store" / ".checkpoints" / "0")
    task = Task("0", FunctionRef.of(study.parts[0].run), trial, retries=retries, checkpoints=where)
    [event] = [event for event in LocalEngine(1).map([task]) if not isinstance(event, Progress)]
    return event if isinstance(event, Finished) else None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "long.py").write_text(LONG, encoding="utf-8")
    (tmp_path / "data.txt").write_text("1", encoding="utf-8")
    (tmp_path / "store").mkdir()
    return tmp_path


def record(event: Finished | None) -> dict[str, object]:
    assert event is not None
    return dict(event.outcome.records[0])


@pytest.mark.parametrize("retries", [0, 1])
def test_a_killed_trial_goes_on_where_it_was(folder: Path, retries: int) -> None:
    """Be it the same run that tries it again, or the next one."""
    event = compute(folder, retries)
    if retries == 0:
        assert event is None
        event = compute(folder, retries)
    assert record(event) == {"total": 6, "begun": 4}
    assert event is not None
    assert not any("checkpoints" in name for name in event.depfile.files)
    assert "data.txt" in event.depfile.files


@pytest.mark.parametrize("what", ["code", "data", "damage", "index", "nothing"])
def test_a_checkpoint_of_other_code_or_data_is_discarded(folder: Path, what: str) -> None:
    assert compute(folder, 0) is None
    [kept] = [path for path in (folder / "store" / ".checkpoints" / "0").iterdir() if path.is_dir()]
    begun, total = (4, 6) if what == "nothing" else (0, 6)
    if what == "code":
        (folder / "long.py").write_text(LONG.replace("FACTOR = 1", "FACTOR = 10"), encoding="utf-8")
        total = 60
    if what == "data":
        (folder / "data.txt").write_text("100", encoding="utf-8")
        total = 600
    if what == "damage":
        (kept / "state.json").write_text('{"step": 5, "total": 99}', encoding="utf-8")
    if what == "index":
        index = kept.parent / "kept.json"
        index.write_text(index.read_text(encoding="utf-8").replace('"name": "4"', '"name": "../../data"'))
    assert record(compute(folder, 0)) == {"total": total, "begun": begun}


def test_without_a_store_nothing_is_kept(folder: Path) -> None:
    """As on a node that does not share the driver's disk."""
    os.rmdir(folder / "store")
    (folder / "died").touch()
    study = (folder / "long.py").read_text(encoding="utf-8").replace("folder.mkdir()", "folder.mkdir(exist_ok=True)")
    (folder / "long.py").write_text(study, encoding="utf-8")
    assert record(compute(folder, 0)) == {"total": 6, "begun": 0}
    assert not (folder / "store").exists()


def test_outside_a_worker_nothing_happens(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.touch()
    progress.checkpoint(path)
    assert path.exists()
    assert progress.last_checkpoint() is None
