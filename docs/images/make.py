"""Draw the figures of a study, and fill its results into the documentation.

    holdfast run sharpness --scale laptop --store results
    python docs/images/make.py sharpness --store results

writes, from the latest run of the study in the store and without computing anything new,

- `docs/images/STUDY-FIGURE.svg`, one picture a figure,
- the parts of `docs/systems/STUDY.md` between `<!-- results -->` and `<!-- /results -->`, and between
  `<!-- table: FIGURE -->` and `<!-- /table -->`,
- the part of `docs/gallery.md` between `<!-- figures: STUDY -->` and `<!-- /figures -->`, as `docs/gallery.py` does.

    holdfast run sharpness --scale quick --only retrieve --store results
    python docs/images/make.py sharpness --figure accuracy gain --store results --to pictures

draws single figures and leaves the pages as they are; their part is enough for it. What the scale `quick` gives is no
evidence, and goes elsewhere than `docs/images`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.style
from cycler import cycler
from matplotlib.figure import Figure as Canvas

from holdfast.cli.reproduce import command_of
from holdfast.lab.locate import find, load_file
from holdfast.lab.report import text
from holdfast.lab.report.svg import INK, PALETTE, STYLE, SURFACE
from holdfast.lab.run import Job, StudyRun, collect
from holdfast.lab.store import Store

if TYPE_CHECKING:
    from holdfast.lab import Claim, Figure, Results, Verdict
    from holdfast.lab.trial import Record, Scalar

DOCS = Path(__file__).resolve().parent.parent
IMAGES = DOCS / "images"


def latest_run(study: str, store: Store) -> StudyRun:
    """The latest run of a study in a store."""
    record = store.runs()[study]
    job = Job.of(find(study), record.scale, changes=record.overrides, only=record.only)
    return collect([job], store)[0]


def draw(figure: Figure, results: Results, path: Path) -> Sequence[Record]:
    """Write a figure as SVG on white, the same bytes for the same results; return its numbers, none if it is empty."""
    style: dict[str, Any] = {
        name: {INK: "#222222", SURFACE: "#ffffff"}.get(value, value) if isinstance(value, str) else value
        for name, value in STYLE.items()
    }
    style |= {
        "figure.figsize": (7.0, 4.2),
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
        "savefig.pad_inches": 0.1,
        "svg.fonttype": "path",
        "svg.hashsalt": path.name,
        "axes.prop_cycle": cycler(color=PALETTE),
    }
    with matplotlib.style.context(["default", style]):
        canvas = Canvas()
        rows = figure.draw(results, canvas.add_subplot())
        if not rows:
            return []
        canvas.savefig(path, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(line.rstrip() for line in lines) + "\n", encoding="utf-8")
    return rows


def results_section(run: StudyRun) -> str:
    """Where the results come from, and the verdicts as a table."""
    job, workers = run.job, run.environments
    machines = sorted({f"{worker['cpu']}, {worker['cores']} cores" for worker in workers})
    machines += sorted({gpu for worker in workers for gpu in worker["gpu"]})
    versions = sorted({f"Python {worker['python']}, torch {worker['packages']['torch']}" for worker in workers})
    commits = sorted({str(worker.get("commit") or "unknown") for worker in workers})
    lines = [
        f"Scale `{job.scale}`, seeds {text.ranges(job.config.seed_range)}. "
        f"Measured on {'; '.join(machines)}, with {'; '.join(versions)}, commit {', '.join(commits)}.",
        "",
        "<!-- not run: takes as long as the study -->",
        "```bash",
        command_of(run.job),
        "```",
        "",
        "| claim | verdict | effect [95 % interval] | p, adjusted | the paper |",
        "|---|---|---|---|---|",
        *verdict_rows(run.verdicts, run.job.study.claims),
    ]
    return "\n".join(lines)


def verdict_rows(verdicts: Sequence[Verdict], claims: Sequence[Claim]) -> list[str]:
    """The verdicts as rows of a table: headline claims first, in bold and in the plain words of the report."""
    plain = {claim.name: claim.plain for claim in claims if claim.headline}
    return [_row(verdict, plain.get(verdict.claim)) for verdict in sorted(verdicts, key=lambda v: v.claim not in plain)]


def _row(verdict: Verdict, plain: str | None) -> str:
    evidence = verdict.evidence
    status = f"**{verdict.status}**" + (f": {verdict.reason}" if verdict.reason else "")
    effect = f"{text.effect(evidence)} {text.interval(evidence)}".strip()
    cells = (
        f"`{verdict.claim}`: {verdict.text}" if plain is None else f"**`{verdict.claim}`: {plain}.** {verdict.text}",
        status,
        effect,
        text.NOTHING if text.is_exact(evidence) else text.p_value(verdict.p_adjusted),
        verdict.paper or text.NOTHING,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def numbers_table(rows: Sequence[Record]) -> str:
    """The numbers behind a figure; columns without any are left out, and counts have no decimals."""
    columns = [name for name in rows[0] if any(row.get(name) is not None for row in rows)]
    numbers = {name: [value for row in rows if isinstance(value := row.get(name), float)] for name in columns}
    digits = {name: 0 if all(map(float.is_integer, values)) else 3 for name, values in numbers.items()}
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    cells = [[_cell(row.get(name), digits[name]) for name in columns] for row in rows]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in cells])


def _cell(value: Scalar, digits: int) -> str:
    if value is None or value == "":
        return text.NOTHING
    if isinstance(value, float):
        return f"{value:.{digits}f}".replace("-", "−")
    return f"`{value}`" if isinstance(value, str) else str(value)


def fill(page: Path, begin: str, end: str, content: str) -> None:
    """Replace what stands between two marks of a page."""
    mark, tail = re.escape(f"<!-- {begin} -->"), re.escape(f"<!-- {end} -->")
    source = page.read_text(encoding="utf-8")
    new, count = re.subn(f"({mark}\n).*?({tail})", lambda m: f"{m[1]}\n{content}\n\n{m[2]}", source, flags=re.DOTALL)
    if count != 1:
        raise SystemExit(f"{page}: expected <!-- {begin} --> and <!-- {end} --> once, found them {count} times")
    page.write_text(new, encoding="utf-8")


def options(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    Arguments:
        words: of the command line, if not those that this process was started with.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", help="name of an installed study")
    parser.add_argument("--store", type=Path, default=Path("results"), help="folder with its results")
    parser.add_argument("--figure", nargs="+", help="draw these alone, and leave the pages as they are")
    parser.add_argument("--to", type=Path, default=IMAGES, help="folder for the pictures of --figure")
    chosen = parser.parse_args(words)
    figures = [figure.name for figure in find(chosen.study).figures]
    for name in chosen.figure or ():
        if name not in figures:
            parser.error(f"--figure: {chosen.study} has {', '.join(figures)}, got {name}")
    if chosen.to != IMAGES and not chosen.figure:
        parser.error("--to: expected --figure with it, since the pages show what is in docs/images")
    return chosen


def main() -> None:
    """Draw and fill in."""
    chosen = options()
    run = latest_run(chosen.study, Store(chosen.store))
    if run.results.failures:
        first = run.results.failures[0].reason
        raise SystemExit(f"{len(run.results.failures)} trials have no result ({first}); run the study first")
    if run.job.scale == "quick" and chosen.to == IMAGES:
        raise SystemExit(
            "the latest run is of the scale quick, which is no evidence: run a larger one, or draw --to DIR"
        )
    if chosen.figure:
        draw_some(run, chosen.figure, chosen.to)
    else:
        fill_pages(run)


def draw_some(run: StudyRun, names: Sequence[str], folder: Path) -> None:
    """Draw some figures of a run, and say where.

    Arguments:
        run: with the results of their parts.
        names: of the figures.
        folder: for the pictures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    also, left_out = load_file(DOCS / "gallery.py").ALSO, {trial.labels["part"] for trial in run.results.left_out}
    # A figure may ask for rows by other words than their part: what it does not show cannot be missing from it.
    results = replace(run.results, left_out=())
    for part in run.job.study.parts:
        for figure in part.figures:
            if figure.name not in names:
                continue
            shown = {part.name, also.get((run.job.study.name, figure.name), part.name)}
            path = folder / f"{run.job.study.name}-{figure.name}.svg"
            if shown & left_out or not draw(figure, results, path):
                raise SystemExit(f"{figure.name} needs results of {' and '.join(sorted(shown))}: run these parts first")
            print(path)


def fill_pages(run: StudyRun) -> None:
    """Draw all figures that a run has results for, and fill in its page and the gallery.

    Arguments:
        run: with the results of all parts.
    """
    study = run.job.study
    if run.job.only:
        raise SystemExit(f"the latest run is of {', '.join(run.job.only)} alone: run all parts, or draw --figure NAME")
    page = DOCS / "systems" / f"{study.name}.md"
    for figure in study.figures:
        rows = draw(figure, run.results, IMAGES / f"{study.name}-{figure.name}.svg")
        if rows and f"<!-- table: {figure.name} -->" in page.read_text(encoding="utf-8"):
            fill(page, f"table: {figure.name}", "/table", numbers_table(rows))
    fill(page, "results", "/results", results_section(run))
    gallery = load_file(DOCS / "gallery.py")
    gallery.PAGE.write_text(gallery.filled(gallery.PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
