"""The house has floors: a room imports itself and rooms on floors below, and the ground floor stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import holdfast

FLOORS = (
    ("errors", "typing", "bar"),
    ("llm", "data"),
    ("nn", "optim", "lists", "confidence"),
    ("lab", "probes", "models", "rl"),
    ("benches", "studies"),
    ("cli",),
)
ENTRANCE = {"__main__": "cli"}
"""Modules at the top that belong to a room of another name."""

HOUSE = Path(holdfast.__file__).parent
HEAVY = ("torch", "numpy", "scipy", "matplotlib", "pyarrow", "sklearn", "pandas", "jinja2", "ray", "transformers")


def violations(house: Path, package: str = "holdfast") -> list[str]:
    """Imports against the order of the floors, and rooms that stand on no floor.

    All imports count: those inside functions and those for type checkers too.
    """
    level = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    found = []
    for path in sorted(house.rglob("*.py")):
        module = path.relative_to(house).with_suffix("").parts
        room = ENTRANCE.get(module[0], module[0])
        where = path.relative_to(house).as_posix()
        if room != "__init__" and room not in level:
            found.append(f"{where}: {room} stands on no floor")
            continue
        for line, target in _imported_rooms(path, module, package):
            if target == room:
                continue
            if target not in level:
                found.append(f"{where}:{line}: {target} stands on no floor")
            elif room == "__init__" or level[target] >= level[room]:
                found.append(f"{where}:{line}: {room} imports {target}")
    return found


def _imported_rooms(path: Path, module: tuple[str, ...], package: str) -> Iterator[tuple[int, str]]:
    """The line and the room of each import from the package; `from holdfast import __version__` is no room."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parents = [package, *module[:-1]]
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
                yield node.lineno, rest.partition(".")[0]


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def test_every_import_goes_down():
    assert violations(HOUSE) == []


def test_the_whole_house_was_read():
    rooms = {path.name for path in HOUSE.iterdir() if path.is_dir() and not path.name.startswith("__")}
    rooms |= {path.stem for path in HOUSE.glob("*.py")} - {"__init__", "__main__"}
    assert {"lab", "nn", "studies", "cli", "errors"} <= rooms
    assert rooms <= {room for floor in FLOORS for room in floor}
    seen = {room for path in HOUSE.rglob("*.py") for _, room in _imported_rooms(path, ("x", "y"), "holdfast")}
    assert {"errors", "lab", "nn"} <= seen, "the reader of imports finds nothing"


@pytest.fixture
def house(tmp_path: Path):
    """A function that builds a small house from its files."""

    def build(**files: str) -> Path:
        for name, text in {"__init__": "__version__ = '1'", **files}.items():
            path = tmp_path / "holdfast" / (name.replace("___", "/") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "holdfast"

    return build


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("lab/run.py", "from holdfast.studies.toy import study", "lab/run.py:1: lab imports studies"),
        ("lab/run.py", "import holdfast.studies", "lab/run.py:1: lab imports studies"),
        ("lab/run.py", "from holdfast import studies", "lab/run.py:1: lab imports studies"),
        ("lab/run.py", "from ..studies import toy", "lab/run.py:1: lab imports studies"),
        ("lab/run.py", "from .. import studies", "lab/run.py:1: lab imports studies"),
        ("lab/run.py", "def f():\n    import holdfast.models as m", "lab/run.py:2: lab imports models"),
        ("lab/run.py", "if TYPE_CHECKING:\n    from holdfast.cli import Run", "lab/run.py:2: lab imports cli"),
        ("lab/run.py", "import importlib\nimportlib.import_module('holdfast.rl.a')", "lab/run.py:2: lab imports rl"),
        ("lab/report/page.py", "from ...probes import x", "lab/report/page.py:1: lab imports probes"),
        ("nn/a.py", "from holdfast.optim import x", "nn/a.py:1: nn imports optim"),
        ("nn/__init__.py", "from holdfast.lab import x", "nn/__init__.py:1: nn imports lab"),
        ("nn/__init__.py", "from ..lab import x", "nn/__init__.py:1: nn imports lab"),
        ("errors.py", "from holdfast import typing", "errors.py:1: errors imports typing"),
        ("errors.py", "import os, holdfast.nn.a", "errors.py:1: errors imports nn"),
        ("studies/a.py", "import holdfast.cli", "studies/a.py:1: studies imports cli"),
        ("__init__.py", "from holdfast.errors import x", "__init__.py:1: __init__ imports errors"),
        ("attic/a.py", "", "attic/a.py: attic stands on no floor"),
        ("studies/a.py", "import holdfast.attic", "studies/a.py:1: attic stands on no floor"),
    ],
)
def test_the_check_finds_what_it_should(house, file, text, expected):
    root = house(lab___ok="from holdfast.nn import a")
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(text)
    assert violations(root) == [expected]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("lab/run.py", "from holdfast.lab.store import Store\nfrom . import store\nfrom .store import Store"),
        ("lab/report/page.py", "from ..store import Store\nfrom holdfast import __version__"),
        ("lab/run.py", "from holdfast.nn import a\nfrom ..errors import E\nimport holdfast.typing"),
        ("studies/a.py", "from holdfast import lab, probes, models, rl, nn, data, errors"),
        ("cli.py", "import holdfast, holdfast.studies, holdfast.errors"),
        ("__main__.py", "from holdfast.cli import main"),
        ("nn/a.py", "import torch\nfrom holdfast_extra.lab import x\nimport holdfastness.lab"),
    ],
)
def test_the_check_allows_what_it_should(house, file, text):
    root = house()
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(text)
    assert violations(root) == []


def loaded(statement: str) -> set[str]:
    """Heavy packages that a fresh process has loaded after a statement."""
    script = f"import sys\n{statement}\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    return set(answer.stdout.split())


@pytest.mark.parametrize("module", ["holdfast", "holdfast.errors", "holdfast.lab", "holdfast.cli", "holdfast.lab.run"])
def test_the_ground_floor_is_light(module):
    assert loaded(f"import {module}") == set()


STUDIES = sorted(path.parent.name for path in (HOUSE / "studies").glob("*/study.py"))


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_is_declared_without_loading_what_it_computes_with(study):
    assert loaded(f"import holdfast.studies.{study}.study") == set()


def test_lightness_can_be_seen_to_fail():
    assert "numpy" in loaded("import numpy")
