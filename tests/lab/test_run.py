"""A run computes what is missing, once, whatever kills it and whoever else runs beside it."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from holdfast.cli.reproduce import command_of
from holdfast.errors import ArgumentError
from holdfast.lab import Claim, Config, Status, Study, Trial, exact, mean_of
from holdfast.lab.engines import LocalEngine
from holdfast.lab.locate import find
from holdfast.lab.run import Job, collect, forecast, run
from holdfast.lab.store import Store, StoreWarning
from tests.lab.conftest import TOY, Command, changed, holdfast, workers_of

Ledger = Callable[[], list[str]]

ALL = {f"{seed} {arm}" for seed in range(5) for arm in ("old", "new")}


def test_results_verdicts_and_environment(toy: Study[Any], tmp_path: Path) -> None:
    [result] = run([Job.of(toy, "quick")], Store(tmp_path), LocalEngine(2))
    assert result.computed == 10
    assert not result.results.failures
    [verdict] = result.verdicts
    assert verdict.status is Status.SUPPORTED
    assert verdict.evidence.n == 5
    [environment] = result.environments
    assert {"python", "platform", "cpu", "cores", "packages", "threads", "gpu", "commit"} <= set(environment)
    assert command_of(result.job) in (
        f"holdfast run {TOY} --scale quick",
        "holdfast run tests/lab/toy_study.py --scale quick",
    )


def test_a_second_run_computes_nothing_and_gives_the_same(toy: Study[Any], tmp_path: Path, ledger: Ledger) -> None:
    jobs = [Job.of(toy, "quick")]
    [first] = run(jobs, Store(tmp_path), LocalEngine(2))
    [second] = run(jobs, Store(tmp_path), LocalEngine(2))
    assert (first.computed, second.computed) == (10, 0)
    assert len(ledger()) == 10
    assert [v.evidence for v in first.verdicts] == [v.evidence for v in second.verdicts]
    assert collect(jobs, Store(tmp_path))[0].verdicts == second.verdicts


def test_more_seeds_compute_only_the_new_ones(toy: Study[Any], tmp_path: Path, ledger: Ledger) -> None:
    run([Job.of(toy, "quick", seeds=2)], Store(tmp_path), LocalEngine(2))
    [wider] = run([Job.of(toy, "quick", seeds=4)], Store(tmp_path), LocalEngine(2))
    assert wider.computed == 4
    assert max(Counter(ledger()).values()) == 1


def test_two_scales_share_the_trials_they_have_in_common(toy: Study[Any], tmp_path: Path, ledger: Ledger) -> None:
    runs = run([Job.of(toy, "quick"), Job.of(toy, "laptop")], Store(tmp_path), LocalEngine(2))
    assert [len(item.results.outcomes) for item in runs] == [10, 16]
    assert max(Counter(ledger()).values()) == 1


def test_a_changed_setting_is_another_trial(toy: Study[Any], tmp_path: Path) -> None:
    run([Job.of(toy, "quick", seeds=1)], Store(tmp_path), LocalEngine(1))
    [other] = run([Job.of(toy, "quick", seeds=1, changes={"sleep_s": 0.001})], Store(tmp_path), LocalEngine(1))
    assert other.computed == 2
    assert other.job.overrides == {"seeds": 1, "sleep_s": 0.001}


def test_a_failed_trial_is_reported_and_the_rest_judged(toy: Study[Any], tmp_path: Path, ledger: Ledger) -> None:
    job = Job.of(toy, "quick", changes={"misbehave": "raise"})
    [result] = run([job], Store(tmp_path), LocalEngine(2))
    [failure] = result.results.failures
    assert failure.reason == "ValueError: the toy raised"
    assert "about to misbehave" in failure.log
    assert result.verdicts[0].status is Status.INCONCLUSIVE
    assert result.verdicts[0].reason == "no result for seed 1 (ValueError: the toy raised)"
    # A later run tries the failed trial again, and only that.
    run([job], Store(tmp_path), LocalEngine(2))
    assert Counter(ledger())["1 new"] == 2
    assert len(ledger()) == 11
    assert collect([job], Store(tmp_path))[0].results.failures[0].reason == failure.reason


def test_a_claim_that_does_not_ask_what_failed_decides_nothing(toy: Study[Any], tmp_path: Path) -> None:
    """It counts the rows that are there: with those of the failed trial it could come out otherwise."""

    def blind(results: Any) -> Any:
        return exact(holds=False, effect=len(results.where(arm="new")), n=1, test="count")

    def peeking(results: Any) -> Any:
        return mean_of({trial.seed: outcome.records[0]["score"] for trial, outcome in results.outcomes}, threshold=9)

    def knowing(results: Any) -> Any:
        count = len(results.where(arm="new"))
        return exact(holds=count > 9, effect=count, n=1, test="count", failed=results.failed(arm="new"))

    def elsewhere(results: Any) -> Any:
        return exact(holds=len(results.where(arm="old")) == 5, effect=0, n=1, test="count")

    claims = [Claim(test.__name__, "x", test) for test in (blind, peeking, knowing, elsewhere)]
    job = Job.of(changed(toy, claims=claims), "quick", changes={"misbehave": "raise"})
    [result] = run([job], Store(tmp_path), LocalEngine(2))
    assert [verdict.status for verdict in result.verdicts] == [
        Status.INCONCLUSIVE,
        Status.INCONCLUSIVE,
        Status.CONTRADICTED,
        Status.SUPPORTED,
    ]
    for verdict in result.verdicts[:2]:
        assert "no result for seed 1 (ValueError: the toy raised)" in verdict.reason


def test_no_claim_can_change_what_the_next_one_sees(toy: Study[Any], tmp_path: Path) -> None:
    def greedy(results: Any) -> Any:
        for _, outcome in results.outcomes:
            outcome.records[0]["score"] *= -1

    claims = [Claim("greedy", "x", greedy), *toy.claims]
    with pytest.warns(RuntimeWarning, match="greedy"):
        [result] = run([Job.of(changed(toy, claims=claims), "quick")], Store(tmp_path), LocalEngine(2))
    assert [verdict.status for verdict in result.verdicts] == [Status.INCONCLUSIVE, Status.SUPPORTED]


def test_a_damaged_result_is_computed_again(toy: Study[Any], tmp_path: Path) -> None:
    job = Job.of(toy, "quick")
    [before] = run([job], Store(tmp_path), LocalEngine(2))
    victim = sorted((tmp_path / "toy").iterdir())[3]
    (victim / "metrics.json").write_text('{"records": [{"score": 99.0}]}', encoding="utf-8")
    with pytest.warns(StoreWarning, match="metrics.json differs"):
        [after] = run([job], Store(tmp_path), LocalEngine(2))
    assert after.computed == 1
    assert after.verdicts == before.verdicts
    assert (tmp_path / "set-aside").exists()


def test_a_claim_whose_test_breaks_is_inconclusive_and_harms_no_other(toy: Study[Any], tmp_path: Path) -> None:
    def broken(results: Any) -> Any:
        raise KeyError("oops")

    claims = [*toy.claims, Claim("broken", "x", broken), Claim("odd", "y", lambda results: 3)]  # type: ignore
    with pytest.warns(RuntimeWarning, match="broken"):
        [result] = run([Job.of(changed(toy, claims=claims), "quick")], Store(tmp_path), LocalEngine(2))
    good, bad, odd = result.verdicts
    assert good.status is Status.SUPPORTED
    assert bad.status is odd.status is Status.INCONCLUSIVE
    assert "KeyError" in bad.reason
    assert "not Evidence" in odd.reason


def test_trials_that_coincide_or_are_none_are_refused(toy: Study[Any], tmp_path: Path) -> None:
    same = changed(toy, trials=lambda config: [Trial(0, config), Trial(0, config)])
    with pytest.raises(ArgumentError, match="twice"):
        run([Job.of(same, "quick")], Store(tmp_path), LocalEngine(1))
    none = changed(toy, trials=lambda config: [])
    with pytest.raises(ArgumentError, match="at least one"):
        run([Job.of(none, "quick")], Store(tmp_path), LocalEngine(1))
    for odd in (lambda config: None, lambda config: [3]):
        with pytest.raises(ArgumentError, match="a list of Trial"):
            run([Job.of(changed(toy, trials=odd), "quick")], Store(tmp_path), LocalEngine(1))


def test_jobs_name_what_is_wrong(toy: Study[Any]) -> None:
    with pytest.raises(ArgumentError, match=r"^scale: "):
        Job.of(toy, "gpu")
    with pytest.raises(ArgumentError, match=r"^seeds: "):
        Job.of(toy, "quick", seeds=0)
    with pytest.raises(ArgumentError, match=r"config\.nope"):
        Job.of(toy, "quick", changes={"nope": 1})


def test_a_trial_does_not_see_how_many_seeds_the_study_has(tmp_path: Path) -> None:
    path = tmp_path / "greedy.py"
    path.write_text(
        "from holdfast.lab import Config, Study, Trial\n"
        "def trials(config): return [Trial(s, config) for s in config.seed_range]\n"
        "def run(trial): return {'seeds': trial.config.seeds, 'first': trial.config.first_seed}\n"
        "study = Study('greedy', '?', {'quick': Config(seeds=4, first_seed=10)}, trials, run, [])\n",
        encoding="utf-8",
    )

    [result] = run([Job.of(find(str(path)), "quick")], Store(tmp_path / "s"), LocalEngine(2))
    assert [(r["seed"], r["seeds"], r["first"]) for r in result.results.records] == [
        (seed, 1, seed) for seed in range(10, 14)
    ]
    assert isinstance(result.results.config, Config)


def finished_trials(store: Path) -> set[str]:
    return {path.name for path in (store / "toy").glob("*") if (path / "SHA256SUMS").exists()}


@pytest.mark.slow
def test_a_driver_killed_at_random_instants_loses_nothing_and_repeats_nothing(
    command: Command, tmp_path: Path, ledger: Ledger
) -> None:
    words = ("run", TOY, "--config.sleep-s", "0.15", "--store")
    assert command(*words, "undisturbed")[0] == 0
    assert len(ledger()) == 10
    rng = random.Random(20)
    kills = 0
    store = tmp_path / "s"
    while kills < 6:
        done_before = finished_trials(store)
        begun_before = len(ledger())
        driver = holdfast(*words, "s", cwd=tmp_path)
        # As the driver starts, or once some trials have begun: on any machine there is something to interrupt.
        some = rng.randint(0, 8 - len(done_before))
        while driver.poll() is None and len(ledger()) - begun_before < some:
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 0.15))
        kills += driver.poll() is None
        driver.kill()
        driver.communicate()
        done_after = finished_trials(store)
        assert done_before <= done_after
        # Each begun trial was missing before; what was begun and not finished was in flight: at most two workers.
        begun = len(ledger()) - begun_before
        assert len(done_after) - len(done_before) <= begun <= len(done_after) - len(done_before) + 2
        if len(done_after) > 5:
            for folder in sorted((store / "toy").iterdir())[: rng.randint(len(done_after) - 5, len(done_after))]:
                shutil.rmtree(folder)  # so that the next kills have something to interrupt
    status, _, err = command(*words, "s")
    assert status == 0, err
    ours = (store / "report.html").read_text(encoding="utf-8")
    assert ours == (tmp_path / "undisturbed" / "report.html").read_text(encoding="utf-8")
    for folder in (store / "toy").iterdir():
        twin = tmp_path / "undisturbed" / "toy" / folder.name
        assert (folder / "SHA256SUMS").read_bytes() == (twin / "SHA256SUMS").read_bytes()


@pytest.mark.slow
def test_workers_killed_at_random_instants_cost_only_a_retry(toy: Study[Any], tmp_path: Path, ledger: Ledger) -> None:
    """A trial whose worker dies twice has failed, by the rules; every other one is finished."""
    rng = random.Random(21)
    killed: list[int] = []
    ended = threading.Event()

    def kill_now_and_then() -> None:
        while len(killed) < 6 and not ended.wait(rng.uniform(0.05, 0.4)):
            lines = (tmp_path / "ledger.txt").read_text().splitlines() if ledger() else []
            working = {int(line.split()[2]) for line in lines}  # who has begun a trial has not just been started
            victims = [worker for worker in workers_of() if worker.pid in working]
            if victims:
                with contextlib.suppress(psutil.NoSuchProcess):
                    victim = rng.choice(victims)
                    victim.kill()
                    killed.append(victim.pid)

    killer = threading.Thread(target=kill_now_and_then)
    killer.start()
    try:
        [result] = run([Job.of(toy, "quick", seeds=8, changes={"sleep_s": 0.3})], Store(tmp_path / "s"), LocalEngine(2))
    finally:
        ended.set()
        killer.join()
    failures = result.results.failures
    assert killed
    assert len(finished_trials(tmp_path / "s")) == 16 - len(failures)
    assert all(failure.reason.startswith("its worker died 2 times (SIGKILL") for failure in failures)
    assert 2 * len(failures) <= len(killed)
    # A trial that its worker had finished is never begun again: only those in flight are.
    assert len(ledger()) <= 16 + len(killed)
    assert set(ledger()) | {f"{f.trial.seed} {f.trial.labels['arm']}" for f in failures} == {
        f"{seed} {arm}" for seed in range(8) for arm in ("old", "new")
    }


def test_two_runs_at_once_share_the_work(command: Command, tmp_path: Path, ledger: Ledger) -> None:
    words = ("run", TOY, "--config.sleep-s", "0.2", "--store")
    both = [holdfast(*words, "s", cwd=tmp_path) for _ in range(2)]
    for driver in both:
        _, err = driver.communicate(timeout=120)
        assert driver.returncode == 0, err
    assert Counter(ledger()) == dict.fromkeys(ALL, 1)
    assert len(finished_trials(tmp_path / "s")) == 10
    assert command(*words, "alone")[0] == 0
    assert (tmp_path / "s" / "report.html").read_bytes() == (tmp_path / "alone" / "report.html").read_bytes()


def test_ctrl_c_stops_cleanly_and_keeps_what_is_finished(command: Command, tmp_path: Path) -> None:
    words = ("run", TOY, "--store", "s", "--config.sleep-s", "0.4")
    driver = holdfast(*words, cwd=tmp_path)
    deadline = time.monotonic() + 30
    while len(finished_trials(tmp_path / "s")) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    children = workers_of(driver.pid)
    driver.send_signal(signal.SIGINT)
    _, err = driver.communicate(timeout=20)
    assert driver.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    assert not psutil.wait_procs(children, timeout=5)[1]
    kept = finished_trials(tmp_path / "s")
    assert 2 <= len(kept) < 10
    assert command(*words)[0] == 0
    assert kept < finished_trials(tmp_path / "s")
    assert len(finished_trials(tmp_path / "s")) == 10


EDITED = """
import shutil
from holdfast.lab import Config, Study, Trial
VALUE = 1
def trials(config): return [Trial(s, config) for s in config.seed_range]
def run(trial):
    if trial.seed == 1:
        shutil.copy("OTHER", __file__)
    return {"v": VALUE}
study = Study("edited", "?", {"quick": Config(seeds=3)}, trials, run, [])
"""


def test_what_is_edited_while_a_run_goes_on_is_not_judged(tmp_path: Path) -> None:
    """The second trial edits the file: what was computed before is of code that nobody has now."""
    path, other = tmp_path / "study" / "edited.py", tmp_path / "other.py"
    path.parent.mkdir()
    before = EDITED.replace("OTHER", str(other))
    path.write_text(before, encoding="utf-8")
    other.write_text(before.replace("VALUE = 1", "VALUE = 1000"), encoding="utf-8")
    study = find(str(path))
    [result] = run([Job.of(study, "quick")], Store(tmp_path / "s"), LocalEngine(1))
    assert not result.results.outcomes
    assert all("edited.py" in failure.reason for failure in result.results.failures)
    path.write_text(before, encoding="utf-8")
    assert [item.reason for item in forecast([Job.of(study, "quick")], Store(tmp_path / "s"))] == [None] * 3


def test_a_forecast_names_what_has_changed(toy: Study[Any], tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(TOY.read_text(encoding="utf-8"), encoding="utf-8")
    store, job = Store(tmp_path / "s"), Job.of(find(str(path)), "quick", seeds=1)
    assert {item.reason for item in forecast([job], store)} == {"not computed yet"}
    run([job], store, LocalEngine(1))
    assert {item.reason for item in forecast([job], store)} == {None}
    path.write_text(TOY.read_text(encoding="utf-8").replace("gauss(1.0", "gauss(2.0"), encoding="utf-8")
    assert {item.reason for item in forecast([job], store)} == {"mine.py has changed since"}
    assert [failure.reason for failure in collect([job], store)[0].results.failures] == [
        "mine.py has changed since"
    ] * 2
    run([job], store, LocalEngine(1))
    assert {item.reason for item in forecast([job], store)} == {None}
