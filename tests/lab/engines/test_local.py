"""The local engine: every trial ends exactly once, whatever happens to the workers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from holdfast.lab.engines import (
    EngineError,
    Event,
    Failed,
    Finished,
    LocalEngine,
    Progress,
    Task,
    local,
    pool,
    supervise,
)
from holdfast.lab.engines.engine import pack
from holdfast.lab.locate import FunctionRef, load_file
from holdfast.lab.study import Study
from holdfast.lab.trial import Config, Trial
from tests.lab.conftest import TOY, holdfast, with_word, workers_of


def tasks(study: Study[Any], **changes: Any) -> list[Task]:
    config = replace(study.scales["quick"], **changes)
    reference = FunctionRef.of(study.parts[0].run)
    return [Task(str(i), reference, trial) for i, trial in enumerate(study.trials(config))]


def ended(events: Iterator[Event]) -> dict[str, Finished | Failed]:
    found: dict[str, Finished | Failed] = {}
    for event in events:
        if not isinstance(event, Progress):
            assert event.task.key not in found
            found[event.task.key] = event
    return found


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_every_trial_ends_once_and_results_do_not_depend_on_the_workers(toy: Study[Any], workers: int) -> None:
    work = tasks(toy)
    found = ended(LocalEngine(workers).map(work))
    assert set(found) == {task.key for task in work}
    assert all(isinstance(event, Finished) for event in found.values())
    here = {task.key: toy.run(task.trial) for task in work}
    for key, event in found.items():
        assert isinstance(event, Finished)
        assert event.outcome.records[0]["score"] == here[key].records[0]["score"]
        assert list(event.outcome.curves["training"]) == here[key].curves["training"]


def test_workers_have_one_thread_each_and_leave_the_driver_alone(toy: Study[Any]) -> None:
    before = os.environ.get("OMP_NUM_THREADS")
    found = ended(LocalEngine(2).map(tasks(toy, seeds=1)))
    event = found["0"]
    assert isinstance(event, Finished)
    assert event.environment["threads"]["OMP_NUM_THREADS"] == "1"
    assert event.environment["threads"]["MKL_NUM_THREADS"] == "1"
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_an_exception_fails_its_trial_alone_with_traceback_and_log(toy: Study[Any]) -> None:
    found = ended(LocalEngine(2).map(tasks(toy, misbehave="raise")))
    failed = [event for event in found.values() if isinstance(event, Failed)]
    assert len(found) == 10
    [event] = failed
    assert event.reason == "ValueError: the toy raised"
    assert "about to misbehave" in event.log
    assert "Traceback" in event.log


@pytest.mark.parametrize(("how", "cause"), [("die", "SIGKILL"), ("exit", "exit status 7")])
def test_a_trial_that_kills_its_worker_twice_is_failed_and_the_others_go_on(
    toy: Study[Any], how: str, cause: str, ledger: Any
) -> None:
    found = ended(LocalEngine(2).map(tasks(toy, misbehave=how)))
    [event] = [event for event in found.values() if isinstance(event, Failed)]
    assert len(found) == 10
    assert "died 2 times" in event.reason
    assert cause in event.reason
    assert "about to misbehave" in event.log
    assert ledger().count("1 new") == 2


def test_a_trial_whose_worker_dies_once_is_retried(toy: Study[Any], tmp_path: Path, ledger: Any) -> None:
    found = ended(LocalEngine(2).map(tasks(toy, misbehave="die once", scratch=str(tmp_path))))
    assert all(isinstance(event, Finished) for event in found.values())
    assert ledger().count("1 new") == 2


def test_workers_killed_from_outside_are_replaced(toy: Study[Any]) -> None:
    events = LocalEngine(2).map(replace(task, retries=9) for task in tasks(toy, sleep_s=0.2))
    found = {}
    killed = 0
    for event in events:
        if isinstance(event, Progress) and killed < 2 and len(found) >= 5 * killed:
            victims = workers_of()
            victims[killed % len(victims)].send_signal(signal.SIGKILL)
            killed += 1
        elif not isinstance(event, Progress):
            found[event.task.key] = event
    assert killed == 2
    assert len(found) == 10
    assert all(isinstance(event, Finished) for event in found.values())


def test_progress_is_heard(toy: Study[Any]) -> None:
    events = list(LocalEngine(1).map(tasks(toy, seeds=1, sleep_s=0.8)))
    fractions = [event.fraction for event in events if isinstance(event, Progress)]
    assert len(fractions) >= 4
    assert all(0 < fraction <= 1 for fraction in fractions)


def test_tasks_are_taken_only_when_there_is_room(toy: Study[Any]) -> None:
    taken = []

    def source() -> Iterator[Task]:
        for task in tasks(toy, sleep_s=0.05):
            taken.append(task.key)
            yield task

    finished = 0
    for event in LocalEngine(2).map(source()):
        finished += isinstance(event, Finished)
        assert len(taken) <= finished + 3
    assert finished == 10


def test_none_means_ask_again(toy: Study[Any]) -> None:
    def source() -> Iterator[Task | None]:
        for task in tasks(toy, seeds=2):
            yield None
            yield task
        yield None

    assert len(ended(LocalEngine(2).map(source()))) == 4


def test_closing_early_stops_the_workers(toy: Study[Any]) -> None:
    events = LocalEngine(2).map(tasks(toy, sleep_s=5.0))
    assert isinstance(next(events), Progress)
    children = workers_of()
    assert children
    events.close()
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive


def test_a_result_that_is_no_record_is_a_clear_failure(tmp_path: Path) -> None:
    path = tmp_path / "odd.py"
    path.write_text("def run(trial):\n    return object()\n", encoding="utf-8")
    module = load_file(path)
    task = Task("0", FunctionRef.of(module.run), Trial(0, Config()))
    found = ended(LocalEngine(1).map([task]))
    event = found["0"]
    assert isinstance(event, Failed)
    assert "the result of run: expected" in event.reason


def test_a_study_that_stops_loading_fails_its_trials(toy: Study[Any]) -> None:
    missing = FunctionRef("no_such_module", None, "run")
    found = ended(LocalEngine(1).map([Task("0", missing, next(iter(toy.trials(toy.scales["quick"]))))]))
    assert isinstance(found["0"], Failed)
    assert "no_such_module" in found["0"].reason


def test_a_gpu_is_missed_clearly(toy: Study[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    [task, *_] = tasks(toy)
    with pytest.raises(EngineError, match="asks for a GPU"):
        list(LocalEngine(1).map([replace(task, trial=replace(task.trial, gpu=1.0))]))


def test_gpus_are_shared_out(toy: Study[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two GPUs, trials that need half of one: never more than four at a time, two on each."""
    monkeypatch.setattr(local, "_count_gpus", lambda: 2)
    engine = LocalEngine(8)
    half = [replace(task, trial=replace(task.trial, gpu=0.5)) for task in tasks(toy)]
    placed = []
    monkeypatch.setattr(engine._pool, "start", lambda number, parcel, gpu: placed.append(gpu))
    for task in half[:3]:
        assert engine._has_room(0.5)
        engine._start(task, pack(task))
    assert placed == [0, 0, 1]
    assert not engine._has_room(1.0)
    assert engine._has_room(0.5)
    engine._start(half[3], pack(half[3]))
    assert placed == [0, 0, 1, 1]
    assert not engine._has_room(0.5)
    engine._close()


def test_workers_die_with_their_driver(tmp_path: Path) -> None:
    driver = holdfast("run", TOY, "--store", tmp_path / "s", "--config.sleep-s", "30", cwd=tmp_path)
    deadline = time.monotonic() + 30
    while len(workers_of(driver.pid)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    children = workers_of(driver.pid)
    driver.kill()
    driver.communicate()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert len(children) >= 2
    assert not alive


def test_a_worker_computes_trials_of_one_part_only(tmp_path: Path) -> None:
    path = tmp_path / "parts.py"
    path.write_text("import os\ndef run(trial):\n    return {'pid': os.getpid()}\n", encoding="utf-8")
    reference = FunctionRef.of(load_file(path).run)
    work = [Task(f"{part}{i}", reference, Trial(i, Config()), part) for part in "abc" for i in range(3)]
    processes: dict[str, set[Any]] = {}
    for event in ended(LocalEngine(1).map(work)).values():
        assert isinstance(event, Finished)
        processes.setdefault(event.task.part, set()).add(event.outcome.records[0]["pid"])
    assert [len(pids) for pids in processes.values()] == [1, 1, 1]
    assert len(set.union(*processes.values())) == 3


def test_a_trial_that_misses_a_name_is_computed_with_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "hidden.py"
    path.write_text(
        "import sys\nfrom holdfast.lab import Claim\n"
        "def one(): return 1\n"
        "def run(trial): return {'x': getattr(sys.modules[__name__], 'o' + 'ne')()}\n"
        "CLAIMS = [Claim('a', 'text', one)]\n",
        encoding="utf-8",
    )
    reference = FunctionRef.of(load_file(path).run)
    found = ended(LocalEngine(1).map([Task(str(i), reference, Trial(i, Config())) for i in range(3)]))
    assert len(found) == 3
    for event in found.values():
        assert isinstance(event, Finished)
        assert event.outcome.records == ({"x": 1},)
        assert event.depfile.whole == ("",)


def test_a_start_that_fails_is_tried_again_like_a_trial(toy: Study[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Be it that no process can be made, or that it dies as it starts."""
    start, starts = pool.Supervised, []

    def sometimes(body: str) -> pool.Supervised:
        starts.append(body)
        if len(starts) == 1:
            raise OSError("no more processes")
        return start("os:_exit" if len(starts) == 2 else body)

    monkeypatch.setattr(pool, "Supervised", sometimes)
    found = ended(LocalEngine(2).map(tasks(toy, seeds=2)))
    assert len(starts) >= 3  # two that failed, and one that may compute all
    assert len(found) == 4
    assert all(isinstance(event, Finished) for event in found.values())


def test_workers_that_never_start_are_one_clear_error(toy: Study[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "BODY", "os:abort")
    with pytest.raises(EngineError, match="workers cannot start"):
        list(LocalEngine(2).map(tasks(toy)))
    assert not workers_of()


def test_a_trial_that_cannot_be_pickled_fails_alone(toy: Study[Any]) -> None:
    @dataclass(frozen=True)
    class Local(Config):
        """Nobody else can find it."""

    good, other, *_ = tasks(toy)
    found = ended(LocalEngine(1).map([good, replace(other, trial=Trial(0, Local()))]))
    assert isinstance(found["0"], Finished)
    failed = found["1"]
    assert isinstance(failed, Failed)
    assert "cannot be pickled" in failed.reason


def test_a_supervisor_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    """Not the process, and not what that has started."""
    path = tmp_path / "parent.py"
    path.write_text(
        "import subprocess, time\n"
        "from holdfast.lab.progress import report\n"
        "def run(trial):\n"
        "    subprocess.Popen(['sleep', '7654322'])\n"
        "    report(0.5)\n"
        "    time.sleep(600)\n",
        encoding="utf-8",
    )
    task = Task("0", FunctionRef.of(load_file(path).run), Trial(0, Config()), retries=0)
    for event in LocalEngine(1).map([task]):
        if isinstance(event, Progress):
            supervisors = [process for process in workers_of() if process.ppid() == os.getpid()]
            assert len(supervisors) == 1
            supervisors[0].kill()
        else:
            assert isinstance(event, Failed)
            assert "its worker died (SIGKILL" in event.reason
    assert not psutil.wait_procs(with_word("7654322"), timeout=10)[1]
    assert not workers_of()


def test_a_log_is_of_its_own_trial_and_does_not_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "_LOG_MOST", 1 << 20)
    path = tmp_path / "talks.py"
    path.write_text(
        "import os, time\n"
        "def run(trial):\n"
        "    for i in range(40 if trial.seed == 1 else 1):\n"
        "        print('x' * 100_000, flush=True)\n"
        "        time.sleep(0.05 if trial.seed == 1 else 0)\n"
        "    size = os.fstat(1).st_size\n"
        "    print('the end of', trial.seed)\n"
        "    raise ValueError(size)\n",
        encoding="utf-8",
    )
    reference = FunctionRef.of(load_file(path).run)
    found = ended(LocalEngine(1).map(Task(str(i), reference, Trial(i, Config())) for i in range(3)))
    for key, event in found.items():
        assert isinstance(event, Failed)
        assert f"the end of {key}" in event.log
        assert "\0" not in event.log
    assert found["2"].reason == "ValueError: 100001"  # type: ignore[union-attr]
    assert int(found["1"].reason.partition(": ")[2]) < 3_900_000  # type: ignore[union-attr]
