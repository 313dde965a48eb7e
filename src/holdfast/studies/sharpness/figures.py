"""The pictures of the study of sharpness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from holdfast.lab import Figure, Results
from holdfast.lab.trial import Record
from holdfast.studies.sharpness.claims import COMPARED, PAPER_ACCURACY
from holdfast.studies.sharpness.retrieval import ARMS, SSMAX, law_rows
from holdfast.studies.sharpness.traces import draw_inactive, draw_traces

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = ("plain", "published", "refit", "log-n", "hard")
"""Arms in figures that would be crowded with all of them."""

# Places in the page's palette, which suits light and dark pages and colour-blind readers.
COLOURS = {"plain": "C0", "published": "C1", "refit": "C2", "log-n": "C3", "hard": "C4", "ssmax": "C5"}
GREY = "#7d858e"

DASHES = {"log-n": (0, (4, 2)), "hard": (0, (1, 1.5))}
"""Arms that often coincide with another are broken lines, so that both can be seen."""


def _band(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean over seeds with its 95 % t interval."""
    import numpy as np
    from scipy import stats

    array = np.asarray(values, dtype=np.float64)
    mean = float(array.mean())
    if len(array) < 2:
        return mean, mean, mean
    half = float(stats.t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / math.sqrt(len(array)))
    return mean, mean - half, mean + half


def _draw_by_size(
    results: Results,
    axes: Axes,
    metric: str,
    arms: Sequence[str],
    part: str,
    *,
    minus: str | None = None,
    band: bool = True,
) -> list[Record]:
    """A line an arm over a log2 axis of sizes: mean over seeds and, if asked, its 95 % interval.

    With `minus`, the difference to that arm, paired over seeds.
    """
    rows: list[Record] = []
    for arm in arms:
        points: list[tuple[int, float, float, float]] = []
        for n in results.levels("n", part=part, arm=arm):
            values: dict[int, float] = results.by_seed(metric, part=part, arm=arm, n=n)
            if minus is not None:
                base = results.by_seed(metric, part=part, arm=minus, n=n)
                values = {seed: value - base[seed] for seed, value in values.items() if seed in base}
            if not values:
                continue
            mean, low, high = _band(list(values.values()))
            points.append((n, mean, low, high))
            rows.append({"arm": arm, "n": n, metric: mean, "low": low, "high": high, "seeds": len(values)})
        if not points:
            continue
        sizes, means, lows, highs = zip(*points, strict=True)
        style = DASHES.get(arm, "-")
        axes.plot(sizes, means, color=COLOURS[arm], linestyle=style, marker="o", markersize=3, linewidth=1.6, label=arm)
        if band:
            axes.fill_between(sizes, lows, highs, color=COLOURS[arm], alpha=0.18, linewidth=0)
    _size_axis(axes, [int(n) for n in results.levels("n", part=part)])
    return rows


def _legend(axes: Axes) -> None:
    """A legend, unless nothing was drawn."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize="small")


def _size_axis(axes: Axes, sizes: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    if sizes:
        every = 1 if len(sizes) <= 8 else 2
        axes.set_xticks(sizes[::every], [str(n) for n in sizes[::every]])
        axes.set_xticks([], minor=True)
    axes.set_xlabel("items n")


def _draw_accuracy(results: Results, axes: Axes) -> list[Record]:
    rows = _draw_by_size(results, axes, "accuracy", SHOWN, "retrieve", band=False)
    for arm, style in (("plain", "--"), ("published", ":")):
        label = f"{arm}, in the paper"
        curve = {n: value / 100 for n, value in PAPER_ACCURACY[arm].items()}
        axes.plot(list(curve), list(curve.values()), style, color=GREY, label=label)
        rows += [{"arm": label, "n": n, "accuracy": value} for n, value in curve.items()]
    axes.set_ylabel("accuracy")
    axes.set_ylim(0, 1.02)
    _legend(axes)
    return rows


def _draw_gain(results: Results, axes: Axes) -> list[Record]:
    rows = _draw_by_size(results, axes, "accuracy", ("published", "refit"), "retrieve", minus="plain")
    label = "published, in the paper"
    gain = {n: (PAPER_ACCURACY["published"][n] - value) / 100 for n, value in PAPER_ACCURACY["plain"].items()}
    axes.plot(list(gain), list(gain.values()), ":", color=GREY, label=label)
    axes.axhline(0, color=GREY, linewidth=0.8)
    rows += [{"arm": label, "n": n, "accuracy": value} for n, value in gain.items()]
    axes.set_ylabel("accuracy minus that of plain softmax")
    _legend(axes)
    return rows


def _draw_entropy(results: Results, axes: Axes) -> list[Record]:
    rows = _draw_by_size(results, axes, "entropy", [arm for arm in SHOWN if arm != "hard"], "retrieve")
    sizes = results.levels("n", part="retrieve")
    axes.plot(sizes, [math.log(n) for n in sizes], ":", color=GREY, label="ln n: all weights equal")
    axes.axhline(5.9445, color=GREY, linewidth=0.8, linestyle="--", label="the published law stops here")
    axes.set_ylabel("entropy of the weights (nats)")
    _legend(axes)
    return rows


def _draw_remedies(results: Results, axes: Axes) -> list[Record]:
    """Two dots an arm at `COMPARED` items: switched on after training, and trained with."""
    rows: list[dict[str, Any]] = []
    for arm in ARMS:
        row: dict[str, Any] = {"arm": arm}
        for part, label in (("retrieve", "switched on"), ("trained-with", "trained with")):
            for n in (16, 256, COMPARED, 4096):
                values = list(results.by_seed("accuracy", part=part, arm=arm, n=n).values())
                row[f"{label}, n = {n}"] = _band(values)[0] if values else None
        if any(value is not None for name, value in row.items() if name != "arm"):
            rows.append(row)
    rows.sort(key=lambda row: row[f"switched on, n = {COMPARED}"] or 0.0)
    for part, label, colour, marker in (
        ("retrieve", "switched on", "C0", "o"),
        ("trained-with", "trained with", "C1", "D"),
    ):
        dots: list[tuple[float, int]] = []
        for height, row in enumerate(rows):
            values = list(results.by_seed("accuracy", part=part, arm=row["arm"], n=COMPARED).values())
            if values:
                mean, low, high = _band(values)
                axes.plot([low, high], [height, height], color=colour, linewidth=1.6, alpha=0.5)
                dots.append((mean, height))
        if dots:
            axes.plot(*zip(*dots, strict=True), marker, color=colour, markersize=5, linestyle="none", label=label)
    axes.set_yticks(range(len(rows)), [str(row["arm"]) for row in rows])
    axes.set_xlabel(f"accuracy at n = {COMPARED}")
    axes.set_ylabel("normaliser")
    _legend(axes)
    return list(reversed(rows))


def _draw_split(results: Results, axes: Axes) -> list[Record]:
    rows: list[Record] = []
    for n in results.levels("n", part="retrieve", arm="plain"):
        row: dict[str, Any] = {"n": n}
        for metric in ("ordering_error", "dispersion_error"):
            row[metric] = _band(list(results.by_seed(metric, part="retrieve", arm="plain", n=n).values()))[0]
        rows.append(row)
    sizes = [int(row["n"] or 0) for row in rows]
    if rows:
        axes.stackplot(
            sizes,
            [[float(row[name] or 0.0) for row in rows] for name in ("ordering_error", "dispersion_error")],
            labels=("ordering: argmax attention errs too", "dispersion: argmax attention is right"),
            colors=(COLOURS["hard"], COLOURS["plain"]),
            alpha=0.75,
        )
    _legend(axes)
    _size_axis(axes, sizes)
    axes.set_ylabel("error of plain softmax")
    axes.set_ylim(0, 1)
    return rows


def _draw_needle(results: Results, axes: Axes) -> list[Record]:
    rows: list[Record] = []
    for arm in ("plain", "published", "refit", "log-n", "ssmax"):
        found = sorted(results.where(part="needle", arm=arm, margin=5.0), key=lambda row: int(row["n"] or 0))
        if found:
            axes.plot(
                [int(row["n"] or 0) for row in found],
                [float(row["winner"] or 0.0) for row in found],
                color=COLOURS[arm],
                marker="o",
                markersize=3,
                linewidth=1.5,
                label=f"SSMax {SSMAX}" if arm == "ssmax" else arm,
            )
        rows += [{"arm": arm, "n": row["n"], "winner": row["winner"], "beta": row["beta"]} for row in found]
    _size_axis(axes, [int(n) for n in results.levels("n", part="needle")])
    axes.set_ylabel("weight of the winner")
    axes.set_ylim(0, 1.02)
    _legend(axes)
    return rows


def _draw_laws(results: Results, axes: Axes) -> list[Record]:
    from holdfast.nn import AdaptiveTemperature

    published = law_rows("published", AdaptiveTemperature.published())
    curves = [("published", "published", published)]
    rows = list(published)
    for part, label, colour in (
        ("retrieve", "refit, one line a seed", "refit"),
        ("needle", "refit to needles", "log-n"),
    ):
        for seed in results.levels("seed", part=part):
            found = results.curve("law", part=part, seed=seed)
            curves.append((label, colour, found))
            rows += [{**row, "arm": label} for row in found]
    labelled: set[str] = set()
    for label, colour, found in curves:
        axes.plot(
            [float(row["entropy"] or 0.0) for row in found],
            [float(row["beta"] or 0.0) for row in found],
            color=COLOURS[colour],
            linewidth=2.0 if label == "published" else 1.0,
            label=None if label in labelled else label,
        )
        labelled.add(label)
    axes.set_yscale("log", base=2)
    axes.set_xlabel("entropy of softmax (nats)")
    axes.set_ylabel("inverse temperature β")
    _legend(axes)
    return rows


def _draw_control(results: Results, axes: Axes) -> list[Record]:
    rows = _draw_by_size(results, axes, "accuracy", SHOWN, "control")
    axes.set_ylabel("accuracy, most frequent class")
    axes.set_ylim(0, 1.02)
    _legend(axes)
    return rows


FIGURES = (
    Figure(
        "accuracy",
        "Max retrieval: one set of weights, five ways to turn logits into attention. Trained on 5 to 16 items. "
        "Lines are means over seeds; grey lines are the paper's figures.",
        _draw_accuracy,
    ),
    Figure(
        "gain",
        "Max retrieval: what the published and the refitted law gain over plain softmax on the same weights and "
        "sets. Lines are means over seeds, bands their 95 % intervals.",
        _draw_gain,
    ),
    Figure(
        "remedies",
        "Max retrieval: all normalisers at 1024 items, switched on in the network trained with softmax, and some with "
        "networks trained with them. Dots are means over seeds, lines their 95 % intervals.",
        _draw_remedies,
    ),
    Figure(
        "entropy",
        "Max retrieval: the entropy of attention grows with the number of items. Above the dashed line the published "
        "law changes nothing.",
        _draw_entropy,
    ),
    Figure(
        "error-split",
        "Max retrieval, plain softmax: the part of the error that no temperature can mend (attention's largest logit "
        "leads to a wrong answer), and the part due to dispersion.",
        _draw_split,
    ),
    Figure(
        "needle",
        "One logit stands 5 nats above the rest: its weight under each law of temperature. The published law falls "
        "back to softmax where entropy passes 5.94 nats.",
        _draw_needle,
    ),
    Figure(
        "laws",
        "Inverse temperature as a function of entropy: the published polynomial, and laws refitted without labels.",
        _draw_laws,
    ),
    Figure(
        "control",
        "The negative control: naming the most frequent class needs all items alike, and sharper attention does not "
        "help. Lines are means over seeds, bands their 95 % intervals.",
        _draw_control,
    ),
    Figure(
        "traces",
        "Language models that write algorithms out: accuracy against the size of the input, one network an arm. Lines "
        "are means over seeds and over the tasks that were tested at every size, which leaves bubble sort out.",
        draw_traces,
    ),
    Figure(
        "traces-inactive",
        "Language models trained with the published law: share of attention rows that are too dispersed for it, by the "
        "length of the text.",
        draw_inactive,
    ),
)
