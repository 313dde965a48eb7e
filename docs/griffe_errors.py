"""Teaches the API reference that a docstring's "Errors:" section is what Google style calls "Raises:"."""

from __future__ import annotations

import re
from typing import Any

import griffe

_SECTION = re.compile(r"^Errors:$", re.MULTILINE)
_SOURCE = re.compile(r"^Source: ", re.MULTILINE)


class ErrorsAreRaises(griffe.Extension):
    """Renames the section before the docstring is parsed; the source line keeps its own paragraph."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring:
            obj.docstring.value = _SOURCE.sub("**Source:** ", _SECTION.sub("Raises:", obj.docstring.value))
