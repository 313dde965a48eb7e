"""The gallery shows every picture once, with commands that there are."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli.parsing import parse
from holdfast.cli.studies import run_options
from holdfast.lab.locate import find, installed, load_file
from holdfast.lab.study import Part

DOCS = Path(__file__).parent.parent / "docs"
SCRIPT = load_file(DOCS / "gallery.py")
MAKE = load_file(DOCS / "images" / "make.py")
TEXT = SCRIPT.PAGE.read_text(encoding="utf-8")
ITEM = re.compile(
    r"^!\[(?P<alt>.+)\]\(images/(?P<picture>[\w-]+)\.svg\)\n\n\*(?P<caption>.+)\* "
    r"\[\w+\]\((?P<page>systems/\w+\.md)(?:#the-study)?\), .+\.\n\n"
    r"<!-- not run: .+ -->\n```bash\n(?P<commands>(?:.+\n)+)```$",
    re.MULTILINE,
)
ITEMS = {item["picture"]: item for item in ITEM.finditer(TEXT)}


def test_every_picture_is_shown_once() -> None:
    shown = re.findall(r"images/([\w-]+)\.svg", TEXT)
    assert sorted(shown) == sorted(path.stem for path in (DOCS / "images").glob("*.svg"))
    assert list(ITEMS) == shown, "each with its caption, its page and its commands"


def test_the_gallery_is_what_the_studies_declare() -> None:
    assert SCRIPT.filled(TEXT) == TEXT, "renew it with  python docs/gallery.py"
    assert sorted(re.findall("<!-- figures: (.+) -->", TEXT)) == sorted(installed())


@pytest.mark.parametrize("picture", ITEMS)
def test_the_commands_make_the_picture(picture: str) -> None:
    """As far as the command line's own parsers can say: study, scale, part and figure are there and belong together."""
    *before, draw = (shlex.split(line) for line in ITEMS[picture]["commands"].splitlines())
    name, _, figure = picture.partition("-")
    assert ITEMS[picture]["page"] == f"systems/{name}.md"
    assert draw[0] == ".venv/bin/python"
    assert (DOCS.parent / draw[1]).is_file()
    if figure == "idea":
        assert (before, draw[1:]) == ([], [f"docs/images/{name}_idea.py"])
        assert f"docs/images/{picture}.svg" in (DOCS.parent / draw[1]).read_text(encoding="utf-8")
        return
    chosen = MAKE.options(draw[2:])
    assert (chosen.study, chosen.figure, chosen.to) == (name, [figure], DOCS / "images")
    part = _runs(tuple(before[-1]), chosen.store)
    assert figure in [declared.name for declared in part.figures]


@pytest.mark.parametrize("line", re.findall(r"^- (`[\w-]+`.+`holdfast run .+`)$", TEXT, re.MULTILINE))
def test_a_figure_that_is_not_drawn_has_a_command_that_computes_it(line: str) -> None:
    *figures, command = re.findall(r"`(.+?)`", line)
    part = _runs(tuple(shlex.split(command)), Path("results"))
    assert set(figures) <= {declared.name for declared in part.figures}
    assert not any((DOCS / "images" / f"{shlex.split(command)[2]}-{name}.svg").exists() for name in figures)


@cache
def _runs(words: tuple[str, ...], store: Path) -> Part[Any]:
    """The part that a command computes, which has trials at its scale or needs what is not installed."""
    assert words[:2] == ("holdfast", "run")
    options = parse(run_options(words[2:]), "holdfast run", words[2:])
    assert options.store == store
    [name], [[only, *others]] = options.studies, options.only
    [part] = [part for part in find(name).parts if part.name == only]
    assert set(others) <= {declared.name for declared in find(name).parts} - {only}
    config = find(name).scales[options.scale]
    assert any(part.trials(config)) or part.lacks(config)
    return part
