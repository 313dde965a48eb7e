from __future__ import annotations

import ast
import copy
import importlib
import re
import sys
import textwrap
from pathlib import Path

import pytest

from holdfast.lab import identity
from holdfast.lab.identity import code_version
from holdfast.lab.locate import FunctionRef, LocateError, find

PACKAGE = {
    "__init__.py": "",
    "study.py": '''
        """A study."""
        from __future__ import annotations

        from dataclasses import dataclass
        from typing import TYPE_CHECKING

        from holdfast.lab import Claim, Config, Figure, Study, Trial, mean_of

        if TYPE_CHECKING:
            from {package}.types_only import Axes

        STEPS = 10  # how long
        TABLE = {{"a": 1}}
        TABLE["b"] = 2
        UNUSED = 7

        def scaled(x):
            """Scale x."""
            return x * STEPS

        def untouched():
            return UNUSED

        try:
            import fastmath
        except ImportError:
            def slow(x):
                return x + 1
        else:
            slow = fastmath.add

        @dataclass(frozen=True, kw_only=True)
        class Settings(Config):
            """Settings."""

            width: int = 3
            """How wide."""

            def area(self):
                return self.width ** 2

        def trials(config):
            return [Trial(seed, config) for seed in config.seed_range]

        def run(trial):
            """Run one."""
            from {package}.helpers import work
            from {package}.kit import shared
            import {package}.deep.tool as tool

            n = scaled(1) + TABLE["a"]
            return {{"x": work(n) + shared(n) + tool.use(n) + slow(n) + trial.config.area()}}

        def draw(results, axes):
            return [n for n in range(3)]

        CLAIMS = [
            Claim(f"above {{n}}", "x is above it", lambda r, n=n: mean_of(r.by_seed("x"), threshold=n))
            for n in (1, 2)
        ]

        study = Study(
            name="toy", question="?", scales={{"quick": Settings()}}, trials=trials, run=run,
            claims=CLAIMS, figures=[Figure("f", "what to see", draw)],
        )
    ''',
    "helpers.py": """
        from {package} import base

        def work(n):
            return base.add(n)

        def other():
            return 0
    """,
    "base.py": "def add(n):\n    return n + 1\n",
    "kit/__init__.py": "from {package}.kit.parts import shared\nfrom .extra import spare\n",
    "kit/parts.py": "def shared(n):\n    return n\n",
    "kit/extra.py": "def spare(n):\n    return n\n",
    "deep/__init__.py": "",
    "deep/tool.py": "from .inner import VALUE\n\ndef use(n):\n    return n * VALUE\n",
    "deep/inner.py": "VALUE = 4\n",
    "deep/unrelated.py": "VALUE = 5\n",
    "sibling.py": "X = 1\n",
    "types_only.py": "class Axes: ...\n",
}


class Package:
    """A small package on the path, whose files can be changed."""

    def __init__(self, root: Path, name: str) -> None:
        self.root, self.name = root / name, name
        for path, text in PACKAGE.items():
            target = self.root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(textwrap.dedent(text).replace("{package}", name).replace("{{", "{").replace("}}", "}"))

    def version(self, module: str = "study", function: str = "run") -> str:
        return code_version(FunctionRef(f"{self.name}.{module}", None, function))

    def edit(self, path: str, old: str, new: str) -> None:
        text = (self.root / path).read_text()
        assert text.count(old) >= 1, f"{old!r} is not in {path}"
        (self.root / path).write_text(text.replace(old, new, 1))

    def append(self, path: str, text: str) -> None:
        with (self.root / path).open("a") as file:
            file.write(textwrap.dedent(text))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Package:
    name = "versioned_" + re.sub(r"\W", "_", request.node.name).lower()[:60]
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    identity._path.cache_clear()
    yield Package(tmp_path, name)
    identity._path.cache_clear()


def test_the_package_is_sound(package):
    module = importlib.import_module(f"{package.name}.study")
    (trial, *_) = module.study.trials(module.study.scales["quick"])
    assert module.run(trial)["x"] > 0
    assert re.fullmatch("[0-9a-f]{16}", package.version())
    assert package.version() == package.version()
    assert FunctionRef.of(module.run) == FunctionRef(f"{package.name}.study", None, "run")


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("study.py", "# how long", "# how many steps"),
        ("study.py", '"""A study."""', '"""Another text."""'),
        ("study.py", '"""Run one."""', '"""Run one trial, quickly."""'),
        ("study.py", '    """Run one."""\n', ""),
        ("study.py", '"""How wide."""', '"""How many columns."""'),
        ("study.py", '    """Settings."""\n\n', ""),
        ("study.py", "return x * STEPS", "return (x  *  STEPS)"),
        ("study.py", "x is above it", "x is larger than it"),
        ("study.py", "for n in (1, 2)", "for n in (1, 2, 3)"),
        ("study.py", "mean_of(r.by_seed", "2 and mean_of(r.by_seed"),
        ("study.py", "what to see", "look here"),
        ("study.py", "range(3)", "range(4)"),
        ("study.py", 'question="?"', 'question="Why?"'),
        ("study.py", "UNUSED = 7", "UNUSED = 8"),
        ("study.py", "return UNUSED", "return UNUSED + 1"),
        ("study.py", "Study, Trial", "Study, Trial, equivalent"),
        ("study.py", "import Axes", "import Axes as Ax"),
        ("helpers.py", "def work(n):\n", 'def work(n):\n    """Work."""\n'),
        ("base.py", "def add", "# add\ndef add"),
        ("kit/extra.py", "return n", "return -n"),
        ("deep/unrelated.py", "5", "6"),
        ("sibling.py", "1", "2"),
        ("types_only.py", "...", "pass"),
    ],
)
def test_what_no_result_depends_on_leaves_the_version(package, path, old, new):
    before = package.version()
    package.edit(path, old, new)
    assert package.version() == before


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("study.py", "n = scaled(1)", "n = scaled(2)"),
        ("study.py", "return x * STEPS", "return x + STEPS"),
        ("study.py", "STEPS = 10", "STEPS = 11"),
        ("study.py", '"a": 1', '"a": 2'),
        ("study.py", 'TABLE["b"] = 2', 'TABLE["a"] = 2'),
        ("study.py", "return x + 1", "return x + 2"),
        ("study.py", "self.width ** 2", "self.width * 2"),
        ("helpers.py", "base.add(n)", "base.add(n + 1)"),
        ("base.py", "n + 1", "n + 2"),
        ("kit/parts.py", "return n", "return -n"),
        ("deep/tool.py", "n * VALUE", "n + VALUE"),
        ("deep/inner.py", "4", "5"),
    ],
)
def test_what_a_result_depends_on_changes_the_version(package, path, old, new):
    before = package.version()
    package.edit(path, old, new)
    assert package.version() != before


@pytest.mark.parametrize(
    "statement",
    [
        "TABLE.update(a=5)",
        "TABLE['a'] += 1",
        "del TABLE['b']",
        "if STEPS:\n    def scaled(x):\n        return x",
        "for STEPS in range(3):\n    pass",
        "STEPS: int = 3",
        "with open('x') as STEPS:\n    pass",
        "from {package}.sibling import X as STEPS",
        "from {package}.sibling import *",
        "scaled = lambda x: x",
    ],
)
def test_a_later_statement_that_rebinds_or_changes_what_run_uses_changes_the_version(package, statement):
    before = package.version()
    package.append("study.py", f"\n{statement.format(package=package.name)}\n")
    assert package.version() != before


@pytest.mark.parametrize(
    "statement",
    [
        "print('hello')",
        "OTHER = [n for n in range(3)]",
        "def more(trial):\n    n = 1\n    return trial, n",
        "import json",
        "CLAIMS.append(1)",
        "if __name__ == '__main__':\n    print(run)",
    ],
)
def test_a_later_statement_that_run_does_not_see_leaves_the_version(package, statement):
    before = package.version()
    package.append("study.py", f"\n{statement}\n")
    assert package.version() == before


@pytest.mark.parametrize("style", ["from {package}.sibling import *", "import {package}.sibling as sibling"])
def test_other_ways_to_import_a_module(package, style):
    package.edit("study.py", "from __future__ import annotations", style.format(package=package.name))
    package.edit("study.py", "n = scaled(1)", "n = scaled(1) + (X if 'X' in globals() else sibling.X)")
    before = package.version()
    package.edit("sibling.py", "1", "2")
    assert package.version() != before


def test_a_name_that_a_package_gives_from_a_relative_import(package):
    package.edit("study.py", "import shared", "import shared, spare")
    before = package.version()
    package.edit("kit/extra.py", "return n", "return -n")
    assert package.version() != before


def test_a_package_that_imports_from_itself_is_no_endless_loop(package):
    package.append("kit/__init__.py", f"from {package.name}.kit import compiled\n")
    package.edit("study.py", "import shared", "import shared, compiled")
    assert package.version()


def test_modules_that_import_each_other_are_no_endless_loop(package):
    package.append("base.py", f"from {package.name} import helpers\n")
    assert package.version()


def test_run_in_the_init_of_a_package(package):
    package.append("deep/__init__.py", "\nfrom .inner import VALUE\n\ndef run(trial):\n    return {'x': VALUE}\n")
    before = package.version("deep")
    package.edit("deep/inner.py", "4", "5")
    assert package.version("deep") != before


def test_two_functions_of_one_module_have_their_own_versions(package):
    assert package.version(function="run") != package.version(function="untouched")
    package.edit("study.py", "UNUSED = 7", "UNUSED = 8")
    before = package.version(function="untouched")
    package.edit("study.py", "STEPS = 10", "STEPS = 11")
    assert package.version(function="untouched") == before


def test_reading_the_version_imports_nothing(package):
    loaded = set(sys.modules)
    package.version()
    assert not {name for name in set(sys.modules) - loaded if name.startswith(package.name)}


@pytest.mark.parametrize(
    ("room", "matters"), [("lab", False), ("seeds", True), ("probes", False), ("sharpness", True), ("nn", True)]
)
def test_what_a_change_in_a_room_means_for_a_study_of_this_package(monkeypatch, room, matters):
    reference = FunctionRef.of(find("sharpness").parts[0].run)
    before = code_version(reference)
    parse = identity._parse

    def edited(path):
        tree = copy.deepcopy(parse(path))
        if path.stem == room or (path.parent.name == room and path.stem != "seeds"):
            tree.body.append(ast.parse("ANOTHER_CONSTANT = 1").body[0])
        return tree

    monkeypatch.setattr(identity, "_parse", edited)
    assert (code_version(reference) != before) == matters


def test_claims_and_figures_of_a_study_of_this_package_are_no_part_of_its_version():
    reference = FunctionRef.of(find("sharpness").parts[0].run)
    tree = identity._parse(identity._path(reference.module))
    reached = {name.partition("#")[0] for name in identity._reachable(tree, reference.name)}
    assert reference.name in reached
    assert not reached & {"CLAIMS", "study", "Claim", "Figure", "Study", "mean_of", "paired_difference"}


def test_a_file_study(tmp_path):
    path = tmp_path / "mine.py"
    text = (
        "from holdfast.lab import Config, Study, Trial\n"
        "K = 1\ndef run(trial):\n    return {'x': K}\n"
        "def trials(c):\n    return [Trial(0, c)]\n"
        "study = Study('mine', '?', {'quick': Config()}, trials, run, [])\n"
    )
    path.write_text(text)
    reference = FunctionRef.of(find(str(path)).parts[0].run)
    before = code_version(reference)
    path.write_text(text.replace("'?'", "'Why?'"))
    assert code_version(reference) == before
    path.write_text(text.replace("K = 1", "K = 2"))
    assert code_version(reference) != before


def test_the_same_file_elsewhere_has_another_name_but_is_not_compared(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.py").write_text("def run(trial):\n    return {'x': 1}\n")
    versions = {
        code_version(FunctionRef("_holdfast_file_same", str(tmp_path / folder / "same.py"), "run"))
        for folder in ("a", "b")
    }
    assert len(versions) == 1


def test_source_that_cannot_be_read_is_a_clear_error(tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("def run(:\n")
    with pytest.raises(LocateError, match=r"broken\.py: cannot be read as Python source"):
        code_version(FunctionRef("broken", str(broken), "run"))
    with pytest.raises(LocateError, match="cannot be read"):
        code_version(FunctionRef("gone", str(tmp_path / "gone.py"), "run"))
    with pytest.raises(LocateError, match="its source cannot be found"):
        code_version(FunctionRef("no_such_module_anywhere.study", None, "run"))


def test_types_for_readers_are_no_part_of_a_result(package):
    package.edit("study.py", "def scaled(x):", "def scaled(x: Axes):")
    before = package.version()
    package.edit("study.py", "import Axes", "import Axes, Figure")
    package.edit("types_only.py", "...", "pass")
    assert package.version() == before
