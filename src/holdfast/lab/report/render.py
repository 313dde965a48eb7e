"""Makes the report: one self-contained HTML page."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from holdfast import __version__
from holdfast.lab.report import text
from holdfast.lab.report.chapter import NARROW, chapter_of
from holdfast.lab.results import Results
from holdfast.lab.run import StudyRun
from holdfast.lab.study import Study
from holdfast.lab.verdict import LEVEL, MIN_SEEDS, Verdict

GROUPS = ("supported", "contradicted", "inconclusive", "unjudged")
"""What claims are counted and filtered by."""


@dataclass(frozen=True)
class Other:
    """The same study in another store, to compare with.

    Arguments:
        scale: the scale it was run at there.
        verdicts: one for each claim.
    """

    scale: str
    verdicts: Sequence[Verdict]


@dataclass(frozen=True)
class Section:
    """One study in the report.

    Arguments:
        study: the study.
        scale: the scale it was run at.
        config: its configuration.
        results: what its trials measured, failures included.
        verdicts: one for each claim.
        environments: the distinct machines and versions it ran on.
        command: the command line that reproduces it.
        larger: for each scale that some claims need, the command for it; that for "" computes what was left out.
        against: the same study in another store, to compare with.
        links: labels and addresses of what is known about the study elsewhere.
    """

    study: Study[Any]
    scale: str
    config: Any
    results: Results
    verdicts: Sequence[Verdict]
    environments: Sequence[Mapping[str, Any]]
    command: str
    larger: Mapping[str, str] = field(default_factory=dict)
    against: Other | None = None
    links: Sequence[tuple[str, str]] = ()

    @classmethod
    def of(cls, run: StudyRun, command: str, **further: Any) -> Section:
        """The section of a run.

        Arguments:
            run: what came of running the study.
            command: the command line that reproduces it.
            further: the arguments that follow it.
        """
        job = run.job
        return cls(job.study, job.scale, job.config, run.results, run.verdicts, run.environments, command, **further)


def render(sections: Sequence[Section], against: str = "") -> str:
    """The report as HTML. The same sections give the same bytes.

    Arguments:
        sections: the studies, in the order to show them.
        against: what to call the store that they are compared with.
    """
    from importlib.resources import files

    import jinja2
    from markupsafe import Markup

    folder = files("holdfast.lab.report")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["count"] = text.count
    anchors = _anchors(sections)
    failing = sum(any(failure.attempted for failure in section.results.failures) for section in sections)
    chapters = [chapter_of(section, anchor, failing) for section, anchor in zip(sections, anchors, strict=True)]
    rows = [row for chapter in chapters for row in chapter.rows]
    firsts = {row.group: row.anchor for row in reversed(rows)}
    groups = [row.group for row in rows]
    script = folder.joinpath("page.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(f"\n{script}\n".encode()).digest()).decode()
    return environment.from_string(folder.joinpath("page.html.j2").read_text("utf-8")).render(
        chapters=chapters,
        # Who reads the first screen wants answers: studies that have none at their scale come last.
        answered=sorted(chapters, key=lambda chapter: not chapter.found()),
        tally_of_all=[(name, groups.count(name), firsts[name]) for name in GROUPS if name in firsts],
        against=against,
        narrow=NARROW,
        level=LEVEL,
        min_seeds=MIN_SEEDS,
        published=any(section.study.paper for section in sections),
        style=Markup(folder.joinpath("style.css").read_text("utf-8")),
        script=Markup(script),
        script_hash=digest,
        version=__version__,
    )


def write_report(sections: Sequence[Section], path: Path | str, against: str = "") -> Path:
    """Write the report; a reader sees the old file or the new one, never a half.

    Arguments:
        sections: the studies, in the order to show them.
        path: the file to write; its folder is made where it does not exist.
        against: what to call the store that they are compared with.

    Returns:
        The path.

    Errors:
        OSError: the file cannot be written.
    """
    path = Path(path)
    page = render(sections, against)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        temporary.write_text(page, encoding="utf-8", errors="replace", newline="\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _anchors(sections: Sequence[Section]) -> list[str]:
    anchors: list[str] = []
    for section in sections:
        base = anchor = f"{section.study.name}-{section.scale}"
        again = 1
        while anchor in anchors:
            again += 1
            anchor = f"{base}-{again}"
        anchors.append(anchor)
    return anchors
