"""An action model in one file: weights, and all that acting needs, such as bounds of actions and scales of rewards."""

from __future__ import annotations

from pathlib import Path

import torch

from holdfast.errors import ArgumentError
from holdfast.models.action.config import from_document, to_document
from holdfast.models.action.model import ActionModel
from holdfast.models.action.tensor_file import CheckpointError, checksum, read_tensors, write_tensors

KIND = "Holdfast action model"
VERSION = 1
"""Of the layout of the file."""

SHIPPED = Path(__file__).parent / "pretrained" / "policy.safetensors"
"""The small policy for four tasks of classic control that comes with the package; beside it the account of its training
with the command, and its scores."""


def save_model(model: ActionModel, path: Path) -> None:
    """Write a model to a file.

    Errors:
        CheckpointError: it cannot be written.
    """
    write_tensors(path, to_document(model.config), model.state_dict(), kind=KIND, version=VERSION)


def load_model(path: Path, device: torch.device | str = "cpu") -> ActionModel:
    """A model from a file, not training.

    Arguments:
        path: of the file.
        device: to put the model on.

    Errors:
        CheckpointError: the file is missing, truncated, damaged, or none that this version can read.
    """
    document, tensors = read_tensors(path, kind=KIND, version=VERSION)
    try:
        model = ActionModel(from_document(document))
        model.load_state_dict(tensors, assign=True)
    except (ArgumentError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{path}: no model of this version of Holdfast ({first})") from error
    return model.to(device).eval()


def fingerprint(model: ActionModel) -> str:
    """SHA-256 of the configuration and the weights: equal for models that act alike."""
    return checksum(to_document(model.config), model.state_dict())
