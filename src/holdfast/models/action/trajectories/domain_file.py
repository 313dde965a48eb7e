"""A domain as JSON beside its trajectories, for formats that know no bounds, scale and target."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cattrs import Converter
from cattrs.errors import BaseValidationError
from cattrs.strategies import configure_tagged_union

from holdfast.errors import ArgumentError
from holdfast.models.action.domain import ActionSpace, Domain, Observation

NAME = "holdfast-domain.json"
"""Other readers of these formats pass over a file of this name."""


def to_document(domain: Domain) -> dict[str, Any]:
    """A domain as JSON has it."""
    document: dict[str, Any] = _converter().unstructure(domain)
    return document


def from_document(document: Any, where: str) -> Domain:
    """A domain back from JSON.

    Errors:
        ArgumentError: it is none; the error names where it stood.
    """
    try:
        return _converter().structure(document, Domain)
    except (BaseValidationError, TypeError, ValueError, KeyError) as error:
        raise ArgumentError("domain", f"one that this version wrote, in {where}", type(error).__name__) from error


def write_domain(domain: Domain, folder: Path) -> None:
    """Write it into a folder."""
    (folder / NAME).write_text(json.dumps(to_document(domain), indent=2) + "\n", encoding="utf-8")


def read_domain(folder: Path) -> Domain | None:
    """The domain of a folder; `None`: it has none.

    Errors:
        ArgumentError: the file is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArgumentError("domain", f"JSON in {path}", str(error)) from error
    return from_document(document, str(path))


def _converter() -> Converter:
    converter = Converter(forbid_extra_keys=True)
    for union in (ActionSpace, Observation):
        configure_tagged_union(union, converter, tag_name="kind", tag_generator=lambda kind: kind.__name__)
    return converter
