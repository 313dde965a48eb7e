"""Finds studies (by entry point or file) and names functions so that another process can load them."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from holdfast.errors import ArgumentError, HoldfastError, did_you_mean
from holdfast.lab.study import Study

GROUP = "holdfast.studies"


class LocateError(HoldfastError):
    """A study, or a function of one, cannot be found or loaded."""


@dataclass(frozen=True)
class FunctionRef:
    """Where a function lives: enough for another process to load it.

    Arguments:
        module: dotted name of its module.
        file: path of its source, for a module that is not importable by name; otherwise `None`.
        name: its name at the top level of the module.
    """

    module: str
    file: str | None
    name: str

    @classmethod
    def of(cls, function: Callable[..., Any]) -> FunctionRef:
        """The reference to a top-level function.

        Errors:
            LocateError: the function is a lambda, a method or nested in another function.
        """
        module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
        if module is None or not name.isidentifier():
            raise LocateError(
                f"run: expected a function at the top level of a module, got {name or function!r} in {module}; "
                "worker processes could not import it"
            )
        source = getattr(sys.modules.get(module), "__file__", None)
        return cls(module, str(Path(source).resolve()) if source and has_no_name(module) else None, name)

    def load(self) -> Callable[..., Any]:
        """Import the function, in whatever process this is.

        Errors:
            LocateError: it is not there.
        """
        if self.file is None or self.module in sys.modules:
            module = importlib.import_module(self.module)
        else:
            module = load_file(Path(self.file), self.module)
        function = getattr(module, self.name, None)
        if not callable(function):
            raise LocateError(f"{self.module}: has no function {self.name}")
        return function  # type: ignore[no-any-return]


_FILE_PREFIX = "_holdfast_file_"


def load_file(path: Path, name: str | None = None) -> ModuleType:
    """Import a `.py` file under a name that depends only on its path."""
    path = path.resolve()
    name = name or f"{_FILE_PREFIX}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise LocateError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def installed() -> dict[str, EntryPoint]:
    """Entry points of all installed studies, by name.

    Errors:
        LocateError: two packages bring a study of the same name.
    """
    found: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        if point.name in found and point.value != found[point.name].value:
            raise LocateError(f"two studies are named {point.name!r}: {found[point.name].value} and {point.value}")
        found[point.name] = point
    return found


def load(point: EntryPoint) -> Study[Any]:
    """The study behind an entry point.

    Errors:
        LocateError: its package fails to import, or the entry point is no study.
    """
    try:
        study = point.load()
    except Exception as error:
        raise LocateError(f"study {point.name!r} ({point.value}) does not load: {_line(error)}") from error
    if not isinstance(study, Study):
        raise LocateError(f"study {point.name!r}: expected a Study at {point.value}, got {type(study).__name__}")
    if study.name != point.name:
        raise LocateError(f"study {study.name!r} is registered under another name: {point.name!r}")
    return study


def find(name: str) -> Study[Any]:
    """A study by its name, or by the path of a `.py` file that holds one.

    Errors:
        LocateError: there is no such study; the message lists those there are.
    """
    if name.endswith(".py"):
        return _find_in_file(Path(name))
    points = installed()
    if name not in points:
        hint = did_you_mean(name, points)
        known = ", ".join(points) or "none"
        raise LocateError(f"no study named {name!r}.{hint} Installed: {known}; one in a file goes by its path.")
    return load(points[name])


def source_of(study: Study[Any]) -> str | None:
    """The file that a study stands in, where it is no module that can be imported by name; otherwise `None`."""
    name = next((name for name in modules_with(study) if has_no_name(name)), None)
    source = None if name is None else getattr(sys.modules[name], "__file__", None)
    return str(Path(source).resolve()) if source else None


def modules_with(study: Study[Any]) -> Iterator[str]:
    """The modules that have a study among their names."""
    for name, module in list(sys.modules.items()):
        if any(value is study for value in list(getattr(module, "__dict__", {}).values())):
            yield name


def has_no_name(module: str) -> bool:
    """Whether a module can be loaded by its file only."""
    return module == "__main__" or module.startswith(_FILE_PREFIX)


def _find_in_file(path: Path) -> Study[Any]:
    if not path.is_file():
        raise LocateError(f"{path}: no such file")
    folder = str(path.resolve().parent)
    if folder not in sys.path:  # its parts may stand beside it, as `python file.py` would find them; workers inherit it
        sys.path.append(folder)
    try:
        module = load_file(path)
    except Exception as error:
        raise LocateError(f"{path} does not load: {_line(error)}") from error
    studies = {id(value): value for value in vars(module).values() if isinstance(value, Study)}
    if len(studies) != 1:
        raise LocateError(f"{path}: expected one Study at the top level, found {len(studies)}")
    return next(iter(studies.values()))


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def function_at(place: str, argument: str = "target") -> Callable[..., Any]:
    """A function named as `file.py:name` or `module:name`.

    Errors:
        ArgumentError: it is not there, or its module does not load.
    """
    source, _, name = place.rpartition(":")
    if not source or not name.isidentifier():
        raise ArgumentError(argument, "file.py:name or module:name", place)
    if source.endswith(".py") and not Path(source).is_file():
        raise ArgumentError(argument, "the path of a file", f"{source}, which is not there")
    try:
        module = load_file(Path(source)) if source.endswith(".py") else importlib.import_module(source)
    except (Exception, SystemExit) as error:
        raise ArgumentError(argument, f"{source} to load", f"{type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ArgumentError(argument, f"a function {name} in {source}", "none")
    return function  # type: ignore[no-any-return]
