"""The house has floors: a room imports itself and rooms on floors below, and the ground floor stays light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import holdfast
from tests.source_tree import HOUSE, imports

FLOORS = (
    ("errors", "bar", "hub"),
    ("deprecation",),
    ("llm", "data"),
    ("nn", "optim", "lists", "confidence"),
    ("models",),
    ("rl",),
    ("lab", "probes", "serving"),
    ("studies", "benches"),
    ("card",),
    ("cli",),
)
ENTRANCE = {"__main__": "cli"}
"""Modules at the top that belong to a room of another name."""

OFFERED = "card"
"""The room whose functions the package itself offers, and loads when they are asked for."""

HEAVY = ("torch", "numpy", "scipy", "matplotlib", "jinja2", "ray", "transformers", "hypothesis")


def violations(house: Path, package: str = "holdfast") -> list[str]:
    """Imports against the order of the floors, and rooms that stand on no floor.

    All imports count: those inside functions and those for type checkers too.
    """
    level = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    against = []
    for path in sorted(house.rglob("*.py")):
        module = path.relative_to(house).with_suffix("").parts
        room = ENTRANCE.get(module[0], module[0])
        where = path.relative_to(house).as_posix()
        if room != "__init__" and room not in level:
            against.append(f"{where}: {room} stands on no floor")
            continue
        for entry in imports(path, house, package):
            target = entry.target.partition(".")[0]
            if target == room or (room, target) == ("__init__", OFFERED):
                continue
            if target not in level:
                against.append(f"{where}:{entry.line}: {target} stands on no floor")
            elif room == "__init__" or level[target] >= level[room]:
                against.append(f"{where}:{entry.line}: {room} imports {target}")
    return against


def test_every_import_goes_down():
    assert violations(HOUSE) == []


def test_the_whole_house_was_read():
    rooms = {path.name for path in HOUSE.iterdir() if path.is_dir() and not path.name.startswith("__")}
    rooms |= {path.stem for path in HOUSE.glob("*.py")} - {"__init__", "__main__"}
    assert {"lab", "nn", "studies", "cli", "errors"} <= rooms
    assert rooms <= {room for floor in FLOORS for room in floor}
    deep = {path.parent for path in HOUSE.rglob("*.py") if len(path.relative_to(HOUSE).parts) > 2}
    assert deep, "no room within a room was read"
    for folder in deep:
        assert any(True for path in folder.glob("*.py") for _ in imports(path, HOUSE)), f"{folder} imports nothing"


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
        ("lab/run.py", "def f():\n    import holdfast.probes as p", "lab/run.py:2: lab imports probes"),
        ("lab/run.py", "if TYPE_CHECKING:\n    from holdfast.cli import Run", "lab/run.py:2: lab imports cli"),
        (
            "lab/run.py",
            "import importlib\nimportlib.import_module('holdfast.card.a')",
            "lab/run.py:2: lab imports card",
        ),
        ("lab/report/page.py", "from ...probes import x", "lab/report/page.py:1: lab imports probes"),
        ("nn/a.py", "from holdfast.optim import x", "nn/a.py:1: nn imports optim"),
        ("nn/__init__.py", "from holdfast.lab import x", "nn/__init__.py:1: nn imports lab"),
        ("nn/__init__.py", "from ..lab import x", "nn/__init__.py:1: nn imports lab"),
        ("errors.py", "from holdfast import bar", "errors.py:1: errors imports bar"),
        ("llm/a.py", "from holdfast.lists import x", "llm/a.py:1: llm imports lists"),
        ("studies/a/b/c.py", "from ....benches import x", "studies/a/b/c.py:1: studies imports benches"),
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
        ("lab/run.py", "from holdfast.nn import a\nfrom ..errors import E\nimport holdfast.bar"),
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


def test_the_ground_floor_is_light():
    modules = (
        "holdfast",
        "holdfast.errors",
        "holdfast.deprecation",
        "holdfast.lab",
        "holdfast.cli",
        "holdfast.lab.run",
    )
    assert loaded(f"import {', '.join(modules)}") == set()


STUDIES = sorted(path.parent.relative_to(HOUSE).as_posix().replace("/", ".") for path in HOUSE.rglob("study.py"))


def test_studies_are_declared_without_loading_what_they_compute_with():
    studies = [name for name in STUDIES if name.startswith("studies.")]
    assert len(studies) >= 2
    assert loaded(f"import {', '.join(f'holdfast.{name}.study' for name in studies)}") == set()


def test_nn_loads_what_its_users_have_anyway():
    """Of what is not in the standard library: torch, numpy, jaxtyping, and what these load."""
    script = (
        "import sys, numpy, torch, jaxtyping\n"
        "import torch.utils.checkpoint, torch.library\n"
        "before = set(sys.modules)\n"
        "import holdfast.nn\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(new - set(sys.stdlib_module_names) - {'holdfast', 'torch', 'numpy', 'jaxtyping'}))"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.split() == []


def test_the_package_offers_the_card_and_loads_it_when_asked():
    assert "torch" not in loaded("import holdfast; assert {'check', 'Card', 'CheckSettings'} <= set(dir(holdfast))")
    assert "jinja2" not in loaded("import holdfast; assert callable(holdfast.check)")
    with pytest.raises(AttributeError, match="chekc"):
        getattr(holdfast, "chekc")  # noqa: B009


def test_lightness_can_be_seen_to_fail():
    assert "numpy" in loaded("import numpy")
