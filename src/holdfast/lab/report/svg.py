"""Pictures as inline SVG with the page's own font and ink, so that they suit light, dark and paper."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from holdfast.lab.report import text
from holdfast.lab.verdict import Evidence

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab.trial import Record

# Drawn in these two colours, replaced by the page's own afterwards.
INK = "#010203"
SURFACE = "#fdfefe"

# Each at least 3:1 against the light and the dark page, and told apart with the common colour deficiencies.
PALETTE = ("#2f7fc1", "#d8702a", "#26967a", "#a65fb5", "#b08a14", "#d1495b", "#7d858e")

STYLE: Mapping[str, Any] = {
    "figure.figsize": (5.2, 3.3),
    "figure.facecolor": "none",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "none",
    "savefig.edgecolor": "none",
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.04,
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": INK,
    "axes.facecolor": "none",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlepad": 9,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.xmargin": 0.03,
    "axes.ymargin": 0.09,
    "grid.color": INK,
    "grid.alpha": 0.13,
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.minor.width": 0.5,
    "ytick.minor.width": 0.5,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "errorbar.capsize": 2.5,
    "patch.edgecolor": INK,
    "hatch.color": INK,
    "boxplot.boxprops.color": INK,
    "boxplot.capprops.color": INK,
    "boxplot.whiskerprops.color": INK,
    "boxplot.flierprops.color": INK,
    "boxplot.flierprops.markeredgecolor": INK,
    "legend.fontsize": 9,
    "legend.facecolor": SURFACE,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.85,
    "legend.borderpad": 0.3,
    "legend.handlelength": 1.6,
}

_REFERENCE = re.compile(r"url\(#([^)]+)\)")


def draw(paint: Callable[[Axes], Sequence[Record]], prefix: str, label: str) -> tuple[str, list[Record]]:
    """Draw on fresh axes.

    Arguments:
        paint: draws and returns the rows that it drew.
        prefix: starts every id in the picture; unique on the page.
        label: what a screen reader says.

    Returns:
        The SVG element and the rows; the picture is empty where there are no rows.
    """
    import io

    import matplotlib.style
    from cycler import cycler
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style = {**STYLE, "axes.prop_cycle": cycler(color=PALETTE), "svg.hashsalt": prefix}
    # "default" first: a matplotlibrc in the user's home must not change the report.
    with matplotlib.style.context(["default", style]):
        figure = Figure()
        canvas = FigureCanvasSVG(figure)
        rows = list(paint(figure.add_subplot()))
        if not rows:
            return "", rows
        buffer = io.StringIO()
        canvas.print_figure(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return _inline(buffer.getvalue(), prefix, label), rows


def _inline(source: str, prefix: str, label: str) -> str:
    """Make a stand-alone SVG fit for the inside of an HTML page."""
    root = ElementTree.fromstring(source)
    for parent in list(root.iter()):
        for child in list(parent):
            # Matplotlib's <style> selects `*`, which would be the whole page; style.css says it for plots.
            if _local(child.tag) in ("style", "metadata"):
                parent.remove(child)
    _rename_ids(root, prefix)
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {_local(name): _recolour(value, name) for name, value in element.attrib.items()}
        if element.tag in ("text", "tspan"):
            element.text, element.tail = map(_without_folders, (element.text, element.tail))
        elif not (element.text or "").strip():
            element.text = None
        if not (element.tail or "").strip() and element.tag != "tspan":
            element.tail = None
    view = root.attrib["viewBox"]
    root.attrib = {"class": "plot", "viewBox": view, "role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode")


def _without_folders(words: str | None) -> str | None:
    return words and text.without_folders(words)


def _rename_ids(root: ElementTree.Element, prefix: str) -> None:
    """Number the ids that something refers to and drop the others: they would collide between pictures."""
    used: set[str] = set()
    for element in root.iter():
        for name, value in element.attrib.items():
            used.update(_REFERENCE.findall(value))
            if _local(name) == "href" and value.startswith("#"):
                used.add(value[1:])
    new: dict[str, str] = {}
    for element in root.iter():
        old = element.attrib.pop("id", None)
        if old in used and old not in new:
            new[old] = f"{prefix}-{len(new)}"
            element.attrib["id"] = new[old]
    for element in root.iter():
        for name, value in element.attrib.items():
            if _local(name) == "href" and value.startswith("#"):
                element.attrib[name] = f"#{new.get(value[1:], '')}"
            elif "url(#" in value:
                element.attrib[name] = _REFERENCE.sub(lambda m: f"url(#{new.get(m[1], '')})", value)


def _recolour(value: str, name: str) -> str:
    if name not in ("style", "fill", "stroke"):
        return value
    value = value.replace(INK, "currentColor").replace(SURFACE, "var(--surface)")
    return value.replace("stroke: #000000", "stroke: currentColor").replace("fill: #000000", "fill: currentColor")


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def renamed(drawn: str, prefix: str, other: str) -> str:
    """A picture whose ids start differently, so that it can stand on the page twice.

    Arguments:
        drawn: the SVG element.
        prefix: what its ids start with.
        other: what they start with afterwards.
    """
    return re.sub(rf'(id="|href="#|url\(#){re.escape(prefix)}-', lambda match: f"{match[1]}{other}-", drawn)


def reach(evidence: Evidence) -> tuple[float, float] | None:
    """Least and greatest of what a drawing of the evidence shows: effect, interval, seeds, threshold and zero.

    `None` where the effect is not finite.
    """
    if not math.isfinite(evidence.effect):
        return None
    spread = (evidence.low, evidence.high) if text.has_interval(evidence) else ()
    threshold = evidence.threshold if math.isfinite(evidence.threshold) else 0.0
    values = (0.0, threshold, evidence.effect, *spread, *evidence.points)
    return min(values), max(values)


def whisker(evidence: Evidence, label: str, scale: tuple[float, float]) -> str:
    """Effect and interval as a dot on a line, with a small dot for each seed, zero, and the claim's threshold.

    Arguments:
        evidence: what to draw; its effect is finite.
        label: what a screen reader says.
        scale: least and greatest value of the line.

    Returns:
        The SVG element.
    """
    spread = (evidence.low, evidence.high) if text.has_interval(evidence) else ()
    threshold = evidence.threshold if math.isfinite(evidence.threshold) else 0.0
    low, high = scale
    width, height, edge = 132, 22, 8
    unit = (width - 2 * edge) / (high - low) if high > low else 0.0

    def x(value: float) -> str:
        return f"{edge + (value - low) * unit if unit else width / 2:.1f}"

    svg = ElementTree.Element(
        "svg",
        {"class": "whisker", "viewBox": f"0 0 {width} {height}", "role": "img", "aria-label": label},
    )

    def line(kind: str, x1: str, y1: int, x2: str, y2: int) -> None:
        ElementTree.SubElement(svg, "line", {"class": kind, "x1": x1, "y1": str(y1), "x2": x2, "y2": str(y2)})

    middle = height // 2
    line("base", "0", middle, str(width), middle)
    line("zero", x(0.0), 1, x(0.0), height - 1)
    if threshold:
        line("threshold", x(threshold), 1, x(threshold), height - 1)
    if spread:
        line("range", x(spread[0]), middle, x(spread[1]), middle)
        for end in spread:
            line("range", x(end), middle - 4, x(end), middle + 4)
    for point in evidence.points:
        ElementTree.SubElement(svg, "circle", {"class": "seed", "cx": x(point), "cy": str(middle + 7), "r": "1.7"})
    known = spread or text.is_exact(evidence)
    dot = {"class": "dot" if known else "dot open", "cx": x(evidence.effect), "cy": str(middle), "r": "4"}
    ElementTree.SubElement(svg, "circle", dot)
    return ElementTree.tostring(svg, encoding="unicode")
