"""Errors that a user can mend; the command line prints them as one line and exits with status 2."""

from __future__ import annotations

import importlib
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
        raise MissingExtraError(
            f"{module} is not installed: install it with  pip install 'holdfast[{extra}]'"
        ) from error
