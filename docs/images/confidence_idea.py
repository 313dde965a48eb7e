"""Draw the two stages: a question alone, and the same question in a new conversation with a display and advice.

    python docs/images/confidence_idea.py

writes `docs/images/confidence-idea.svg`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import FancyBboxPatch

from holdfast.lab.report.svg import PALETTE

PLAIN, DARK = "#eef1f4", "#333333"


def box(axes: Axes, place: tuple[float, float], size: tuple[float, float], colour: str = PLAIN) -> None:
    """A rounded box by its lower left corner."""
    style: dict[str, Any] = {"boxstyle": "round,pad=0.02,rounding_size=0.12", "facecolor": colour, "edgecolor": "none"}
    axes.add_patch(FancyBboxPatch(place, *size, **style))


def words(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Text that begins at x."""
    look: dict[str, Any] = {"ha": "left", "va": "center", "fontsize": 9.5, "color": DARK, **style}
    axes.text(x, y, text, **look)


def question(axes: Axes, x: float, y: float) -> None:
    """The question that both stages ask."""
    words(axes, x, y, "Which is the latitude of Lima, Peru?")
    words(axes, x, y - 0.34, "A) 12.0° S    B) 20.0° S")


def draw(axes: Axes) -> None:
    """Both stages side by side, and what is compared."""
    box(axes, (0.0, 0.75), (3.7, 2.6))
    words(axes, 0.2, 3.1, "Stage 1", fontweight="bold")
    question(axes, 0.2, 2.65)
    words(axes, 0.2, 1.6, "A  with 82 %", color=PALETTE[0], fontweight="bold")
    words(axes, 0.2, 1.15, "first answer, log-odds L0 = 1.5", color="#555555")
    axes.annotate("", (4.75, 2.0), (3.85, 2.0), arrowprops={"arrowstyle": "-|>", "color": "#8a93a0", "linewidth": 1.6})
    words(axes, 4.3, 2.28, "forget", ha="center", color="#555555")
    box(axes, (4.9, 0.0), (6.9, 4.1))
    words(axes, 5.1, 3.85, "Stage 2, a new conversation", fontweight="bold")
    question(axes, 5.1, 3.4)
    displays = ("own answer shown:  A", "hidden:  xx", "said to be another model's:  A")
    for place, (text, colour) in enumerate(zip(displays, PALETTE, strict=False)):
        words(axes, 5.25, 2.5 - 0.33 * place, text, color=colour)
    advice = ("advice agrees:  A", "advice contradicts:  B", "advice masked:  xx")
    for place, text in enumerate(advice):
        words(axes, 8.9, 2.5 - 0.33 * place, text, color=DARK)
    words(axes, 8.9, 2.5 - 0.33 * 3, "adviser right in 60 … 90 %", color="#555555")
    words(axes, 8.42, 2.17, "×", fontsize=15, color="#555555", ha="center")
    words(axes, 5.1, 0.75, "A  with … %", color=PALETTE[0], fontweight="bold")
    words(
        axes, 5.1, 0.3, "log-odds L1 of that answer in every cell; their differences are the estimates", color="#555555"
    )
    axes.set_xlim(-0.1, 11.9)
    axes.set_ylim(-0.1, 4.2)
    axes.axis("off")


def main() -> None:
    """Draw one picture."""
    path = Path(__file__).resolve().parent / "confidence-idea.svg"
    with matplotlib.style.context(["default", {"svg.fonttype": "path", "svg.hashsalt": path.name}]):
        canvas = Canvas(figsize=(10.5, 3.6), facecolor="white")
        draw(canvas.add_axes((0.01, 0.01, 0.98, 0.98)))
        canvas.savefig(path, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(line.rstrip() for line in lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
