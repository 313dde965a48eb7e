"""A user's own weights and data, from a file and from batches."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from holdfast.errors import ArgumentError, require

PLACES = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights")
"""Where checkpoints keep the weights, beside other things."""

IN_FOLDERS = ("model.safetensors", "pytorch_model.bin")
"""What the weights of a checkpoint are called that is a folder; in several parts there is an index of them."""


def load_weights(model: nn.Module, path: Path, place: str | None = None) -> None:
    """Load weights into a network.

    Names may begin with what `torch.compile`, `DistributedDataParallel` or Lightning put before them. Nothing in the
    file is executed.

    Arguments:
        model: of the same architecture; changed in place.
        path: see `read_weights`.
        place: see `read_weights`.

    Errors:
        ArgumentError: there is no such file, it has no weights, or those of another network.
        MissingExtraError: safetensors is not installed.
    """
    state = read_weights(path, place)
    names = list(model.state_dict())
    prefixes = {key.removesuffix(names[0]) for key in state if f".{key}".endswith(f".{names[0]}")} if names else set()
    fitting = [prefix for prefix in sorted(prefixes, key=len) if all(prefix + name in state for name in names)]
    prefix = fitting[0] if fitting else ""
    own = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
    try:
        model.load_state_dict(own)
    except RuntimeError as error:
        found = "; ".join(line.strip().rstrip(". ") for line in str(error).splitlines()[1:4])
        raise ArgumentError("--checkpoint", f"weights of {type(model).__name__}", f"{path} ({found})") from error


def read_weights(path: Path, place: str | None = None) -> dict[str, Tensor]:
    """Weights by name, on the CPU. Nothing in the file is executed.

    Arguments:
        path: what `torch.save` wrote of a state, or of a dict with one in it; a file of safetensors; or a folder that a
            Trainer of Hugging Face left, with either in one file or several.
        place: where the state is in it, with dots; `None`: the file itself, or under one of the usual names.

    Errors:
        ArgumentError: there is no such file, or it has no weights.
        MissingExtraError: safetensors is not installed.
    """
    if not path.is_dir():
        return _state(_read(path), place, path)
    for name in IN_FOLDERS:
        if (path / name).is_file():
            return read_weights(path / name, place)
        if (index := path / f"{name}.index.json").is_file():
            parts = [read_weights(path / part, place) for part in _parts(index)]
            return {key: tensor for part in parts for key, tensor in part.items()}
    raise ArgumentError("--checkpoint", f"a folder with {' or '.join(IN_FOLDERS)}", f"{path}, which has neither")


def gather(batches: Any, examples: int) -> tuple[Any, Tensor]:
    """Inputs and targets from a data loader, until there are enough.

    Arguments:
        batches: a pair of inputs and targets; or pairs of them, each a batch; or dicts with `labels`. Arrays of numpy
            are taken too.
        examples: how many are wanted.

    Returns:
        Inputs as a tensor, a tuple or a dict of them, and targets.

    Errors:
        ArgumentError: there is no batch, or it is something else.
    """
    if isinstance(batches, tuple) and len(batches) == 2 and isinstance(batches[1], Tensor):
        return batches
    if not isinstance(batches, Iterable):
        raise ArgumentError("--data", "batches, or a pair of inputs and targets", type(batches).__name__)
    pairs = list[tuple[Any, Tensor]]()
    count = 0
    for batch in batches:
        inputs, targets = _pair(batch)
        pairs.append((inputs, targets))
        count += len(targets)
        if count >= examples:
            break
    if not pairs:
        raise ArgumentError("--data", "at least one batch", "none")
    try:
        return _joined([inputs for inputs, _ in pairs]), torch.cat([targets for _, targets in pairs])
    except (RuntimeError, KeyError) as error:
        raise ArgumentError("--data", "batches of one shape but for their number of examples", str(error)) from error


def _parts(index: Path) -> list[str]:
    """Files that weights in several parts are in, which lie beside their index."""
    try:
        parts = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        if all(Path(part).name == part for part in parts):
            return parts
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        pass
    raise ArgumentError("--checkpoint", "an index with the names of files beside it", str(index))


def _read(path: Path) -> Any:
    if not path.is_file():
        raise ArgumentError("--checkpoint", "a file", f"{path}, which is not there")
    if path.suffix == ".safetensors":
        safetensors = require("safetensors.torch", "hf")
        try:
            return safetensors.load_file(path)
        except Exception as error:
            raise ArgumentError("--checkpoint", "a whole file of safetensors", f"{path} ({error})") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        expected = "a file that torch.load reads with weights_only=True: save a state_dict, and no objects"
        raise ArgumentError("--checkpoint", expected, f"{path} ({_why_unread(error)})") from error


def _why_unread(error: Exception) -> str:
    """Why torch does not read a file, without its advice, which is to run the code in it."""
    words = str(error).strip()
    if named := re.search(r"GLOBAL (\S+)", words):
        return f"it holds an object of {named[1]}"
    if isinstance(error, pickle.UnpicklingError):
        return "it is damaged, or something else than weights"
    return words.splitlines()[0] if words else type(error).__name__


def _state(content: Any, place: str | None, path: Path) -> dict[str, Tensor]:
    """The part of a checkpoint that is all tensors with names."""
    for key in place.split(".") if place else ():
        if not isinstance(content, Mapping) or key not in content:
            there = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
            raise ArgumentError("--weights", f"a place in {path}, which has: {there}", str(place))
        content = content[key]
    candidates = [content]
    if place is None and isinstance(content, Mapping):
        candidates += [content[name] for name in PLACES if name in content]
    for candidate in candidates:
        if isinstance(candidate, Mapping) and candidate and all(isinstance(x, Tensor) for x in candidate.values()):
            return {str(name): tensor for name, tensor in candidate.items()}
    there = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
    raise ArgumentError("--weights", f"the place of the weights in {path}, which has: {there}", str(place))


def _pair(batch: Any) -> tuple[Any, Tensor]:
    if isinstance(batch, Mapping) and "labels" in batch:
        return {name: _tensor(part) for name, part in batch.items() if name != "labels"}, _tensor(batch["labels"])
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise ArgumentError("--data", "batches of inputs and targets, or dicts with labels", type(batch).__name__)
    inputs, targets = batch
    if isinstance(inputs, Mapping):
        return {name: _tensor(part) for name, part in inputs.items()}, _tensor(targets)
    if isinstance(inputs, tuple | list):
        return tuple(_tensor(part) for part in inputs), _tensor(targets)
    return _tensor(inputs), _tensor(targets)


def _tensor(part: Any) -> Tensor:
    try:
        return torch.as_tensor(part)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentError("--data", "batches of tensors or arrays", type(part).__name__) from error


def _joined(parts: list[Any]) -> Any:
    if isinstance(parts[0], Mapping):
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    if isinstance(parts[0], tuple):
        return tuple(torch.cat(columns) for columns in zip(*parts, strict=True))
    return torch.cat(parts)
