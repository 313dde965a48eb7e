"""Draw why a network stops learning: long weights turn less, and what becomes of the effective learning rate.

    python docs/images/plasticity_idea.py

writes `docs/images/plasticity-idea.svg`, a scheme without measurements.
"""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Arc

from holdfast.lab.report.svg import PALETTE

TASKS, POINTS = 8, 100
"""Changes of the data plus one, and points of a curve between two."""
STEP = 0.55
GREY, DARK = "#8a93a0", "#333333"
PLAIN, CONSTANT, DECAY, REWARM = PALETTE[1], PALETTE[0], GREY, PALETTE[2]


def turn(axes: Axes, length: float, y: float, words: str, colour: str) -> None:
    """A weight, a step across it, and the angle between the weight before and after."""
    arrows = (((0.0, y), (length, y), DARK), ((length, y), (length, y + STEP), colour))
    for start, end, shade in arrows:
        style = {"arrowstyle": "-|>", "color": shade, "linewidth": 1.8, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", end, start, arrowprops=style)
    axes.plot([0, length], [y, y + STEP], color=colour, linewidth=1.2, linestyle="--")
    angle = math.degrees(math.atan2(STEP, length))
    axes.add_patch(Arc((0, y), 1.1, 1.1, theta1=0, theta2=angle, color=colour, linewidth=1.8))
    axes.text(length + 0.12, y + STEP / 2, "ΔW", color=colour, fontsize=10, va="center")
    axes.text(length / 2, y - 0.17, "W", color=DARK, fontsize=10, ha="center", va="center")
    axes.text(0, y + STEP + 0.25, words, color=colour, fontsize=10, va="center")


def cosine(share: float) -> float:
    """Half a cosine from 1 to a thirtieth."""
    return 1 / 30 + (1 - 1 / 30) * 0.5 * (1 + math.cos(math.pi * share))


def curves(axes: Axes) -> None:
    """The effective learning rate over tasks, as a share of its peak."""
    times = [place / POINTS for place in range(TASKS * POINTS + 1)]
    lines = (
        ("norms held, constant rate", CONSTANT, [1.0 for _ in times], "-"),
        ("norms held, raised again", REWARM, [cosine(time % 1) for time in times], "-"),
        ("weights grow", PLAIN, [1 / (1 + time) ** 0.9 for time in times], "-"),
        ("norms held, decays once", DECAY, [cosine(time / TASKS) for time in times], "--"),
    )
    for label, colour, values, style in lines:
        axes.plot(times, values, color=colour, linestyle=style, linewidth=1.8, label=label)
    for change in range(1, TASKS):
        axes.axvline(change, color="#dddddd", linewidth=0.8, zorder=0)
    axes.set_xlim(0, TASKS)
    axes.set_ylim(0, 1.5)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel("training; the data change at the grey lines")
    axes.set_ylabel("effective learning rate")
    axes.legend(frameon=False, ncols=2, loc="upper center", fontsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def draw(left: Axes, right: Axes) -> None:
    """Both halves."""
    turn(left, 1.3, 1.55, "a short weight turns far", CONSTANT)
    turn(left, 4.2, 0.2, "the same step hardly turns a long one", PLAIN)
    left.set_xlim(-0.2, 5.0)
    left.set_ylim(-0.15, 2.6)
    left.axis("off")
    curves(right)


def main() -> None:
    """Draw one picture."""
    path = Path(__file__).resolve().parent / "plasticity-idea.svg"
    with matplotlib.style.context(["default", {"svg.fonttype": "path", "svg.hashsalt": path.name}]):
        canvas = Canvas(figsize=(10.5, 3.3), layout="constrained", facecolor="white")
        left, right = canvas.subplots(1, 2, width_ratios=(1, 1.35))
        draw(left, right)
        canvas.savefig(path, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(line.rstrip() for line in lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
