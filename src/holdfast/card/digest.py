"""What changes when a model does."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def digest_of(state: Mapping[str, Any]) -> str:
    """SHA-256 of names and values of a network's state."""
    import torch

    total = hashlib.sha256()
    for name, value in state.items():
        total.update(name.encode())
        if isinstance(value, torch.Tensor):
            total.update(f"{value.dtype}{tuple(value.shape)}".encode())
            flat = value.detach().cpu().contiguous().reshape(-1)
            total.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    return total.hexdigest()


def digest_of_files(paths: Sequence[Path]) -> str:
    """SHA-256 of names and contents; of a folder all its files."""
    total = hashlib.sha256()
    for path in paths:
        files = sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
        for file in files:
            total.update(file.name.encode())
            with file.open("rb") as stream:
                for piece in iter(functools.partial(stream.read, 1 << 20), b""):
                    total.update(piece)
    return total.hexdigest()
