"""The pages of the systems have one plan, which docs/architecture.md lays down."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.test_docs import ROOT, SYSTEMS, Block, blocks, name

OPENING = 200  # words
FIRST_LINES = 12  # of code, imports included

_PLAN = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("\n## The page of a system\n")[2]
_ROWS = [row.split(" | ") for row in re.findall(r"^\| (`## .+) \|$", _PLAN.partition("\n## ")[0], re.MULTILINE)]
SECTIONS = [title.strip("`") for title, _ in _ROWS]
PARTS = {title.strip("`"): re.findall(r"`(### [^`]+)`", text) for title, text in _ROWS}


def headings(page: Path) -> dict[str, list[str]]:
    """What stands below each `##`, which is the heading and its parts; line numbers make no difference."""
    found: dict[str, list[str]] = {}
    fenced = False
    for line in page.read_text(encoding="utf-8").splitlines():
        fenced ^= line.lstrip().startswith("```")
        if fenced:
            continue
        if line.startswith("## "):
            assert line not in found, f"{name(page)}: {line} twice"
            found[line] = []
        elif line.startswith("### "):
            found[next(reversed(found))].append(line)
    return found


def blocks_of(page: Path, section: str) -> list[Block]:
    lines = page.read_text(encoding="utf-8").splitlines()
    first = lines.index(section) + 1
    after = [number for number, line in enumerate(lines, 1) if number > first and line in SECTIONS]
    return [block for block in blocks(page) if first < block.line < min(after)]


def test_there_is_a_plan() -> None:
    assert len(SECTIONS) == 8
    assert sum(map(len, PARTS.values())) == 4
    assert len(SYSTEMS) == 8


@pytest.mark.parametrize("page", SYSTEMS, ids=name)
def test_a_page_has_the_sections_of_the_plan_in_its_order(page: Path) -> None:
    found = headings(page)
    assert list(found) == SECTIONS
    for section, parts in PARTS.items():
        assert found[section][: len(parts)] == parts, f"{name(page)}: {section}"


@pytest.mark.parametrize("page", SYSTEMS, ids=name)
def test_the_opening_is_short_and_has_one_figure(page: Path) -> None:
    title, _, rest = page.read_text(encoding="utf-8").partition("\n")
    opening = rest.partition("\n## ")[0]
    assert re.fullmatch(r"# \w+", title)
    assert len(re.findall(r"!\[", opening)) == 1
    assert not re.search(r"^(#|```|\|)", opening, re.MULTILINE)
    words = re.sub(r"\]\([^)]*\)", "]", re.sub(r"!\[.*?\]\(.*?\)", "", opening)).split()
    assert 60 < len(words) <= OPENING


@pytest.mark.parametrize("page", SYSTEMS, ids=name)
def test_the_probe_begins_with_its_command(page: Path) -> None:
    found = blocks_of(page, "## Do I have this problem?")
    place = next(number for number, block in enumerate(found) if block.language == "console")
    command = found[place]
    assert [block.language for block in found[:place]] in ([], ["python"]), "one block at most makes what is probed"
    assert not command.not_run
    assert re.match(r"\$ holdfast probe [\w-]+", command.text)
    assert command.text.count("\n") > 1, "it shows nothing of what the command prints"


@pytest.mark.parametrize("page", SYSTEMS, ids=name)
def test_the_remedy_begins_with_a_few_lines_that_work_by_themselves(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    block = blocks_of(page, "## The remedy")[0]
    assert (block.language, block.title, block.not_run) == ("python", "", "")
    assert len([line for line in block.text.splitlines() if line.strip()]) <= FIRST_LINES
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile("\n" * block.line + block.text, name(page), "exec"), names)
