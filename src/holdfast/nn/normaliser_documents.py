"""A normaliser as a document that JSON can hold, for the configuration of a model, and back."""

from __future__ import annotations

import inspect
import json
from dataclasses import fields
from typing import Any

from torch import Tensor

from holdfast.errors import ArgumentError
from holdfast.nn.normalisers import NORMALISERS, ByHead, Normaliser
from holdfast.nn.temperature import AdaptiveTemperature

BY_HEAD = "by-head"
"""Name of `ByHead`, whose documents hold others."""


def document_of(normaliser: Normaliser) -> dict[str, Any]:
    """The name of a normaliser and its arguments; every number comes back as it is.

    Errors:
        ArgumentError: one that has no name, or a scale that is a tensor.
    """
    if isinstance(normaliser, ByHead):
        return {"name": BY_HEAD, "normalisers": [document_of(one) for one in normaliser.normalisers]}
    names = {kind: name for name, kind in NORMALISERS.items()}
    if type(normaliser) not in names or normaliser.tensors:
        expected = f"one of {', '.join((*NORMALISERS, BY_HEAD))}, whose arguments are numbers"
        raise ArgumentError("normaliser", expected, repr(normaliser))
    arguments = {field.name: getattr(normaliser, field.name) for field in fields(normaliser) if field.init}  # type: ignore[arg-type]
    return {"name": names[type(normaliser)], **{name: _plain(value) for name, value in arguments.items()}}


def _plain(value: Any) -> Any:
    if isinstance(value, AdaptiveTemperature):
        return json.loads(value.to_json())
    return list(value) if isinstance(value, tuple) else value


def normaliser_of(document: Any) -> Normaliser | None:
    """A normaliser from its name, alone or in a dict with arguments; `None` for `None`.

    Errors:
        ArgumentError: there is none of that name, or it takes other arguments.
    """
    if document is None:
        return None
    name, arguments = document, {}
    if isinstance(document, dict):
        # JSON has no tuples.
        arguments = {
            argument: tuple(value) if isinstance(value, list) else value for argument, value in document.items()
        }
        name = arguments.pop("name", None)
    if name == BY_HEAD:
        if set(arguments) != {"normalisers"} or not isinstance(arguments["normalisers"], tuple):
            raise ArgumentError("normaliser", f"a dict of the name {name} and of normalisers, a list", repr(document))
        by_head: list[Any] = [normaliser_of(one) for one in arguments["normalisers"]]
        return ByHead(tuple(by_head))
    if not isinstance(name, str) or name not in NORMALISERS:
        raise ArgumentError("normaliser", f"None or one of {', '.join((*NORMALISERS, BY_HEAD))}", repr(document))
    if isinstance(arguments.get("temperature"), dict):
        arguments["temperature"] = AdaptiveTemperature.from_json(json.dumps(arguments["temperature"]))
    tensors = [argument for argument, value in arguments.items() if isinstance(value, Tensor)]
    try:
        if tensors:
            raise TypeError(f"{tensors[0]} is a tensor")
        return NORMALISERS[name](**arguments)
    except TypeError as error:
        wanted = ", ".join(inspect.signature(NORMALISERS[name]).parameters) or "no arguments"
        expected = f"a dict of the name {name} and of {wanted}"
        raise ArgumentError("normaliser", expected, repr(document)) from error
