"""Fill the gallery: every picture in `docs/images` with its caption, its page and the command that makes it.

    python docs/gallery.py

writes the parts of `docs/gallery.md` between `<!-- figures: STUDY -->` and `<!-- /figures -->`, from what the studies
declare and from the pictures that are there. It computes and draws nothing.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.lab.locate import find

if TYPE_CHECKING:
    from holdfast.lab import Part, Study

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "gallery.md"
IMAGES = DOCS / "images"
EXTRAS = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
ALSO = {("sharpness", "laws"): "needle", ("sharpness", "remedies"): "retrieve", ("action", "conditioning"): "control"}
"""Other parts that a figure shows beside its own."""
MARKED = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- /figures -->)", re.DOTALL)


def filled(page: str) -> str:
    """The gallery with the pictures of today."""
    return MARKED.sub(lambda mark: f"{mark[1]}\n{section(mark[2])}\n\n{mark[3]}", page)


def section(name: str) -> str:
    """All pictures of a study, and what would draw those of its figures that nobody has drawn yet.

    Arguments:
        name: of the study.
    """
    study, page = find(name), (DOCS / "systems" / f"{name}.md").read_text(encoding="utf-8")
    scale = _first(r"<!-- results -->\s+Scale `(\w+)`", page, f"the scale in the results of {name}")
    items, absent = list(_idea(name, page)), []
    for part in study.parts:
        drawn = [figure for figure in part.figures if (IMAGES / f"{name}-{figure.name}.svg").is_file()]
        for figure in drawn:
            link = f"[{_title(page)}](systems/{name}.md#the-study), part `{part.name}`"
            draw = f".venv/bin/python docs/images/make.py {name} --figure {figure.name}"
            run = " ".join([_run(study, part, scale), *filter(None, [ALSO.get((name, figure.name))])])
            commands = [*_needed(part, study.scales[scale]), run, draw]
            items.append(_item(f"{name}-{figure.name}", figure.caption, link, *commands))
        others = [f"`{figure.name}`" for figure in part.figures if figure not in drawn]
        if others:
            absent.append(f"- {', '.join(others)}: `{_run(study, part, _larger(study, part, scale))}`")
    if absent:
        items.append("\n".join([f"Beyond the scale `{scale}`, and not drawn here:", "", *absent]))
    return "\n\n".join(items)


def _run(study: Study[Any], part: Part[Any], scale: str) -> str:
    return f"holdfast run {study.name} --scale {scale} --only {part.name}"


def _larger(study: Study[Any], part: Part[Any], scale: str) -> str:
    """The next scale at which a part has trials."""
    scales = list(study.scales)
    return next(at for at in scales[scales.index(scale) + 1 :] if any(part.trials(study.scales[at])))


def _needed(part: Part[Any], config: Any) -> list[str]:
    """The command that installs what a part needs and the environment of a checkout lacks, if there is anything."""
    needs = part.needs(config) if callable(part.needs) else part.needs
    there = re.findall(r"\w+", EXTRAS["all"][0])
    extras = sorted(package for package in set(needs.values()) if package[len("holdfast[") : -1] not in there)
    return [f"pip install {' '.join(map(repr, extras))}"] if extras else []


def _idea(name: str, page: str) -> Iterator[str]:
    """The picture that explains the system, made by a script of its own."""
    if (IMAGES / f"{name}_idea.py").is_file():
        caption = _first(rf"!\[([^\]]+)\]\(\.\./images/{name}-idea\.svg\)", page, f"the idea of {name}")
        link = f"[{_title(page)}](systems/{name}.md), a drawing without measurements"
        yield _item(f"{name}-idea", f"{caption}.", link, f".venv/bin/python docs/images/{name}_idea.py")


def _item(picture: str, caption: str, link: str, *commands: str) -> str:
    block = "\n".join(["<!-- not run: draws into the checkout -->", "```bash", *commands, "```"])
    return f"![{caption}](images/{picture}.svg)\n\n*{caption}* {link}.\n\n{block}"


def _title(page: str) -> str:
    return _first(r"^# (.+)$", page, "a title")


def _first(pattern: str, page: str, what: str) -> str:
    match = re.search(pattern, page, re.MULTILINE)
    if match is None:
        raise SystemExit(f"found no place that says {what}")
    return match[1]


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
