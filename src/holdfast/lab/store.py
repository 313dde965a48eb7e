"""Where results live: one checked folder a trial, written whole or not at all.

    STORE/
      STUDY/KEY/           trial.json  metrics.json  SHA256SUMS, and curves.json.gz where there are curves
      failed/STUDY/KEY/    failure.json  log.txt of a trial that did not finish
      set-aside/           what was damaged or foreign: never trusted, never deleted
      runs.json            which studies were run, and how: what `holdfast report` shows
      .checkpoints/KEY/    where a long trial may keep how far it is; gone once its result is here
      .locks/  .writing/   in use while a run is under way

KEY is a hash of what a result belongs to (`holdfast.lab.identity`). A folder is written under `.writing`, flushed to
the disk and renamed into place, so that a reader sees all of it or nothing. Every byte is covered by a checksum, and
nothing in a store is executed. A trial is computed under a file lock, which the operating system releases when its
owner dies.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from filelock import FileLock, Timeout

from holdfast.errors import HoldfastError
from holdfast.lab import files
from holdfast.lab.documents import from_json, to_json
from holdfast.lab.identity import key_of
from holdfast.lab.study import NAME
from holdfast.lab.trial import Outcome, Record

CURVES = "curves.json.gz"
FILES = ("trial.json", "metrics.json", CURVES)
"""What `SHA256SUMS` lists, the curves only where there are some."""
SUMS = "SHA256SUMS"

NOT_IN_A_FILE_NAME = r"[\\/\x00-\x1f\x7f]"
"""In the list of runs, which is shown to people."""


class StoreError(HoldfastError, OSError):
    """The store cannot be read or written; the message says which path and why."""


class StoreWarning(UserWarning):
    """Something in the store was set aside."""


@dataclass(frozen=True)
class Stored:
    """A finished trial as it lies in the store."""

    outcome: Outcome
    environment: Mapping[str, Any]


@dataclass(frozen=True)
class RunRecord:
    """How a study was last run into a store.

    Arguments:
        scale: the scale.
        overrides: settings that differ from the scale's, by dotted name.
        source: name of the file that holds the study, without its folder, if it is not an installed one. It is shown
            and never loaded: a store may come from anybody.
        only: the parts that were run, where others were left out.
        timeout: the time limit of its trials in seconds, if it was not that of the parts.
    """

    scale: str
    overrides: Mapping[str, Any]
    source: str | None = None
    only: tuple[str, ...] | None = None
    timeout: float | None = None


class Lock:
    """A trial's lock, held until it is released or the process dies. It leaves no file behind."""

    def __init__(self, lock: FileLock) -> None:
        self._lock = lock

    def release(self) -> None:
        """Let others have it."""
        # While it is held: whoever opened the same file meanwhile sees that it has no name any more, and tries again.
        with contextlib.suppress(OSError):
            os.unlink(self._lock.lock_file)
        self._lock.release()


class Store:
    """Results on disk.

    Arguments:
        root: the folder; made when first written to.

    Errors:
        StoreError: the path is there but is no folder.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if self.root.exists() and not self.root.is_dir():
            raise StoreError(f"expected a folder, got the file {self.root}")
        self._environments: dict[str, Mapping[str, Any]] = {}

    def check_writable(self) -> None:
        """Make the store's folders, or say at once that nothing could be kept; clear what killed runs left.

        Errors:
            StoreError: the folder is read-only, full or cannot be made.
        """
        with _clear_errors("write to", self.root):
            for name in (".locks", ".writing"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            probe = self.root / ".writing" / f"probe-{os.getpid()}"
            files.write(probe, b"x" * 4096)
            probe.unlink(missing_ok=True)  # another run may clear it as left behind
            left = [path.stem for path in (self.root / ".locks").glob("*.lock")]
            left += [path.name for path in (self.root / ".writing").iterdir()]
            for name in left:
                key, _, study = name.partition(".")
                lock = self.try_lock(key)
                if lock is not None:
                    target = self.root / study / key
                    if re.fullmatch(NAME, study) and not target.exists():  # it was to make room for a newer one
                        target.parent.mkdir(exist_ok=True)
                        (self.root / ".writing" / name).rename(target)
                    self._clear(self.root / ".writing" / name)
                    lock.release()

    @staticmethod
    def _clear(path: Path) -> None:
        shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):  # a file, or nothing
            path.unlink()

    def try_lock(self, key: str) -> Lock | None:
        """Take a trial's lock, or `None` if another run computes it now.

        Errors:
            StoreError: the store cannot be written.
        """
        lock = FileLock(self.root / ".locks" / f"{key}.lock")
        with _clear_errors("write to", self.root):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                return None
        return Lock(lock)

    def load(self, study: str, document: Mapping[str, Any]) -> Stored | None:
        """A trial's result, or `None` if it is not there.

        A folder that fails its checks is moved to `set-aside/` with a warning, if the store can be written.
        """
        key = key_of(document)
        folder = self.root / study / key
        if not folder.exists():
            return None
        try:
            stored = _read(folder, key)
            # Thousands of trials come from a few environments: one copy of each is enough.
            text = json.dumps(stored.environment, sort_keys=True)
            return replace(stored, environment=self._environments.setdefault(text, stored.environment))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if not folder.exists():  # another run set it aside first
                return None
            self._set_aside(folder, f"{study}-{key}", " ".join(str(error).split()) or type(error).__name__)
            return None

    def save(self, study: str, document: Mapping[str, Any], outcome: Outcome, environment: Mapping[str, Any]) -> Stored:
        """Write a finished trial, whole or not at all. The caller holds the trial's lock.

        Returns:
            What the store gives back; a verdict is judged from that, so that a later command cannot say otherwise.

        Errors:
            StoreError: the disk is full, the store is read-only, or it does not give back what was written.
        """
        key = key_of(document)
        target = self.root / study / key
        temporary = self.root / ".writing" / key
        contents = {
            "trial.json": files.to_bytes({"identity": document, "environment": environment}),
            "metrics.json": files.to_bytes({"records": [_encode(row) for row in outcome.records]}),
        }
        if outcome.curves:
            contents[CURVES] = _pack_curves(outcome.curves)
        with _clear_errors("write to", self.root):
            self._clear(temporary)
            temporary.mkdir(parents=True)
            for name, content in {**contents, SUMS: _sums(contents)}.items():
                files.write(temporary / name, content)
            target.parent.mkdir(exist_ok=True)
            if target.exists():  # of code that has changed since
                former = self.root / ".writing" / f"{key}.{study}"
                self._clear(former)
                target.rename(former)
                temporary.rename(target)
                self._clear(former)
            else:
                temporary.rename(target)
            shutil.rmtree(self.root / "failed" / study / key, ignore_errors=True)
        self.drop_checkpoint(key)
        stored = self.load(study, document)
        if stored is None:
            raise StoreError(f"{target} cannot be read back as it was written")
        return stored

    def save_failure(self, study: str, document: Mapping[str, Any], reason: str, log: str) -> None:
        """Keep the reason and log of a trial that did not finish; it is tried again by the next run.

        Errors:
            StoreError: the disk is full or the store is read-only.
        """
        folder = self.failed_folder(study, key_of(document))
        content = log.encode("utf-8", "backslashreplace")
        failure = {"identity": document, "reason": reason, "log_sha256": files.checksum(content)}
        with _clear_errors("write to", self.root):
            folder.mkdir(parents=True, exist_ok=True)
            files.write(self.log_of(study, folder.name), content)
            files.write(folder / "failure.json", files.seal(failure))

    def load_failure(self, study: str, document: Mapping[str, Any]) -> tuple[str, str] | None:
        """Reason and log of a trial's last failure, or `None`."""
        key = key_of(document)
        folder = self.failed_folder(study, key)
        if not folder.exists():
            return None
        try:
            failure, log = files.unseal(files.read(folder / "failure.json")), files.read(folder / "log.txt")
            if key_of(failure["identity"]) != key:
                raise ValueError("failure.json describes another trial")
            if files.checksum(log) != failure["log_sha256"]:
                raise ValueError("checksum of log.txt differs")
            return failure["reason"], log.decode("utf-8", "replace")
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._set_aside(folder, f"failed-{study}-{key}", " ".join(str(error).split()))
            return None

    def failed_folder(self, study: str, key: str) -> Path:
        """Where the reason and log of a failed trial lie."""
        return self.root / "failed" / study / key

    def log_of(self, study: str, key: str) -> Path:
        """The log of a failed trial."""
        return self.failed_folder(study, key) / "log.txt"

    def checkpoint_folder(self, key: str) -> Path:
        """Where a trial may keep how far it is until it has a result. The trial makes it, if it needs it."""
        return self.root / ".checkpoints" / key

    def drop_checkpoint(self, key: str) -> None:
        """Let a trial begin anew."""
        shutil.rmtree(self.checkpoint_folder(key), ignore_errors=True)
        with contextlib.suppress(OSError):  # others have some
            self.checkpoint_folder(key).parent.rmdir()

    def remember(
        self,
        study: str,
        scale: str,
        overrides: Mapping[str, Any],
        source: str | Path | None = None,
        only: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> None:
        """Note that a study was run, so that the report shows it. The latest run of a study counts.

        Arguments:
            study: its name.
            scale: the scale.
            overrides: settings that differ from the scale's, by dotted name.
            source: the file that holds the study, if it is not an installed one; its folder is not noted.
            only: the parts that were run, if not all.
            timeout: the time limit of its trials, if it was not that of the parts.
        """
        with _clear_errors("write to", self.root):
            lock = FileLock(self.root / ".locks" / "runs.lock")
            lock.acquire()
            try:
                runs = self._runs()
                name = re.sub(NOT_IN_A_FILE_NAME, "_", Path(source).name) if source else None
                runs[study] = RunRecord(scale, overrides, name, None if only is None else tuple(only), timeout)
                document = {name: to_json(vars(record), "config") for name, record in runs.items()}
                temporary = self.root / ".writing" / "runs"
                files.write(temporary, files.seal({"runs": document}))
                temporary.replace(self.root / "runs.json")
            finally:
                Lock(lock).release()

    def runs(self) -> dict[str, RunRecord]:
        """The latest run of each study. A damaged list is moved to `set-aside/` with a warning.

        Errors:
            StoreError: nothing was run into this store, or its list of runs was damaged.
        """
        runs = self._runs()
        if not runs:
            raise StoreError(f"no runs in {self.root}; run a study into it first")
        return runs

    def _runs(self) -> dict[str, RunRecord]:
        path = self.root / "runs.json"
        if not path.exists():
            return {}
        try:
            runs: dict[str, RunRecord] = from_json(files.unseal(files.read(path))["runs"], dict[str, RunRecord])
            for name, record in runs.items():
                if not re.fullmatch(NAME, name) or re.search(NOT_IN_A_FILE_NAME, record.source or ""):
                    raise ValueError("it has an impossible name")
        except (OSError, ValueError, KeyError) as error:
            why = f"{' '.join(str(error).split())[:200]}; run its studies again, which computes nothing that is there"
            self._set_aside(path, path.name, why)
            return {}
        return runs

    def _set_aside(self, path: Path, name: str, why: str) -> None:
        place = self.root / "set-aside"
        try:
            place.mkdir(exist_ok=True)
            for number in itertools.count(1):
                target = place / f"{name}-{number}"
                if not target.exists():
                    path.rename(target)
                    break
        except OSError as error:
            warnings.warn(f"{path} is not trusted ({why}) and cannot be moved ({error})", StoreWarning, 3)
        else:
            warnings.warn(f"{path} is not trusted ({why}); moved to {target}", StoreWarning, 3)


@contextlib.contextmanager
def _clear_errors(doing: str, path: Path) -> Iterator[None]:
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"cannot {doing} {path}: {error.strerror or error}") from error


def _read(folder: Path, key: str) -> Stored:
    """A trial's folder, with every byte of it checked.

    Errors:
        OSError, ValueError: a file is missing, damaged, or of another trial.
    """
    contents = {name: files.read(folder / name) for name in FILES if name != CURVES or (folder / name).exists()}
    sums = files.read(folder / SUMS)
    if sums != _sums(contents):
        raise ValueError(_difference(contents, sums))
    trial = files.from_bytes(contents["trial.json"])
    if key_of(trial["identity"]) != key:
        raise ValueError("trial.json describes another trial")
    records = tuple(_decode(row) for row in files.from_bytes(contents["metrics.json"])["records"])
    curves: Mapping[str, Sequence[Record]] = {}
    if CURVES in contents:
        curves = _Curves(folder / CURVES, files.checksum(contents[CURVES]))
    return Stored(Outcome(records, curves), trial["environment"])


def _sums(contents: Mapping[str, bytes]) -> bytes:
    """What `sha256sum` would say."""
    return "".join(f"{files.checksum(content)}  {name}\n" for name, content in contents.items()).encode()


def _difference(contents: Mapping[str, bytes], sums: bytes) -> str:
    """Which file does not have the checksum that it should have."""
    lines = sums.decode("utf-8", "replace").splitlines()
    for name, content in contents.items():
        if not any(line.endswith(f"  {name}") for line in lines):
            return f"{SUMS} does not list {name}"
        if f"{files.checksum(content)}  {name}" not in lines:
            return f"checksum of {name} differs"
    return f"{SUMS} lists other files than there are"


class _Curves(Mapping[str, Sequence[Record]]):
    """Curves of a stored trial, read when first asked for: many trials are only counted, not drawn."""

    def __init__(self, path: Path, checksum: str) -> None:
        self._path = path
        self._checksum = checksum
        self._tables: dict[str, list[Record]] | None = None

    def _read(self) -> dict[str, list[Record]]:
        if self._tables is None:
            with _clear_errors("read", self._path):
                content = files.read(self._path)
            if files.checksum(content) != self._checksum:
                raise StoreError(f"{self._path} has changed since it was checked; run the study again")
            tables = files.from_bytes(gzip.decompress(content))
            self._tables = {name: [_decode(row) for row in rows] for name, rows in tables.items()}
        return self._tables

    def __getitem__(self, name: str) -> Sequence[Record]:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())


def _pack_curves(curves: Mapping[str, Sequence[Record]]) -> bytes:
    tables = {name: [_encode(row) for row in rows] for name, rows in curves.items()}
    text = json.dumps(tables, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return gzip.compress(text.encode(), compresslevel=6, mtime=0)


def _encode(row: Record) -> dict[str, Any]:
    """A row as JSON data. JSON has no word for what is not finite, and text stays text."""
    return {
        name: {"float": repr(value)} if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }


def _decode(row: Mapping[str, Any]) -> Record:
    """A row that nobody can change: all claims read the same."""
    return MappingProxyType(
        {name: float(value["float"]) if isinstance(value, dict) else value for name, value in row.items()}
    )
