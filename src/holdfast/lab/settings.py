"""Settings as flat dotted names: what differs from a scale, and how to change it."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from holdfast.errors import ArgumentError
from holdfast.lab.documents import from_json


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
    """The settings in which a configuration differs from the default of its scale, be it only in type or sign."""
    base = {name: repr(value) for name, value in flatten(default).items()}  # 1 == True == 1.0, and 0.0 == -0.0
    return {name: value for name, value in flatten(config).items() if base.get(name) != repr(value)}


def apply(config: Any, changes: Mapping[str, Any]) -> Any:
    """A configuration with some settings changed; the inverse of `overrides`, also after a trip through JSON.

    Errors:
        ArgumentError: there is no such setting, or a value does not have its type.
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
        new = from_json(value, hint)
    except ValueError as error:
        kind = hint.__name__ if isinstance(hint, type) else str(hint)
        raise ArgumentError(f"config.{name}", f"{kind}, for example {old!r}", value) from error
    return dataclasses.replace(config, **{path[0]: new})


def _hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except NameError:  # a class made inside a function, with names that only that function knew
        return {}
