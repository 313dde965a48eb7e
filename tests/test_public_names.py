"""What other people's code may import does not change by accident."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tests.public_names import FROZEN, current, public_names

RENEW = "write them anew with `.venv/bin/python -m tests.public_names`"


def frozen() -> list[str]:
    return FROZEN.read_text(encoding="utf-8").splitlines()


def test_public_names_are_the_frozen_ones() -> None:
    before, now = set(frozen()), set(current())
    lost, new = sorted(before - now), sorted(now - before)
    assert not lost, f"public names are gone: deprecate them first (docs/stability.md), or {RENEW}: {lost}"
    assert not new, f"new public names: are they meant to stay? Then {RENEW}: {new}"


def test_the_frozen_names_are_in_order_and_many() -> None:
    assert frozen() == sorted(set(frozen()))
    assert len(frozen()) > 300


def test_every_public_name_can_be_imported() -> None:
    missing = []
    for name in frozen():
        module, _, attribute = name.rpartition(".")
        if not hasattr(importlib.import_module(module), attribute):
            missing.append(name)
    assert missing == []


@pytest.fixture
def modules(tmp_path: Path) -> dict[str, Path]:
    """A small package: one with `__all__`, one without, one module that the reference shows whole."""
    texts = {
        "a": "from x import One\n__all__ = ['One', 'Two']",
        "b": "class Three: ...",
        "c": "class Four: ...\ndef five(): ...\ndef _six(): ...\nseven = 7",
        "d": "__all__ = ['Hidden']",
        "e": "from holdfast.e.eight import eight\n__all__ = ['eight']",
        "e.eight": "def eight(): ...\ndef nine(): ...",
    }
    files = {name: tmp_path / f"{name}.py" for name in texts}
    for name, file in files.items():
        file.write_text(texts[name])
    return files


def test_names_come_from_the_reference_and_from_its_packages(tmp_path: Path, modules: dict[str, Path]) -> None:
    (tmp_path / "page.md").write_text(
        "# A\n\n::: holdfast.a.One\n::: holdfast.b.Three\n    options:\n      heading_level: 2\n\n::: holdfast.c"
    )
    found = public_names(tmp_path, modules)
    assert found == ["holdfast.a.One", "holdfast.a.Two", "holdfast.b.Three", "holdfast.c.Four", "holdfast.c.five"]


def test_a_function_that_bears_the_name_of_its_file_is_the_function(tmp_path: Path, modules: dict[str, Path]) -> None:
    (tmp_path / "page.md").write_text("::: holdfast.e.eight\n")
    assert public_names(tmp_path, modules) == ["holdfast.e.eight"]


def test_a_module_of_which_only_the_docstring_is_shown_has_no_public_names(
    tmp_path: Path, modules: dict[str, Path]
) -> None:
    (tmp_path / "page.md").write_text("::: holdfast.c\n    options:\n      members: []\n::: holdfast.b.Three\n")
    assert public_names(tmp_path, modules) == ["holdfast.b.Three"]


def test_a_name_that_leaves_the_reference_is_seen(tmp_path: Path, modules: dict[str, Path]) -> None:
    (tmp_path / "page.md").write_text("::: holdfast.b.Three\n")
    assert public_names(tmp_path, modules) == ["holdfast.b.Three"]


def test_what_the_package_itself_offers_is_public(tmp_path: Path, modules: dict[str, Path]) -> None:
    top = tmp_path / "top.py"
    top.write_text("__all__ = ['check']")
    assert public_names(tmp_path, {**modules, "": top}) == ["holdfast.check"]
