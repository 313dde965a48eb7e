"""Errors that a user can mend; the command line prints them as one line and exits with status 2."""

from __future__ import annotations

import difflib
import importlib
import re
import shlex
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from types import ModuleType


class HoldfastError(Exception):
    """Base of every error that Holdfast raises on purpose."""


class ArgumentError(HoldfastError, ValueError):
    """An argument has a value that cannot be used.

    Arguments:
        argument: name of the argument as the caller wrote it.
        expected: what would have been accepted.
        got: what came instead; shown with `repr` unless it is a string.
    """

    def __init__(self, argument: str, expected: str, got: object) -> None:
        self.argument = argument
        self.expected = expected
        self.got = got if isinstance(got, str) else repr(got)
        super().__init__(f"{argument}: expected {expected}, got {self.got}")

    def __reduce__(self) -> tuple[type[ArgumentError], tuple[str, str, str]]:
        """Rebuild from the parts: an error must survive the way back from a worker process."""
        return type(self), (self.argument, self.expected, self.got)


def count_of(argument: str, number: object, least: int = 0) -> int:
    """A whole number that is not below `least`, or an error that names the argument."""
    if not isinstance(number, int) or isinstance(number, bool) or number < least:
        raise ArgumentError(argument, f"a whole number of at least {least}", repr(number))
    return number


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """A question to add to an error where a mistyped word is close to a name, or nothing."""
    close = difflib.get_close_matches(word, list(names), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


class MissingExtraError(HoldfastError, ImportError):
    """A feature needs an optional dependency that is not installed."""


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or say which extra brings it.

    Arguments:
        module: dotted name of the module, for example `"ray"`.
        extra: the extra of `holdfast` that installs it.

    Errors:
        MissingExtraError: the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        line = install_line([f"holdfast[{extra}]"])
        raise MissingExtraError(f"{error.name} is not installed: install it with  {line}") from error


def lacking(needs: Mapping[str, str]) -> dict[str, str]:
    """Those of the modules that are not installed. None of them is loaded.

    Arguments:
        needs: what to give pip for each module, by its name without dots, such as `{"sklearn": "scikit-learn"}`.
    """
    return {module: requirement for module, requirement in needs.items() if not _is_installed(module)}


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:  # somebody has put something without a spec in its place
        return False


def install_line(requirements: Iterable[str]) -> str:
    """The command that installs some requirements; extras of one package become one word of it."""
    extras: dict[str, set[str]] = {}
    for requirement in requirements:
        found = re.fullmatch(r"([^\[\]]+)\[(.+)\]", requirement)
        extras.setdefault(found[1] if found else requirement, set()).update(found[2].split(",") if found else ())
    words = [f"{name}[{','.join(sorted(names))}]" if names else name for name, names in sorted(extras.items())]
    return f"pip install {' '.join(map(shlex.quote, words))}"


def missing_line(*lacks: Mapping[str, str]) -> str:
    """What is missing and how to install it.

    Arguments:
        lacks: what is missing for one purpose each, as `lacking` found it.
    """
    missing = {module: requirement for each in lacks for module, requirement in each.items()}
    verb = "is" if len(missing) == 1 else "are"
    return f"{', '.join(missing)} {verb} not installed: install with  {install_line(missing.values())}"
