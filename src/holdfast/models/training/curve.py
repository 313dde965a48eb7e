"""Draws the curve of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def draw_curve(curve: list[dict[str, Any]], last: float, unit: str, path: Path) -> None:
    """Loss against steps.

    Arguments:
        curve: points that have a `step` and `training` or `validation`.
        last: validation loss in the end.
        unit: of the losses.
        path: picture to write.
    """
    import matplotlib.style
    from matplotlib.figure import Figure

    # "default" first: a matplotlibrc in the user's home changes nothing.
    with matplotlib.style.context(["default", {"svg.hashsalt": "curve"}]):
        figure = Figure(figsize=(6, 3.6), layout="constrained")
        axes = figure.subplots()
        for name, style in (("training", {"alpha": 0.6}), ("validation", {"marker": "o", "markersize": 3.5})):
            points = [(point["step"], point[name]) for point in curve if name in point]
            if points:
                axes.plot(*zip(*points, strict=True), label=name, **style)
        axes.axhline(last, color="0.6", linewidth=0.8)
        axes.set(xlabel="steps", ylabel=unit)
        axes.legend(frameon=False)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
