"""Trajectories from wherever they are."""

from __future__ import annotations

from pathlib import Path

from holdfast.errors import ArgumentError
from holdfast.models.action.trajectories.episode_files import read_episode_files
from holdfast.models.action.trajectories.lerobot import read_lerobot
from holdfast.models.action.trajectories.minari_dataset import read_minari
from holdfast.models.action.trajectories.trajectory import Trajectories


def read_trajectories(place: str, argument: str = "place") -> Trajectories:
    """Trajectories of whichever kind is there.

    Arguments:
        place: a folder of LeRobot, one of hdf5 or npz files with a domain, or the name of a Minari dataset.
        argument: what errors call it.

    Errors:
        ArgumentError: nothing is there, or it does not load.
    """
    folder = Path(place)
    if (folder / "meta" / "info.json").is_file():
        return read_lerobot(folder)
    if folder.is_dir():
        return read_episode_files(folder)
    if place.startswith((".", "/", "~")):
        raise ArgumentError(argument, "trajectories", f"{place}, which is no folder")
    try:
        return read_minari(place)
    except ArgumentError as error:
        if error.argument != "dataset_id":
            raise
        raise ArgumentError(argument, f"a folder of trajectories, or {error.expected}", error.got) from error
