"""Warnings of what will go: names and arguments that still work, say until when, and what to write instead."""

from __future__ import annotations

import functools
import inspect
import re
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from holdfast.errors import ArgumentError

Named = TypeVar("Named", bound=Callable[..., Any])


class HoldfastDeprecationWarning(FutureWarning):
    """Something public will go. Python shows a `FutureWarning` to everybody, not only to who runs tests."""


def warn_deprecated(what: str, *, since: str, removal: str, instead: str = "", stacklevel: int = 2) -> None:
    """Warn that something will go.

    Arguments:
        what: what it is, as users write it: `"holdfast.nn.old_name"`, `"the setting old"`.
        since: the version that warned first, `"1.2"`.
        removal: the version that does without it, `"2.0"`.
        instead: what to write.
        stacklevel: whose line is shown: with 2 that of the function that calls this one's caller. In a module's
            `__getattr__`, for a name that has moved, 2 is the line that uses the old name.

    Errors:
        ArgumentError: a version is none, or `removal` is not a later minor or major version than `since`.
    """
    warnings.warn(_message(what, since, removal, instead), HoldfastDeprecationWarning, stacklevel=stacklevel + 1)


def deprecated(*, since: str, removal: str, instead: str = "") -> Callable[[Named], Named]:
    """Mark a function, method or class that will go: each call, or each instance, warns with the caller's line.

    Arguments:
        since: the version that warned first.
        removal: the version that does without it.
        instead: what to write.

    Errors:
        ArgumentError: as `warn_deprecated`, where the mark stands and not only when somebody calls.
    """

    def mark(target: Named) -> Named:
        message = _message(_name(target), since, removal, instead)
        if isinstance(target, type):
            cls: Any = target
            cls.__init__ = _warning_before(cls.__init__, message)  # the class stays itself, for isinstance and pickle
            return target
        wrapped: Any = _warning_before(target, message)
        return wrapped  # type: ignore[no-any-return]

    return mark


def renamed_arguments(*, since: str, removal: str, **names: str) -> Callable[[Named], Named]:
    """Let a function or method still take arguments under their old names, with a warning on the caller's line.

    Arguments:
        since: the version that warned first.
        removal: the version that does without them.
        names: the new name by the old one, `renamed_arguments(since="1.2", removal="2.0", dim="axis")`.

    Errors:
        ArgumentError: as `warn_deprecated`; or there is no new name of that kind, or an old name is still an argument.
    """

    def mark(target: Named) -> Named:
        parameters = inspect.signature(target).parameters
        for old, new in names.items():
            if new not in parameters or parameters[new].kind is inspect.Parameter.POSITIONAL_ONLY:
                raise ArgumentError(old, f"the name of an argument of {_name(target)}", new)
            if old in parameters:
                raise ArgumentError(old, f"a name that {_name(target)} no longer has", old)
        messages = {
            old: _message(f"the argument {old!r} of {_name(target)}", since, removal, repr(new))
            for old, new in names.items()
        }
        order = list(parameters)

        @functools.wraps(target)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            for old, message in messages.items():
                if old in kwargs:
                    new = names[old]
                    if new in kwargs or new in order[: len(args)]:
                        raise ArgumentError(old, f"it or {new!r}, its new name", "both")
                    warnings.warn(message, HoldfastDeprecationWarning, stacklevel=2)
                    kwargs[new] = kwargs.pop(old)
            return target(*args, **kwargs)

        result: Any = wrapped
        return result  # type: ignore[no-any-return]

    return mark


def _warning_before(function: Callable[..., Any], message: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        warnings.warn(message, HoldfastDeprecationWarning, stacklevel=2)
        return function(*args, **kwargs)

    return wrapped


def _message(what: str, since: str, removal: str, instead: str) -> str:
    if _version("removal", removal) <= _version("since", since):
        raise ArgumentError("removal", f"a later minor or major version than {since}", removal)
    then = f": use {instead}" if instead else ""
    return f"{what} is deprecated since Holdfast {since} and goes with {removal}{then}"


def _version(argument: str, version: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)\.(\d+)", version)
    if found is None:
        raise ArgumentError(argument, "a version such as '1.2'", version)
    return int(found[1]), int(found[2])


def _name(target: Callable[..., Any]) -> str:
    return f"{target.__module__}.{target.__qualname__}"
