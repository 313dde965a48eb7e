"""Trajectories that a recipe names: read from where they are, or collected from the experts of classic control."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from holdfast.errors import ArgumentError
from holdfast.models.action.recipe import ActionDataRecipe, ActionRecipe
from holdfast.models.action.trajectories import (
    Sampling,
    Trajectories,
    TrajectorySource,
    read_episode_files,
    read_lerobot,
    read_minari,
)
from holdfast.rl.classic_control import TASKS, ControlTask
from holdfast.rl.collect import Bursts, collect

MINARI = "minari:"
"""Before the id of a dataset of Minari."""

MASKED = "-masked"
"""Behind the name of a task whose velocities are hidden."""


def read_training_data(recipe: ActionDataRecipe, *, returns: bool = True) -> list[Trajectories]:
    """All trajectories of a recipe, one entry a domain.

    Arguments:
        recipe: where they are.
        returns: whether the policy is to be told a return, so that every domain needs a target.

    Errors:
        ArgumentError: there are none, or none that can be read or used.
        MissingExtraError: a package that reads them is not installed.
    """
    if not recipe.data and not recipe.control:
        raise ArgumentError("--data", "trajectories, or tasks with --control", "neither")
    tasks = [_task(name) for name in recipe.control]
    data = [*map(read_place, recipe.data), *(_collected(task, recipe.episodes) for task in tasks)]
    return [part if not returns or part.domain.target_return is not None else _aimed(part, recipe) for part in data]


def read_place(place: str) -> Trajectories:
    """Trajectories of a domain.

    Arguments:
        place: a folder, or `minari:ID`.

    Errors:
        ArgumentError: there are none that can be read.
    """
    try:
        if place.startswith(MINARI):
            return read_minari(place.removeprefix(MINARI))
        folder = Path(place)
        return read_lerobot(folder) if (folder / "meta" / "info.json").is_file() else read_episode_files(folder)
    except ArgumentError as error:
        if error.argument in ("folder", "dataset_id", "domain"):
            raise ArgumentError("--data", error.expected, f"{place} ({error.got})") from error
        raise


def source_of(recipe: ActionRecipe, data: list[Trajectories]) -> TrajectorySource:
    """Batches for training by a recipe.

    Arguments:
        recipe: of the run.
        data: its trajectories.
    """
    sampling = Sampling(
        context=recipe.data.context,
        held_out=recipe.data.held_out,
        validation_windows=recipe.data.validation_windows,
        returns=recipe.model.returns,
        seed=recipe.optimisation.seed,
    )
    return TrajectorySource(data, sampling)


def _task(name: str) -> ControlTask:
    task = TASKS.get(name.removesuffix(MASKED))
    if task is None:
        raise ArgumentError("--control", f"some of {', '.join(TASKS)}, perhaps with {MASKED} behind them", name)
    return task.without_velocities() if name.endswith(MASKED) else task


def _collected(task: ControlTask, episodes: int) -> Trajectories:
    """Episodes of an expert; the same ones whenever they are asked for."""
    environment = task.make()
    try:
        items = collect(environment, task.expert, episodes, seed=0, bursts=Bursts(), observe=task.observe)
    finally:
        environment.close()
    return Trajectories.of(task.domain, items)


def _aimed(data: Trajectories, recipe: ActionDataRecipe) -> Trajectories:
    """With a target return, where returns are known."""
    if not np.isfinite(data.returns).any():
        return data
    return data.with_target(recipe.target_quantile)
