"""Settings as flat dotted names: for the reproducing command, the report, and reading a stored run back."""

from __future__ import annotations

import dataclasses
import enum
import shlex
from collections.abc import Mapping
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
    new = _like(old, value) if len(path) == 1 else _replace(old, path[1:], value, name)
    return dataclasses.replace(config, **{path[0]: new})


def _like(old: Any, value: Any) -> Any:
    """A value read from JSON, in the type of the setting it replaces."""
    if isinstance(old, enum.Enum) and not isinstance(value, enum.Enum):
        return type(old)(value)
    if isinstance(old, Path):
        return Path(value)
    if isinstance(old, tuple) and isinstance(value, list):
        return tuple(_like(old[0], item) if old else item for item in value)
    if isinstance(old, float) and isinstance(value, str | int) and not isinstance(value, bool):
        return float(value)
    return value


def command(study: str, scale: str, changes: Mapping[str, Any]) -> str:
    """The command line that runs a study with these settings."""
    words = ["holdfast", "run", study, "--scale", scale]
    for name, value in changes.items():
        if name == "seeds":
            words += ["--seeds", str(value)]
        elif isinstance(value, bool):
            head, _, last = name.rpartition(".")
            flag = f"{head}." if head else ""
            words.append(f"--config.{name}" if value else f"--config.{flag}no-{last}")
        elif isinstance(value, list | tuple):
            words += [f"--config.{name}", *(_text(item) for item in value)]
        else:
            words += [f"--config.{name}", _text(value)]
    return shlex.join(words)


def _text(value: Any) -> str:
    return value.name if isinstance(value, enum.Enum) else str(value)
