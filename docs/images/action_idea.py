"""Draw the token stream of an action model: where the action is read, and where the reward enters.

    python docs/images/action_idea.py

writes `docs/images/action-idea.svg`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import FancyBboxPatch

from holdfast.lab.report.svg import PALETTE

TIMESTEPS, GAP = 3, 0.7
TOKEN, STATE, ACTION = 0.0, 1.25, 2.5
PLAIN, GREY, DARK = "#c9ced6", "#8a93a0", "#333333"
READ, ANSWER = PALETTE[0], PALETTE[1]
NAMES = ("s", "\\hat{R}", "r")
"""Of the tokens of a timestep: state, return-to-go, reward."""


def place(timestep: int, token: int) -> float:
    """Where a token stands: timesteps are apart."""
    return timestep * (len(NAMES) + GAP) + token


def dot(axes: Axes, x: float, y: float, label: str, colour: str, *, dark: bool = False) -> None:
    """A token, a state or an action."""
    box = {"boxstyle": "circle,pad=0.3", "facecolor": colour, "edgecolor": "none"}
    axes.text(x, y, label, ha="center", va="center", fontsize=10, color="white" if dark else DARK, bbox=box)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str, **style: Any) -> None:
    """From what is read to what reads it."""
    look = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.4, "shrinkA": 11, "shrinkB": 11, **style}
    axes.annotate("", end, start, arrowprops=look)


def words(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Text around a point."""
    axes.text(x, y, text, **{"ha": "center", "va": "center", "fontsize": 10, "color": "#555555", **style})


def draw(axes: Axes) -> None:
    """Tokens below, the state above them, actions on top, and what one step of control reads."""
    read, reward = 1, 2
    for timestep in range(TIMESTEPS):
        for token, name in enumerate(NAMES):
            x = place(timestep, token)
            dot(axes, x, TOKEN, f"${name}_{timestep + 1}$", ANSWER if token == reward else PLAIN, dark=token == reward)
            dot(axes, x, STATE, "  ", READ if token == read else PLAIN)
            arrow(axes, (x, TOKEN), (x, STATE), GREY)
            if token or timestep:
                before = place(timestep, token - 1) if token else place(timestep - 1, reward)
                arrow(axes, (before, STATE), (x, STATE), GREY)
        decided = place(timestep, read)
        dot(axes, decided, ACTION, f"$a_{timestep + 1}$", READ, dark=True)
        arrow(axes, (decided, STATE), (decided, ACTION), READ)
        arrow(axes, (decided, ACTION), (place(timestep, reward), TOKEN), ANSWER, linestyle="--")
    begin, end = place(0, reward) - 0.45, place(1, read) + 0.45
    chunk: dict[str, Any] = {"boxstyle": "round,pad=0,rounding_size=0.2", "facecolor": "none", "edgecolor": DARK}
    axes.add_patch(FancyBboxPatch((begin, TOKEN - 0.5), end - begin, 1.0, linewidth=1.2, linestyle=":", **chunk))
    words(axes, (begin + end) / 2, TOKEN - 0.85, "the second step of control reads these three tokens at once")
    left = place(0, 0) - 0.7
    words(axes, left, TOKEN, "tokens", ha="right")
    words(axes, left, STATE, "xLSTM,\nits state", ha="right")
    words(axes, left, ACTION, "actions", ha="right")
    right = place(TIMESTEPS - 1, reward) + 0.55
    notes = (
        (ACTION, "read at the return-to-go", READ),
        (STATE, "as large after an hour\nas after a second", DARK),
        (TOKEN, "the environment's answer:\nit reaches the next action", ANSWER),
    )
    for y, note, colour in notes:
        words(axes, right, y, note, ha="left", color=colour)
    axes.set_xlim(left - 1.2, right + 3.1)
    axes.set_ylim(TOKEN - 1.1, ACTION + 0.5)
    axes.axis("off")


def main() -> None:
    """Draw one picture."""
    path = Path(__file__).resolve().parent / "action-idea.svg"
    with matplotlib.style.context(["default", {"svg.fonttype": "path", "svg.hashsalt": path.name}]):
        canvas = Canvas(figsize=(10.5, 3.3), layout="constrained", facecolor="white")
        draw(canvas.subplots())
        canvas.savefig(path, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(line.rstrip() for line in lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
