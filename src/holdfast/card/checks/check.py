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
        failure: what is wrong where it fails, in a few words that somebody understands who knows no probe by name.
    """

    name: str
    question: str
    seconds: float
    unfit: Callable[[Target, CheckSettings], str]
    probe: Callable[[Target, CheckSettings, float], Finding]
    failure: str = ""


class Drawable(Protocol):
    """A report that can be drawn."""

    def plot(self, ax: Any) -> None:
        """Draw it into Matplotlib axes."""


def picture(report: Drawable, name: str, title: str = "", x: str = "", y: str = "") -> str:
    """The report's picture as SVG for the inside of a page, in the page's own colours.

    Arguments:
        report: of a probe.
        name: of the probe, which starts the picture's ids.
        title: words above the picture, where the report's own are for experts.
        x: likewise, below it.
        y: likewise, beside it.
    """
    from holdfast.lab.figures import tell_apart
    from holdfast.lab.report.svg import draw

    def paint(axes: Any) -> list[dict[str, Any]]:
        report.plot(axes)
        axes.set(**{key: words for key, words in (("title", title), ("xlabel", x), ("ylabel", y)) if words})
        axes.figure.draw_without_rendering()  # only then lines have a place
        tell_apart(axes)
        if axes.get_legend() is not None and any(line.is_dashed() for line in axes.lines):
            # Samples are broken as their lines are.
            axes.legend(fontsize=axes.get_legend().get_texts()[0].get_fontsize(), handlelength=3.0)
        return [{"drawn": True}]

    return draw(paint, f"card-{name}", f"picture of the probe {name}")[0]
