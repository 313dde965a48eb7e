"""The folder of a training run: what it was begun with, its checkpoints, and in the end the model and an account.

OUT/run.json                    what the run was begun with; written first, never again
OUT/checkpoints/checkpoint-N/   what a run keeps after N steps, and complete.json once all of it is on the disk
OUT/training.json               command, settings, versions, corpus and curve; written last, in place of checkpoints/
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.errors import ArgumentError

COMPLETE = "complete.json"
"""Stands in a checkpoint of which all is written."""


@dataclass(frozen=True)
class RunFolder:
    """A training run on the disk.

    Arguments:
        path: the folder.
    """

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints are."""
        return self.path / "checkpoints"

    @property
    def begun(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / "run.json").is_file()

    def check(self, *, resume: bool) -> None:
        """Refuse a folder that something would be overwritten in.

        Errors:
            ArgumentError: it is no empty folder, and no run that is to be resumed.
        """
        if not self.path.exists() or (resume and self.begun):
            return
        if not self.path.is_dir():
            raise ArgumentError("--output", "a folder", f"{self.path}, which is a file")
        if self.begun:
            raise ArgumentError("--output", "a new folder, or --resume to go on with the run in it", str(self.path))
        if any(self.path.iterdir()):
            raise ArgumentError("--output", "a new or an empty folder", f"{self.path}, which holds something else")

    def begin(self, beginning: dict[str, Any]) -> None:
        """Make the folder, with what the run begins with.

        Errors:
            ArgumentError: it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            _write(self.path / "run.json", beginning)
        except OSError as error:
            raise ArgumentError("--output", "a folder to write to", f"{self.path} ({error.strerror})") from error

    def beginning(self) -> dict[str, Any]:
        """What the run was begun with."""
        return _read(self.path / "run.json")

    def report(self) -> dict[str, Any] | None:
        """The account of a run that is done."""
        path = self.path / "training.json"
        return _read(path) if path.is_file() else None

    def complete(self, step: int, seconds: float) -> None:
        """Mark a checkpoint as whole, once all of it is on the disk.

        Arguments:
            step: steps after which it was made.
            seconds: what the run has taken until then.
        """
        folder = self.checkpoints / f"checkpoint-{step}"
        for path in folder.rglob("*"):
            _flush(path)
        _write(folder / COMPLETE, {"step": step, "seconds": seconds})

    def last_checkpoint(self) -> tuple[Path, float] | None:
        """The last whole checkpoint, and the seconds that the run had taken by then."""
        marks = [_read(path) | {"folder": path.parent} for path in self.checkpoints.glob(f"checkpoint-*/{COMPLETE}")]
        last = max(marks, key=lambda mark: mark["step"], default=None)
        return None if last is None else (last["folder"], last["seconds"])

    def discard_incomplete(self) -> list[str]:
        """Remove checkpoints that a killed process has left half-written; their names."""
        half = [path for path in self.checkpoints.glob("checkpoint-*") if not (path / COMPLETE).is_file()]
        for path in half:
            shutil.rmtree(path)
        return sorted(path.name for path in half)

    def finish(self, report: dict[str, Any]) -> None:
        """Write the account beside the model; checkpoints are needed no more."""
        for path in self.path.iterdir():
            if path.is_file():
                _flush(path)
        _write(self.path / "training.json", report)
        shutil.rmtree(self.checkpoints, ignore_errors=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(document, dict):
            return document
    except (OSError, ValueError):
        pass
    raise ArgumentError("--output", "the folder of a training run", f"{path}, which cannot be read")


def _write(path: Path, document: dict[str, Any]) -> None:
    """All of a file or nothing."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    _flush(temporary)
    temporary.replace(path)
    _flush(path.parent)


def _flush(path: Path) -> None:
    with contextlib.suppress(OSError):  # a file system that cannot open folders
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
