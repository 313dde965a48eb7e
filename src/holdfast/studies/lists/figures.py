"""Pictures of the study of list functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

from holdfast.lab import Figure, Results
from holdfast.lab.trial import Record
from holdfast.studies.lists.exact import least_queries
from holdfast.studies.lists.neural import TASKS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GREY = "#7d858e"

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

NAMES = {"blocks": "block merge", "sham": "block merge, sham", "pairs": "all pairs", "comparator": "comparator network"}


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _length_axis(axes: Axes, lengths: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    if lengths:
        axes.set_xticks(lengths, [str(n) for n in lengths])
        axes.set_xticks([], minor=True)
    axes.set_xlabel("length n")


def _legend(axes: Axes, *, columns: int = 0) -> None:
    """A legend, unless nothing was drawn; below the axes in columns where lines fill them."""
    if not axes.get_legend_handles_labels()[0]:
        return
    below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": columns} if columns else {}
    axes.legend(frameon=False, fontsize="small", **below)


def _positions(results: Results) -> dict[str, Any]:
    found = results.levels("positions", part="neural")
    return {"positions": results.config.positions[0]} if found else {}


def draw_exact_match(task: str, results: Results, axes: Axes) -> list[Record]:
    """Exact match of each arm against length: means over seeds, with the seeds themselves as faint dots."""
    rows: list[Record] = []
    chosen = {"part": "neural", "task": task} | _positions(results)
    votes = [arm for arm in results.levels("arm", **chosen) if str(arm).startswith("votes")]
    series: list[tuple[str, str, dict[str, Any]]] = [
        ("raw", "raw", {"arm": "raw", "role": "network"}),
        ("blocks", NAMES["blocks"], {"arm": "blocks", "role": "network"}),
        ("pairs", NAMES["pairs"], {"arm": "pairs", "role": "network"}),
        *(
            ("votes", f"{max(votes, key=_votes).split()[1]} votes", {"arm": arm})
            for arm in votes
            if arm == max(votes, key=_votes)
        ),
        ("distilled", "raw, distilled", {"arm": "distilled"}),
        ("sham", NAMES["sham"], {"arm": "blocks", "role": "sham"}),
        ("comparator", NAMES["comparator"], {"arm": "comparator"}),
    ]
    for arm, label, labels in series:
        points = []
        for n in results.levels("n", **chosen, **labels):
            values = [float(row["exact"] or 0) for row in results.where(n=n, **chosen, **labels) if "exact" in row]
            if not values:
                continue
            points.append((n, fmean(values)))
            kendall = [
                float(row["kendall"] or 0)
                for row in results.where(n=n, **chosen, **labels)
                if row.get("kendall") is not None
            ]
            rows.append({"arm": label, "n": n, "exact": fmean(values), "kendall": _mean(kendall), "seeds": len(values)})
            axes.plot([n] * len(values), values, ".", color=ARMS[arm][0], alpha=0.35, markersize=4)
        if points:
            colour, marker, line = ARMS[arm]
            axes.plot(
                *zip(*points, strict=True),
                color=colour,
                marker=marker,
                linestyle=line,
                markersize=5,
                linewidth=1.6,
                label=label,
            )
    lengths = sorted({int(row["n"] or 0) for row in rows})
    if lengths:
        axes.axvline(
            results.config.neural.longest, color=GREY, linewidth=0.8, linestyle="--", label="longest trained on"
        )
    _length_axis(axes, lengths)
    axes.set_ylabel("lists answered exactly")
    axes.set_ylim(-0.03, 1.03)
    _legend(axes, columns=3)
    return rows


def _votes(arm: str) -> int:
    return int(arm.split()[1])


def draw_violation(results: Results, axes: Axes) -> list[Record]:
    """One dot a task, length and seed: error against the share of lists that break the law."""
    rows: list[Record] = []
    chosen = {"part": "neural", "role": "network"} | _positions(results)
    found = [row for row in results.where(**chosen) if row.get("violation") is not None]
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
    for number, task in enumerate(TASKS):
        for inside, fill in ((True, f"C{number}"), (False, "none")):
            dots = [
                row
                for row in found
                if row["task"] == task and (int(row["n"] or 0) <= results.config.neural.longest) == inside
            ]
            if dots:
                axes.plot(
                    [float(row["error"] or 0) for row in dots],
                    [float(row["violation"] or 0) for row in dots],
                    "os^D"[number],
                    color=f"C{number}",
                    markerfacecolor=fill,
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
    _legend(axes, columns=2)
    return rows


def draw_pair_errors(results: Results, axes: Axes) -> list[Record]:
    """A line a seed: errors in sorting two values, by how far apart they are."""
    rows: list[Record] = []
    chosen = {"part": "neural", "role": "network"} | _positions(results)
    found = [row for row in results.where(**chosen) if row.get("gap") is not None]
    gaps = sorted({int(row["gap"] or 0) for row in found})
    for seed in sorted({int(row["seed"] or 0) for row in found}):
        own = sorted((row for row in found if row["seed"] == seed), key=lambda row: int(row["gap"] or 0))
        axes.plot(
            [int(row["gap"] or 0) for row in own],
            [float(row["pair_error"] or 0) for row in own],
            color="C0",
            marker="o",
            markersize=3,
            alpha=0.7,
        )
        rows += [{name: row[name] for name in ("seed", "gap", "pair_error")} for row in own]
    axes.set_xscale("log", base=2)
    axes.set_xticks(gaps, [str(gap) if gap == 1 else f"{gap}-{2 * gap - 1}" for gap in gaps])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("difference of the two values")
    axes.set_ylabel("share sorted wrongly")
    axes.set_ylim(bottom=0)
    return rows


def draw_robust(metric: str, label: str, results: Results, axes: Axes) -> list[Record]:
    """A line a method over noise, for lists of 64: one vote solid, three votes broken."""
    rows: list[Record] = []
    methods = {"merge sort": "C0", "copeland": "C4", "copeland + local": "C1", "strict": "C3", "ceiling": GREY}
    n = max(results.levels("n", part="robust"), default=64)
    for votes, line in ((1, "-"), (3, "--")):
        for method, colour in methods.items():
            points = []
            for p in results.levels("p", part="robust"):
                found = results.where(part="robust", method=method, n=n, p=p, votes=votes)
                values = [float(row[metric] or 0) for row in found if row.get(metric) is not None]
                # Of strict gluing only whether it answers is shown, as its errors are of the lists that it answers.
                if values and not (method == "strict" and metric == "kendall"):
                    points.append((p, fmean(values)))
                    rows.append(
                        {"method": method, "votes": votes, "n": n, "p": p, metric: fmean(values), "seeds": len(values)}
                    )
            if points:
                axes.plot(
                    *zip(*points, strict=True),
                    color=colour,
                    linestyle=line,
                    marker="o" if votes == 1 else "s",
                    markersize=3,
                    linewidth=1.4,
                    label=method if votes == 1 else None,
                )
    axes.set_xscale("log")
    levels = results.levels("p", part="robust")
    axes.set_xticks(levels, [f"{p:g}" for p in levels])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("chance that a vote is wrong")
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0)
    _legend(axes, columns=3)
    return rows


def draw_queries(results: Results, axes: Axes) -> list[Record]:
    """Lists asked for against length, with what no method can do without."""
    rows: list[Record] = []
    found = results.where(part="exact")
    block = [row for row in found if row.get("method") == "block merge"]
    capacity = results.config.exact.capacity
    lengths = sorted({int(row["n"] or 0) for row in block})

    def line(label: str, points: Callable[[int], float | None], colour: str, style: str, marker: str = "") -> None:
        drawn = [(n, value) for n in lengths if (value := points(n)) is not None]
        if drawn:
            axes.plot(
                *zip(*drawn, strict=True), color=colour, linestyle=style, marker=marker, markersize=4, label=label
            )
        rows.extend({"line": label, "n": n, "queries": value} for n, value in drawn)

    def mean(method: str, task: str, limit: int) -> Callable[[int], float | None]:
        def at(n: int) -> float | None:
            own = (
                row
                for row in found
                if (row.get("method"), row.get("task"), row.get("capacity")) == (method, task, limit)
            )
            return _mean([float(row["queries"] or 0) for row in own if row["n"] == n])

        return at

    line("all pairs", lambda n: n * (n - 1) / 2, GREY, "--")
    line("merge of pairs, sort", mean("merge", "sort", 2), "C0", "-", "o")
    line("least for all orders, 2 elements", lambda n: least_queries(n, 2), "C3", ":")
    line(f"block merge of {capacity}, sort", mean("block merge", "sort", capacity), "C1", "-", "s")
    line(f"block merge of {capacity}, reverse", mean("block merge", "reverse", capacity), "C2", "-.", "D")
    line(f"least for all orders, {capacity} elements", lambda n: least_queries(n, capacity), "C4", ":")
    axes.set_yscale("log")
    _length_axis(axes, lengths)
    axes.set_ylabel("lists asked for")
    _legend(axes, columns=2)
    return rows


def draw_classes(results: Results, axes: Axes) -> list[Record]:
    """Members of the classes against all candidates."""
    rows: list[Record] = []
    for name, colour in (("natural", "C0"), ("order-natural", "C1")):
        found = sorted(results.where(part="classes", **{"class": name}), key=lambda row: int(row["size"] or 0))
        sizes = [int(row["size"] or 0) for row in found]
        if found:
            axes.plot(
                sizes, [float(row["counted"] or 0) for row in found], color=colour, marker="o", markersize=4, label=name
            )
            axes.plot(
                sizes,
                [float(row["of"] or 0) for row in found],
                color=colour,
                linestyle="--",
                label=f"{name}: answers tried",
            )
        rows += [{column: row[column] for column in ("class", "size", "counted", "formula", "of")} for row in found]
    axes.set_yscale("log")
    axes.set_xlabel("copies of each element")
    axes.set_ylabel("functions")
    _legend(axes)
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
    Figure(
        "robust-exact",
        "Lists of 64 elements from pair answers that are wrong at random: share that is recovered exactly. The ceiling "
        "is what any method can recover. Solid: one vote a pair; broken: three.",
        partial(draw_robust, "right", "lists recovered exactly"),
    ),
    Figure(
        "robust-kendall",
        "The same: share of the pairs of elements that end in the wrong order.",
        partial(draw_robust, "kendall", "Kendall error"),
    ),
    Figure(
        "queries",
        "How many lists are asked for to extend a function, against length. Dotted: what is needed to tell all orders "
        "apart.",
        draw_queries,
    ),
    Figure(
        "classes",
        "How many functions the laws leave, of all answers to lists of two elements, against the copies of each "
        "element.",
        draw_classes,
    ),
)
