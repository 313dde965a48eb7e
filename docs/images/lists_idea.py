"""Draw what filter equivariance means: deleting a value before the function or after it makes no difference.

    python docs/images/lists_idea.py

writes `docs/images/lists-idea.svg`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from holdfast.lab.report.svg import PALETTE
from holdfast.lists.functions import rotate_left

XS, DROPPED = [3, 1, 2, 1], 3
STEP = 0.62
COLOURS = {1: PALETTE[0], 2: PALETTE[2], 3: PALETTE[1]}


def tiles(axes: Axes, xs: Sequence[int], left: float, y: float) -> None:
    """A list as a row of coloured squares."""
    for i, x in enumerate(xs):
        box = {"boxstyle": "round,pad=0.3", "facecolor": COLOURS[x], "edgecolor": "none"}
        axes.text(left + STEP * i, y, str(x), ha="center", va="center", color="white", fontsize=12, bbox=box)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], label: str, *, beside: bool) -> None:
    """An arrow with its name above it or beside it."""
    style = {"arrowstyle": "-|>", "color": "#555555", "linewidth": 1.4}
    axes.annotate("", end, start, arrowprops=style)
    x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    if beside:
        axes.text(x + 0.12, y, label, va="center", fontsize=10, color="#333333")
    else:
        axes.text(x, y + 0.12, label, ha="center", va="bottom", fontsize=10, color="#333333")


def square(axes: Axes, name: str, f: Callable[[list[int]], list[int]]) -> None:
    """The two ways round: function then deletion, deletion then function."""
    kept = [x for x in XS if x != DROPPED]
    answer = list(f(XS))
    expected, got = [x for x in answer if x != DROPPED], list(f(kept))
    right = 4.6
    tiles(axes, XS, 0.0, 2.0)
    tiles(axes, answer, right, 2.0)
    tiles(axes, kept, 0.0, 0.4)
    tiles(axes, expected, right, 0.4)
    arrow(axes, (STEP * 3 + 0.5, 2.0), (right - 0.5, 2.0), name, beside=False)
    arrow(axes, (STEP * 2 + 0.5, 0.4), (right - 0.5, 0.4), name, beside=False)
    arrow(axes, (0.5, 1.65), (0.5, 0.78), f"delete {DROPPED}", beside=True)
    arrow(axes, (right + 0.5, 1.65), (right + 0.5, 0.78), f"delete {DROPPED}", beside=True)
    if got == expected:
        verdict, colour = "both ways agree: the answer only loses the 3", "#1a7f37"
    else:
        verdict, colour = f"but {name} of the shorter list is {' '.join(map(str, got))}", "#b42318"
    axes.text(right / 2 + 0.9, -0.45, verdict, ha="center", va="center", fontsize=11, color=colour)
    axes.set_xlim(-0.5, right + 4 * STEP)
    axes.set_ylim(-0.8, 2.5)
    axes.axis("off")


def main() -> None:
    """Draw both squares side by side."""
    path = Path(__file__).resolve().parent / "lists-idea.svg"
    with matplotlib.style.context(["default", {"svg.fonttype": "path", "svg.hashsalt": path.name}]):
        canvas = Canvas(figsize=(10.5, 2.6), layout="constrained", facecolor="white")
        left, right = canvas.subplots(1, 2)
        square(left, "sort", sorted)
        square(right, "rotate", rotate_left)
        canvas.savefig(path, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(line.rstrip() for line in lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
