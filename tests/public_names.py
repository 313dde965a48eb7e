"""The public names of Holdfast, read from the source: what the API reference shows, and `__all__` of packages.

`python -m tests.public_names` writes them to `public_names.txt`, which the test beside it compares.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path

from tests.source_tree import HOUSE, sources

ROOT = Path(__file__).parent.parent
FROZEN = Path(__file__).parent / "public_names.txt"

_SHOWN = re.compile(r"^::: holdfast\.(?P<name>\S+)\n(?P<options>(?: +.*\n)*)", re.MULTILINE)


def shown(reference: Path) -> list[str]:
    """What the pages of the reference show, below `holdfast`; not modules of which they show the docstring alone."""
    pages = [page.read_text(encoding="utf-8") + "\n" for page in sorted(reference.glob("*.md"))]
    entries = [entry for page in pages for entry in _SHOWN.finditer(page)]
    return [entry["name"] for entry in entries if "members: []" not in entry["options"]]


def declared(file: Path) -> list[str] | None:
    """What a file lists in `__all__`, or nothing where it has none."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            return [str(name) for name in ast.literal_eval(node.value)]
    return None


def defined(file: Path) -> list[str]:
    """Classes and functions of a file that do not begin with an underscore."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    names = [node.name for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    return [name for name in names if not name.startswith("_")]


def public_names(reference: Path, modules: Mapping[str, Path]) -> list[str]:
    """All public names with `holdfast.` before them, in order.

    Arguments:
        reference: the folder of the API reference.
        modules: every module's file by its dotted name below the package.
    """
    names = set(declared(modules[""]) or []) if "" in modules else set()
    for name in shown(reference):
        package, _, last = name.rpartition(".")
        listed = declared(modules[package]) or [] if package in modules else []
        names |= {f"{package}.{entry}" for entry in listed}
        if name in modules and last not in listed:  # a function may bear the name of its file
            names |= {f"{name}.{entry}" for entry in declared(modules[name]) or defined(modules[name])}
        else:
            names.add(name)
    return sorted(f"holdfast.{name}" for name in names)


def current() -> list[str]:
    """The public names as they are now."""
    return public_names(ROOT / "docs" / "reference", sources(HOUSE))


if __name__ == "__main__":
    FROZEN.write_text("".join(f"{name}\n" for name in current()), encoding="utf-8")
