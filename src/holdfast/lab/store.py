"""Where results live: one checked folder a trial, written whole or not at all.

    STORE/
      STUDY/KEY/           trial.json  metrics.json  curves.parquet  environment.json  SHA256SUMS
      failed/STUDY/KEY/    trial.json  reason and log of a trial that did not finish
      set-aside/           damaged or foreign trial folders: never trusted, never deleted
      runs.json            which studies were run, and how: what `holdfast report` shows
      .locks/  .writing/   in use while a run is under way

KEY is a hash of what a result belongs to (`holdfast.lab.identity`). A folder
is written under `.writing` and renamed into place, so that a reader sees all of it or nothing. A trial is computed
under a file lock, which the operating system releases when its owner dies.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from holdfast.errors import ArgumentError, HoldfastError
from holdfast.lab.documents import from_json, read_json, to_json, write_json
from holdfast.lab.identity import key_of
from holdfast.lab.trial import Outcome, Record

FILES = ("trial.json", "metrics.json", "curves.parquet", "environment.json")
SUMS = "SHA256SUMS"
RESERVED = ("failed", "set-aside")

_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


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
        source: the file that holds the study, if it is not an installed one.
    """

    scale: str
    overrides: Mapping[str, Any]
    source: str | None = None


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

    def check_writable(self) -> None:
        """Make the store's folders, or say at once that nothing could be kept.

        Errors:
            StoreError: the folder is read-only, full or cannot be made.
        """
        with _clear_errors("write to", self.root):
            for name in (".locks", ".writing"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            probe = self.root / ".writing" / f"probe-{os.getpid()}"
            probe.write_bytes(b"x" * 4096)
            probe.unlink()

    def lock(self, key: str) -> FileLock:
        """The lock under which a trial is computed; take it with `timeout=0`."""
        return FileLock(self.root / ".locks" / f"{key}.lock")

    def try_lock(self, key: str) -> FileLock | None:
        """Take a trial's lock, or `None` if another run computes it now."""
        lock = self.lock(key)
        with _clear_errors("write to", self.root):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                return None
        return lock

    def load(self, study: str, document: Mapping[str, Any]) -> Stored | None:
        """A trial's result, or `None` if it is not there.

        A folder that fails its checks is moved to `set-aside/` with a warning, if the store can be written.
        """
        folder = self.root / study / key_of(document)
        if not folder.exists():
            return None
        try:
            return _read(folder, document)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if not folder.exists():  # another run set it aside first
                return None
            self._set_aside(folder, " ".join(str(error).split()) or type(error).__name__)
            return None

    def save(self, study: str, document: Mapping[str, Any], outcome: Outcome, environment: Mapping[str, Any]) -> None:
        """Write a finished trial, whole or not at all. The caller holds the trial's lock.

        Errors:
            StoreError: the disk is full or the store is read-only.
        """
        key = key_of(document)
        target = self.root / study / key
        temporary = self.root / ".writing" / key
        with _clear_errors("write to", self.root):
            shutil.rmtree(temporary, ignore_errors=True)  # what a killed run left
            temporary.mkdir(parents=True)
            write_json(temporary / "trial.json", document)
            write_json(temporary / "metrics.json", {"records": [_encode(row) for row in outcome.records]})
            _write_curves(temporary / "curves.parquet", outcome.curves)
            write_json(temporary / "environment.json", environment)
            sums = "".join(f"{_sha256(temporary / name)}  {name}\n" for name in FILES)
            (temporary / SUMS).write_text(sums, encoding="utf-8")
            target.parent.mkdir(exist_ok=True)
            if target.exists():  # of code that has changed since
                former = self.root / ".writing" / f"{key}-former"
                shutil.rmtree(former, ignore_errors=True)
                target.rename(former)
                temporary.rename(target)
                shutil.rmtree(former, ignore_errors=True)
            else:
                temporary.rename(target)
            shutil.rmtree(self.root / "failed" / study / key, ignore_errors=True)

    def save_failure(self, study: str, document: Mapping[str, Any], reason: str, log: str) -> None:
        """Keep the reason and log of a trial that did not finish; it is tried again by the next run."""
        folder = self.root / "failed" / study / key_of(document)
        with _clear_errors("write to", self.root):
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / "trial.json", document)
            write_json(folder / "failure.json", {"reason": reason, "log": log})

    def load_failure(self, study: str, document: Mapping[str, Any]) -> tuple[str, str] | None:
        """Reason and log of a trial's last failure, or `None`."""
        try:
            failure = read_json(self.root / "failed" / study / key_of(document) / "failure.json")
            failure = from_json(failure, dict[str, str])
            return failure["reason"], failure["log"]
        except (OSError, ValueError, KeyError):
            return None

    def remember(self, study: str, scale: str, overrides: Mapping[str, Any], source: str | None = None) -> None:
        """Note that a study was run, so that the report shows it. The latest run of a study counts."""
        with _clear_errors("write to", self.root), FileLock(self.root / ".locks" / "runs.lock"):
            runs = self._runs()
            runs[study] = RunRecord(scale, overrides, source)
            temporary = self.root / ".writing" / f"runs-{os.getpid()}.json"
            write_json(temporary, to_json(runs, "config"))
            temporary.replace(self.root / "runs.json")

    def runs(self) -> dict[str, RunRecord]:
        """The latest run of each study.

        Errors:
            StoreError: nothing was run into this store, or its list of runs is damaged.
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
            return from_json(read_json(path), dict[str, RunRecord])  # type: ignore[no-any-return]
        except (OSError, ValueError) as error:
            raise StoreError(f"{path} is damaged ({error}); remove it and run again") from error

    def _set_aside(self, folder: Path, why: str) -> None:
        place = self.root / "set-aside"
        try:
            place.mkdir(exist_ok=True)
            for number in itertools.count(1):
                target = place / f"{folder.parent.name}-{folder.name}-{number}"
                if not target.exists():
                    folder.rename(target)
                    break
        except OSError as error:
            warnings.warn(f"{folder} is not trusted ({why}) and cannot be moved ({error})", StoreWarning, 3)
        else:
            warnings.warn(f"{folder} is not trusted ({why}); moved to {target}", StoreWarning, 3)


@contextlib.contextmanager
def _clear_errors(doing: str, path: Path) -> Iterator[None]:
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"cannot {doing} {path}: {error.strerror or error}") from error


def _read(folder: Path, document: Mapping[str, Any]) -> Stored:
    lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    listed = {name: checksum for checksum, _, name in (line.partition("  ") for line in lines)}
    if set(listed) != set(FILES):
        raise ValueError(f"{SUMS} does not list the files of a trial")
    for name, expected in listed.items():
        if _sha256(folder / name) != expected:
            raise ValueError(f"checksum of {name} differs")
    if read_json(folder / "trial.json") != document:
        raise ValueError("trial.json describes another trial")
    records = tuple(_decode(row) for row in read_json(folder / "metrics.json")["records"])
    environment = read_json(folder / "environment.json")
    return Stored(Outcome(records, _Curves(folder / "curves.parquet")), environment)


class _Curves(Mapping[str, Sequence[Record]]):
    """Curves of a stored trial, read when first asked for: many trials are only counted, not drawn."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tables: dict[str, list[Record]] | None = None

    def _read(self) -> dict[str, list[Record]]:
        if self._tables is None:
            self._tables = _read_curves(self._path)
        return self._tables

    def __getitem__(self, name: str) -> Sequence[Record]:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())


def _write_curves(path: Path, curves: Mapping[str, Sequence[Record]]) -> None:
    """All curves in one table; the column `curve` tells them apart, a column that a curve lacks is null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"curve": name, **row} for name, table in curves.items() for row in table]
    columns = dict.fromkeys(itertools.chain(["curve"], *rows))
    try:
        table = pa.table({name: [row.get(name) for row in rows] for name in columns})
    except pa.ArrowInvalid as error:
        raise ArgumentError("curves", "one type a column (text or numbers)", str(error)) from error
    pq.write_table(table, path)


def _read_curves(path: Path) -> dict[str, list[Record]]:
    import pyarrow.parquet as pq

    curves: dict[str, list[Record]] = {}
    for row in pq.read_table(path).to_pylist():
        name = row.pop("curve")
        curves.setdefault(name, []).append({k: v for k, v in row.items() if v is not None})
    return curves


def _encode(row: Record) -> dict[str, Any]:
    return {name: to_json(value, name) for name, value in row.items()}


def _decode(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _NON_FINITE.get(value, value) if isinstance(value, str) else value for name, value in row.items()}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
