"""What a trial's result depends on, as its worker recorded it, and whether that is still as it was.

A depfile names modules and files: modules by their dotted names, found anew when it is checked, and files by their
paths from the study's root, or from the working folder (`./`) where the trial has named them so. So a study may be
moved as a whole, and a file that comes to stand before another one of its name is noticed.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from holdfast.lab import pruning
from holdfast.lab.locate import FunctionRef

ABSENT = "absent"
ELSEWHERE = "elsewhere"
"""Of a module: part of Python or of an installed distribution, whose version is recorded instead."""
CHANGED = "changed"
"""What has changed while one process used it: no other state is equal to that."""
FOLDER = "folder"
"""Of a module: a package without a file of its own."""

RUN = ""
"""Name under which the module of `run` is recorded, so that its file may be renamed."""

_NO_PART_OF_A_RESULT = ("holdfast.errors", "holdfast.cli", "holdfast.benches", "holdfast.lab")
_PART_OF_A_RESULT = ("holdfast.lab.seeds", "holdfast.lab.process")


@dataclass(frozen=True)
class Depfile:
    """What a result depends on.

    Arguments:
        modules: digest of each module of the project by name, or `absent`, `elsewhere`, `folder`.
        files: digest of each other file by its path from the root, or `absent`.
        whole: modules that declare a study, claims or figures and were executed whole all the same.
    """

    modules: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    whole: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return {"modules": dict(self.modules), "files": dict(self.files), "whole": list(self.whole)}

    @classmethod
    def from_json(cls, data: Any) -> Depfile:
        """The inverse of `to_json`.

        Errors:
            KeyError, TypeError, AttributeError: the data is something else.
        """
        return cls(dict(data["modules"].items()), dict(data["files"].items()), tuple(data["whole"]))


@dataclass(frozen=True)
class Place:
    """Where a function that computes trials stands, and what belongs to its project.

    Arguments:
        run: the function.
        source: the file that it stands in, `None` where there is none.
        root: the folder that holds the file or the top-level package; of an installed package its own folder.
    """

    run: FunctionRef
    source: Path | None
    root: Path

    @classmethod
    def of(cls, run: FunctionRef) -> Place:
        """The place of a function, as seen from this process; nothing is imported for it."""
        if run.file is not None:
            return cls(run, Path(run.file), Path(run.file).parent)
        spec = find_module(run.module)
        source = Path(spec.origin).resolve() if spec is not None and spec.has_location and spec.origin else None
        if source is None:
            return cls(run, None, Path.cwd())
        package = run.module.partition(".")[0]
        root = source.parents[run.module.count(".") + (source.stem == "__init__")]
        return cls(run, source, root / package if str(root) in _installed_folders() else root)

    @property
    def package(self) -> str:
        """The top-level package, or module, of the function."""
        return self.run.module.partition(".")[0]

    def counts(self, name: str, path: str) -> bool:
        """Whether a module's code is part of a result."""
        if name in _PART_OF_A_RESULT:
            return True
        if any(name == other or name.startswith(f"{other}.") for other in _NO_PART_OF_A_RESULT):
            return False
        return name.partition(".")[0] == self.package or not _is_installed(name, path)

    def below_root(self, path: str) -> str | None:
        """A file's path from the root, if it lies below it and is not part of an environment that does, too."""
        folder = str(self.root)
        if not path.startswith(folder + os.sep):
            return None
        strangers = (*_standard_library(), *_installed_folders(), os.path.realpath(sys.prefix))
        if any(len(other) > len(folder) and path.startswith(other + os.sep) for other in strangers):
            return None
        return Path(path).relative_to(folder).as_posix()


def parse(data: bytes, name: str, run: FunctionRef, whole: tuple[str, ...]) -> tuple[ast.Module, frozenset[str]]:
    """The tree of a module's file that a worker executes, and the names that are left out of it.

    Arguments:
        data: the file.
        name: of the module, or `RUN`.
        run: the function that the worker computes trials with.
        whole: modules to execute whole.

    Errors:
        SyntaxError: it is no Python.
    """
    tree = ast.parse(data)
    if name in whole:
        return tree, frozenset()

    def of_claims(statement: ast.ImportFrom) -> bool:
        parts = (run.module if name == RUN else name).split(".")
        base = parts[: len(parts) - statement.level] if statement.level else []
        spec = find_module(".".join([*base, *(statement.module or "").split(".")]).strip("."))
        file = None if spec is None else _file_of(spec)
        try:
            return file is not None and file.endswith(".py") and pruning.declares(ast.parse(Path(file).read_bytes()))
        except (OSError, SyntaxError, ValueError):
            return False

    return pruning.prune(tree, run.name if name == RUN else None, of_claims)


def digest_of_file(path: str | Path) -> str:
    """Sixteen hexadecimal digits of a file, or of all files in a folder; `absent` where there is none."""
    digest = hashlib.sha256()
    try:
        if os.path.isdir(path):
            for name, item in sorted(_inside(str(path))):
                digest.update(f"{name} {digest_of_file(item) if item else FOLDER}\n".encode(errors="surrogateescape"))
        else:
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    except FileNotFoundError:
        return ABSENT
    return digest.hexdigest()[:16]


def _inside(folder: str) -> Iterator[tuple[str, str | None]]:
    """All files below a folder by their names there, and the folders, which have no file; through links, too."""
    seen: set[str] = set()
    for where, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:  # a link to a folder that it lies in
            folders.clear()
            continue
        seen.add(real)
        yield f"{os.path.relpath(where, folder)}/", None
        for name in names:
            path = os.path.join(where, name)
            if os.path.isfile(path):
                yield os.path.relpath(path, folder), path


class Files:
    """The modules and files as they are now, each looked at once."""

    def __init__(self) -> None:
        importlib.invalidate_caches()
        self._now: dict[tuple[str, ...], str] = {}
        self._places: dict[FunctionRef, Place] = {}

    def changed(self, depfile: Depfile, run: FunctionRef) -> str | None:
        """What is no longer as it was recorded, in words; `None` where all is.

        Arguments:
            depfile: what was recorded.
            run: the function that computes the trial now.
        """
        place = self._places.get(run) or self._places.setdefault(run, Place.of(run))
        if place.source is None:
            return f"the source of {run.module} is not there"
        for name, before in depfile.modules.items():
            whole = depfile.whole if name in depfile.whole else ()
            if before != (now := self._module(name, place, whole)):
                return _words(place.source.name if name == RUN else _file_name(name, place), before, now)
        for name, before in depfile.files.items():
            path = Path(name) if name.startswith("./") else place.root / name
            now = self._now.get((str(path),)) or self._now.setdefault((str(path),), digest_of_file(path))
            if before != now:
                return _words(name, before, now)
        return None

    def _module(self, name: str, place: Place, whole: tuple[str, ...]) -> str:
        key = (name, place.run.module, place.run.name, str(place.source), *whole)
        return self._now.get(key) or self._now.setdefault(key, state_of_module(name, place, whole))


def state_of_module(name: str, place: Place, whole: tuple[str, ...]) -> str:
    """Digest of a module as a worker would execute it now, or `absent`, `elsewhere`, `folder`."""
    path: str | None
    if name == RUN:
        path = str(place.source)
    else:
        spec = find_module(name)
        if spec is None:
            return ABSENT
        path = _file_of(spec)
        if path is None:
            return FOLDER if spec.submodule_search_locations is not None else ELSEWHERE
        if not place.counts(name, path):
            return ELSEWHERE
    if not path.endswith(".py") or not os.path.isfile(path):
        return digest_of_file(path)
    try:
        return pruning.digest(parse(Path(path).read_bytes(), name, place.run, whole)[0])
    except (OSError, SyntaxError, ValueError) as error:
        return f"unreadable: {type(error).__name__}"


def find_module(name: str) -> ModuleSpec | None:
    """The spec of a module, found anew and without importing its parents."""
    spec, path = None, None
    parts = name.split(".")
    for i in range(len(parts)):
        full = ".".join(parts[: i + 1])
        spec = find_spec(full, path) if path is None else PathFinder.find_spec(full, path)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or ())
    return spec


def find_spec(name: str, path: Any, target: Any = None) -> ModuleSpec | None:
    """What the finders of this process say about a module, but for the one that records."""
    for finder in sys.meta_path:
        if not getattr(finder, "records", False):
            find = getattr(finder, "find_spec", None)
            if find is not None and (spec := find(name, path, target)) is not None:
                return spec  # type: ignore[no-any-return]
    return None


def _file_of(spec: ModuleSpec) -> str | None:
    """The file that a module comes from; of a module in an archive the archive."""
    archive = getattr(spec.loader, "archive", None)
    if isinstance(archive, str):
        return os.path.realpath(archive)
    return os.path.realpath(spec.origin) if spec.has_location and spec.origin else None


def _file_name(name: str, place: Place) -> str:
    spec = find_module(name)
    path = None if spec is None else _file_of(spec)
    below = None if path is None else place.below_root(path)
    return below or name


def _words(name: str, before: str, now: str) -> str:
    if now == ABSENT:
        return f"{name} is gone"
    if before == ABSENT:
        return f"{name} was not there before"
    return f"{name} has changed since"


@cache
def _standard_library() -> tuple[str, ...]:
    return tuple(os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))


@cache
def _installed_folders() -> tuple[str, ...]:
    """Folders that installers write to."""
    folders = {sysconfig.get_path(name) for name in ("purelib", "platlib")} | {site.getusersitepackages()}
    folders |= set(site.getsitepackages())
    folders |= {entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")}
    return tuple(os.path.realpath(folder) for folder in folders)


def _is_installed(name: str, path: str) -> bool:
    """Whether a file is part of Python or of a distribution that an installer has put there (not editable)."""
    for folder in _installed_folders():
        if path.startswith(folder + os.sep):
            top = path[len(folder) + 1 :].partition(os.sep)[0]
            return top.partition(".")[0] in _distributed(folder)
    if any(path.startswith(folder + os.sep) for folder in _standard_library()):
        return True
    depth = name.count(".") + os.path.basename(path).startswith("__init__.") + 1
    return name.partition(".")[0] in _distributed(path.rsplit(os.sep, depth)[0])


@cache
def _distributed(folder: str) -> frozenset[str]:
    """Top-level names of the distributions that are installed in a folder."""
    return frozenset(_top_levels(Path(folder)))


def _top_levels(folder: Path) -> Iterator[str]:
    for record in folder.glob("*.dist-info/RECORD"):
        yield from (name.decode() for name in re.findall(rb"(?m)^([^/,.\r\n]+)[/.]", record.read_bytes()))
    for pattern in ("*.dist-info/top_level.txt", "*.egg-info/top_level.txt"):
        for listed in folder.glob(pattern):
            yield from listed.read_text(encoding="utf-8").split()
