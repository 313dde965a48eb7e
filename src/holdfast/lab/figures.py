"""What the figures of studies share: means over seeds with their intervals, axes of sizes, and legends."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

GREY = "#7d858e"
"""For what stands beside the data: a limit, a figure of the paper."""


class SeedMean(NamedTuple):
    """A mean over seeds at one place of the x axis, with its 95 % t interval; one seed has no width."""

    x: float
    mean: float
    low: float
    high: float
    seeds: int


SHARE = (0.0, 1.0)
"""Bounds of a share of cases."""


def seed_mean(values: Sequence[float], x: float = 0.0, bounds: tuple[float, float] | None = None) -> SeedMean:
    """The mean over seeds with its interval.

    Arguments:
        values: one a seed, at least one.
        x: where it stands.
        bounds: least and greatest value that is possible: the interval goes no further.
    """
    import numpy as np
    from scipy import stats

    array = np.asarray(values, dtype=np.float64)
    mean, count = float(array.mean()), len(array)
    half = float(stats.t.ppf(0.975, count - 1) * array.std(ddof=1) / math.sqrt(count)) if count > 1 else 0.0
    low, high = bounds or (-math.inf, math.inf)
    return SeedMean(x, mean, max(low, mean - half), min(high, mean + half), count)


def draw_over_seeds(
    axes: Axes,
    values: Mapping[Any, Sequence[float]],
    *,
    band: bool = False,
    dots: bool = False,
    bounds: tuple[float, float] | None = None,
    **style: Any,
) -> list[SeedMean]:
    """Draw a line through the means over seeds.

    Arguments:
        axes: to draw on.
        values: for each place of the x axis, in order, one value a seed; places without any are left out.
        band: show the intervals as a band.
        dots: show the seeds as faint dots.
        bounds: least and greatest value that is possible, such as `SHARE`.
        style: of the line, for `Axes.plot`; band and dots take its colour.

    Returns:
        The means that were drawn.
    """
    points = [seed_mean(here, x, bounds) for x, here in values.items() if here]
    if not points:
        return []
    xs = [point.x for point in points]
    (line,) = axes.plot(xs, [point.mean for point in points], **style)
    colour = line.get_color()
    if dots:
        places = [x for x, here in values.items() for _ in here]
        axes.plot(
            places, [value for here in values.values() for value in here], ".", color=colour, alpha=0.35, markersize=4
        )
    if band:
        lows, highs = [point.low for point in points], [point.high for point in points]
        axes.fill_between(xs, lows, highs, color=colour, alpha=0.18, linewidth=0)
    return points


def size_axis(axes: Axes, sizes: Sequence[int], label: str) -> None:
    """A logarithmic x axis with a tick at every size, or at every other of more than eight.

    Arguments:
        axes: whose x axis.
        sizes: ascending; may be empty.
        label: what a size is.
    """
    axes.set_xscale("log", base=2)
    if sizes:
        shown = sizes[:: 1 if len(sizes) <= 8 else 2]
        axes.set_xticks(shown, [str(n) for n in shown])
        axes.set_xticks([], minor=True)
    axes.set_xlabel(label)


def legend(axes: Axes, *, columns: int = 0) -> None:
    """A legend, unless nothing was drawn: the last thing to draw.

    Arguments:
        axes: whose lines.
        columns: put it below the axes in so many columns; 0: inside, if there it covers nothing that was drawn, and
            otherwise below in two columns.
    """
    if not axes.get_legend_handles_labels()[0]:
        return
    if not columns:
        from matplotlib.transforms import Bbox

        inside = axes.legend(frameon=False, fontsize="small")
        axes.figure.canvas.figure.draw_without_rendering()  # only then it has a place
        box = Bbox(inside.get_window_extent().get_points())
        covered = any(_meets(artist, box) for artist in (*axes.lines, *axes.collections, *axes.patches))
        if not covered:
            return
        inside.remove()
    axes.legend(frameon=False, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=columns or BELOW)


BELOW = 2
"""Columns of a legend that found no place inside."""


def _meets(artist: Artist, box: Bbox) -> bool:
    """Whether something drawn reaches into a box, in pixels."""
    from matplotlib.collections import Collection
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if isinstance(artist, Line2D):
        path = artist.get_path().transformed(artist.get_transform())
        ink = artist.get_linestyle() not in ("None", "", " ")
        return bool(ink and path.intersects_bbox(box, filled=False)) or bool(box.count_contains(path.vertices))
    if isinstance(artist, Patch):
        return bool(artist.get_window_extent().overlaps(box))
    if isinstance(artist, Collection):
        offsets = artist.get_offset_transform().transform(artist.get_offsets())
        if len(offsets) > 1 and box.count_contains(offsets):
            return True
        paths = (path.transformed(artist.get_transform()) for path in artist.get_paths())
        return len(offsets) <= 1 and any(path.intersects_bbox(box) for path in paths)
    return False
