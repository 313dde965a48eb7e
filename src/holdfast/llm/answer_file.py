"""Answers on disk that outlive the program: what was paid for once is not asked for again."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from holdfast.errors import ArgumentError

LOCK_S = 60.0
"""Seconds to wait for another program that writes."""


class AnswerFile:
    """Answers in a file, one JSON object a line, only ever appended to.

    A kill at any instant costs at most the line that was being written, which readers skip. Several threads and
    programs may write: each holds a lock (a second file, with `.lock` after the name) while it does.

    Arguments:
        path: the file; it is made, with its folder, at the first answer, or by `prepare`.
    """

    def __init__(self, path: str | Path) -> None:
        if not isinstance(path, str | Path) or not str(path) or "\0" in str(path):
            raise ArgumentError("cache", "a path", repr(path))
        self.path = Path(path)
        self._lock = threading.Lock()
        self._answers: dict[str, Any] = {}
        self._read_to = 0

    def prepare(self) -> None:
        """Make the file if it is not there, and see that it can be written: before an answer is paid for.

        Errors:
            ArgumentError: it cannot.
        """
        with self._open():
            pass

    def read(self) -> dict[str, Any]:
        """All answers by key, those that other programs wrote since the last time included.

        Errors:
            ArgumentError: the file cannot be read.
        """
        with self._lock:
            try:
                lines = self._news()
            except FileNotFoundError:
                lines = b""
            except OSError as error:
                raise self._unusable(error) from None
            # What follows the last line break may still be on its way.
            whole = lines[: lines.rfind(b"\n") + 1]
            self._read_to += len(whole)
            for line in whole.splitlines():
                try:
                    record = json.loads(line)
                    self._answers[record["key"]] = record["answer"]
                except (ValueError, LookupError, TypeError, RecursionError):
                    continue
            return dict(self._answers)

    def append(self, record: dict[str, Any]) -> None:
        """Write one answer, and return once it is on the disk.

        Arguments:
            record: holds the `key` and the `answer`, and whatever else is to stand in the file for a person to read.

        Errors:
            ArgumentError: the file cannot be written.
        """
        line = json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        with self._open() as file:
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(end - 1)
                # A killed writer left half a line: it gets an end, so that only that one is lost.
                line = line if file.read(1) == b"\n" else b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def _news(self) -> bytes:
        with self.path.open("rb") as file:
            if file.seek(0, os.SEEK_END) < self._read_to:
                self._read_to = 0  # it was made anew
            file.seek(self._read_to)
            return file.read()

    @contextmanager
    def _open(self) -> Iterator[Any]:
        """The file, for one writer at a time."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._lock, FileLock(f"{self.path}.lock", timeout=LOCK_S), self.path.open("a+b") as file:
                yield file
        except (OSError, Timeout, NotImplementedError) as error:
            raise self._unusable(error) from None

    def _unusable(self, error: BaseException) -> ArgumentError:
        return ArgumentError("cache", "a file that can be read and written", f"{self.path} ({error})")
