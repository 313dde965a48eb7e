"""The Ray engine: the same results as the local one, on a cluster that may lose a node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import ArgumentError, MissingExtraError
from holdfast.lab.engines import LocalEngine, RayEngine
from holdfast.lab.run import Job, Listener, run
from holdfast.lab.store import Store
from holdfast.lab.study import Study
from holdfast.lab.trial import Outcome, Trial
from tests.lab.conftest import TOY, holdfast

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


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head that runs nothing and two nodes with one core each, all on this machine."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        yield found
    finally:
        ray.shutdown()
        found.shutdown()


def sums(store: Path) -> dict[str, str]:
    """Checksums of all that was measured, by trial; the environment differs between engines."""
    return {
        f"{folder.name}/{name}": checksum
        for folder in (store / "toy").iterdir()
        for checksum, name in (line.split("  ") for line in (folder / "SHA256SUMS").read_text().splitlines())
        if name != "environment.json"
    }


class KillsANode(Listener):
    """Takes a node away, without grace, once something runs on it."""

    def __init__(self, cluster: Any, node: Any) -> None:
        self.cluster, self.node, self.done = cluster, node, 0
        self.killed_at: int | None = None

    def finished(self, study: str, trial: Trial[Any], outcome: Outcome) -> None:
        self.done += 1
        if self.done == 3:
            self.cluster.remove_node(self.node, allow_graceful=False)
            self.killed_at = self.done


def test_results_are_bit_identical_and_a_lost_node_is_survived(toy: Study[Any], tmp_path: Path, cluster: Any) -> None:
    cluster.add_node(num_cpus=1)
    doomed = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    job = Job.of(toy, "laptop", changes={"sleep_s": 0.4})
    listener = KillsANode(cluster, doomed)
    [there] = run([job], Store(tmp_path / "ray"), RayEngine(cluster.address), listener)
    [here] = run([job], Store(tmp_path / "local"), LocalEngine(2))
    assert listener.killed_at == 3
    assert not there.results.failures
    assert there.computed == here.computed == 16
    assert there.verdicts == here.verdicts
    assert sums(tmp_path / "ray") == sums(tmp_path / "local")
    assert not ray.is_initialized()


def test_an_exception_and_a_dying_worker_fail_only_their_trial(toy: Study[Any], tmp_path: Path, cluster: Any) -> None:
    cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    for how, reason in (("raise", "ValueError: the toy raised"), ("die", "its worker was lost")):
        job = Job.of(toy, "quick", seeds=2, changes={"misbehave": how})
        [result] = run([job], Store(tmp_path / how), RayEngine(cluster.address))
        [failure] = result.results.failures
        assert reason in failure.reason
        assert len(result.results.outcomes) == 3


def test_the_command_line_starts_a_cluster_of_its_own(tmp_path: Path) -> None:
    driver = holdfast(
        *("run", TOY, "--engine", "ray", "--workers", "2", "--seeds", "2", "--store", "s"),
        cwd=tmp_path,
        env={"RAY_USAGE_STATS_ENABLED": "0"},
    )
    out, err = driver.communicate(timeout=120)
    assert driver.returncode == 0, err
    assert "4 trials computed" in out
    assert "Traceback" not in err


def test_no_cluster_at_the_address_is_one_clear_line(tmp_path: Path) -> None:
    driver = holdfast(
        *("run", TOY, "--engine", "ray", "--address", "127.0.0.1:1", "--store", "s"),
        cwd=tmp_path,
        env={"RAY_USAGE_STATS_ENABLED": "0"},
    )
    _, err = driver.communicate(timeout=120)
    assert driver.returncode == 2
    assert "--address: expected a running Ray cluster, got 127.0.0.1:1" in err
    assert "Traceback" not in err


def test_a_missing_extra_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"holdfast\[ray\]"):
        RayEngine()


def test_a_wrong_number_of_workers_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"^workers: expected at least 1, got 0"):
        RayEngine(workers=0)
