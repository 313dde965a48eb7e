"""The card as one self-contained HTML page: the answer first, then a section a probe."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from holdfast import __version__
from holdfast.card.against import Comparison, Difference, compare
from holdfast.card.finding import MEASURED, Finding, Measure, Outcome
from holdfast.card.words import line
from holdfast.lab.report import text

if TYPE_CHECKING:
    from holdfast.card.card import Card, Subject

CLASSES = {
    Outcome.FAILS: "fails",
    Outcome.HOLDS: "holds",
    Outcome.NOT_TOLD: "untold",
    Outcome.NOT_RUN: "unrun",
    Outcome.INAPPLICABLE: "unfit",
}
"""What the page's style calls each outcome."""

REPORT_LIMIT = 100_000
"""The most characters of a probe's report that the page shows; the whole of it is in the JSON."""

PICTURE_LIMIT = 2_000_000
"""The most characters of a picture; what has more is left out."""

PAGE = re.compile(r"[\w-]+(/[\w-]+)*(#[\w-]+)?")
"""Parts of the documentation."""

DRAWN = {
    *("svg", "g", "defs", "path", "use", "text", "tspan", "rect", "circle", "ellipse", "line", "polyline", "polygon"),
    *("clipPath", "title", "image", "linearGradient", "radialGradient", "stop", "pattern"),
}
"""Elements of a picture that stay in it; a card from a file may have others."""


@dataclass(frozen=True)
class Row:
    """One figure in a section's table.

    Arguments:
        measure: of this card.
        there: the other card's, where there is one.
        difference: of the two.
    """

    measure: Measure
    there: Measure | None = None
    difference: Difference | None = None


@dataclass(frozen=True)
class Answer:
    """One finding as the page shows it.

    Arguments:
        finding: of this card.
        anchor: its place on the page.
        there: the other card's finding of the same probe, where it measured one.
        rows: its figures.
        picture, other_picture: SVG elements, safe to stand on a page.
        address: of the documentation of its remedy; empty where none is known.
        report: JSON.
    """

    finding: Finding
    anchor: str
    there: Finding | None
    rows: tuple[Row, ...]
    picture: str
    other_picture: str
    address: str
    report: str

    @property
    def measured(self) -> bool:
        """Whether there is more to show than a sentence."""
        return self.finding.outcome in MEASURED


@dataclass(frozen=True)
class Part:
    """One subject as the page shows it.

    Arguments:
        subject: the subject.
        answers: of the probes that apply, failures first.
        unfit: findings of those that do not.
    """

    subject: Subject
    answers: tuple[Answer, ...]
    unfit: tuple[Finding, ...]


def documentation() -> str:
    """Where pages of the documentation are published, by the package's own addresses, with `{page}` for the page.

    Empty: nowhere that is known.
    """
    from importlib.metadata import PackageNotFoundError, metadata

    try:
        named = metadata("holdfast").get_all("Project-URL") or []
    except PackageNotFoundError:
        return ""
    places = {
        label.strip().lower(): place.strip().rstrip("/") for label, _, place in (one.partition(",") for one in named)
    }
    for label, below in (("documentation", "{page}.html"), ("repository", "blob/HEAD/docs/{page}.md")):
        if places.get(label, "").startswith("https://"):
            return f"{places[label]}/{below}"
    return ""


def render(card: Card, against: Card | None = None, docs: str = "") -> str:
    """The card as HTML. The same card gives the same bytes.

    Arguments:
        card: the card.
        against: another one, to compare with.
        docs: address of a page of the documentation, with `{page}` for its name; empty: where it is published.
    """
    from importlib.resources import files

    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    filters = {"number": _number, "outcome": CLASSES.__getitem__, "clean": text.clean, "plain": _plain}
    environment.filters |= {**filters, "capitalised": _capitalised}
    ours, house = files("holdfast.card"), files("holdfast.lab.report")
    script = ours.joinpath("card.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(f"\n{script}\n".encode()).digest()).decode()
    style = house.joinpath("style.css").read_text("utf-8") + ours.joinpath("card.css").read_text("utf-8")
    comparison = None if against is None else compare(card, against)
    docs = docs or documentation()
    name, other_name = name_of(card), "" if against is None else name_of(against)
    if against is not None and name == other_name:
        name, other_name = f"{name} (this one)", f"{name} (the other)"
    parts = [_part(subject, number, against, comparison, docs) for number, subject in enumerate(card.subjects)]
    return environment.from_string(ours.joinpath("card.html.j2").read_text("utf-8")).render(
        card=card,
        against=against,
        comparison=comparison,
        parts=parts,
        name=name,
        other_name=other_name,
        versions=_lines(card.environment),
        settings=_lines({name: value for name, value in card.settings.items() if value is not None}),
        style=Markup(style),
        script=Markup(script),
        script_hash=digest,
        version=__version__,
    )


def name_of(card: Card) -> str:
    """What to call what was checked."""
    return " and ".join(subject.name for subject in card.subjects) or "nothing"


def safe_picture(drawn: str, prefix: str) -> str:
    """A picture that only draws: without scripts, links and what is loaded from elsewhere; empty where it is none.

    Arguments:
        drawn: an SVG element, of a card that anybody may have written.
        prefix: starts its ids, so that it can stand beside others.
    """
    if not drawn or "<!" in drawn or len(drawn) > PICTURE_LIMIT:
        return ""
    try:
        root = ElementTree.fromstring(drawn)
    except ElementTree.ParseError:
        return ""
    if root.tag != "svg":
        return ""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag not in DRAWN:
                parent.remove(child)
    for element in root.iter():
        element.attrib = {name: value for name, value in element.attrib.items() if _draws(name, value)}
        if "id" in element.attrib:
            element.set("id", f"{prefix}-{element.attrib['id']}")
        for name, value in element.attrib.items():
            if name == "href":
                element.set(name, value if value.startswith("data:") else f"#{prefix}-{value[1:]}")
            elif "url(#" in value:
                element.set(name, value.replace("url(#", f"url(#{prefix}-"))
    return ElementTree.tostring(root, encoding="unicode")


def _draws(name: str, value: str) -> bool:
    """Whether an attribute only draws."""
    if name.lower().startswith("on"):
        return False
    if name == "href":
        return value.startswith(("#", "data:image/png;base64,"))
    return not re.search(r"url\((?!#)|expression|javascript:|@import|position\s*:", value, re.IGNORECASE)


def _part(subject: Subject, number: int, against: Card | None, comparison: Comparison | None, docs: str) -> Part:
    answers = [
        _answer(finding, f"{finding.probe}-{number}" if number else finding.probe, against, comparison, docs)
        for finding in subject.ordered()
        if finding.outcome is not Outcome.INAPPLICABLE
    ]
    return Part(subject, tuple(answers), tuple(subject.of(Outcome.INAPPLICABLE)))


def _answer(finding: Finding, anchor: str, against: Card | None, comparison: Comparison | None, docs: str) -> Answer:
    there = None if against is None else _of_probe(against, finding.probe)
    anchor = "probe-" + re.sub(r"[^\w-]+", "-", line(anchor, 100), flags=re.ASCII)
    remedy = finding.remedy
    page, _, part = (remedy.page if remedy is not None else "").partition("#")
    known = remedy is not None and docs and PAGE.fullmatch(remedy.page)
    report = json.dumps(finding.report, indent=1, ensure_ascii=False, default=str) if finding.report else ""
    if len(report) > REPORT_LIMIT:
        report = f"{report[:REPORT_LIMIT]}\n… {len(report) - REPORT_LIMIT:,} more characters in card.json"
    return Answer(
        finding,
        anchor,
        there,
        _rows(finding, there, comparison),
        safe_picture(finding.picture, anchor),
        "" if there is None else safe_picture(there.picture, f"{anchor}-other"),
        docs.replace("{page}", page) + (f"#{part}" if part else "") if known else "",
        text.without_folders(text.clean(report)),
    )


def _of_probe(card: Card, probe: str) -> Finding | None:
    return next((one for one in card.findings if one.probe == probe and one.outcome in MEASURED), None)


def _rows(finding: Finding, there: Finding | None, comparison: Comparison | None) -> tuple[Row, ...]:
    others = {} if there is None else {measure.name: measure for measure in there.measures}
    differences: Sequence[Difference] = () if comparison is None else comparison.differences
    told = {one.measure: one for one in differences if one.probe == finding.probe}
    return tuple(Row(one, others.get(one.name), told.get(one.name)) for one in finding.measures)


def _lines(entries: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Settings or versions, a line each; what is within another is named with a dot."""
    found = []
    for name, value in entries.items():
        if isinstance(value, Mapping):
            found += [(f"{name}.{inner}", shown) for inner, shown in _lines(value)]
        elif value not in (None, "", [], ()):
            shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            found.append((str(name), text.without_folders(text.clean(shown))))
    return found


def _plain(words: str) -> str:
    """A sentence without what no page can hold."""
    return line(words, 2000)


def _capitalised(words: str) -> str:
    """Words with a large letter first."""
    return words[:1].upper() + words[1:]


def _number(value: object) -> str:
    if not isinstance(value, int | float) or math.isnan(value):
        return text.NOTHING
    shown = text.number(float(value))
    return re.sub(r"\.?0+$", "", shown) if re.fullmatch(r"−?\d+\.\d+", shown) else shown
