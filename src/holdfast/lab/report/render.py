"""Makes the report: one self-contained HTML page."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from holdfast import __version__
from holdfast.lab.report import svg, text
from holdfast.lab.report.failures import FailedTrial, choose
from holdfast.lab.results import LeftOut, Results
from holdfast.lab.run import StudyRun
from holdfast.lab.study import Figure, Study
from holdfast.lab.verdict import LEVEL, MIN_SEEDS, Status, Verdict

FEW_SEEDS = 5
"""Below this the page warns that an interval is rough."""


class ReportWarning(UserWarning):
    """Something could not be shown in the report; it says so in its place."""


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
    """

    study: Study[Any]
    scale: str
    config: Any
    results: Results
    verdicts: Sequence[Verdict]
    environments: Sequence[Mapping[str, Any]]
    command: str

    @classmethod
    def of(cls, run: StudyRun, command: str) -> Section:
        """The section of a run.

        Arguments:
            run: what came of running the study.
            command: the command line that reproduces it.
        """
        job = run.job
        return cls(job.study, job.scale, job.config, run.results, run.verdicts, run.environments, command)


@dataclass(frozen=True)
class _Row:
    """A verdict as the page shows it."""

    anchor: str
    verdict: Verdict
    reason: str
    family: str
    effect: str
    interval: str
    whisker: str
    p: str
    p_raw: str

    @property
    def status(self) -> str:
        return self.verdict.status.value


@dataclass(frozen=True)
class _Picture:
    """A figure as the page shows it: a picture, or the error in its place, or neither without data."""

    name: str
    caption: str
    svg: str = ""
    error: str = ""
    rows: int = 0
    csv: str = ""
    file: str = ""


@dataclass(frozen=True)
class _Chapter:
    """A section as the page shows it."""

    anchor: str
    study: Study[Any]
    scale: str
    finished: int
    seeds: str
    rows: list[_Row]
    pictures: list[_Picture]
    settings: list[tuple[str, str]]
    environments: list[tuple[str, list[str]]]
    machines: int
    failed: int
    missing: int
    left_out: int
    failures: list[FailedTrial]
    command: str
    warnings: list[str]


def render(sections: Sequence[Section]) -> str:
    """The report as HTML. The same sections give the same bytes.

    Arguments:
        sections: the studies, in the order to show them.
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
    chapters = [_chapter(section, anchor, failing) for section, anchor in zip(sections, anchors, strict=True)]
    statuses = [row.status for chapter in chapters for row in chapter.rows]
    return environment.from_string(folder.joinpath("page.html.j2").read_text("utf-8")).render(
        chapters=chapters,
        counts={status.value: statuses.count(status.value) for status in Status},
        level=LEVEL,
        min_seeds=MIN_SEEDS,
        published=any(section.study.paper for section in sections),
        style=Markup(folder.joinpath("style.css").read_text("utf-8")),
        version=__version__,
    )


def write_report(sections: Sequence[Section], path: Path | str) -> Path:
    """Write the report; a reader sees the old file or the new one, never a half.

    Arguments:
        sections: the studies, in the order to show them.
        path: the file to write; its folder is made where it does not exist.

    Returns:
        The path.

    Errors:
        OSError: the file cannot be written.
    """
    path = Path(path)
    page = render(sections)
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


def _chapter(section: Section, anchor: str, failing: int) -> _Chapter:
    results = section.results
    failed = [failure for failure in results.failures if failure.attempted]
    families = {claim.name: claim.family for claim in section.study.claims}
    environments = [
        {name: text.without_folders(value) for name, value in text.flatten(environment) if value != "None"}
        for environment in section.environments
    ]
    names = dict.fromkeys(name for environment in environments for name in environment)
    return _Chapter(
        anchor=anchor,
        study=section.study,
        scale=section.scale,
        finished=len(results.outcomes),
        seeds=text.ranges([seed for trial, _ in results.outcomes for seed in trial.seeds]),
        rows=[
            _row(verdict, families.get(verdict.claim, ""), f"{anchor}-claim-{i}")
            for i, verdict in enumerate(sorted(section.verdicts, key=lambda verdict: not verdict.headline), 1)
        ],
        pictures=[
            _picture(section, figure, f"{anchor}-figure-{i}") for i, figure in enumerate(section.study.figures, 1)
        ],
        settings=[(name, text.without_folders(value)) for name, value in text.flatten(section.config)],
        environments=[(name, [each.get(name, text.NOTHING) for each in environments]) for name in names],
        machines=len(environments),
        failed=len(failed),
        missing=len(results.failures) - len(failed),
        left_out=len(results.left_out),
        failures=choose(section.study.name, failed, failing),
        command=text.without_folders(section.command),
        warnings=_warnings(section),
    )


def _row(verdict: Verdict, family: str, anchor: str) -> _Row:
    evidence = verdict.evidence
    effect, interval = text.effect(evidence), text.interval(evidence)
    label = f"{effect}, 95 % interval {interval}" if interval else effect
    exact = text.is_exact(evidence)
    return _Row(
        anchor=anchor,
        verdict=verdict,
        reason=text.without_folders(verdict.reason),
        family=family,
        effect=effect,
        interval=interval,
        whisker=svg.whisker(evidence, label),
        p="exact" if exact else text.p_value(verdict.p_adjusted),
        p_raw="" if exact else text.p_value(evidence.p_value),
    )


def _picture(section: Section, figure: Figure, prefix: str) -> _Picture:
    import base64

    try:
        results = section.results.guarded()
        drawn, rows = svg.draw(lambda axes: figure.draw(results, axes), prefix, figure.caption)
        table = text.to_csv(rows)
    except LeftOut as left_out:
        return _Picture(figure.name, figure.caption, error=f"It {left_out}.")
    # A figure is a study's own code: whatever it raises, the verdicts must still be published.
    except Exception as error:
        line = text.without_folders(f"{type(error).__name__}: {text.clean(str(error))}")
        warnings.warn(f"figure {figure.name!r} of {section.study.name} could not be drawn: {line}", ReportWarning, 2)
        return _Picture(figure.name, figure.caption, error=line)
    return _Picture(
        name=figure.name,
        caption=figure.caption,
        svg=drawn,
        rows=len(rows),
        csv=f"data:text/csv;charset=utf-8;base64,{base64.b64encode(table.encode()).decode()}",
        file=f"{text.file_name(section.study.name, section.scale, figure.name)}.csv",
    )


def _idle_seeds(results: Results) -> int:
    """How many kinds of trial (the same labels) have several seeds and one result."""
    measured: dict[str, list[str]] = {}
    for trial, outcome in results.outcomes:
        rows = [{name: value for name, value in row.items() if name != "seed"} for row in outcome.records]
        measured.setdefault(repr(sorted(trial.labels.items())), []).append(repr(rows))
    return sum(len(results) > 1 and len(set(results)) == 1 for results in measured.values())


def _mixed(environments: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """Python and distributions of which there is more than one version."""
    versions: dict[str, set[str]] = {}
    for environment in environments:
        packages = environment.get("packages")
        versions.setdefault("Python", set()).add(str(environment.get("python", "")))
        for name, version in packages.items() if isinstance(packages, Mapping) else ():
            versions.setdefault(str(name), set()).add(str(version))
    for name, different in sorted(versions.items()):
        if len(different - {""}) > 1:
            yield name, sorted(different - {""})


def _warnings(section: Section) -> list[str]:
    """What a reader must know before believing the verdicts."""
    cautions = []
    results = section.results
    finished, failed = len(results.outcomes), sum(failure.attempted for failure in results.failures)
    missing = len(results.failures) - failed
    if not finished:
        cautions.append("No trial has finished yet.")
    if failed:
        verb = "has" if failed == 1 else "have"
        trials = f"{failed} of {text.count(finished + failed + missing, 'trial')}"
        cautions.append(f"{trials} {verb} failed: what they would have shown is missing.")
    if missing:
        verb = "is" if missing == 1 else "are"
        reasons = dict.fromkeys(failure.reason for failure in results.failures if not failure.attempted)
        why = text.shorten(text.without_folders("; ".join(list(reasons)[:3])), 300)
        cautions.append(f"{text.count(missing, 'trial')} {verb} not computed: {why}.")
    if section.results.left_out:
        trials = text.count(len(section.results.left_out), "trial")
        verb = "is" if len(section.results.left_out) == 1 else "are"
        cautions.append(f"{trials} {verb} left out by --only: a claim that needs them is inconclusive.")
    for name, versions in _mixed(section.environments):
        cautions.append(f"Trials were computed with different versions of {name}: {', '.join(versions)}.")
    few = [
        verdict.evidence.n
        for verdict in section.verdicts
        if 0 < verdict.evidence.n < FEW_SEEDS and not text.is_exact(verdict.evidence)
    ]
    if few:
        claims = f"{text.count(len(few), 'claim')} {'rests' if len(few) == 1 else 'rest'}"
        seeds = f"{min(few)} to {max(few)} seeds" if min(few) < max(few) else text.count(few[0], "seed")
        cautions.append(
            f"{claims} on only {seeds}: intervals are rough, and below {MIN_SEEDS} seeds there is no verdict."
        )
    idle = _idle_seeds(section.results)
    if idle:
        trials = f"{text.count(idle, 'kind')} of trial measured"
        cautions.append(f"{trials} exactly the same with every seed: is the seed used?")
    if section.scale == "quick":
        cautions.append("The quick scale shows that everything runs; it is weak evidence.")
    return cautions
