"""Pictures of an analysis, each into axes that are passed in; those that studies draw too take the numbers alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.confidence.analysis import Analysis, Update
from holdfast.confidence.cells import Cell
from holdfast.confidence.trials import DISPLAYS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GREY = "#7d858e"
"""For what an ideal observer does."""

NAMES = {
    "shown": "own answer shown",
    "hidden": "hidden",
    "other": "said to be another's",
    "shown_flipped": "the other one shown as its own",
}

COLOURS = {"shown": "C0", "hidden": "C1", "other": "C2", "shown_flipped": "C3"}

Where = tuple[str, str]
"""A display and a kind of advice."""


def plot_change_of_mind(analysis: Analysis, axes: Axes) -> None:
    """Share of changed minds by advice and display, with 95 % intervals over questions; marks: an ideal observer.

    Arguments:
        analysis: of trials.
        axes: Matplotlib axes to draw into.
    """
    cells = _over_accuracies(analysis)
    bars_of_changes(
        axes,
        {where: _rate(cell) for where, cell in cells.items()},
        {where: 100 * cell.ideal_change_of_mind for where, cell in cells.items()},
    )


def plot_confidence_change(analysis: Analysis, axes: Axes) -> None:
    """Change of the probability of the first answer by advice and display, with standard errors over trials.

    Arguments:
        analysis: of trials with log-odds; without them the axes say so.
        axes: Matplotlib axes to draw into.
    """
    cells = {k: c for k, c in _over_accuracies(analysis).items() if not math.isnan(c.probability_change)}
    if not cells:
        _say(axes, "bare choices have no confidence")
        return
    heights = {k: (c.probability_change, c.probability_error, c.probability_error) for k, c in cells.items()}
    bars_of_confidence(axes, heights)


def plot_updates(analysis: Analysis, axes: Axes) -> None:
    """Observed against ideal change of log-odds for each stated accuracy, agreement up and contradiction down.

    Arguments:
        analysis: of trials with log-odds; without them the axes say so.
        axes: Matplotlib axes to draw into.
    """
    if not analysis.updates:
        _say(axes, "bare choices have no log-odds")
        return
    # Reported log-odds of one side of the diagonal mean nothing as long as their scale is unknown.
    unit = analysis.temperature.value if analysis.temperature.known else 1.0
    lines_of_updates(axes, analysis.updates, unit)
    kind = "calibrated" if analysis.temperature.known else "reported"
    axes.set_ylabel(f"change of {kind} log-odds")


def plot_reliability(analysis: Analysis, axes: Axes) -> None:
    """Share of right first answers against confidence, before and after temperature scaling.

    Arguments:
        analysis: of trials with an answer key; without one the axes say so.
        axes: Matplotlib axes to draw into.
    """
    calibration = analysis.calibration
    if calibration is None:
        _say(axes, "no answer key, or bare choices")
        return
    low = float(calibration.diagram.edges[0])
    axes.plot([low, 1], [low, 1], color=GREY, linestyle="--", zorder=0)
    shapes = (("as reported", calibration.diagram, "C0", "o"), ("scaled", calibration.diagram_after, "C1", "s"))
    for label, diagram, colour, marker in shapes:
        if diagram is None:
            continue
        size = 12 + 140 * np.sqrt(diagram.count / diagram.count.sum())
        style: dict[str, Any] = {"color": colour, "marker": marker, "alpha": 0.75, "linewidths": 0}
        axes.scatter(diagram.confidence, diagram.accuracy, s=size, label=f"{label}: {diagram.error:.3f}", **style)
    axes.set_xlabel("confidence in the first answer")
    axes.set_ylabel("share that is right")
    legend = axes.legend(frameon=False, fontsize="small", loc="lower right", title="calibration error")
    for handle in legend.legend_handles:
        if handle is not None and hasattr(handle, "set_sizes"):
            handle.set_sizes([30])


def plot_ownership(analysis: Analysis, axes: Axes) -> None:
    """What it adds to the log-odds of its first answer to show it as its own, and as another model's, against hidden.

    Arguments:
        analysis: of trials with log-odds; without them the axes say so.
        axes: Matplotlib axes to draw into.
    """
    bars = [
        ("own, shown", analysis.choice_bias, COLOURS["shown"]),
        ("another's, shown", analysis.secondary["other_bias"], COLOURS["other"]),
        ("difference", analysis.ownership_bias, GREY),
    ]
    known = [bar for bar in bars if bar[1].known]
    if not known:
        _say(axes, "no displays to compare")
        return
    for place, (_, entry, colour) in enumerate(known):
        reach = [[max(entry.value - entry.low, 0)], [max(entry.high - entry.value, 0)]]
        axes.bar(place, entry.value, 0.6, yerr=reach, color=colour, capsize=3)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(known)), [label for label, *_ in known])
    axes.set_ylabel("log-odds added, against hidden")


def bars_of_changes(
    axes: Axes, heights: Mapping[Where, tuple[float, float, float]], ideal: Mapping[Where, float]
) -> None:
    """Shares of changed minds as groups of bars, with a dash for an ideal observer that gave the same first answers.

    Arguments:
        axes: to draw into.
        heights: by display and advice: share in percent, and how far its interval reaches down and up.
        ideal: shares of an ideal observer in percent; NaN: not known.
    """
    places = _bars(axes, heights)
    points = [(place, ideal[where]) for where, place in places.items() if not math.isnan(ideal.get(where, math.nan))]
    if points:
        x, y = zip(*points, strict=True)
        axes.plot(x, y, linestyle="none", marker="_", markersize=12, color="black", label="ideal observer")
        axes.legend(frameon=False, fontsize="small")
    axes.set_ylabel("minds changed, %")
    axes.set_ylim(bottom=0)


def bars_of_confidence(axes: Axes, heights: Mapping[Where, tuple[float, float, float]]) -> None:
    """Changes of the probability of the first answer as groups of bars.

    Arguments:
        axes: to draw into.
        heights: by display and advice: the change, and how far its interval reaches down and up.
    """
    _bars(axes, heights)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_ylabel("change of confidence in the first answer")


def lines_of_updates(axes: Axes, updates: Sequence[Update], unit: float = 1.0) -> None:
    """Observed against ideal changes of log-odds, agreement up and contradiction down, and the diagonal.

    Arguments:
        axes: to draw into.
        updates: at least one.
        unit: that observed changes are divided by.
    """
    for side, sign, label, colour in (("same", 1, "agreement", "C2"), ("opposite", -1, "contradiction", "C3")):
        points = [update for update in updates if update.advice == side]
        if not points:
            continue
        x = np.array([sign * update.ideal for update in points])
        y = np.array([update.observed.value for update in points]) * sign / unit
        reach = np.array([[u.observed.value - u.observed.low, u.observed.high - u.observed.value] for u in points]).T
        axes.errorbar(x, y, yerr=np.maximum(reach, 0) / unit, fmt="o-", color=colour, markersize=4, label=label)
        for update, place, height in zip(points, x, y, strict=True):
            if not update.ideal:
                continue
            where: dict[str, Any] = {"xytext": (5 * sign, -3), "ha": "left" if sign > 0 else "right"}
            axes.annotate(f"{update.accuracy:.0%}", (place, height), textcoords="offset points", fontsize=7, **where)
    low, high = axes.get_xlim()
    axes.plot([low, high], [low, high], color=GREY, linestyle="--", label="ideal", zorder=0)
    axes.set_xlabel("what the advice is worth, log-odds")
    axes.legend(frameon=False, fontsize="small", loc="upper left")


def _over_accuracies(analysis: Analysis) -> dict[Where, Cell]:
    return {(cell.display, cell.advice): cell for cell in analysis.cells if cell.accuracy is None}


def _rate(cell: Cell) -> tuple[float, float, float]:
    rate = cell.change_of_mind
    return 100 * rate.value, 100 * (rate.value - rate.low), 100 * (rate.high - rate.value)


def _bars(axes: Axes, heights: Mapping[Where, tuple[float, float, float]]) -> dict[Where, float]:
    """Groups of bars, one a kind of advice; where each stands."""
    displays = _in_order(DISPLAYS, (display for display, _ in heights))
    kinds = _in_order(("opposite", "same", "neutral"), (advice for _, advice in heights))
    width = 0.8 / len(displays)
    places: dict[Where, float] = {}
    for number, display in enumerate(displays):
        keys = [(display, advice) for advice in kinds if (display, advice) in heights]
        at = [kinds.index(advice) + (number - (len(displays) - 1) / 2) * width for _, advice in keys]
        value, down, up = (np.array([heights[key][k] for key in keys]) for k in range(3))
        reach = np.maximum(np.array([down, up]), 0)
        style: dict[str, Any] = {"color": COLOURS[display], "label": NAMES[display], "error_kw": {"linewidth": 1}}
        axes.bar(at, value, width * 0.92, yerr=reach, capsize=2, **style)
        places |= dict(zip(keys, at, strict=True))
    axes.set_xticks(range(len(kinds)), [f"{advice} advice" for advice in kinds])
    axes.legend(frameon=False, fontsize="small")
    return places


def _in_order(known: Sequence[str], names: Iterable[str]) -> list[str]:
    """Those of the known names that are there."""
    there = set(names)
    assert there <= set(known)
    return [name for name in known if name in there]


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=GREY)
    axes.set_xticks([])
    axes.set_yticks([])
