"""The Ray engine: the same results as the local one, on a cluster that may lose a node."""

from __future__ import annotations

import importlib
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from holdfast.errors import ArgumentError, MissingExtraError
from holdfast.lab.engines import EngineError, Finished, LocalEngine, RayEngine, Task
from holdfast.lab.engines import ray as ray_engine
from holdfast.lab.locate import FunctionRef
from holdfast.lab.run import Job, Listener, run
from holdfast.lab.store import Store
from holdfast.lab.study import Study
from holdfast.lab.trial import Outcome, Trial
from tests.lab.conftest import TOY, Command, holdfast, workers_of

ray = pytest.importorskip("ray")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    # Ray's own processes and sockets, which it leaves to the interpreter's end.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.xdist_group("ray"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """One cluster for all tests: a head that runs nothing, without nodes, and quick to miss one that is lost."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        watchful = {
            "health_check_initial_delay_ms": 0,
            "health_check_period_ms": 200,
            "health_check_failure_threshold": 3,
        }
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": watchful},
        )
        try:
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()


def sums(store: Path) -> dict[str, str]:
    """Checksums of all that was measured, by trial; the environment differs between engines."""
    return {
        f"{folder.name}/{name}": checksum
        for folder in (store / "toy").iterdir()
        for checksum, name in (line.split("  ") for line in (folder / "SHA256SUMS").read_text().splitlines())
        if name != "trial.json"
    }


def task_of(study: Study[Any], **changes: Any) -> Task:
    trial = next(iter(study.trials(replace(study.scales["quick"], **changes))))
    return Task(str(changes), FunctionRef.of(study.parts[0].run), trial)


class KillsANode(Listener):
    """Takes a node away, without grace, once something runs on it."""

    def __init__(self, cluster: Any, node: Any) -> None:
        self.cluster, self.node, self.done = cluster, node, 0
        self.killed_at: int | None = None

    def finished(self, study: str, trial: Trial[Any], outcome: Outcome) -> None:
        self.done += 1
        if self.done == 1:  # it is the only node: the next trial runs on it
            self.cluster.remove_node(self.node, allow_graceful=False)
            self.cluster.add_node(num_cpus=2)
            self.killed_at = self.done


def test_results_are_bit_identical_and_a_lost_node_is_survived(toy: Study[Any], tmp_path: Path, cluster: Any) -> None:
    doomed = cluster.add_node(num_cpus=1)
    job = Job.of(toy, "quick", seeds=3, changes={"sleep_s": 1.0})  # longer than a worker outlives its node
    listener = KillsANode(cluster, doomed)
    [there] = run([job], Store(tmp_path / "ray"), RayEngine(cluster.address), listener)
    [here] = run([job], Store(tmp_path / "local"), LocalEngine(2))
    assert listener.killed_at == 1
    assert not there.results.failures
    assert there.computed == here.computed == 6
    assert there.verdicts == here.verdicts
    assert sums(tmp_path / "ray") == sums(tmp_path / "local")
    assert not ray.is_initialized()


def test_an_exception_and_a_dying_worker_fail_only_their_trial(toy: Study[Any], tmp_path: Path, cluster: Any) -> None:
    if len(cluster.worker_nodes) == 0:  # this test alone
        cluster.add_node(num_cpus=2)
    for how, reason in (("raise", "ValueError: the toy raised"), ("die", "its worker died 2 times (SIGKILL")):
        job = Job.of(toy, "quick", seeds=2, changes={"misbehave": how})
        [result] = run([job], Store(tmp_path / how), RayEngine(cluster.address))
        [failure] = result.results.failures
        assert reason in failure.reason
        assert len(result.results.outcomes) == 3


def test_the_command_line_starts_a_cluster_of_its_own(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    status, out, err = command("run", TOY, "--engine", "ray", "--workers", "2", "--seeds", "2", "--store", "s")
    assert status == 0, err
    assert "4 trials computed" in out
    assert "Traceback" not in err
    assert not ray.is_initialized()


def test_no_cluster_at_the_address_is_one_clear_line(command: Command) -> None:
    status, _, err = command("run", TOY, "--engine", "ray", "--address", "127.0.0.1:1", "--store", "s")
    assert status == 2
    assert err.startswith("holdfast: error: --address: expected a running Ray cluster, got 127.0.0.1:1")
    assert len(err.splitlines()) == 1


def test_an_address_that_is_silent_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, toy: Study[Any]) -> None:
    """Somebody listens there, and never answers."""
    monkeypatch.setattr(ray_engine, "CONNECT_S", 4.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ArgumentError, match=r"expected a running Ray cluster, got 127\.0\.0\.1:.* does not answer"):
            list(RayEngine(address).map([task_of(toy)]))
    assert not workers_of()


def test_a_cluster_that_dies_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, toy: Study[Any]) -> None:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setattr(ray_engine, "SILENT_S", 12.0)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        events = RayEngine(cluster.address).map([task_of(toy), task_of(toy, sleep_s=600.0)])
        assert isinstance(next(events), Finished)
        cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)
        with pytest.raises(EngineError, match="the Ray cluster is lost"):
            list(events)
    finally:
        cluster.shutdown()
    assert not workers_of()


def test_a_node_with_other_code_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cluster: Any, toy: Study[Any]
) -> None:
    """The module on the node differs from the driver's of the same name: what it computes is not stored."""
    for place, mean in (("ours", "1.0"), ("theirs", "2.0")):
        (tmp_path / place).mkdir()
        text = TOY.read_text(encoding="utf-8").replace("gauss(1.0", f"gauss({mean}")
        (tmp_path / place / "carried_study.py").write_text(text, encoding="utf-8")
    for node in list(cluster.worker_nodes):
        cluster.remove_node(node)
    node = cluster.add_node(num_cpus=1, env_vars={"PYTHONPATH": str(tmp_path / "theirs")})
    try:
        monkeypatch.syspath_prepend(tmp_path / "ours")
        study = importlib.import_module("carried_study").study
        [result] = run([Job.of(study, "quick", seeds=1)], Store(tmp_path / "s"), RayEngine(cluster.address))
    finally:
        cluster.remove_node(node)
    assert not result.results.outcomes
    assert [failure.reason for failure in result.results.failures] == [
        "the worker had other code than this process: carried_study.py has changed since"
    ] * 2


def test_sigterm_ends_a_run_on_a_cluster(tmp_path: Path, cluster: Any) -> None:
    words = ("run", TOY, "--engine", "ray", "--address", cluster.address, "--store", "s", "--config.sleep-s", "600")
    driver = holdfast(*words, cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not (tmp_path / "s" / ".locks").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(2.0)
    children = workers_of(driver.pid)
    driver.terminate()
    _, err = driver.communicate(timeout=30)
    assert driver.returncode == 130
    assert "interrupted" in err
    assert not psutil.wait_procs(children, timeout=10)[1]
    assert not list((tmp_path / "s" / ".locks").iterdir())


def test_a_missing_extra_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"holdfast\[ray\]"):
        RayEngine()


def test_a_wrong_number_of_workers_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"^workers: expected at least 1, got 0"):
        RayEngine(workers=0)
