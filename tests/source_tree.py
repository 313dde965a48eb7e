"""Reads the source of the package: its modules, and who imports whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import holdfast

HOUSE = Path(holdfast.__file__).parent


@dataclass(frozen=True)
class Import:
    """One import from the package itself.

    Arguments:
        line: where it stands.
        target: dotted name below the package; it may be that of a function or class.
        for_types: it stands below `if TYPE_CHECKING`.
    """

    line: int
    target: str
    for_types: bool


def sources(house: Path) -> dict[str, Path]:
    """All files, by dotted name below the package; the package itself is the empty name."""
    names = {}
    for path in sorted(house.rglob("*.py")):
        *rooms, last = path.relative_to(house).with_suffix("").parts
        names[".".join([*rooms, last] if last != "__init__" else rooms)] = path
    return names


def imports(path: Path, house: Path, package: str = "holdfast") -> Iterator[Import]:
    """Imports from the package: at the top, inside functions, for type checkers, and by name with a constant."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parents = [package, *path.relative_to(house).parts[:-1]]
    types_only = {
        node
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test).endswith("TYPE_CHECKING")
        for statement in branch.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module.split(".") if node.module else []
            if node.level:
                base = [*parents[: len(parents) - node.level + 1], *base]
            names = [".".join([*base, alias.name]) for alias in node.names]
        elif isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__"):
            names = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        for name in names:
            top, _, rest = name.partition(".")
            if top == package and rest and not rest.startswith("__"):
                yield Import(node.lineno, rest, node in types_only)


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
