"""Which trials a run computes: some parts only, those that failed, or all anew. Nothing is judged on fewer records."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import ArgumentError
from holdfast.lab import Claim, Config, Figure, Part, Record, Results, Status, Study, Trial, exact, mean_of
from holdfast.lab.depfile import Depfile
from holdfast.lab.engines import Event, Failed, Finished, LocalEngine, Task
from holdfast.lab.report import Section, render
from holdfast.lab.run import Choice, Job, StudyRun, collect, forecast, run
from holdfast.lab.store import Store
from holdfast.lab.trial import as_outcome

FAILING: set[tuple[str, int]] = set()
"""Parts and seeds of the trials that fail."""

ADDED = 0.0
"""What trials add to their size."""


@pytest.fixture(autouse=True)
def nothing_fails(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(globals(), "ADDED", 0.0)
    FAILING.clear()
    yield
    FAILING.clear()


class Here(LocalEngine):
    """Computes trials in this process, and keeps the tasks that it got."""

    def __init__(self) -> None:
        super().__init__(1)
        self.tasks: list[Task] = []

    def map(self, tasks: Iterable[Task | None]) -> Iterator[Event]:
        for task in tasks:
            assert task is not None
            self.tasks.append(task)
            part, seed = str(task.trial.labels["part"]), task.trial.seeds[0]
            if (part, seed) in FAILING:
                yield Failed(task, "ValueError: no", "a log")
            else:
                yield Finished(task, as_outcome(task.run.load()(task.trial), task.trial), {}, Depfile())

    def computed(self) -> list[tuple[str, int]]:
        return sorted((str(task.trial.labels["part"]), task.trial.seeds[0]) for task in self.tasks)


def trials(config: Config) -> list[Trial[Config]]:
    return [Trial(seed, config) for seed in config.seed_range]


def run_part(trial: Trial[Config]) -> Record:
    return {"size": 1.0 + trial.seeds[0] / 10 + ADDED}


def positive(part: str) -> Any:
    return lambda results: mean_of(results.by_seed("size", part=part), threshold=0.5)


def any_part(results: Results) -> Any:
    return exact(holds={record["size"] for record in results.records} != set(), effect=0.0, n=1, test="some size")


def counted(results: Results) -> Any:
    return exact(holds=len(results.outcomes) == 6 and not results.failures, effect=0.0, n=6, test="trials")


def draw(results: Results, axes: Any) -> Sequence[Record]:
    return results.where(part="growth")


GROWTH = Part(
    "growth",
    trials,
    run_part,
    [Claim("grows", "It grows.", positive("growth")), Claim("any", "Any part.", any_part)],
    [Figure("sizes", "Sizes.", draw)],
    timeout=60,
)
DECAY = Part(
    "decay", trials, run_part, [Claim("decays", "It decays.", positive("decay")), Claim("counted", "All.", counted)]
)
STUDY = Study("toy", "?", {"quick": Config(seeds=3), "laptop": Config(seeds=4)}, parts=[GROWTH, DECAY])
EVERY = [(part, seed) for part in ("decay", "growth") for seed in range(3)]


def job(*only: str, timeout: float | None = None) -> Job:
    return Job.of(STUDY, "quick", only=only or None, timeout=timeout)


def go(store: Path, engine: Here | None = None, *only: str, timeout: float | None = None, **choice: Any) -> StudyRun:
    [result] = run([job(*only, timeout=timeout)], Store(store), engine or Here(), choice=Choice(**choice))
    return result


def reasons(result: StudyRun) -> dict[str, str]:
    return {verdict.claim: verdict.reason for verdict in result.verdicts}


NEEDS = "needs part growth, which --only leaves out"


def test_only_some_parts_are_computed_and_the_others_are_not_judged(tmp_path: Path) -> None:
    engine = Here()
    result = go(tmp_path, engine, "decay")
    assert engine.computed() == EVERY[:3]
    assert reasons(result) == {"grows": NEEDS, "any": NEEDS, "decays": "", "counted": NEEDS}
    assert result.verdicts[0].evidence.left_out == ("growth",)
    assert not result.results.failures
    assert len(result.results.left_out) == 3
    page = render([Section.of(result, "holdfast run toy")])
    assert "3 claims need part growth" in " ".join(re.sub("<[^>]+>", " ", page).split())
    assert "3 trials are left out by --only" in page


def test_what_lies_in_the_store_of_other_parts_is_used(tmp_path: Path) -> None:
    go(tmp_path, None, "growth")
    result = go(tmp_path, engine := Here(), "decay")
    assert engine.computed() == EVERY[:3]
    assert {verdict.status for verdict in result.verdicts} == {Status.SUPPORTED}
    assert not result.results.left_out


def test_a_part_of_which_some_trials_lack_is_not_judged_on_the_others(tmp_path: Path) -> None:
    FAILING.add(("growth", 1))
    go(tmp_path)
    result = go(tmp_path, None, "decay")
    assert reasons(result)["grows"] == NEEDS
    assert len(result.results.left_out) == 1


@pytest.mark.parametrize("only", [("decay",), ("growth", "decay"), ()])
def test_a_report_says_what_the_run_said(tmp_path: Path, only: tuple[str, ...]) -> None:
    result = go(tmp_path, None, *only)
    record = Store(tmp_path).runs()["toy"]
    again = Job.of(STUDY, record.scale, changes=record.overrides, only=record.only)
    [collected] = collect([again], Store(tmp_path))
    assert collected.verdicts == result.verdicts
    assert len(collected.results.left_out) == len(result.results.left_out)
    assert render([Section.of(collected, "x")]) == render([Section.of(result, "x")])


def test_an_unknown_part_is_named() -> None:
    with pytest.raises(ArgumentError, match=r"^only: expected parts of toy \(growth, decay\), got rot"):
        job("rot")


def test_only_what_failed_is_tried_again(tmp_path: Path) -> None:
    FAILING.update([("growth", 0), ("decay", 2)])
    go(tmp_path)
    FAILING.clear()
    result = go(tmp_path, engine := Here(), failed=True)
    assert engine.computed() == [("decay", 2), ("growth", 0)]
    assert result.computed == 2
    assert not result.results.failures
    assert go(tmp_path, engine := Here(), failed=True).computed == 0


def test_what_was_never_tried_is_left_by_failed_and_said(tmp_path: Path) -> None:
    FAILING.add(("growth", 0))
    go(tmp_path, None, "growth")
    FAILING.clear()
    result = go(tmp_path, engine := Here(), failed=True)
    assert engine.computed() == [("growth", 0)]
    assert [failure.attempted for failure in result.results.failures] == [False] * 3
    assert not result.failed
    assert reasons(result)["decays"].startswith("no results for the metric")
    [collected] = collect([job()], Store(tmp_path))
    assert collected.verdicts == result.verdicts


def test_afresh_computes_all_anew_and_replaces_the_old_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = go(tmp_path)
    monkeypatch.setitem(globals(), "ADDED", 1.0)
    after = go(tmp_path, engine := Here(), fresh=True)
    assert engine.computed() == EVERY
    assert after.verdicts[0].evidence.effect == pytest.approx(before.verdicts[0].evidence.effect + 1)
    assert collect([job()], Store(tmp_path))[0].verdicts == after.verdicts


def test_afresh_leaves_the_old_result_where_the_new_one_fails(tmp_path: Path) -> None:
    before = go(tmp_path)
    FAILING.add(("growth", 1))
    after = go(tmp_path, None, fresh=True)
    assert after.verdicts == before.verdicts
    assert [failure.trial.seed for failure in after.failed] == [1]
    assert collect([job()], Store(tmp_path))[0].verdicts == before.verdicts
    FAILING.clear()
    go(tmp_path, engine := Here(), failed=True)
    assert engine.computed() == [("growth", 1)]
    assert not (tmp_path / "failed" / "toy" / engine.tasks[0].key).exists()


def test_afresh_that_is_stopped_loses_nothing(tmp_path: Path) -> None:
    class Stopped(Here):
        def map(self, tasks: Iterable[Task | None]) -> Iterator[Event]:
            yield next(iter(super().map(tasks)))
            raise KeyboardInterrupt

    before = go(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, Stopped(), fresh=True)
    assert collect([job()], Store(tmp_path))[0].verdicts == before.verdicts
    assert go(tmp_path, engine := Here()).computed == 0
    assert not engine.tasks


def test_tasks_know_how_long_and_how_often(tmp_path: Path) -> None:
    go(tmp_path, engine := Here())
    assert {str(task.trial.labels["part"]): (task.timeout, task.retries) for task in engine.tasks} == {
        "growth": (60, 1),
        "decay": (None, 1),
    }
    go(tmp_path, engine := Here(), fresh=True, timeout=2.5, retries=0)
    assert {(task.timeout, task.retries) for task in engine.tasks} == {(2.5, 0)}


def test_a_checkpoint_stays_until_there_is_a_result(tmp_path: Path) -> None:
    store = Store(tmp_path)
    FAILING.add(("growth", 0))
    go(tmp_path, engine := Here())
    folders = {task.key: Path(str(task.checkpoints)) for task in engine.tasks}
    assert all(folder.is_absolute() and not folder.exists() for folder in folders.values())
    [failed] = [task.key for task in engine.tasks if (task.trial.labels["part"], task.trial.seed) == ("growth", 0)]
    folder = folders[failed]
    assert folder == store.checkpoint_folder(failed).absolute()
    folder.mkdir(parents=True)
    go(tmp_path, None)
    assert folder.exists()
    go(tmp_path, None, fresh=True)
    assert not folder.exists()
    folder.mkdir(parents=True)
    FAILING.clear()
    go(tmp_path, None)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"failed": True, "fresh": True}, r"^fresh: expected either this or failed, .* got both"),
        ({"retries": -1}, r"^retries: expected at least 0, got -1"),
    ],
)
def test_contradictions_are_named(choice: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Choice(**choice)


@pytest.mark.parametrize("seconds", [0, float("nan"), float("inf")])
def test_the_timeout_of_a_job_is_checked(seconds: float) -> None:
    with pytest.raises(ArgumentError, match=r"^timeout: expected a positive number of seconds, got "):
        Job.of(STUDY, "quick", timeout=seconds)


def test_the_timeout_of_a_part_is_checked() -> None:
    with pytest.raises(ArgumentError, match=r"^Part\.timeout: expected a positive number of seconds, got -1"):
        replace(GROWTH, timeout=-1)


def test_a_forecast_says_what_the_choice_would_do(tmp_path: Path) -> None:
    FAILING.add(("growth", 1))
    go(tmp_path, None, "growth")

    def told(*only: str, **choice: Any) -> list[str]:
        items = forecast([job(*only)], Store(tmp_path), Choice(**choice))
        return [item.reason or ("reused" if item.stored else "left out") for item in items]

    assert told() == ["reused", "failed last time (ValueError: no)", "reused", *["not computed yet"] * 3]
    assert told("decay") == ["reused", "left out", "reused", *["not computed yet"] * 3]
    assert told(failed=True) == ["reused", "failed last time (ValueError: no)", "reused", *["left out"] * 3]
    anew = "its result is to be computed anew"
    assert told("growth", fresh=True) == [anew, "failed last time (ValueError: no)", anew, *["left out"] * 3]
