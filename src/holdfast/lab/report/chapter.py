"""A study as the page shows it: what was asked and found, its claims in their groups, its figures."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from holdfast.errors import install_line, missing_line
from holdfast.lab.report import svg, text
from holdfast.lab.report.failures import FailedTrial, choose
from holdfast.lab.results import LeftOut, Results
from holdfast.lab.study import Figure, Study
from holdfast.lab.trial import PART, SCALES
from holdfast.lab.verdict import MIN_SEEDS, Claim, Status, Verdict

if TYPE_CHECKING:
    from holdfast.lab.report.render import Section

FEW_SEEDS = 5
"""Below this the page warns that an interval is rough."""

FIRST_SENTENCE = 160
"""Characters of a caption on the first screen."""


class ReportWarning(UserWarning):
    """Something could not be shown in the report; it says so in its place."""


@dataclass(frozen=True)
class Picture:
    """A figure: a picture, or the error in its place, or neither without data."""

    name: str
    caption: str
    anchor: str
    svg: str = ""
    error: str = ""
    rows: int = 0
    csv: str = ""
    file: str = ""

    @property
    def brief(self) -> str:
        """The first sentence of its caption."""
        return text.shorten(self.caption.split(". ")[0].rstrip(".") + ".", FIRST_SENTENCE)

    def again(self) -> str:
        """The picture a second time on a page, with ids of its own."""
        return svg.renamed(self.svg, self.anchor, f"{self.anchor}-first")


@dataclass(frozen=True)
class Earlier:
    """What another store says of a claim.

    Arguments:
        status: its verdict there.
        effect: effect and interval there.
        moved: whether the verdict is another one.
    """

    status: str
    effect: str
    moved: bool


@dataclass(frozen=True)
class Row:
    """A claim with its verdict."""

    anchor: str
    verdict: Verdict
    plain: str
    reason: str
    family: str
    effect: str
    interval: str
    whisker: str
    counted: str
    p: str
    p_raw: str
    picture: Picture | None = None
    shown_by: str = ""
    """Where its figure stands, if another claim before it has the same."""
    earlier: Earlier | None = None

    @property
    def status(self) -> str:
        return self.verdict.status.value

    @property
    def shown_effect(self) -> str:
        """The effect; where nothing was found among all cases, that it is so."""
        exact = text.is_exact(self.verdict.evidence) and not self.verdict.evidence.effect
        return "no exception" if exact and self.status == Status.SUPPORTED else self.effect

    @property
    def needs(self) -> tuple[str, ...]:
        """The scale or the parts that could judge it, where the run could not."""
        evidence = self.verdict.evidence
        return (evidence.needs,) if evidence.needs else evidence.left_out

    @property
    def group(self) -> str:
        """What the page's filter calls its verdict."""
        return "unjudged" if self.needs else self.status


@dataclass(frozen=True)
class Beyond:
    """Claims that the run was too small for.

    Arguments:
        anchor: their place on the page.
        needs: what they need, in words.
        command: the command that can judge them.
        rows: the claims, headline ones first.
    """

    anchor: str
    needs: str
    command: str
    rows: list[Row]

    @property
    def headline(self) -> bool:
        return any(row.verdict.headline for row in self.rows)

    @property
    def plain(self) -> list[str]:
        """The headline ones among them, in plain words."""
        return [row.plain for row in self.rows if row.verdict.headline]


@dataclass(frozen=True)
class Chapter:
    """A section as the page shows it."""

    anchor: str
    study: Study[Any]
    scale: str
    finished: int
    seeds: str
    rows: list[Row]
    pictures: list[Picture]
    settings: list[tuple[str, str]]
    environments: list[tuple[str, list[str]]]
    machines: int
    failed: int
    missing: int
    left_out: int
    failures: list[FailedTrial]
    command: str
    warnings: list[str]
    beyond: list[Beyond]
    links: Sequence[tuple[str, str]] = ()
    against: str = ""
    """The scale of the other store's run; empty where nothing is compared, or nothing can be."""

    @property
    def judged(self) -> list[Row]:
        """Claims that the run could judge."""
        return [row for row in self.rows if not row.needs]

    @property
    def headline(self) -> list[Row]:
        """Those of them that the study is remembered for; all, where it says of none that it is."""
        rows = [row for row in self.judged if row.verdict.headline]
        return rows if any(row.verdict.headline for row in self.rows) else self.judged

    @property
    def supporting(self) -> list[Row]:
        return [row for row in self.judged if row not in self.headline]

    @property
    def moved(self) -> list[Row]:
        """Claims that the other store has another verdict on."""
        return [row for row in self.rows if row.earlier and row.earlier.moved]

    @property
    def first_picture(self) -> Picture | None:
        """The picture for the first screen: that of a headline claim that is decided, or of any other."""
        decided = sorted(self.headline, key=lambda row: (row.status == Status.INCONCLUSIVE, row.p == "exact"))
        named = [row.verdict.claim for row in [*decided, *(row for row in self.rows if row.verdict.headline)]]
        figures = {claim.name: claim.figure for claim in self.study.claims}
        drawn = {picture.name: picture for picture in self.pictures if picture.svg}
        wanted = [figures.get(name, "") for name in named]
        return next((drawn[name] for name in wanted if name in drawn), next(iter(drawn.values()), None))

    @property
    def other_pictures(self) -> list[Picture]:
        """Figures with data, or with an error, that no claim shows."""
        shown = [row.picture.name for row in self.rows if row.picture]
        return [picture for picture in self.pictures if picture.name not in shown and (picture.svg or picture.error)]

    def tally(self, rows: Sequence[Row]) -> list[tuple[str, int, str]]:
        """Verdicts among claims: status, how many, and the first of them."""
        groups = {status.value: [row for row in rows if row.group == status.value] for status in Status}
        return [(status, len(some), some[0].anchor) for status, some in groups.items() if some]

    def found(self) -> list[tuple[str, list[str]]]:
        """What was found, in plain words: for each verdict the headline claims that have it."""
        groups = [(status.value, [row.plain for row in self.headline if row.status == status]) for status in Status]
        return [(status, said) for status, said in groups if said]


def chapter_of(section: Section, anchor: str, failing: int) -> Chapter:
    """What the page shows of a section.

    Arguments:
        section: the section.
        anchor: its place on the page.
        failing: how many studies on the page have failed trials.
    """
    results = section.results
    failed = [failure for failure in results.failures if failure.attempted]
    environments = [
        {name: text.without_folders(value) for name, value in text.flatten(environment) if value != "None"}
        for environment in section.environments
    ]
    names = dict.fromkeys(name for environment in environments for name in environment)
    pictures = [_picture(section, figure, f"{anchor}-figure-{i}") for i, figure in enumerate(section.study.figures, 1)]
    rows = _rows(section, anchor, pictures)
    return Chapter(
        anchor=anchor,
        study=section.study,
        scale=section.scale,
        finished=len(results.outcomes),
        seeds=text.ranges([seed for trial, _ in results.outcomes for seed in trial.seeds]),
        rows=rows,
        pictures=pictures,
        settings=[(name, text.without_folders(value)) for name, value in text.flatten(section.config)],
        environments=[(name, [each.get(name, text.NOTHING) for each in environments]) for name in names],
        machines=len(environments),
        failed=len(failed),
        missing=len(results.failures) - len(failed),
        left_out=len(results.left_out),
        failures=choose(section.study.name, failed, failing),
        command=text.without_folders(section.command),
        warnings=_warnings(section),
        beyond=_beyond(section, anchor, rows),
        links=section.links,
        against=section.against.scale if section.against else "",
    )


def _rows(section: Section, anchor: str, pictures: Sequence[Picture]) -> list[Row]:
    claims = {claim.name: claim for claim in section.study.claims}
    verdicts = sorted(section.verdicts, key=lambda verdict: not verdict.headline)
    scales = _common_scales(verdicts, claims)
    drawn = {picture.name: picture for picture in pictures if picture.svg}
    before = {} if section.against is None else {verdict.claim: verdict for verdict in section.against.verdicts}
    shown: dict[str, str] = {}
    rows = []
    for i, verdict in enumerate(verdicts, 1):
        claim = claims.get(verdict.claim)
        row = _row(verdict, claim, f"{anchor}-claim-{i}", scales.get(verdict.claim), before.get(verdict.claim))
        picture = drawn.get(claim.figure) if claim and not row.needs else None
        if picture is not None and picture.name in shown:
            row = replace(row, shown_by=shown[picture.name])
        elif picture is not None:
            row = replace(row, picture=picture)
            shown[picture.name] = row.anchor
        rows.append(row)
    return rows


def _row(
    verdict: Verdict, claim: Claim | None, anchor: str, scale: tuple[float, float] | None, before: Verdict | None
) -> Row:
    evidence = verdict.evidence
    effect, interval = text.effect(evidence), text.interval(evidence)
    label = f"{effect}, 95 % interval {interval}" if interval else effect
    exact = text.is_exact(evidence)
    return Row(
        anchor=anchor,
        verdict=verdict,
        plain=(claim.plain if claim else "") or verdict.text.rstrip("."),
        reason=text.without_folders(verdict.reason),
        family=claim.family if claim else "",
        effect=effect,
        interval=interval,
        whisker="" if scale is None else svg.whisker(evidence, label, scale),
        counted=text.counted(evidence) if evidence.n else "",
        p="exact" if exact else text.p_value(verdict.p_adjusted),
        p_raw="" if exact else text.p_value(evidence.p_value),
        earlier=None if before is None else _earlier(before, verdict),
    )


def _earlier(before: Verdict, now: Verdict) -> Earlier:
    evidence = before.evidence
    unjudged = bool(evidence.needs or evidence.left_out)
    told = f"{text.effect(evidence)} {text.interval(evidence)}".strip()
    return Earlier("not judged" if unjudged else before.status.value, told, before.status != now.status)


NARROW = 20
"""A drawing would be a speck on a scale that is so many times as wide as what it has to show."""


def _common_scales(verdicts: Sequence[Verdict], claims: Mapping[str, Claim]) -> dict[str, tuple[float, float]]:
    """For each claim the least and greatest value of its drawing: one scale for a family, so that effects compare.

    Effects of a family may have other units. Those that would be a speck on the scale of the widest have their own.
    """
    families: dict[str, list[tuple[float, float, str]]] = {}
    for verdict in verdicts:
        claim = claims.get(verdict.claim)
        reach = None if text.is_exact(verdict.evidence) else svg.reach(verdict.evidence)
        if reach is not None:
            families.setdefault(claim.family if claim else "", []).append((*reach, verdict.claim))
    scales: dict[str, tuple[float, float]] = {}
    for members in families.values():
        left = sorted(members, key=lambda member: member[1] - member[0], reverse=True)
        while left:
            widest = left[0][1] - left[0][0]
            together = [member for member in left if (member[1] - member[0]) * NARROW >= widest]
            scale = min(member[0] for member in together), max(member[1] for member in together)
            scales |= {name: scale for _, _, name in together}
            left = left[len(together) :]
    return scales


def _command_for(section: Section, row: Row) -> str:
    """What makes a claim that was not judged judgeable: packages, where some are missing, or another run."""
    lacking = [] if row.verdict.evidence.needs else [section.results.lacking.get(part, {}) for part in row.needs]
    if any(lacking):
        return install_line(wanted for missing in lacking for wanted in missing.values())
    return section.larger.get(row.verdict.evidence.needs, "")


def _beyond(section: Section, anchor: str, rows: Sequence[Row]) -> list[Beyond]:
    groups: dict[tuple[int, str], list[Row]] = {}
    for row in rows:
        if row.needs:
            scale = row.verdict.evidence.needs
            words = f"scale {scale}" if scale else f"part{'s' * (len(row.needs) > 1)} {', '.join(row.needs)}"
            groups.setdefault((SCALES.index(scale) if scale else -1, words), []).append(row)
    return [
        Beyond(
            f"{anchor}-beyond-{i}",
            words,
            text.without_folders(_command_for(section, some[0])),
            some,
        )
        for i, ((_, words), some) in enumerate(sorted(groups.items(), key=lambda group: group[0]), 1)
    ]


def _picture(section: Section, figure: Figure, anchor: str) -> Picture:
    try:
        results = section.results.guarded()
        drawn, rows = svg.draw(lambda axes: figure.draw(results, axes), anchor, figure.caption)
        table = text.to_csv(rows)
    except LeftOut:
        return Picture(figure.name, figure.caption, anchor)
    # A figure is a study's own code: whatever it raises, the verdicts must still be published.
    except Exception as error:
        line = text.without_folders(f"{type(error).__name__}: {text.clean(str(error))}")
        warnings.warn(f"figure {figure.name!r} of {section.study.name} could not be drawn: {line}", ReportWarning, 2)
        return Picture(figure.name, figure.caption, anchor, error=line)
    return Picture(
        name=figure.name,
        caption=figure.caption,
        anchor=anchor,
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
    lacking = [results.lacking.get(str(trial.labels.get(PART)), {}) for trial in results.left_out]
    if chosen := sum(not missing for missing in lacking):
        verb = "is" if chosen == 1 else "are"
        trials = text.count(chosen, "trial")
        cautions.append(f"{trials} {verb} left out by --only: a claim that needs them is inconclusive.")
    if unable := [missing for missing in lacking if missing]:
        verb = "is" if len(unable) == 1 else "are"
        cautions.append(f"{text.count(len(unable), 'trial')} {verb} left out: {missing_line(*unable)}")
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
