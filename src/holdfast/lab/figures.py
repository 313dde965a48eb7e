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
        bounds: least and greatest value that is possible: the interval goes no further. It misses the true mean no more
            often for it, as that lies within the bounds.
    """
    import numpy as np
    from scipy import stats

    array = np.asarray(values, dtype=np.float64)
    mean, count = float(array.mean()), len(array)
    half = float(stats.t.ppf(0.975, count - 1) * array.std(ddof=1) / math.sqrt(count)) if count > 1 else 0.0
    low, high = bounds or (-math.inf, math.inf)
    # Rounding can leave a mean of zeros just below zero: an interval holds its mean all the same.
    return SeedMean(x, mean, min(mean, max(low, mean - half)), max(mean, min(high, mean + half)), count)


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
    """A legend, unless nothing was drawn: the last thing to draw. Lines that lie on others are broken first.

    Arguments:
        axes: whose lines.
        columns: put it below the axes in so many columns, or fewer where these are too wide; 0: inside, if there it
            covers nothing that was drawn, and otherwise below in two columns.
    """
    if not axes.get_legend_handles_labels()[0]:
        return
    tell_apart(axes)
    if not columns:
        from matplotlib.transforms import Bbox

        inside = axes.legend(**LOOK)
        axes.figure.canvas.figure.draw_without_rendering()  # only then it has a place
        box = Bbox(inside.get_window_extent().get_points())
        drawn = (*axes.lines, *axes.collections, *axes.patches, *axes.texts)
        covered = any(_meets(artist, box) for artist in drawn)
        if not covered:
            return
        inside.remove()
    for number in range(columns or BELOW, 0, -1):
        below = axes.legend(**LOOK, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=number)
        if below.get_window_extent().width <= WIDEST * axes.figure.canvas.figure.bbox.width:
            return


LOOK: dict[str, Any] = {"frameon": False, "fontsize": "small", "handlelength": 3.0}
"""Of legends; shorter samples hide behind a marker whether a line is broken."""

BELOW = 2
"""Columns of a legend that found no place inside."""
WIDEST = 0.9
"""Share of the figure's width that a legend may take: the layout would make the axes narrow for the sake of more."""

BROKEN = ((0, (5, 4)), (0, (1, 3)))
"""Dashes of the first and of further lines that lie on another, so that this one shows in the gaps."""
TOUCHING, MOSTLY = 1.5, 0.6
"""Lines closer than so many points, at this share of their places, lie on each other."""


def tell_apart(axes: Axes) -> None:
    """Break lines that lie on others drawn before them, unless there are broken lines already, which say something.

    Arguments:
        axes: with all lines and in their final scales; lines with a label and at least three places count.
    """
    import numpy as np

    lines = [line for line in axes.lines if not str(line.get_label()).startswith("_") and np.size(line.get_xdata()) > 2]
    lines = [line for line in lines if line.get_linestyle() not in ("None", "", " ")]
    if any(line.get_linestyle() != "-" for line in lines):
        return
    places = [
        line.get_transform().transform(np.column_stack([line.get_xdata(), line.get_ydata()]).astype(np.float64))
        for line in lines
    ]
    near = TOUCHING * axes.figure.dpi / 72
    for number, (line, here) in enumerate(zip(lines, places, strict=True)):
        below = 0
        for there in places[:number]:
            if len(here) == len(there) and np.allclose(here[:, 0], there[:, 0]):
                below += bool((np.abs(here[:, 1] - there[:, 1]) < near).mean() >= MOSTLY)
        if below:
            line.set_linestyle(BROKEN[min(below, len(BROKEN)) - 1])


def _meets(artist: Artist, box: Bbox) -> bool:
    """Whether something drawn reaches into a box, in pixels."""
    from matplotlib.collections import Collection
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.text import Text

    if isinstance(artist, Line2D):
        path = artist.get_path().transformed(artist.get_transform())
        ink = artist.get_linestyle() not in ("None", "", " ")
        return bool(ink and path.intersects_bbox(box, filled=False)) or bool(box.count_contains(path.vertices))
    if isinstance(artist, Patch | Text):
        return bool(artist.get_window_extent().overlaps(box))
    if isinstance(artist, Collection):
        offsets = artist.get_offset_transform().transform(artist.get_offsets())
        if len(offsets) > 1 and box.count_contains(offsets):
            return True
        paths = (path.transformed(artist.get_transform()) for path in artist.get_paths())
        return len(offsets) <= 1 and any(path.intersects_bbox(box) for path in paths)
    return False
