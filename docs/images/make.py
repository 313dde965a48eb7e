"""Draw the figures of a study, and fill its results into the documentation.

    holdfast run sharpness --scale laptop --store results
    python docs/images/make.py sharpness --store results

writes, from the latest run of the study in the store and without computing anything new,

- `docs/images/STUDY-FIGURE.svg`, one picture a figure,
- the parts of `docs/systems/STUDY.md` between `<!-- results -->` and `<!-- /results -->`, and between
  `<!-- table: FIGURE -->` and `<!-- /table -->`,
- the part of `docs/gallery.md` between `<!-- figures: STUDY -->` and `<!-- /figures -->`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.style
from cycler import cycler
from matplotlib.figure import Figure as Canvas

from holdfast.cli.reproduce import command_of
from holdfast.lab.locate import find
from holdfast.lab.report import text
from holdfast.lab.report.svg import INK, PALETTE, STYLE, SURFACE
from holdfast.lab.run import Job, StudyRun, collect
from holdfast.lab.store import Store

if TYPE_CHECKING:
    from holdfast.lab import Claim, Figure, Results, Verdict
    from holdfast.lab.trial import Record, Scalar

DOCS = Path(__file__).resolve().parent.parent


def latest_run(study: str, store: Store) -> StudyRun:
    """The latest run of a study in a store."""
    record = store.runs()[study]
    return collect([Job.of(find(study), record.scale, changes=record.overrides)], store)[0]


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


def gallery_section(study: str, figures: Sequence[Figure], empty: Sequence[Figure]) -> str:
    """All pictures with their captions, and the names of those that the run has no results for."""
    parts = [f"![{item.caption}](images/{study}-{item.name}.svg)\n\n*{item.caption}*" for item in figures]
    if empty:
        names = ", ".join(f"`{item.name}`" for item in empty)
        parts.append(f"Without results at this scale, and not drawn: {names}.")
    return "\n\n".join(parts)


def numbers_table(rows: Sequence[Record]) -> str:
    """The numbers behind a figure; columns without any are left out."""
    columns = [name for name in rows[0] if any(row.get(name) is not None for row in rows)]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join(lines + ["| " + " | ".join(_cell(row.get(name)) for name in columns) + " |" for row in rows])


def _cell(value: Scalar) -> str:
    if value is None:
        return text.NOTHING
    return f"{value:.3f}" if isinstance(value, float) else f"`{value}`" if isinstance(value, str) else str(value)


def fill(page: Path, begin: str, end: str, content: str) -> None:
    """Replace what stands between two marks of a page."""
    mark, tail = re.escape(f"<!-- {begin} -->"), re.escape(f"<!-- {end} -->")
    source = page.read_text(encoding="utf-8")
    new, count = re.subn(f"({mark}\n).*?({tail})", lambda m: f"{m[1]}\n{content}\n\n{m[2]}", source, flags=re.DOTALL)
    if count != 1:
        raise SystemExit(f"{page}: expected <!-- {begin} --> and <!-- {end} --> once, found them {count} times")
    page.write_text(new, encoding="utf-8")


def main() -> None:
    """Read the command line, draw and fill in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", help="name of an installed study")
    parser.add_argument("--store", type=Path, default=Path("results"), help="folder with its results")
    options = parser.parse_args()
    run = latest_run(options.study, Store(options.store))
    if run.results.failures:
        first = run.results.failures[0].reason
        raise SystemExit(f"{len(run.results.failures)} trials have no result ({first}); run the study first")
    if run.job.scale == "quick":
        raise SystemExit("the latest run is of the scale quick, which is no evidence; run a larger one first")
    page = DOCS / "systems" / f"{options.study}.md"
    shown, empty = [], []
    for item in run.job.study.figures:
        rows = draw(item, run.results, DOCS / "images" / f"{options.study}-{item.name}.svg")
        if not rows:
            empty.append(item)
            continue
        shown.append(item)
        if f"<!-- table: {item.name} -->" in page.read_text(encoding="utf-8"):
            fill(page, f"table: {item.name}", "/table", numbers_table(rows))
    fill(page, "results", "/results", results_section(run))
    fill(DOCS / "gallery.md", f"figures: {options.study}", "/figures", gallery_section(options.study, shown, empty))


if __name__ == "__main__":
    main()
