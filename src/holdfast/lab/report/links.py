"""Where a study's documentation and source are, as seen from the page."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from holdfast.lab.locate import modules_with
from holdfast.lab.study import Study

PROJECT = "pyproject.toml"
"""Marks the root of a checkout."""


def links(study: Study[Any], page: Path) -> list[tuple[str, str]]:
    """Labels with relative addresses: only of files of the checkout, or of the folder, in which the page lies.

    A path from elsewhere would name folders of somebody's machine, and lead nowhere on another one.

    Arguments:
        study: the study.
        page: where the report is written.
    """
    source = _source(study)
    if source is None:
        return []
    page = page.resolve()
    root = next((folder for folder in source.parents if (folder / PROJECT).is_file()), source.parent)
    if not page.is_relative_to(root):
        return []
    documents = [root / "site" / "systems" / f"{study.name}.html", root / "docs" / "systems" / f"{study.name}.md"]
    places = [("docs page", document) for document in documents if document.is_file()][:1]
    places.append(("source", source))
    return [(label, Path(os.path.relpath(place, page.parent)).as_posix()) for label, place in places]


def _source(study: Study[Any]) -> Path | None:
    """The file that the study stands in, where it stands in one."""
    for name in sorted(modules_with(study)):
        file = getattr(sys.modules[name], "__file__", None)
        if file:
            return Path(file).resolve()
    return None
