"""Tensors with a header in a file that says whether it is whole: safetensors, a format with a version, a checksum."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from holdfast import __version__
from holdfast.errors import HoldfastError, require


class CheckpointError(HoldfastError):
    """A file that cannot be used, and why."""


def checksum(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a header and of names, dtypes, shapes and bytes of tensors."""
    total = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def write_tensors(
    path: Path, header: Mapping[str, Any], tensors: Mapping[str, Tensor], *, kind: str, version: int
) -> None:
    """Write a file, all of it or nothing.

    Arguments:
        path: of the file; its folder is made where it is missing.
        header: what JSON can say.
        tensors: by name.
        kind: what the file holds, in a few words.
        version: of that kind's layout.

    Errors:
        MissingExtraError: safetensors is not installed.
        CheckpointError: it cannot be written.
    """
    safetensors = require("safetensors.torch", "hf")
    metadata = {
        "kind": kind,
        "version": str(version),
        "holdfast": __version__,
        "header": json.dumps(header),
        "sha256": checksum(header, tensors),
    }
    # Copies: tensors that share memory are refused, and a view would be written with all it is a part of.
    content = safetensors.save(
        {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()},
        metadata,
    )
    temporary = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written ({error.strerror})") from error


def read_tensors(path: Path, *, kind: str, version: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a file, and make sure that it is whole.

    Arguments:
        path: of the file.
        kind: what it should hold.
        version: the newest layout of that kind that is understood.

    Returns:
        The header, and the tensors by name.

    Errors:
        MissingExtraError: safetensors is not installed.
        CheckpointError: it cannot be read, is truncated, damaged, of another kind or a newer version.
    """
    safetensors = require("safetensors.torch", "hf")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    metadata = _metadata(path, content, kind)
    found = metadata.get("version", "")
    if not found.isdigit() or not 1 <= int(found) <= version:
        by = metadata.get("holdfast", "?")
        raise CheckpointError(
            f"{path}: {kind} of layout {found or 'unknown'}, written by Holdfast {by}; this one reads up to {version}"
        )
    try:
        tensors: dict[str, Tensor] = safetensors.load(content)
        header = json.loads(metadata["header"])
    except Exception as error:  # safetensors has no error class of its own that is public
        raise CheckpointError(f"{path}: damaged ({' '.join(str(error).split())})") from error
    if checksum(header, tensors) != metadata.get("sha256"):
        raise CheckpointError(f"{path}: damaged, its contents do not have the checksum that it was written with")
    return header, tensors


def _metadata(path: Path, content: bytes, kind: str) -> dict[str, str]:
    """The strings in a file of safetensors whose length is as it says.

    The length is checked first, and here: what a library says of a truncated file names no length.
    """
    size = int.from_bytes(content[:8], "little")
    if len(content) >= 9 and content[8:9] != b"{":
        raise CheckpointError(f"{path}: no {kind}, and no safetensors file")
    if len(content) < 8 + size or size < 2:
        raise CheckpointError(f"{path}: file truncated at {len(content)} bytes, within its header")
    try:
        entries: dict[str, Any] = json.loads(content[8 : 8 + size])
        metadata = entries.pop("__metadata__", {})
        end = 8 + size + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: damaged, its header cannot be read") from error
    if len(content) < end:
        raise CheckpointError(f"{path}: file truncated at {len(content)} of {end} bytes")
    if not isinstance(metadata, dict) or metadata.get("kind") != kind:
        got = metadata.get("kind", "another safetensors file") if isinstance(metadata, dict) else "another file"
        raise CheckpointError(f"{path}: no {kind}, but {got}")
    return metadata
