"""Checkpoints of a training run: a run that was killed goes on as if nothing had been.

All of it is kept: networks, noise, optimisers, similarity, the replay with its tree, every stream of random numbers,
and for each environment what was done in its game, which is played again.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from holdfast.errors import ArgumentError
from holdfast.models.training.run_folder import RunFolder
from holdfast.rl.rainbow.agent import Rainbow
from holdfast.rl.rainbow.replay import Replay
from holdfast.rl.rainbow.slots import Slots

STATE = "state.pt"
"""The file in a checkpoint's folder: tensors and plain values, nothing that loading would execute."""
PARTS = {"agent", "replay", "played", "account"}
"""What is in it."""


def save(folder: RunFolder, step: int, seconds: float, parts: tuple[Rainbow, Replay, Slots], account: Any) -> None:
    """Write a checkpoint, and remove older ones once it is whole.

    Arguments:
        folder: of the run.
        step: primitive steps that were made.
        seconds: that they took.
        parts: agent, replay and environments.
        account: plain values to keep beside them.
    """
    agent, replay, slots = parts
    path = folder.checkpoints / f"checkpoint-{step}"
    path.mkdir(parents=True, exist_ok=True)
    state = {
        "agent": agent.state_dict(),
        "replay": replay.state_dict(),
        "played": slots.played(),
        "account": account,
    }
    torch.save(state, path / STATE)
    folder.complete(step, seconds)
    for old in folder.checkpoints.glob("checkpoint-*"):
        if old != path:
            shutil.rmtree(old)


def load(path: Path, parts: tuple[Rainbow, Replay, Slots]) -> Any:
    """Put agent, replay and environments back.

    Arguments:
        path: folder of the checkpoint.
        parts: agent, replay and environments as they are at the beginning of a run.

    Returns:
        The account that was kept.

    Errors:
        ArgumentError: it cannot be read, or is of another run.
    """
    agent, replay, slots = parts
    try:
        state = torch.load(path / STATE, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, EOFError) as error:
        raise ArgumentError("--resume", "a checkpoint that can be read", f"{path} ({error})") from error
    if not isinstance(state, dict) or state.keys() != PARTS:
        raise ArgumentError("--resume", f"a checkpoint of {', '.join(sorted(PARTS))}", str(path))
    agent.load_state_dict(state["agent"])
    replay.load_state_dict(state["replay"])
    slots.play_again(tuple(state["played"]))
    return state["account"]
