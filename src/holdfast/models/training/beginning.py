"""What a run is begun with: kept in its folder, and compared when it is to go on."""

from __future__ import annotations

import importlib.metadata
import platform
import warnings
from typing import Any

import torch

from holdfast import __version__
from holdfast.errors import ArgumentError
from holdfast.models.training.place import Place
from holdfast.models.training.recipe import Recipe


def environment(place: Place, *distributions: str) -> dict[str, Any]:
    """What the rounding of a run depends on.

    Arguments:
        place: where it computes.
        distributions: whose versions matter besides torch's.
    """
    return {
        "holdfast": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name: importlib.metadata.version(name) for name in distributions},
        "machine": platform.machine(),
        "device": place.device if place.device == "cpu" else torch.cuda.get_device_name(),
        "precision": place.precision,
        "threads": torch.get_num_threads(),
        "processes": place.processes,
    }


def check_beginning(beginning: dict[str, Any], now: dict[str, Any], recipe: Recipe, place: Place) -> None:
    """Refuse to go on with another recipe, and say what may change the rounding.

    Arguments:
        beginning: what the run was begun with: its `recipe` and `environment`.
        now: the environment now.
        recipe: that it is to go on with.
        place: where.

    Errors:
        ArgumentError: a setting differs, or the beginning is none.
    """
    for part in ("recipe", "environment"):
        if not isinstance(beginning.get(part), dict):
            raise ArgumentError("--resume", "a run of this version of Holdfast", f"a run.json without its {part}")
    for name, (value, then) in recipe.differences(type(recipe).from_dict(beginning["recipe"])).items():
        raise ArgumentError(name, f"{then}, which the run was begun with", str(value))
    differ = [
        f"{name} {then}, now {now.get(name)}"
        for name, then in beginning["environment"].items()
        if then != now.get(name)
    ]
    if differ and place.first:
        warnings.warn(
            f"weights will differ in rounding from a run without interruption: it began with {'; '.join(differ)}",
            stacklevel=4,
        )
