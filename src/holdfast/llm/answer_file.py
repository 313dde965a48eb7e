"""Answers on disk that outlive the program: what was paid for once is not asked for again."""

from __future__ import annotations

import gc
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from holdfast.errors import ArgumentError

LOCK_S = 60.0
"""Seconds to wait for another program that writes."""

SYNC_S = 1.0
"""Seconds of answers that a power cut may cost while a file is kept open; a kill costs none."""

BEGINNING = b'{"key": "'
"""Of every line that is written here."""

Write = Callable[[dict[str, Any]], None]
"""Writes one record."""


class AnswerFile:
    """Answers in a file, one JSON object a line, only ever appended to.

    A kill at any instant costs at most the line that was being written, which readers skip. Several threads and
    programs may write: each holds a lock (a second file, with `.lock` after the name) while it does.

    Arguments:
        path: the file; it is made, with its folder, at the first answer, or by `prepare`.
        argument: what errors call it: the name under which the user gave the path.
    """

    def __init__(self, path: str | Path, argument: str = "cache") -> None:
        self._argument = argument
        if not isinstance(path, str | Path) or not str(path) or "\0" in str(path):
            raise ArgumentError(argument, "a path", repr(path))
        self.path = Path(path)
        self._reading, self._writing = threading.Lock(), threading.Lock()
        self._answers: dict[str, Any] = {}
        self._read_to = 0
        self._known_as_ours = False

    def check(self) -> None:
        """See that what is there, if anything is, was written here: nothing is ever appended to another file.

        Errors:
            ArgumentError: it holds something else, or cannot be read.
        """
        try:
            self._refuse_devices()
            with self.path.open("rb") as file:
                self._refuse_others(file)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unusable(error) from None

    def prepare(self) -> None:
        """Make the file if it is not there, and see that it can be written: before an answer is paid for.

        Errors:
            ArgumentError: it cannot, or what is there was not written here.
        """
        with self._open():
            pass

    def read(self) -> dict[str, Any]:
        """All answers by key, those that other programs wrote since the last time included.

        Errors:
            ArgumentError: the file cannot be read.
        """
        with self._reading:
            try:
                lines = self._news()
            except FileNotFoundError:
                lines = b""
            except OSError as error:
                raise self._unusable(error) from None
            # What follows the last line break may still be on its way.
            whole = lines[: lines.rfind(b"\n") + 1]
            self._read_to += len(whole)
            with without_garbage_collection():
                for line in whole.splitlines():
                    try:
                        record = json.loads(line)
                        key, answer = record["key"], record["answer"]
                        if isinstance(key, str):  # others are not ours
                            self._answers[key] = answer
                    except (ValueError, LookupError, TypeError, RecursionError):
                        continue
            return dict(self._answers)

    def append(self, record: dict[str, Any]) -> None:
        """Write one answer, and return once it is on the disk.

        Arguments:
            record: holds the `key` and the `answer`, and whatever else is to stand in the file for a person to read.

        Errors:
            ArgumentError: the file cannot be written, or what is there was not written here.
        """
        with self._open() as file:
            self._write(file, record)
            self._sync(file)

    @contextmanager
    def writer(self) -> Iterator[Write]:
        """Keep the file open for many answers; nobody else can write meanwhile.

        Each answer is handed to the system at once, so that a kill loses none that was written, and is on the disk
        within about a second, and when the file is closed.

        Returns:
            The function that writes one record, from one thread at a time; see `append`.

        Errors:
            ArgumentError: another program writes to the file, it cannot be written, or what is there was not written
                here.
        """
        with self._open(wait_s=0.0) as file:
            synced = time.monotonic()

            def write(record: dict[str, Any]) -> None:
                nonlocal synced
                self._write(file, record)
                if time.monotonic() - synced > SYNC_S:
                    self._sync(file)
                    synced = time.monotonic()

            try:
                yield write
            except BaseException:
                with suppress(ArgumentError):  # what went wrong before says more
                    self._sync(file)
                raise
            self._sync(file)

    def _refuse_devices(self) -> None:
        """Refuse folders too."""
        if self.path.exists() and not self.path.is_file():
            raise OSError("not a regular file: it may have no end")

    def _refuse_others(self, file: Any) -> None:
        """Refuse a file that is not empty and has no line of ours, not even a torn one.

        Arguments:
            file: open for reading.
        """
        file.seek(0)
        empty = True
        while not self._known_as_ours and (line := file.readline()):
            self._known_as_ours = _is_ours(line.strip())
            empty = empty and not line.strip()
        if not empty and not self._known_as_ours:
            expected = "a new file, or one that was written as such before"
            raise ArgumentError(self._argument, expected, f"{self.path}, which holds something else")

    def _news(self) -> bytes:
        self._refuse_devices()
        with self.path.open("rb") as file:
            if file.seek(0, os.SEEK_END) < self._read_to:
                self._read_to = 0  # it was made anew
            file.seek(self._read_to)
            return file.read()

    def _write(self, file: Any, record: dict[str, Any]) -> None:
        """Put one record on a line of its own, in one call."""
        line = json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        try:
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(end - 1)
                # A killed writer left half a line: it gets an end, so that only that one is lost.
                line = line if file.read(1) == b"\n" else b"\n" + line
            while line:
                line = line[file.write(line) :]
        except OSError as error:
            raise self._unusable(error) from None

    def _sync(self, file: Any) -> None:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            raise self._unusable(error) from None

    @contextmanager
    def _open(self, wait_s: float = LOCK_S) -> Iterator[Any]:
        """The file, for one writer at a time."""
        with ExitStack() as opened:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                if not self._writing.acquire(timeout=wait_s):
                    raise Timeout(str(self.path))
                opened.callback(self._writing.release)
                opened.enter_context(FileLock(f"{self.path}.lock", timeout=wait_s))
                file = opened.enter_context(self.path.open("a+b", buffering=0))
                if self.path.is_file():
                    self._refuse_others(file)
            except Timeout as error:
                raise ArgumentError(
                    self._argument, "a file that nobody else is writing to", f"{self.path} ({error})"
                ) from None
            except (OSError, NotImplementedError) as error:
                raise self._unusable(error) from None
            yield file

    def _unusable(self, error: BaseException) -> ArgumentError:
        return ArgumentError(self._argument, "a file that can be read and written", f"{self.path} ({error})")


def _is_ours(line: bytes) -> bool:
    """Whether a line holds an answer, or is what a kill left of one."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return line.startswith(BEGINNING) or (line != b"" and BEGINNING.startswith(line))
    return isinstance(record, dict) and isinstance(record.get("key"), str) and "answer" in record


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Look for no garbage while many objects are made and all are kept: it would take twice as long as the rest."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
