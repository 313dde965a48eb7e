"""Answers on disk that outlive the program: what was paid for once is not asked for again."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

from filelock import FileLock


class AnswerFile:
    """Answers in a file, one JSON object a line, only ever appended to.

    A kill at any instant costs at most the line that was being written, which readers skip. Several threads and
    programs may write: each holds a lock (a second file, with `.lock` after the name) while it does.

    Arguments:
        path: the file; it is made, with its folder, at the first answer.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._answers: dict[str, Any] = {}
        self._read_to = 0

    def read(self) -> dict[str, Any]:
        """All answers by key, those that other programs wrote since the last time included."""
        with self._lock:
            if self.path.exists():
                with self.path.open("rb") as file:
                    file.seek(self._read_to)
                    lines = file.read()
                # What follows the last line break may still be on its way.
                whole = lines[: lines.rfind(b"\n") + 1]
                self._read_to += len(whole)
                for line in whole.splitlines():
                    try:
                        record = json.loads(line)
                        self._answers[record["key"]] = record["answer"]
                    except (ValueError, LookupError, TypeError):
                        continue
            return dict(self._answers)

    def append(self, record: dict[str, Any]) -> None:
        """Write one answer, and return once it is on the disk.

        Arguments:
            record: holds the `key` and the `answer`, and whatever else is to stand in the file for a person to read.
        """
        line = json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock, FileLock(f"{self.path}.lock"), self.path.open("a+b") as file:
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(end - 1)
                # A killed writer left half a line: it gets an end, so that only that one is lost.
                line = line if file.read(1) == b"\n" else b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
