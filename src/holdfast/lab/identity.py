"""What tells a trial from all others: its study and part, seed, labels, configuration and `HOLDFAST_*` variables.

The code is no part of it: whether a stored result is still that of the code is for its depfile to say
(`holdfast.lab.depfile`).
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import os
from collections.abc import Collection, Mapping
from typing import Any

from holdfast.lab.documents import to_json
from holdfast.lab.trial import Config, Trial

FORMAT = 2
"""Of a trial's stored documents; another number makes all results strangers."""

_TYPE = "type"


def identity(study: str, trial: Trial[Any], at_home: Collection[str] = ()) -> dict[str, Any]:
    """Everything that tells a trial from others, as JSON data. The part is among the labels.

    Arguments:
        study: name of the study.
        trial: the trial.
        at_home: modules whose classes go by their names alone, so that the study's file may be renamed.

    Errors:
        ArgumentError: a setting or label is not JSON data.
    """
    config = trial.config
    fields = [
        field.name
        for field in dataclasses.fields(config)
        if not (isinstance(config, Config) and field.name in ("seeds", "first_seed"))
    ]
    for name in fields:
        to_json(getattr(config, name), f"config.{name}")
    to_json(dict(trial.labels), "labels")
    return {
        "format": FORMAT,
        "study": study,
        "config_type": _name(type(config), at_home),
        "config": {name: _typed(getattr(config, name), at_home) for name in fields},
        "labels": _typed(dict(trial.labels), at_home),
        "seed": list(trial.seed) if isinstance(trial.seed, tuple) else trial.seed,
        "variables": holdfast_variables(),
    }


def key_of(document: Mapping[str, Any]) -> str:
    """Content address of a trial: 24 hexadecimal digits of SHA-256 over its identity."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def holdfast_variables() -> dict[str, str]:
    """The variables of the environment that Holdfast itself reads."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith("HOLDFAST_")}


def _typed(value: Any, at_home: Collection[str]) -> Any:
    """A value as JSON data that no value of another type shares: what JSON has no type for bears its type's name."""
    kind = type(value)
    if value is None or kind in (bool, int, str) or (kind is float and abs(value) < float("inf")):
        return value
    if kind is list:
        return [_typed(item, at_home) for item in value]
    if kind is dict and _TYPE not in value and all(type(name) is str for name in value):
        return {name: _typed(item, at_home) for name, item in value.items()}
    content: Any
    if dataclasses.is_dataclass(value):
        content = {field.name: _typed(getattr(value, field.name), at_home) for field in dataclasses.fields(value)}
    elif isinstance(value, Mapping):
        content = [[_typed(name, at_home), _typed(item, at_home)] for name, item in value.items()]
    elif isinstance(value, enum.Enum):
        content = value.name
    elif isinstance(value, tuple | list):
        content = [_typed(item, at_home) for item in value]
    else:
        content = str(value)
    return {_TYPE: _name(kind, at_home), "value": content}


def _name(kind: type, at_home: Collection[str]) -> str:
    alone = kind.__module__ in at_home or kind.__module__ == "builtins"
    return kind.__qualname__ if alone else f"{kind.__module__}.{kind.__qualname__}"
