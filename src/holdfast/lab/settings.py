"""Settings by dotted names: what differs from a scale, and how to change it."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from holdfast.errors import ArgumentError
from holdfast.lab.documents import SETTINGS, TYPE, from_json


def overrides(config: Any, default: Any) -> dict[str, Any]:
    """The settings in which a configuration differs from the default of its scale, be it only in type or sign.

    Nested dataclasses of the same type are compared setting by setting, under dotted names. One of another type is a
    single override: its values alone would not say what it is.
    """
    changes: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value, base = getattr(config, item.name), getattr(default, item.name, dataclasses.MISSING)
        if is_settings(value) and type(value) is type(base):
            changes |= {f"{item.name}.{name}": inner for name, inner in overrides(value, base).items()}
        # 1 == True == 1.0, and 0.0 == -0.0
        elif type(value) is not type(base) or repr(value) != repr(base):
            changes[item.name] = value
    return changes


def is_settings(value: Any) -> bool:
    """Whether a value is an instance of a dataclass."""
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


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
    hint = hints(type(config)).get(path[0], type(old))
    try:
        new = from_json(value, hint)
    except ValueError as error:
        kind = hint.__name__ if isinstance(hint, type) else str(hint)
        raise ArgumentError(f"config.{name}", f"{kind}, for example {old!r}", value) from error
    if new is value and isinstance(value, Mapping) and set(value) == {TYPE, SETTINGS}:
        raise ArgumentError(f"config.{name}", "an annotation that tells which type it may have", hint)
    return dataclasses.replace(config, **{path[0]: new})


def hints(cls: type) -> dict[str, Any]:
    """Types that a class's fields are annotated with; none where they cannot be told."""
    try:
        return typing.get_type_hints(cls)
    except NameError:  # a class made inside a function, with names that only that function knew
        return {}
