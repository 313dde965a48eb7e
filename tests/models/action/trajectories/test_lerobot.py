from __future__ import annotations

import json

import numpy as np
import pytest

from holdfast.errors import ArgumentError
from holdfast.models.action.domain import Continuous, Discrete
from holdfast.models.action.trajectories import Trajectories, lerobot, read_lerobot, write_lerobot
from tests.models.action.trajectories.episodes import ARM, GAME, GRID, assert_same, episode

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def several(domain, **fields):
    return [
        episode(domain, 5, 0, task="reach", **fields),
        episode(domain, 4, 1, task="push", terminated=False, truncated=True, labels=episode(domain, 4, 9).actions),
        episode(domain, 6, 2, task="reach", terminated=False),
    ]


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
@pytest.mark.parametrize("domain", [ARM, GRID], ids=lambda domain: domain.name)
@pytest.mark.parametrize("frames_a_file", [1_000_000, 5])
def test_a_round_trip_keeps_all_but_the_last_observation(tmp_path, monkeypatch, version, domain, frames_a_file):
    monkeypatch.setattr(lerobot, "FRAMES_A_FILE", frames_a_file)
    monkeypatch.setattr(lerobot, "CHUNK", 2)
    items = several(domain)
    write_lerobot(Trajectories.of(domain, items), tmp_path / "data", fps=10, version=version)
    read = read_lerobot(tmp_path / "data")
    assert read.domain == domain
    for mine, theirs in zip(items, read.items, strict=True):
        assert_same(mine, theirs, last=False)
    files = len(list((tmp_path / "data/data").rglob("*.parquet")))
    assert files == (3 if version == "v2.1" else 1 if frames_a_file > 15 else 2)
    info = json.loads((tmp_path / "data/meta/info.json").read_text())
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, 15, 2)
    wanted = {"observation.state", "action", "timestamp", "frame_index", "episode_index", "index", "task_index"}
    assert wanted < set(info["features"])


def test_version_3_is_laid_out_as_its_own_readers_want_it(tmp_path):
    pandas = pytest.importorskip("pandas")
    write_lerobot(Trajectories.of(ARM, several(ARM)), tmp_path, fps=10)
    tasks = pandas.read_parquet(tmp_path / "meta/tasks.parquet")
    assert tasks.iloc[1].name == "push"
    assert tasks.loc["push"].task_index == 1
    episodes = parquet.read_table(tmp_path / "meta/episodes/chunk-000/file-000.parquet").to_pydict()
    assert episodes["dataset_from_index"] == [0, 5, 9]
    assert episodes["dataset_to_index"] == [5, 9, 15]
    assert episodes["tasks"] == [["reach"], ["push"], ["reach"]]
    frames = parquet.read_table(tmp_path / "data/chunk-000/file-000.parquet")
    assert frames.schema.field("observation.state").type == arrow.list_(arrow.float32(), 3)
    assert frames.column("index").to_pylist() == list(range(15))
    assert frames.column("task_index").to_pylist() == [0] * 5 + [1] * 4 + [0] * 6


def recorded(folder, features=None, **columns):
    """A dataset of version 2 as others write it: lists, no domain, frames in any order."""
    (folder / "meta").mkdir(parents=True)
    (folder / "data").mkdir()
    parquet.write_table(arrow.table(columns), folder / "data/0.parquet")
    info = {
        "codebase_version": "v2.0",
        "total_episodes": 1,
        "data_path": "data/{episode_index}.parquet",
        "features": {name: {"dtype": "float32"} for name in columns} | (features or {}),
    }
    (folder / "meta/info.json").write_text(json.dumps(info))
    entry = {"episode_index": 0, "length": len(columns["frame_index"])}
    (folder / "meta/episodes.jsonl").write_text(json.dumps(entry))


FRAMES = {
    "observation.state": [[3.0, 3.5], [1.0, 1.5], [2.0, 2.5]],
    "observation.environment_state": [[30.0], [10.0], [20.0]],
    "action": [[0.5, 2.0], [-0.5, 1.0], [0.0, 3.0]],
    "frame_index": [2, 0, 1],
    "episode_index": [0, 0, 0],
}


def test_recordings_of_others_are_read(tmp_path):
    recorded(tmp_path / "robot", **FRAMES)
    data = read_lerobot(tmp_path / "robot")
    (item,) = data.items
    assert item.observations.tolist() == [[1, 1.5, 10], [2, 2.5, 20], [3, 3.5, 30]]
    assert item.actions.tolist() == [[-0.5, 1], [0, 3], [0.5, 2]]
    assert item.rewards is None
    assert (item.terminated, item.truncated) == (False, False)
    assert data.domain.name == "robot"
    assert data.domain.action == Continuous((-0.5, 1.0), (0.5, 3.0))
    narrow = read_lerobot(tmp_path / "robot", observation_keys=["observation.environment_state"])
    assert narrow.items[0].observations.tolist() == [[10], [20], [30]]


@pytest.mark.parametrize(("done", "total"), [(True, 6.0), (False, np.nan)])
def test_an_episode_that_is_done_has_a_return(tmp_path, done, total):
    columns = {**FRAMES, "next.reward": [3.0, 1.0, 2.0], "next.done": [done, False, False], "action": [1, 0, 4]}
    recorded(tmp_path, **columns)
    data = read_lerobot(tmp_path)
    np.testing.assert_equal(data.items[0].total_return, total)
    assert data.items[0].terminated == done
    assert data.domain.action == Discrete(5)


def test_pictures_are_not_passed_over_in_silence(tmp_path):
    recorded(tmp_path, features={"observation.images.top": {"dtype": "video"}}, **FRAMES)
    with pytest.raises(ArgumentError, match=r"without pictures .* got observation.images.top"):
        read_lerobot(tmp_path)
    assert len(read_lerobot(tmp_path, leave_out_cameras=True)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame_index": [0, 1, 3]}, "frames 0 to 2 of episode 0"),
        ({"action": [[0.5], [0.0, 1.0], [0.0]]}, "action: expected lists of one length"),
        ({"action": [0.5, None, 1.0]}, "action: expected numbers .* 1 of them missing"),
        ({"action": ["a", "b", "c"]}, "action: expected numbers"),
    ],
)
def test_damaged_frames_are_refused(tmp_path, change, message):
    recorded(tmp_path, **{**FRAMES, **change})
    with pytest.raises(ArgumentError, match=message):
        read_lerobot(tmp_path)


def test_damaged_datasets_are_refused(tmp_path):
    with pytest.raises(ArgumentError, match=r"folder: expected a dataset with a readable meta/info.json"):
        read_lerobot(tmp_path / "none")
    recorded(tmp_path / "a", **FRAMES)
    path = tmp_path / "a/meta/info.json"
    info = json.loads(path.read_text())
    for change, message in (
        ({"codebase_version": "v1.6"}, "version 2 or 3, got version v1.6"),
        ({"total_episodes": 2}, "expected 2 episodes"),
        ({"features": {"action": {"dtype": "float32"}}}, "observation_keys: expected some of action"),
    ):
        path.write_text(json.dumps({**info, **change}))
        with pytest.raises(ArgumentError, match=message):
            read_lerobot(tmp_path / "a")
    path.write_text(json.dumps(info))
    frames = tmp_path / "a/data/0.parquet"
    frames.write_bytes(frames.read_bytes()[:-40])
    with pytest.raises(ArgumentError, match=r"parquet files that can be read, got .*0.parquet"):
        read_lerobot(tmp_path / "a")


@pytest.mark.parametrize(
    ("domain", "fields", "message"),
    [(GAME, {}, "vectors as observations"), (ARM, {"remaining": 1.0}, "whose `remaining` is None")],
)
def test_what_the_layout_has_no_place_for_is_refused(tmp_path, domain, fields, message):
    with pytest.raises(ArgumentError, match=message):
        write_lerobot(Trajectories.of(domain, [episode(domain, 3, **fields)]), tmp_path / "data", fps=10)
    assert not (tmp_path / "data").exists()
