"""What all checks share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from holdfast.card.finding import Finding
from holdfast.card.settings import CheckSettings
from holdfast.card.target import Target


@dataclass(frozen=True)
class Check:
    """One question of a card.

    Arguments:
        name: of the probe, as on the command line.
        question: as a person asks it.
        seconds: that it takes on a small model; what is cheap goes first, and time is shared out by it.
        unfit: why it does not apply to a target, or an empty string.
        probe: the answer, from the target, the settings and the seconds it may take.
    """

    name: str
    question: str
    seconds: float
    unfit: Callable[[Target, CheckSettings], str]
    probe: Callable[[Target, CheckSettings, float], Finding]


class Drawable(Protocol):
    """A report that can be drawn."""

    def plot(self, ax: Any) -> None:
        """Draw it into Matplotlib axes."""


def picture(report: Drawable, name: str) -> str:
    """The report's picture as SVG for the inside of a page, in the page's own colours.

    Arguments:
        report: of a probe.
        name: of the probe, which starts the picture's ids.
    """
    from holdfast.lab.report.svg import draw

    def paint(axes: Any) -> list[dict[str, Any]]:
        report.plot(axes)
        return [{"drawn": True}]

    return draw(paint, f"card-{name}", f"picture of the probe {name}")[0]
