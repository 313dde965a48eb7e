"""Draw what a query of RAT sees: its own running state, and the last state of every chunk before its own.

    python docs/images/rat_idea.py

writes `docs/images/rat-idea.svg`.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from holdfast.lab.report.svg import PALETTE

CHUNK, CHUNKS, QUERY = 4, 4, 14
GAP = 0.55
TOKEN, STATE = 0.0, 1.15
PLAIN, CLOSED, OWN = "#c9ced6", PALETTE[0], PALETTE[1]


def place(token: int) -> float:
    """Where a token stands: chunks are apart."""
    return token + GAP * (token // CHUNK)


def dot(axes: Axes, x: float, y: float, label: str, colour: str, *, dark: bool = False) -> None:
    """A token or a state."""
    box = {"boxstyle": "circle,pad=0.28", "facecolor": colour, "edgecolor": "none"}
    axes.text(x, y, label, ha="center", va="center", fontsize=9, color="white" if dark else "#333333", bbox=box)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str, *, bend: float = 0.0) -> None:
    """From what is read to what reads it."""
    style = {
        "arrowstyle": "-|>",
        "color": colour,
        "linewidth": 1.3,
        "shrinkA": 9,
        "shrinkB": 9,
        "connectionstyle": f"arc3,rad={bend}",
    }
    axes.annotate("", end, start, arrowprops=style)


def draw(axes: Axes) -> None:
    """Tokens below, running states above them, and what one query sees."""
    own_chunk = QUERY // CHUNK
    for token in range(CHUNK * CHUNKS):
        x, chunk = place(token), token // CHUNK
        last = token % CHUNK == CHUNK - 1 and chunk < own_chunk
        colour = OWN if token == QUERY else CLOSED if last else PLAIN
        dot(axes, x, TOKEN, str(token), PLAIN)
        dot(axes, x, STATE, " ", colour)
        arrow(axes, (x, TOKEN), (x, STATE), "#8a93a0")
        if token % CHUNK:
            arrow(axes, (place(token - 1), STATE), (x, STATE), "#8a93a0")
        if last:
            arrow(axes, (x, STATE), (place(QUERY), STATE + 1.5), CLOSED, bend=-0.12)
    dot(axes, place(QUERY), STATE + 1.5, f"query {QUERY}", "#333333", dark=True)
    arrow(axes, (place(QUERY), STATE), (place(QUERY), STATE + 1.5), OWN)
    for chunk in range(CHUNKS):
        middle = (place(chunk * CHUNK) + place(chunk * CHUNK + CHUNK - 1)) / 2
        axes.text(middle, -0.62, f"chunk {chunk}", ha="center", va="center", fontsize=10, color="#555555")
    axes.text(-0.9, TOKEN, "tokens", ha="right", va="center", fontsize=10, color="#555555")
    axes.text(-0.9, STATE, "running\nstates", ha="right", va="center", fontsize=10, color="#555555")
    axes.text(
        1.2,
        STATE + 1.55,
        "attention reads the last state of every earlier chunk\nand the running state at the query's own token",
        ha="left",
        va="center",
        fontsize=10,
        color="#333333",
    )
    axes.set_xlim(-2.6, place(CHUNK * CHUNKS - 1) + 0.8)
    axes.set_ylim(-0.95, STATE + 2.0)
    axes.axis("off")


def main() -> None:
    """Draw one picture."""
    path = Path(__file__).resolve().parent / "rat-idea.svg"
    with matplotlib.style.context(["default", {"svg.fonttype": "path", "svg.hashsalt": path.name}]):
        canvas = Canvas(figsize=(10.5, 3.1), layout="constrained", facecolor="white")
        draw(canvas.subplots())
        canvas.savefig(path, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(line.rstrip() for line in lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
