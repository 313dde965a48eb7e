"""One file a trajectory, hdf5 or npz, as the published code of arXiv 2410.22391 has it.

A file has `states`, `actions`, `rewards`, `dones` (one number, or one a step) and, where they were computed,
`returns_to_go`. Files that are written here have more entries, which that code passes over: `final_state`,
`terminated`, `truncated`, `labels`, `remaining`. A task is a folder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from holdfast.errors import ArgumentError, require
from holdfast.models.action.domain import Domain
from holdfast.models.action.trajectories.domain_file import read_domain, write_domain
from holdfast.models.action.trajectories.trajectory import Trajectories, Trajectory

NEEDED = ("states", "actions", "rewards", "dones")


def read_episode_files(folder: Path, domain: Domain | None = None) -> Trajectories:
    """All trajectories below a folder, in the order of their paths.

    Arguments:
        folder: with `.hdf5` and `.npz` files, in a folder a task or directly.
        domain: what they are of; `None`: it was written with them.

    Errors:
        ArgumentError: no file, a file that cannot be read or lacks an entry, stored returns-to-go that are not the sums
            of the rewards, or no domain.
        MissingExtraError: there are hdf5 files and h5py is not installed.
    """
    folder = Path(folder)
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".hdf5", ".npz"))
    if not paths:
        raise ArgumentError("folder", "one with .hdf5 or .npz files", str(folder))
    domain = read_domain(folder) if domain is None else domain
    if domain is None:
        raise ArgumentError("domain", "the domain, which these files do not name", "None")
    if any(path.suffix == ".hdf5" for path in paths):
        require("h5py", "action")
    return Trajectories.of(domain, [_read(path, path.parent.relative_to(folder).as_posix()) for path in paths])


def write_episode_files(data: Trajectories, folder: Path, *, kind: Literal["hdf5", "npz"] = "hdf5") -> None:
    """Write each trajectory into a file of its own, and the domain beside them.

    Arguments:
        data: what to write.
        folder: made if it does not exist; has to be empty.
        kind: of the files.

    Errors:
        ArgumentError: the folder is not empty, the kind is unknown, rewards are not known, or a task is no name of a
            folder.
        MissingExtraError: h5py is needed and not installed.
    """
    if kind not in ("hdf5", "npz"):
        raise ArgumentError("kind", "'hdf5' or 'npz'", kind)
    if kind == "hdf5":
        require("h5py", "action")
    folder = empty_folder(folder)
    for number, item in enumerate(data.items):
        if item.rewards is None:
            raise ArgumentError("data", "rewards, which these files hold", "none")
        if Path(item.task).is_absolute() or ".." in Path(item.task).parts:
            raise ArgumentError("task", "the name of a folder", repr(item.task))
        path = folder / item.task / f"{number:06d}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, _entries(item))
    write_domain(data.domain, folder)


def empty_folder(folder: Path) -> Path:
    """A folder to write to, made if it does not exist.

    Errors:
        ArgumentError: there is something in it.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArgumentError("folder", "one that is empty or does not exist", str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _entries(item: Trajectory) -> dict[str, Any]:
    steps = len(item)
    ended = item.terminated or item.truncated
    entries = {
        "states": item.observations[:steps],
        "actions": item.actions,
        "rewards": item.rewards,
        "dones": np.arange(steps) == (steps - 1 if ended else steps),
        "terminated": np.array(item.terminated),
        "truncated": np.array(item.truncated),
    }
    if len(item.observations) > steps:
        entries["final_state"] = item.observations[steps]
    if item.labels is not None:
        entries["labels"] = item.labels
    if item.remaining is not None:
        entries["remaining"] = np.array(item.remaining)
    if math.isfinite(item.rest):
        entries["returns_to_go"] = item.returns_to_go()
    return entries


def _write(path: Path, entries: Mapping[str, Any]) -> None:
    if path.suffix == ".npz":
        np.savez_compressed(path, **entries)
        return
    with require("h5py", "action").File(path, "w") as file:
        for name, values in entries.items():
            options = {"compression": "gzip"} if np.ndim(values) else {}
            file.create_dataset(name, data=values, **options)


def _read(path: Path, task: str) -> Trajectory:
    try:
        entries = _loaded(path)
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise ArgumentError("folder", "files that can be read", f"{path} ({error})") from error
    except Exception as error:  # zipfile and zlib have errors of their own for a damaged npz
        raise ArgumentError("folder", "files that can be read", f"{path} ({type(error).__name__})") from error
    missing = [name for name in NEEDED if name not in entries]
    if missing:
        raise ArgumentError("folder", f"files with {', '.join(NEEDED)}", f"{path} without {', '.join(missing)}")
    rewards = np.asarray(entries["rewards"]).reshape(-1)
    rewards = rewards if np.issubdtype(rewards.dtype, np.floating) else rewards.astype(np.float32)
    done = bool(np.asarray(entries["dones"]).reshape(-1)[-1:].any())
    observations = np.asarray(entries["states"])
    if "final_state" in entries:
        observations = np.concatenate([observations, entries["final_state"][None]])
    truncated = bool(entries.get("truncated", False))
    return Trajectory(
        observations=observations,
        actions=np.asarray(entries["actions"]),
        rewards=rewards,
        terminated=bool(entries.get("terminated", done)),
        truncated=truncated,
        task="" if task == "." else task,
        labels=entries.get("labels"),
        remaining=_remaining(path, entries, rewards, done),
    )


def _loaded(path: Path) -> dict[str, Any]:
    if path.suffix == ".npz":
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:  # numpy leaves a damaged one open
            return dict(file)
    with require("h5py", "action").File(path, "r") as file:
        return {name: file[name][()] for name in file}


def _remaining(path: Path, entries: Mapping[str, Any], rewards: Any, done: bool) -> float | None:
    """The return after the last step: as written, or what stored returns-to-go say of a trajectory that is cut off."""
    if "remaining" in entries:
        return float(entries["remaining"])
    if "returns_to_go" not in entries or not len(rewards):
        return None
    stored = np.asarray(entries["returns_to_go"], np.float64).reshape(-1)
    if stored.shape != rewards.shape:
        raise ArgumentError("returns_to_go", f"{len(rewards)} in {path}", len(stored))
    rest = float(stored[-1] - rewards[-1])
    wanted = np.cumsum(rewards[::-1], dtype=np.float64)[::-1] + rest
    largest = max(float(np.abs(wanted).max()), float(np.abs(rewards).max()), 1e-30)
    if not np.allclose(stored, wanted, rtol=0, atol=1e-4 * largest):  # they are sums in float32
        expected = f"sums of the rewards from each step on in {path}"
        raise ArgumentError("returns_to_go", expected, "others (discounted, rescaled or of a target)")
    return None if done else rest
