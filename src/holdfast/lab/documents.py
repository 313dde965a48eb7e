"""Settings and records as JSON documents and back, by the types that dataclasses are annotated with.

A dataclass becomes `{"type": NAME, "settings": {...}}`: where a setting may be one of several, its values alone do not
say which.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.errors import ArgumentError

if TYPE_CHECKING:
    from cattrs import Converter


TYPE, SETTINGS = "type", "settings"
"""Names in the document of a dataclass."""


def to_json(value: Any, where: str) -> Any:
    """A value as JSON data; what is neither finite nor a number becomes `"nan"`, `"inf"` or `"-inf"`.

    Arguments:
        value: numbers, text, paths, enumerations, and lists, mappings or dataclasses of them.
        where: how to call it in an error.

    Errors:
        ArgumentError: there is something else in it.
    """
    try:
        # Through the text, so that it equals what is read back: lists for tuples, text for keys.
        return json.loads(json.dumps(_converter().unstructure(value), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        expected = "numbers, text, lists, mappings or dataclasses of them"
        raise ArgumentError(where, expected, f"{type(value).__name__} ({error})") from error


def from_json(data: Any, hint: Any) -> Any:
    """JSON data as a value of an annotated type. What has the type already stays as it is.

    Arguments:
        data: what `to_json` gave.
        hint: the type.

    Errors:
        ValueError: the data does not fit.
    """
    try:
        return _converter().structure(data, hint)
    except Exception as error:  # cattrs passes on whatever a type raises when it is made
        raise ValueError(f"{data!r} is no {hint}") from error


@cache
def _converter() -> Converter:
    """cattrs without its leniency: `int("3")`, `int(3.7)` and `bool("false")` are no ways to read a setting."""
    from cattrs import Converter
    from cattrs.gen import make_dict_structure_fn

    converter = Converter(
        detailed_validation=False, forbid_extra_keys=True, unstructure_fallback_factory=lambda cls: _refuse
    )
    for kind in (int, bool, type(None)):
        converter.register_unstructure_hook(kind, lambda value: value)
    converter.register_unstructure_hook(float, lambda value: value if math.isfinite(value) else str(value))
    converter.register_unstructure_hook(Path, str)
    # By what the fields hold, and not by what they are annotated with: a subclass has settings of its own.
    converter.register_unstructure_hook_func(
        dataclasses.is_dataclass,
        lambda value: {
            TYPE: type(value).__qualname__,
            SETTINGS: {
                field.name: converter.unstructure(getattr(value, field.name)) for field in dataclasses.fields(value)
            },
        },
    )
    converter.register_structure_hook_factory(
        dataclasses.is_dataclass, lambda cls: partial(_as_dataclass, converter, make_dict_structure_fn(cls, converter))
    )
    converter.register_structure_hook(int, _as_plain)
    converter.register_structure_hook(bool, _as_plain)
    converter.register_structure_hook(str, _as_plain)
    converter.register_structure_hook(float, _as_float)
    converter.register_structure_hook(Path, lambda value, _: Path(value))
    converter.register_structure_hook_func(
        _is_union,
        lambda value, hint: _as_one_of(converter, value, typing.get_args(hint)),
    )
    return converter


def _refuse(value: Any) -> Any:
    raise TypeError(f"{type(value).__name__} is no data")


def _as_dataclass(converter: Converter, from_plain: Callable[[Any, Any], Any], value: Any, hint: type) -> Any:
    """A dataclass of this type, or of one that derives from it, by its name; plain settings are of this type."""
    if isinstance(value, hint):
        return value
    if not (isinstance(value, Mapping) and set(value) == {TYPE, SETTINGS}):
        return from_plain(value, hint)
    named = [cls for cls in dict.fromkeys(_with_subclasses(hint)) if cls.__qualname__ == value[TYPE]]
    if len(named) != 1:
        raise TypeError(f"{len(named)} types are named {value[TYPE]}")
    if named[0] is hint:
        return from_plain(value[SETTINGS], hint)
    return converter.structure(value, named[0])


def _with_subclasses(cls: type) -> Iterator[type]:
    yield cls
    subclasses: list[type] = cls.__subclasses__()
    for subclass in subclasses:
        yield from _with_subclasses(subclass)


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) is typing.Union or isinstance(hint, types.UnionType)


def _as_plain(value: Any, hint: Any) -> Any:
    """A whole number, text, true or false; enumerations that are numbers or text come here, too."""
    if hint not in (int, bool, str):
        return hint(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise TypeError(f"expected {hint.__name__}")
    return value


def _as_float(value: Any, _: Any) -> float:
    """A whole number is one, and so is the text that stands for what JSON cannot write."""
    if isinstance(value, bool) or (isinstance(value, str) and math.isfinite(float(value))):
        raise TypeError("expected float")
    return float(value)


def _as_one_of(converter: Converter, value: Any, options: tuple[Any, ...]) -> Any:
    if type(value) in options:
        return value
    for option in options:
        try:
            return converter.structure(value, option)
        except Exception:  # whatever an option raises, another one may fit
            continue
    raise TypeError(f"none of {options}")
