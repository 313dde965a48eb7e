"""Everything that the documentation shows is run.

Conventions for fenced blocks in README.md and docs/:

- `python`: executed; the blocks of a page share their names, and a temporary folder as working directory.
- `python title="my_study.py"`: written to that file in the folder; a later block of the page must use it.
- `text title="output"`: what the block of Python before it prints.
- `bash`: executed in the folder.
- `console`: after each `$ ` a command, then what it prints, standard error included.
- `toml`, `yaml`, `json`: parsed. `text`: for people.
- `<!-- not run: reason -->` on the line before a block: not executed, but its commands must be known.

In expected output `…` stands for anything within a line, and a line `...` for any lines. Progress is left out of it,
since a terminal shows it as a bar that goes away.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from holdfast.cli.parsing import parse
from holdfast.cli.probes import PROBES
from holdfast.cli.serve import ServeAction
from holdfast.cli.studies import run_options
from holdfast.cli.train import action_options, language_options, rainbow_options
from holdfast.errors import HoldfastError
from holdfast.lab.locate import find, installed, load_file
from holdfast.models.action.recipe import ActionRecipe
from holdfast.models.language.recipe import LanguageRecipe
from holdfast.rl.rainbow.recipe import RainbowRecipe
from tests import command_line

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])

TERMINAL = {"COLUMNS": "88", "NO_COLOR": "1", "PYTHONWARNINGS": "default"}

_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>.*)$")
_NOT_RUN = re.compile(r"^<!-- not run: (?P<reason>.+) -->$")
_OURS = re.compile(r"""^holdfast (?P<words>[^|;<>$#\n]*?)(?: > (?P<file>[\w.]+))?(?P<status>; echo "status \$\?")?$""")
_PROGRESS = re.compile(r"^\S+: \d+/\d+ trials, |^judging the claims of |^drawing the report ")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    line: int
    language: str
    title: str
    text: str
    not_run: str


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    found: list[Block] = []
    opened: Block | None = None
    before = ""
    lines: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = _FENCE.match(line)
        if fence is None:
            lines.append(line)
            before = line.strip() or before if opened is None else before
        elif opened is None:
            language, _, rest = fence["info"].partition(" ")
            title = re.search(r'title="([^"]+)"', rest)
            mark = _NOT_RUN.match(before)
            opened = Block(number, language, title[1] if title else "", "", mark["reason"] if mark else "")
            lines, before = [], ""
        else:
            found.append(replace(opened, text="\n".join(lines) + "\n"))
            opened = None
    assert opened is None, f"{name(page)}:{opened and opened.line}: this block has no end"
    return found


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def sections(page: Path) -> set[str]:
    """Anchors of a page's headings."""
    headings = re.findall(r"^#+ +(.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def assert_like(shown: str, found: str, where: str) -> None:
    """Compare output, wildcards included."""

    def pattern() -> Iterator[str]:
        for line in shown.strip("\n").splitlines():
            if line.strip() == "...":
                yield r"(?:.*\n)*"
            else:
                yield r"[^\n]*".join(map(re.escape, line.rstrip().split("…"))) + r"\n"

    lines = [line.rstrip() for line in found.splitlines() if not _PROGRESS.match(line)]
    text = "".join(f"{line}\n" for line in "\n".join(lines).strip("\n").splitlines())
    matches = re.fullmatch("".join(pattern()), text) is not None
    assert matches, f"{where} shows\n\n{shown}\nbut prints\n\n{text}"


def shell(command: str, folder: Path, *flags: str) -> tuple[int, str]:
    """Run with this environment's tools first, as wide as the pages show it; our own commands in this process."""
    simple = _OURS.match(command.strip())
    if simple is not None:
        return ours(simple, folder)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **TERMINAL}
    ran = subprocess.run(
        ["bash", *flags, "-c", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return ran.returncode, ran.stdout


def ours(command: re.Match[str], folder: Path) -> tuple[int, str]:
    """Run `holdfast …`, with what the pages put behind it: `> FILE`, and the status it ends with."""
    output = command_line.Output()
    to_file = command_line.Output() if command["file"] else output
    status = command_line.run(*shlex.split(command["words"]), cwd=folder, out=to_file, err=output, env=TERMINAL)
    if command["file"]:
        (folder / command["file"]).write_text(to_file.getvalue(), encoding="utf-8")
    said = f"status {status}\n" if command["status"] else ""
    return status, output.getvalue() + said


def check_known(block: Block, where: str) -> None:
    """Commands that are not run must at least be ones that there are."""
    if block.language == "python":
        compile(block.text, where, "exec")
        for line in re.findall(r"^from holdfast\S* import .+$", block.text, re.MULTILINE):
            exec(line, {})
        return
    for line in block.text.splitlines():
        words = shlex.split(line, comments=True)
        if words[:2] == ["holdfast", "run"]:
            try:
                parse(run_options(words[2:]), "holdfast run", words[2:])
            except HoldfastError as error:
                pytest.fail(f"{where}: {line}: {error}")
        elif words[:2] == ["holdfast", "probe"]:
            try:
                parse(PROBES[words[2]][0], f"holdfast probe {words[2]}", words[3:])
            except (HoldfastError, KeyError) as error:
                pytest.fail(f"{where}: {line}: {error}")
        elif words[:2] == ["holdfast", "train"]:
            options = {
                "language": (language_options, LanguageRecipe),
                "action": (action_options, ActionRecipe),
                "rainbow": (rainbow_options, RainbowRecipe),
            }
            options_of, recipe = options[words[2]]
            try:
                parse(options_of(recipe), f"holdfast train {words[2]}", words[3:])
            except HoldfastError as error:
                pytest.fail(f"{where}: {line}: {error}")
        elif words[:3] == ["holdfast", "serve", "action"]:
            try:
                parse(ServeAction, "holdfast serve action", words[3:])
            except HoldfastError as error:
                pytest.fail(f"{where}: {line}: {error}")
        elif words[:1] == ["make"]:
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), where
        elif words[:2] == ["pip", "install"]:
            project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
            extras = re.findall(r"\[(.+)\]", line)
            assert set(",".join(extras).split(",")) - {""} <= set(project["optional-dependencies"]), where
        elif words[:2] == [".venv/bin/python", "-m"]:
            assert (ROOT / f"{words[2].replace('.', '/')}.py").is_file(), f"{where}: {line}"
        elif words[:1] == [".venv/bin/python"]:
            assert (ROOT / words[1]).is_file(), f"{where}: {line}"
        elif words and not words[0].startswith(".venv/bin/"):
            assert (ROOT / words[0]).is_file(), f"{where}: {line}"


def run_page(page: Path, folder: Path) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    printed = ""
    unused: dict[str, str] = {}
    for block in blocks(page):
        where = f"{name(page)}:{block.line}"
        unused = {file: place for file, place in unused.items() if not re.search(rf"\b{Path(file).stem}\b", block.text)}
        if block.not_run:
            check_known(block, where)
        elif block.language in ("python", "json") and block.title:
            (folder / block.title).write_text(block.text, encoding="utf-8")
            unused[block.title] = where
        elif block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as output:
                exec(compile("\n" * block.line + block.text, name(page), "exec"), names)
            printed = output.getvalue()
        elif block.language == "text" and block.title == "output":
            assert_like(block.text, printed, where)
        elif block.language == "bash":
            status, output_text = shell(block.text, folder, "-euo", "pipefail")
            assert status == 0, f"{where} exits with status {status}:\n{output_text}"
        elif block.language == "console":
            assert block.text.startswith("$ "), f"{where}: expected a line that starts with '$ '"
            for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
                command, _, shown = part.partition("\n")
                assert_like(shown, shell(command, folder)[1], f"{where}: {command}")
        elif block.language == "toml":
            tomllib.loads(block.text)
        elif block.language == "yaml":
            yaml.safe_load(block.text)
        elif block.language == "json":
            json.loads(block.text)
        else:
            assert block.language == "text", f"{where}: no rule for a block in {block.language!r}"
    assert not unused, f"files that no later block of the page uses: {unused}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_a_page_shows_is_true(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(page, tmp_path)


def test_few_blocks_are_not_run() -> None:
    marked = [
        f"{name(page)}:{block.line}: {block.not_run}"
        for page in PAGES
        if page.stem != "gallery"  # tests/test_gallery.py
        for block in blocks(page)
        if block.not_run
    ]
    assert len(marked) <= 18 + 3 * len(installed()), "\n".join(marked)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_resolve(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", link):
            assert link.startswith("https://"), f"{name(page)}: {link}"
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name(page)}: {link}"
        assert not anchor or anchor in sections(target), f"{name(page)}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_page_shows_a_machine_path(page: Path) -> None:
    found = re.findall(r"(?<![\w.:/-])/(?:home|root|tmp|work|usr|opt|var|Users)/\S*", page.read_text(encoding="utf-8"))
    assert not found, f"{name(page)}: {found}"


def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert built.returncode == 0, built.stderr
    for page in tmp_path.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(
            r"""<(?:script|img|link rel="(?:stylesheet|icon|preconnect)")[^>]* (?:src|href)="(https?:)?//""", text
        )
        assert not loaded, page.name
        assert "Errors:" not in text, page.name


def systems() -> list[list[str]]:
    """Rows of the README's table of systems."""
    rows = re.findall(r"^\| (\w+ \(\[.+) \|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    return [[cell.strip() for cell in row.split(" | ")] for row in rows]


def test_the_table_of_systems_agrees_with_the_code() -> None:
    rows = systems()
    assert len(rows) == 8
    for system, _, *forms in rows:
        for form in forms:
            assert form.startswith("`") or form == "planned", system
            for code in re.findall(r"`(holdfast\.[\w.]+)`", form):
                module, _, attribute = code.rpartition(".")
                assert callable(getattr(importlib.import_module(module), attribute)), code
    studies = {code for _, _, _, _, study in rows for code in re.findall(r"`holdfast run (\w+)`", study)}
    assert studies == {row[0].split(" ")[0] for row in rows if row[4] != "planned"} == set(installed())


def test_every_study_has_a_page_with_its_results_and_figures() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    gallery = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    for study, point in installed().items():
        if not point.value.startswith("holdfast."):
            continue
        page = ROOT / "docs" / "systems" / f"{study}.md"
        text = page.read_text(encoding="utf-8")
        assert f"systems/{study}.md" in navigation
        assert "<!-- results -->" in text
        declared = point.load()
        for claim in declared.claims:
            assert f"`{claim.name}`" in text, f"{name(page)} does not explain the claim {claim.name}"
        for figure in declared.figures:
            drawn = f"images/{study}-{figure.name}.svg" in gallery
            assert drawn or f"`{figure.name}`" in gallery, f"the gallery lacks {figure.name}; see docs/images"


SYSTEMS = sorted((ROOT / "docs" / "systems").glob("*.md"))


@pytest.mark.parametrize("page", SYSTEMS, ids=name)
def test_a_system_says_where_its_rooms_are(page: Path) -> None:
    """All that it names is there, and all that bears the system's name, or that the README offers, is named."""
    house, system = ROOT / "src" / "holdfast", page.stem
    _, _, section = page.read_text(encoding="utf-8").partition("\n## Where its rooms are\n")
    rooms = set(re.findall(r"`([\w/.]+(?:/|\.py))`", section.partition("\n## ")[0]))
    assert rooms, f"{name(page)} ends without a section 'Where its rooms are'"
    assert [room for room in rooms if not (house / room).exists()] == []
    theirs = {path for path in house.rglob("*.py") if system in path.relative_to(house).with_suffix("").parts}
    [row] = [row for row in systems() if row[0].startswith(f"{system} ")]
    for code in re.findall(r"`(holdfast\.[\w.]+)`", " ".join(row)):
        module, _, attribute = code.rpartition(".")
        home = getattr(importlib.import_module(module), attribute).__module__
        theirs.add(Path(sys.modules[home].__file__ or ""))
    assert len(theirs) > 3
    named = [house / room for room in rooms]
    assert [path for path in sorted(theirs) if not any(path.is_relative_to(room) for room in named)] == []


def test_the_architecture_names_every_room() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    house, table = ROOT / "src" / "holdfast", text.partition("## Rooms")[2].partition("## Floors")[0]
    rooms = re.findall(r"`((?:\w+/)*(?:\w+\.py|\w+/))`", table)
    top = [path.name for path in house.iterdir() if not path.name.startswith("__") and path.name != "py.typed"]
    assert len(top) > 8
    assert [room for room in top if not any(place.split("/")[0] == room for place in rooms)] == []
    places = [house, *(house / room for room in rooms if room.endswith("/"))]
    assert [room for room in rooms if not any((place / room).exists() for place in places)] == []


def test_the_table_of_all_papers_is_that_of_the_published_results() -> None:
    script = load_file(ROOT / "docs" / "verdicts_table.py")
    page = script.PAGE.read_text(encoding="utf-8")
    assert page == script.filled(page), "renew it with  python docs/verdicts_table.py"
    assert page.count("**supported**") > 8


def test_the_citation_file_names_the_eight_papers() -> None:
    document = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    cited = {item["value"] for paper in document["references"] for item in paper["identifiers"]}
    papers = set(re.findall(r"arxiv\.org/abs/([\d.]+)", " ".join(row[0] for row in systems())))
    assert cited == {f"arXiv:{paper}" for paper in papers}
    assert len(papers) == 8
    assert "version" not in document, "the version stands in one place, src/holdfast/__init__.py"


@pytest.mark.parametrize("study", sorted(installed()))
def test_the_table_of_results_begins_with_the_headline_claims(study: str) -> None:
    page = (ROOT / "docs" / "systems" / f"{study}.md").read_text(encoding="utf-8")
    results = page.partition("<!-- results -->")[2].partition("<!-- /results -->")[0]
    shown = re.findall(r"^\| (.+?) \| \*\*(?:supported|contradicted|inconclusive)\*\*", results, re.MULTILINE)
    claims = sorted(find(study).claims, key=lambda claim: not claim.headline)
    wanted = [
        f"**`{claim.name}`: {claim.plain}.** {claim.text}" if claim.headline else f"`{claim.name}`: {claim.text}"
        for claim in claims
    ]
    assert shown == [cell.replace("|", r"\|") for cell in wanted]
