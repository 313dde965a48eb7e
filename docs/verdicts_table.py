"""Fill the table of all papers from the published results.

    python docs/verdicts_table.py

writes the part of `docs/lab/papers.md` between `<!-- papers -->` and `<!-- /papers -->` from
`benchmarks/results/STUDY_laptop.json`: the headline claims in plain words, with verdict, effect and interval.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from holdfast.lab.locate import find, installed
from holdfast.lab.report.text import number

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "lab" / "papers.md"
BEGIN, END = "<!-- papers -->", "<!-- /papers -->"
ORDER = ("supported", "contradicted", "inconclusive")


def tables() -> str:
    """A section a study: how many claims have which verdict, and a table of the headline ones."""
    return "\n".join(_section(name) for name in sorted(installed()))


def filled(page: str) -> str:
    """The page with the tables of today."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{tables()}\n{END}{rest.partition(END)[2]}"


def _section(name: str) -> str:
    study = find(name)
    published = json.loads((ROOT / "benchmarks" / "results" / f"{name}_laptop.json").read_text(encoding="utf-8"))
    [run] = published["studies"]
    verdicts = {verdict["claim"]: verdict for verdict in run["verdicts"]}
    counts = [f"{n} {status}" for status in ORDER if (n := sum(v["status"] == status for v in verdicts.values()))]
    address = f" ([{study.paper.arxiv}]({study.paper.url}))" if study.paper and study.paper.url else ""
    lines = [
        f"## [{'RAT' if name == 'rat' else name.capitalize()}](../systems/{name}.md#the-study)",
        "",
        f"{study.question}{address} Of {len(verdicts)} claims {', '.join(counts)}.",
        "",
        "| claim | verdict | effect | seeds or cases |",
        "|---|---|---|---|",
    ]
    for claim in study.claims:
        if claim.headline and claim.name in verdicts:
            verdict = verdicts[claim.name]
            lines.append(f"| {claim.plain} | **{verdict['status']}** | {_effect(verdict)} | {verdict['n'] or '–'} |")
    return "\n".join([*lines, ""])


def _effect(verdict: dict[str, Any]) -> str:
    if verdict["effect"] is None:
        return "–"
    low, high = verdict["interval"]
    shown = number(verdict["effect"])
    return shown if low is None or low == high else f"{shown} [{number(low)}, {number(high)}]"


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
