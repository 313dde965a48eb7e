"""What a long trial keeps for a later attempt, in a folder of its own, bound to the code and data it came from.

FOLDER/kept.json    which of the others counts, its checksum, and the depfile of the process that wrote it
FOLDER/N            the file or folder that the trial has kept
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from holdfast.lab import files
from holdfast.lab.depfile import Depfile, Files, digest_of_file
from holdfast.lab.loading import Recorder

_INDEX = "kept.json"


class Checkpoints:
    """The checkpoints of one trial.

    Arguments:
        folder: where they are kept; made when the first one is. Where its store is not, as on another node of a
            cluster, nothing is kept.
        recorder: knows what the process depends on.
    """

    def __init__(self, folder: Path, recorder: Recorder) -> None:
        self._folder = folder
        self._recorder = recorder

    def keep(self, path: Path) -> None:
        """Move a file or folder here; it takes the place of the one before once all of it is on the disk."""
        path.stat()
        if not self._folder.parent.parent.is_dir():
            return
        with self._recorder.unheard():
            self._folder.mkdir(parents=True, exist_ok=True)
            numbers = [int(item.name) for item in self._folder.iterdir() if item.name.isdigit()]
            target = self._folder / str(max(numbers, default=0) + 1)
            shutil.move(path, target)
            _flush(target)
            index = {
                "name": target.name,
                "digest": digest_of_file(target),
                "depfile": self._recorder.depfile().to_json(),
            }
            temporary = self._folder / f"{_INDEX}.new"
            files.write(temporary, files.seal(index))
            temporary.replace(self._folder / _INDEX)
            for item in self._folder.iterdir():
                if item.name not in (_INDEX, target.name):
                    _remove(item)

    def last(self) -> Path | None:
        """What was kept last; a damaged one, or one of other code or data, is discarded."""
        with self._recorder.unheard():
            try:
                index = files.unseal(files.read(self._folder / _INDEX))
                path, depfile = self._folder / str(int(index["name"])), Depfile.from_json(index["depfile"])
                same = digest_of_file(path) == index["digest"] and depfile.whole == self._recorder.whole
            except FileNotFoundError:
                return None
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                same = False
            if not same or Files().changed(depfile, self._recorder.place.run):
                shutil.rmtree(self._folder, ignore_errors=True)
                return None
            self._recorder.adopt(depfile, path)
            return path


def _flush(path: Path) -> None:
    """All of a file or folder to the disk."""
    for item in [path, *path.rglob("*")] if path.is_dir() else [path]:
        with contextlib.suppress(OSError):  # a link that leads nowhere
            number = os.open(item, os.O_RDONLY)
            try:
                os.fsync(number)
            finally:
                os.close(number)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
