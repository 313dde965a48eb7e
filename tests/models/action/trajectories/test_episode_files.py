from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from holdfast.errors import ArgumentError
from holdfast.models.action.trajectories import Trajectories, read_episode_files, write_episode_files
from tests.models.action.trajectories.episodes import ARM, GAME, GRID, assert_same, episode

h5py = pytest.importorskip("h5py")


@pytest.mark.parametrize("kind", ["hdf5", "npz"])
@pytest.mark.parametrize("domain", [ARM, GRID, GAME], ids=lambda domain: domain.name)
def test_a_round_trip_keeps_everything(tmp_path, kind, domain):
    items = [
        episode(domain, 5, 0, task="a"),
        episode(domain, 4, 1, task="b/c", last=False, terminated=False, truncated=True),
        episode(domain, 6, 2, terminated=False, remaining=2.5),
        episode(domain, 3, 3, terminated=False),
    ]
    items[1] = dataclasses.replace(items[1], labels=episode(domain, 4, 9).actions)
    write_episode_files(Trajectories.of(domain, items), tmp_path / "data", kind=kind)
    read = read_episode_files(tmp_path / "data")
    assert read.domain == domain
    ordered = [items[number] for number in (2, 3, 0, 1)]  # files of no task, then folders
    for mine, theirs in zip(ordered, read.items, strict=True):
        assert_same(mine, theirs)


@pytest.fixture
def published():
    """What the published code writes of a trajectory."""
    rewards = np.array([1.0, 0.5, -1.0, 2.0], np.float32)
    return {
        "states": np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32),
        "actions": np.array([0, 3, 1, 1]),
        "rewards": rewards,
        "returns_to_go": np.cumsum(rewards[::-1])[::-1],
    }


@pytest.mark.parametrize("dones", [True, np.array([False, False, False, True])])
def test_files_of_the_published_code_are_read(tmp_path, published, dones):
    (tmp_path / "maze").mkdir()
    with h5py.File(tmp_path / "maze/7.hdf5", "w") as file:
        for name, values in {**published, "dones": dones}.items():
            file[name] = values
    np.savez(tmp_path / "maze/8.npz", **published, dones=dones)
    for item in read_episode_files(tmp_path, GRID).items:
        assert (item.task, item.terminated, item.truncated) == ("maze", True, False)
        assert len(item.observations) == len(item) == 4
        np.testing.assert_allclose(item.returns_to_go(), published["returns_to_go"])


def test_stored_returns_tell_what_a_record_that_is_cut_off_lacks(tmp_path, published):
    published["returns_to_go"] = published["returns_to_go"] + 10
    np.savez(tmp_path / "cut.npz", **published, dones=np.zeros(4, bool))
    (item,) = read_episode_files(tmp_path, GRID).items
    assert item.remaining == 10
    np.testing.assert_allclose(item.returns_to_go(), published["returns_to_go"], rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"returns_to_go": np.array([2.5, 1.4, 0.9, 2.0])}, "expected sums of the rewards .* got others"),
        ({"returns_to_go": np.zeros(3)}, "returns_to_go: expected 4 in .*one.npz, got 3"),
        ({"states": None}, "one.npz without states"),
    ],
)
def test_entries_that_do_not_fit_are_refused(tmp_path, published, change, message):
    entries = {**published, "dones": True, **change}
    np.savez(tmp_path / "one.npz", **{name: values for name, values in entries.items() if values is not None})
    with pytest.raises(ArgumentError, match=message):
        read_episode_files(tmp_path, GRID)


@pytest.mark.parametrize("kind", ["hdf5", "npz"])
def test_a_damaged_file_is_named(tmp_path, kind):
    write_episode_files(Trajectories.of(GRID, [episode(GRID, 50, seed) for seed in range(2)]), tmp_path, kind=kind)
    path = tmp_path / f"000001.{kind}"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ArgumentError, match=f"files that can be read, got .*000001.{kind}"):
        read_episode_files(tmp_path)


def test_a_folder_without_files_or_domain_is_refused(tmp_path, published):
    with pytest.raises(ArgumentError, match=r"folder: expected one with .hdf5 or .npz"):
        read_episode_files(tmp_path)
    np.savez(tmp_path / "one.npz", **published, dones=True)
    with pytest.raises(ArgumentError, match="domain: expected the domain, which these files do not name"):
        read_episode_files(tmp_path)
    (tmp_path / "holdfast-domain.json").write_text('{"name": "x"}')
    with pytest.raises(ArgumentError, match="domain: expected one that this version wrote"):
        read_episode_files(tmp_path)


def test_nothing_is_written_over_or_beside(tmp_path):
    data = Trajectories.of(GRID, [episode(GRID, 3)])
    (tmp_path / "data").mkdir()
    (tmp_path / "data/notes.txt").write_text("mine")
    with pytest.raises(ArgumentError, match="folder: expected one that is empty"):
        write_episode_files(data, tmp_path / "data")
    outside = Trajectories.of(GRID, [episode(GRID, 3, task="../away")])
    with pytest.raises(ArgumentError, match="task: expected the name of a folder"):
        write_episode_files(outside, tmp_path / "other")
    with pytest.raises(ArgumentError, match="data: expected rewards"):
        write_episode_files(Trajectories.of(GRID, [episode(GRID, 3, rewards=None)]), tmp_path / "third")
