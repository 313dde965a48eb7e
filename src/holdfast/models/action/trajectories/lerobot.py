"""Datasets in the layout of LeRobot, versions 2 and 3, read and written with pyarrow alone.

Version 2 has one parquet file an episode; version 3 puts many into one file, and says in `meta/episodes` which. Rows
are frames: what was seen, and what was done and given then. There is no observation after the last action.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from holdfast.errors import ArgumentError, require
from holdfast.models.action.domain import ActionSpace, Continuous, Discrete, Domain, Vector
from holdfast.models.action.trajectories.domain_file import read_domain, write_domain
from holdfast.models.action.trajectories.episode_files import empty_folder
from holdfast.models.action.trajectories.trajectory import Trajectories, Trajectory

OBSERVATIONS = ("observation.state", "observation.environment_state")
"""Columns that make up an observation, where they are there."""

ENDS = ("done", "terminated", "truncated")

NEEDED = ("action", "expert_action", "episode_index", "frame_index", "next.reward", *(f"next.{end}" for end in ENDS))
"""Columns that are read beside the observation, where they are there."""

CHUNK = 1000
"""Episodes of a folder in version 2."""

FRAMES_A_FILE = 1_000_000
"""Frames that a file of version 3 is closed after; a frame of vectors takes some dozens of bytes."""

PATHS = {
    "v2.1": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    "v3.0": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
}
EPISODES = "meta/episodes/chunk-000/file-000.parquet"


def read_lerobot(
    folder: Path,
    domain: Domain | None = None,
    *,
    observation_keys: Sequence[str] | None = None,
    leave_out_cameras: bool = False,
) -> Trajectories:
    """All episodes of a dataset.

    An episode ends where `next.done` is true in its last frame (written here: `next.terminated` and `next.truncated`);
    it is cut off where that is not so. Without `next.reward` rewards are not known, and policies can only imitate.

    Arguments:
        folder: of the dataset, with `meta/info.json`.
        domain: what they are of; `None`: what was written with them, or else one named as the folder, with a reward
            scale of 1, no target return, and the least and greatest actions of the data as bounds.
        observation_keys: columns that make up an observation; `None`: `observation.state` and
            `observation.environment_state`.
        leave_out_cameras: whether a dataset with pictures is read without them.

    Errors:
        ArgumentError: no such dataset, another version, pictures, a column that is missing, or fewer frames than the
            dataset says.
        MissingExtraError: pyarrow is not installed.
    """
    require("pyarrow.parquet", "action")
    folder = Path(folder)
    info = _info(folder)
    features = info["features"]
    cameras = [name for name, feature in features.items() if feature["dtype"] in ("image", "video")]
    if cameras and not leave_out_cameras:
        raise ArgumentError("folder", "a dataset without pictures (or leave_out_cameras=True)", ", ".join(cameras))
    keys = [key for key in OBSERVATIONS if key in features] if observation_keys is None else list(observation_keys)
    missing = [key for key in (*keys, "action", "episode_index", "frame_index") if key not in features]
    if missing or not keys:
        raise ArgumentError("observation_keys", f"some of {', '.join(features)}", ", ".join(missing) or "none")
    wanted = [*keys, *(name for name in NEEDED if name in features)]
    episodes = (_episodes_3 if info["codebase_version"] >= "v3" else _episodes_2)(folder, info, wanted)
    items = [_trajectory(columns, keys, task) for task, columns in episodes]
    if len(items) != info["total_episodes"]:
        raise ArgumentError("folder", f"{info['total_episodes']} episodes, as {folder.name} says", len(items))
    if domain is None:
        domain = read_domain(folder) or _domain(folder, items)
    return Trajectories.of(domain, items)


def write_lerobot(data: Trajectories, folder: Path, *, fps: int, version: Literal["v2.1", "v3.0"] = "v3.0") -> None:
    """Write trajectories as a dataset; what comes after the last action is not kept.

    Arguments:
        data: with vectors as observations.
        folder: made if it does not exist; has to be empty.
        fps: steps a second, which the layout wants to know.
        version: of the layout.

    Errors:
        ArgumentError: the folder is not empty, observations are pictures, or a trajectory is cut off and tells the
            return after its end, which the layout has no place for.
        MissingExtraError: pyarrow is not installed.
    """
    require("pyarrow.parquet", "action")
    if version not in PATHS:
        raise ArgumentError("version", " or ".join(PATHS), version)
    if not isinstance(data.domain.observation, Vector):
        raise ArgumentError("data", "vectors as observations", "pictures")
    if any(item.remaining is not None for item in data.items):
        raise ArgumentError("data", "trajectories whose `remaining` is None", "a number")
    folder = empty_folder(folder)
    (folder / "meta").mkdir()
    tasks = list(dict.fromkeys(item.task for item in data.items))
    starts = np.cumsum([0, *map(len, data.items)])
    frames = [
        _frames(item, number, int(starts[number]), tasks.index(item.task), fps)
        for number, item in enumerate(data.items)
    ]
    labelled = any("expert_action" in columns for columns in frames)
    for item, columns in zip(data.items, frames, strict=True):
        if labelled:  # a column is in all episodes or in none; what was done is what an undisturbed expert would do
            columns.setdefault("expert_action", _actions(item.actions))
    _write_json(folder / "meta/info.json", _info_of(data, frames[0], len(tasks), fps, version))
    (_write_3 if version == "v3.0" else _write_2)(folder, data, frames, tasks, starts)
    write_domain(data.domain, folder)


def _info(folder: Path) -> dict[str, Any]:
    path = folder / "meta/info.json"
    try:
        info: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArgumentError("folder", "a dataset with a readable meta/info.json", f"{folder} ({error})") from error
    missing = [name for name in ("codebase_version", "features", "data_path", "total_episodes") if name not in info]
    if missing:
        raise ArgumentError("folder", "a dataset of LeRobot", f"{path} without {', '.join(missing)}")
    if info["codebase_version"][:2] not in ("v2", "v3"):
        raise ArgumentError("folder", "a dataset of version 2 or 3", f"version {info['codebase_version']}")
    return info


Episode = tuple[str, Mapping[str, Any]]
"""Task and columns."""


def _episodes_2(folder: Path, info: Mapping[str, Any], names: Sequence[str]) -> Iterator[Episode]:
    for entry in _read_lines(folder / "meta/episodes.jsonl"):
        number = entry["episode_index"]
        place = {"episode_chunk": number // info.get("chunks_size", CHUNK), "episode_index": number}
        columns = _columns(folder / info["data_path"].format(**place), names)
        yield _first_task(entry), _checked(columns, number, entry["length"])


def _episodes_3(folder: Path, info: Mapping[str, Any], names: Sequence[str]) -> Iterator[Episode]:
    paths = sorted((folder / "meta/episodes").rglob("*.parquet"))
    if not paths:
        raise ArgumentError("folder", "a dataset with meta/episodes", str(folder))
    wanted = ("episode_index", "tasks", "length", "data/chunk_index", "data/file_index")
    entries = [row for path in paths for row in _table(path, wanted).to_pylist()]
    shown, columns = "", dict[str, Any]()
    for entry in sorted(entries, key=lambda entry: entry["episode_index"]):
        place = {"chunk_index": entry["data/chunk_index"], "file_index": entry["data/file_index"]}
        name = info["data_path"].format(**place)
        if name != shown:
            shown, columns = name, _columns(folder / name, names)
            order = np.argsort(columns["episode_index"], kind="stable")
            columns = {key: values[order] for key, values in columns.items()}
        number = entry["episode_index"]
        rows = slice(*np.searchsorted(columns["episode_index"], [number, number + 1]))
        episode = {key: values[rows] for key, values in columns.items()}
        yield _first_task(entry), _checked(episode, number, entry["length"])


def _first_task(entry: Mapping[str, Any]) -> str:
    tasks = entry.get("tasks") or [""]
    return str(tasks[0])


def _checked(columns: Mapping[str, Any], number: int, length: int) -> Mapping[str, Any]:
    """The frames of an episode in order.

    Errors:
        ArgumentError: some are missing.
    """
    frames = np.sort(columns["frame_index"])
    if not np.array_equal(frames, np.arange(length)):
        raise ArgumentError("folder", f"frames 0 to {length - 1} of episode {number}", f"{len(frames)} frames")
    order = np.argsort(columns["frame_index"])
    return {name: values[order] for name, values in columns.items()}


def _trajectory(columns: Mapping[str, Any], keys: Sequence[str], task: str) -> Trajectory:
    parts = [columns[key].reshape(len(columns["action"]), -1) for key in keys]
    actions, labels = columns["action"], columns.get("expert_action")
    if labels is not None and np.array_equal(actions, labels):
        labels = None
    ends = {name: bool(np.any(columns[f"next.{name}"][-1:])) for name in ENDS if f"next.{name}" in columns}
    return Trajectory(
        observations=np.concatenate(parts, axis=1).astype(np.float32),
        actions=actions,
        rewards=columns["next.reward"].astype(np.float32).reshape(-1) if "next.reward" in columns else None,
        terminated=ends.get("terminated", ends.get("done", False)),
        truncated=ends.get("truncated", False),
        task=task,
        labels=labels,
    )


def _domain(folder: Path, items: Sequence[Trajectory]) -> Domain:
    """What the data themselves say."""
    if not items:
        raise ArgumentError("folder", "a dataset with episodes", str(folder))
    actions = np.concatenate([item.actions.reshape(len(item), -1) for item in items])
    space: ActionSpace
    if np.issubdtype(actions.dtype, np.integer) and actions.shape[1] == 1:
        space = Discrete(int(actions.max()) + 1)
    else:
        space = Continuous(tuple(map(float, actions.min(axis=0))), tuple(map(float, actions.max(axis=0))))
    return Domain(name=folder.name, observation=Vector(items[0].observations.shape[1]), action=space)


def _table(path: Path, columns: Sequence[str]) -> Any:
    parquet, arrow = require("pyarrow.parquet", "action"), require("pyarrow", "action")
    try:
        return parquet.read_table(path, columns=list(columns))
    except (OSError, arrow.ArrowException, KeyError) as error:
        first = next(iter(str(error).splitlines()), "")
        raise ArgumentError("folder", "parquet files that can be read", f"{path} ({first})") from error


def _columns(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Columns of numbers as arrays; lists become the second axis."""
    types = require("pyarrow.types", "action")
    table, arrays = _table(path, names), {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        kind, width = column.type, 0
        values = column.combine_chunks()
        if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
            kind, flat = kind.value_type, values.flatten()
            width = len(flat) // max(len(values), 1)
            if width * len(values) != len(flat):
                raise ArgumentError(name, f"lists of one length in {path}", "several lengths")
            values = flat
        if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)) or values.null_count:
            raise ArgumentError(name, f"numbers in {path}", f"{kind}, {values.null_count} of them missing")
        array = values.to_numpy(zero_copy_only=False)
        arrays[name] = array.reshape(-1, width) if width else array
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ArgumentError("folder", f"columns {', '.join(names)} in {path}", f"none called {', '.join(missing)}")
    return arrays


def _actions(actions: Any) -> Any:
    """Ids as whole numbers, one a frame; vectors in float32."""
    if np.issubdtype(actions.dtype, np.integer):
        return actions.reshape(len(actions)).astype(np.int64)
    return actions.reshape(len(actions), -1).astype(np.float32)


def _frames(item: Trajectory, number: int, start: int, task: int, fps: int) -> dict[str, Any]:
    steps = len(item)
    last = np.arange(steps) == steps - 1
    columns = {
        "observation.state": item.observations[:steps].astype(np.float32),
        "action": _actions(item.actions),
        "timestamp": (np.arange(steps) / fps).astype(np.float32),
        "frame_index": np.arange(steps),
        "episode_index": np.full(steps, number),
        "index": np.arange(start, start + steps),
        "task_index": np.full(steps, task),
        "next.done": last & (item.terminated or item.truncated),
        "next.terminated": last & item.terminated,
        "next.truncated": last & item.truncated,
    }
    if item.rewards is not None:
        columns["next.reward"] = item.rewards.astype(np.float32)
    if item.labels is not None:
        columns["expert_action"] = _actions(item.labels)
    return columns


def _info_of(data: Trajectories, columns: Mapping[str, Any], tasks: int, fps: int, version: str) -> dict[str, Any]:
    features = {
        name: {"dtype": str(values.dtype), "shape": list(values.shape[1:]) or [1], "names": None}
        for name, values in columns.items()
    }
    return {
        "codebase_version": version,
        "robot_type": None,
        "total_episodes": len(data),
        "total_frames": data.transitions,
        "total_tasks": tasks,
        **({"total_videos": 0, "total_chunks": -(-len(data) // CHUNK)} if version == "v2.1" else {}),
        "chunks_size": CHUNK,
        "fps": fps,
        "splits": {"train": f"0:{len(data)}"},
        "data_path": PATHS[version],
        "video_path": None,
        "features": features,
    }


Frames = Sequence[Mapping[str, Any]]


def _write_2(folder: Path, data: Trajectories, frames: Frames, tasks: Sequence[str], starts: Any) -> None:
    episodes, statistics = [], []
    for number, (item, columns) in enumerate(zip(data.items, frames, strict=True)):
        path = folder / PATHS["v2.1"].format(episode_chunk=number // CHUNK, episode_index=number)
        _write_table(path, columns)
        episodes.append({"episode_index": number, "tasks": [item.task], "length": len(item)})
        statistics.append({"episode_index": number, "stats": _statistics(columns)})
    named = [{"task_index": index, "task": task} for index, task in enumerate(tasks)]
    for name, lines in (("episodes", episodes), ("episodes_stats", statistics), ("tasks", named)):
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        (folder / f"meta/{name}.jsonl").write_text(text, encoding="utf-8")


def _write_3(folder: Path, data: Trajectories, frames: Frames, tasks: Sequence[str], starts: Any) -> None:
    names = list(frames[0])
    file_of = [int(start) // FRAMES_A_FILE for start in starts[:-1]]
    files = sorted(set(file_of))
    for place, file in enumerate(files):
        mine = [columns for columns, owner in zip(frames, file_of, strict=True) if owner == file]
        joined = {name: np.concatenate([columns[name] for columns in mine]) for name in names}
        _write_table(folder / PATHS["v3.0"].format(**_place(place)), joined)
    places = [_place(files.index(file)) for file in file_of]
    count = len(data)
    episodes = {
        "episode_index": np.arange(count),
        "tasks": [[item.task] for item in data.items],
        "length": np.diff(starts),
        "data/chunk_index": np.array([place["chunk_index"] for place in places]),
        "data/file_index": np.array([place["file_index"] for place in places]),
        "dataset_from_index": starts[:-1],
        "dataset_to_index": starts[1:],
        "meta/episodes/chunk_index": np.zeros(count, np.int64),
        "meta/episodes/file_index": np.zeros(count, np.int64),
    }
    _write_table(folder / EPISODES, episodes)
    index = {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object", "metadata": None}
    number = {**index, "name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"}
    pandas = {"index_columns": ["task"], "column_indexes": [], "columns": [number, index], "pandas_version": "2.0.0"}
    tasks_table = {"task_index": np.arange(len(tasks)), "task": list(tasks)}
    _write_table(folder / "meta/tasks.parquet", tasks_table, {"pandas": json.dumps(pandas)})
    joined = {name: np.concatenate([columns[name] for columns in frames]) for name in names}
    _write_json(folder / "meta/stats.json", _statistics(joined))


def _place(file: int) -> dict[str, int]:
    return {"chunk_index": file // CHUNK, "file_index": file % CHUNK}


def _statistics(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Least, greatest and mean value and standard deviation of each column."""
    statistics = {}
    for name, values in columns.items():
        numbers = values.reshape(len(values), -1).astype(np.float64)
        moments = {"min": numbers.min(0), "max": numbers.max(0), "mean": numbers.mean(0), "std": numbers.std(0)}
        statistics[name] = {**{key: value.tolist() for key, value in moments.items()}, "count": [len(values)]}
    return statistics


def _write_table(path: Path, columns: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    arrow, parquet = require("pyarrow", "action"), require("pyarrow.parquet", "action")
    arrays = [
        arrow.FixedSizeListArray.from_arrays(arrow.array(values.reshape(-1)), values.shape[1])
        if isinstance(values, np.ndarray) and values.ndim == 2
        else arrow.array(values)
        for values in columns.values()
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    table = arrow.table(arrays, names=list(columns))
    parquet.write_table(table.replace_schema_metadata(metadata) if metadata else table, path)


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _read_lines(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise ArgumentError("folder", "lines of JSON that can be read", f"{path} ({error})") from error
