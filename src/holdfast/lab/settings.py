"""Settings as flat dotted names: for the reproducing command, the report, and reading a stored run back."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import shlex
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from holdfast.errors import ArgumentError


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """All settings of a configuration, nested dataclasses under dotted names."""
    flat: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            flat |= flatten(value, f"{prefix}{item.name}.")
        else:
            flat[f"{prefix}{item.name}"] = value
    return flat


def overrides(config: Any, default: Any) -> dict[str, Any]:
    """The settings in which a configuration differs from the default of its scale."""
    base = flatten(default)
    return {name: value for name, value in flatten(config).items() if name not in base or base[name] != value}


def apply(config: Any, changes: Mapping[str, Any]) -> Any:
    """A configuration with some settings changed; the inverse of `overrides`, also after a trip through JSON.

    Errors:
        ArgumentError: there is no such setting.
    """
    for name, value in changes.items():
        config = _replace(config, name.split("."), value, name)
    return config


def _replace(config: Any, path: list[str], value: Any, name: str) -> Any:
    fields = {item.name for item in dataclasses.fields(config)} if dataclasses.is_dataclass(config) else set()
    if path[0] not in fields:
        raise ArgumentError(f"config.{name}", "a setting of the study", "an unknown one")
    old = getattr(config, path[0])
    if len(path) > 1:
        return dataclasses.replace(config, **{path[0]: _replace(old, path[1:], value, name)})
    hint = _hints(type(config)).get(path[0], type(old))
    try:
        new = _like(hint, value)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"config.{name}", f"a value like {old!r}", value) from error
    return dataclasses.replace(config, **{path[0]: new})


def _hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except NameError:  # a class made inside a function, with names that only that function knew
        return {}


def _like(hint: Any, value: Any) -> Any:
    """A value read from JSON, in the type that its setting is annotated with."""
    options = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return value if value is None or type(value) in options else _like_any(options, value)
    kind = typing.get_origin(hint) or hint
    if kind is Any or not isinstance(kind, type) or (isinstance(value, kind) and not isinstance(value, tuple)):
        return value
    if issubclass(kind, enum.Enum | Path):
        return kind(value)
    if issubclass(kind, tuple) and isinstance(value, list | tuple):
        if options and options[-1] is not Ellipsis and len(options) == len(value):
            return tuple(_like(*pair) for pair in zip(options, value, strict=True))
        return tuple(_like(options[0] if options else Any, item) for item in value)
    if kind is float and isinstance(value, str | int) and not isinstance(value, bool):
        return float(value)
    return value


def _like_any(options: tuple[Any, ...], value: Any) -> Any:
    for option in options:
        with contextlib.suppress(TypeError, ValueError):
            new = _like(option, value)
            if type(new) is not type(value):
                return new
    return value


def command(study: str, scale: str, changes: Mapping[str, Any]) -> str:
    """The command line that runs a study with these settings."""
    words = ["holdfast", "run", study, "--scale", scale]
    for setting, value in changes.items():
        name = setting.replace("_", "-")
        if name == "seeds":
            words += ["--seeds", str(value)]
        elif isinstance(value, bool):
            head, _, last = name.rpartition(".")
            flag = f"{head}." if head else ""
            words.append(f"--config.{name}" if value else f"--config.{flag}no-{last}")
        elif isinstance(value, str) and _text(value).startswith("-"):
            words.append(f"--config.{name}={_text(value)}")
        else:
            words += [f"--config.{name}", *_words(value)]
    return shlex.join(words)


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _words(item)
    elif isinstance(value, Mapping):
        for pair in value.items():
            yield from _words(pair)
    else:
        yield _text(value)


def _text(value: Any) -> str:
    return value.name if isinstance(value, enum.Enum) else str(value)
