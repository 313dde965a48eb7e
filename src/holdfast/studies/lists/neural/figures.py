"""Figures of the part `neural`."""

from __future__ import annotations

from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

from holdfast.lab import Figure, Results
from holdfast.lab.figures import GREY, SHARE, draw_over_seeds, legend, size_axis
from holdfast.studies.lists.neural.networks import TASKS
from holdfast.studies.lists.rows import number, rows_with

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record

ARMS = {
    "raw": ("C0", "o", "-"),
    "blocks": ("C1", "s", "-"),
    "pairs": ("C4", "^", "--"),
    "votes": ("C3", "v", "-."),
    "comparator": ("C2", "D", ":"),
    "distilled": ("C5", "P", "-"),
    "sham": (GREY, "x", ":"),
}
"""Colour, marker and line of each arm. Arms that often coincide have other markers and lines, so that both are seen."""


def _labels(results: Results) -> dict[str, Any]:
    """Labels of the networks that verdicts are on."""
    return {"part": "neural", "positions": results.config.positions[0]}


def draw_exact_match(task: str, results: Results, axes: Axes) -> list[Record]:
    """Exact match of each arm against length: means over seeds, with the seeds themselves as faint dots."""
    of_task = _labels(results) | {"task": task}
    voted = [str(arm) for arm in results.levels("arm", **of_task) if str(arm).startswith("votes")]
    most = max((int(arm.split()[1]) for arm in voted), default=0)
    series: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("raw", "raw", {"arm": "raw", "role": "network"}),
        ("blocks", "block merge", {"arm": "blocks", "role": "network"}),
        ("pairs", "all pairs", {"arm": "pairs", "role": "network"}),
        ("votes", f"{most} votes", {"arm": f"votes {most}"}),
        ("distilled", "raw, distilled", {"arm": "distilled"}),
        ("sham", "block merge, sham", {"arm": "blocks", "role": "sham"}),
        ("comparator", "comparator network", {"arm": "comparator"}),
    )
    rows: list[Record] = []
    for arm, label, labels in series:
        by_length: dict[int, list[Record]] = {}
        for row in sorted(rows_with(results, "exact", **of_task, **labels), key=lambda row: number(row, "n")):
            by_length.setdefault(int(number(row, "n")), []).append(row)
        colour, marker, line = ARMS[arm]
        points = draw_over_seeds(
            axes,
            {n: [number(row, "exact") for row in at_n] for n, at_n in by_length.items()},
            bounds=SHARE,
            dots=True,
            color=colour,
            marker=marker,
            linestyle=line,
            markersize=5,
            linewidth=1.6,
            label=label,
        )
        for point in points:
            n = int(point.x)
            errors = [number(row, "kendall") for row in by_length[n] if row.get("kendall") is not None]
            kendall = fmean(errors) if errors else None
            rows.append({"arm": label, "n": n, "exact": point.mean, "kendall": kendall, "seeds": point.seeds})
    lengths = sorted({int(number(row, "n")) for row in rows})
    if lengths:
        longest = results.config.neural.longest
        axes.axvline(longest, color=GREY, linewidth=0.8, linestyle="--", label="longest trained on")
    size_axis(axes, lengths, "length n")
    axes.set_ylabel("lists answered exactly")
    axes.set_ylim(-0.03, 1.03)
    legend(axes, columns=3)
    return rows


def draw_violation(results: Results, axes: Axes) -> list[Record]:
    """One dot a task, length and seed: error against the share of lists that break the law."""
    rows: list[Record] = []
    probed = rows_with(results, "violation", role="network", **_labels(results))
    longest = results.config.neural.longest
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
    for place, task in enumerate(TASKS):
        for inside in (True, False):
            dots = [row for row in probed if row["task"] == task and (number(row, "n") <= longest) == inside]
            if dots:
                axes.plot(
                    [number(row, "error") for row in dots],
                    [number(row, "violation") for row in dots],
                    "os^D"[place],
                    color=f"C{place}",
                    markerfacecolor=f"C{place}" if inside else "none",
                    markersize=5,
                    alpha=0.8,
                    linestyle="none",
                    label=task if inside else None,
                )
            rows += [{name: row[name] for name in ("task", "n", "seed", "error", "violation")} for row in dots]
    axes.set_xlabel("error (needs labels)")
    axes.set_ylabel("violation (needs none)")
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.03)
    legend(axes, columns=2)
    return rows


def draw_pair_errors(results: Results, axes: Axes) -> list[Record]:
    """A line a seed: errors in sorting two values, by how far apart they are."""
    rows: list[Record] = []
    errors = sorted(rows_with(results, "gap", role="network", **_labels(results)), key=lambda row: number(row, "gap"))
    for seed in sorted({int(number(row, "seed")) for row in errors}):
        of_seed = [row for row in errors if row["seed"] == seed]
        axes.plot(
            [number(row, "gap") for row in of_seed],
            [number(row, "pair_error") for row in of_seed],
            color="C0",
            marker="o",
            markersize=3,
            alpha=0.7,
        )
        rows += [{name: row[name] for name in ("seed", "gap", "pair_error")} for row in of_seed]
    gaps = sorted({int(number(row, "gap")) for row in errors})
    axes.set_xscale("log", base=2)
    axes.set_xticks(gaps, [str(gap) if gap == 1 else f"{gap}-{2 * gap - 1}" for gap in gaps])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("difference of the two values")
    axes.set_ylabel("share sorted wrongly")
    axes.set_ylim(bottom=0)
    return rows


FIGURES = (
    *(
        Figure(
            f"exact-{task.replace('+', '-')}",
            f"{task[0].upper()}{task[1:]}: share of lists answered exactly, by length. Raw: the network's own answers. "
            "Block merge and all pairs: the same weights, extended. Lines are means over seeds, dots are seeds.",
            partial(draw_exact_match, task),
        )
        for task in TASKS
    ),
    Figure(
        "violation",
        "How often the network breaks the law of filter equivariance, which needs no labels, against how often it "
        "errs. Filled: lengths trained on; hollow: longer. One dot a task, length and seed.",
        draw_violation,
    ),
    Figure(
        "pair-errors",
        "Why sort is the hard task: how often the network sorts two values wrongly, by their difference, in lists as "
        "long as those trained on. One line a seed.",
        draw_pair_errors,
    ),
)
