"""Means over seeds, axes of sizes and legends."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure
from scipy import stats

from holdfast.lab.figures import SHARE, draw_over_seeds, legend, seed_mean, size_axis


def test_the_interval_is_that_of_student() -> None:
    values = [0.2, 0.5, 0.4, 0.9]
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    point = seed_mean(values, 16)
    assert (point.x, point.seeds) == (16, 4)
    assert (point.mean, point.low, point.high) == pytest.approx((0.5, expected.low, expected.high))
    assert seed_mean([0.3]) == (0.0, 0.3, 0.3, 0.3, 1)


def test_a_line_goes_through_the_means_and_leaves_out_places_without_seeds() -> None:
    axes = Figure().subplots()
    points = draw_over_seeds(axes, {1: [0.0, 1.0], 2: [], 4: [0.5]}, dots=True, band=True, label="arm")
    assert [(point.x, point.mean, point.seeds) for point in points] == [(1, 0.5, 2), (4, 0.5, 1)]
    line, dots = axes.lines
    assert dots.get_color() == line.get_color()
    assert dots.get_xydata().tolist() == [[1, 0], [1, 1], [4, 0.5]]
    assert line.get_xydata().tolist() == [[1, 0.5], [4, 0.5]]
    assert len(axes.collections) == 1
    assert axes.get_legend_handles_labels()[1] == ["arm"]


def test_nothing_leaves_no_trace() -> None:
    axes = Figure().subplots()
    assert draw_over_seeds(axes, {1: []}, dots=True, band=True, color="C1", label="arm") == []
    legend(axes, columns=2)
    size_axis(axes, [], "items n")
    assert not axes.lines
    assert axes.get_legend() is None


@pytest.mark.parametrize(("count", "every"), [(3, 1), (8, 1), (9, 2)])
def test_many_sizes_are_thinned(count: int, every: int) -> None:
    axes = Figure().subplots()
    size_axis(axes, [2**k for k in range(count)], "items n")
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [str(2**k) for k in range(0, count, every)]
    assert axes.get_xlabel() == "items n"


def test_an_interval_of_shares_stays_within_what_is_possible_and_holds_its_mean() -> None:
    wide = seed_mean([0.8, 1.0, 1.0])
    point = seed_mean([0.8, 1.0, 1.0], bounds=SHARE)
    assert wide.high > 1.0
    assert (point.mean, point.low, point.high) == (wide.mean, wide.low, 1.0)
    rounded = seed_mean([-4e-16, 0.0, 0.0], bounds=SHARE)
    assert rounded.low <= rounded.mean <= rounded.high


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_lines_that_lie_on_others_are_broken(scale: str) -> None:
    axes = Figure().subplots()
    axes.set_yscale(scale)
    places = {x: [float(x)] for x in range(1, 6)}
    for factor, label in ((1.0, "first"), (1.0, "on it"), (3.0, "apart"), (1.001, "on both")):
        draw_over_seeds(axes, {x: [factor * y for y in here] for x, here in places.items()}, label=label, dots=True)
    legend(axes)
    dashes = {line.get_label(): line.get_linestyle() for line in axes.lines if not line.get_label().startswith("_")}
    assert dashes["first"] == dashes["apart"] == "-"
    shown = dict(zip(axes.get_legend_handles_labels()[1], axes.get_legend().legend_handles, strict=True))
    assert dashes["on it"] != "-"
    assert shown["on it"].get_linestyle() != "-", "the legend shows it"
    patterns = [line._dash_pattern for line in axes.lines if line.get_label() in ("on it", "on both")]
    assert patterns[0] != patterns[1]


def test_lines_keep_their_dashes_where_these_say_something() -> None:
    axes = Figure().subplots()
    places = {x: [float(x)] for x in range(5)}
    for label, style in (("hybrid", "--"), ("first", "-"), ("second", "-")):
        draw_over_seeds(axes, places, label=label, linestyle=style)
    legend(axes)
    assert [line.get_linestyle() for line in axes.lines] == ["--", "-", "-"]


def test_a_legend_covers_no_words() -> None:
    axes = Figure().subplots()
    draw_over_seeds(axes, {0: [0.0], 1: [1.0]}, label="line")
    legend(axes)
    inside = axes.get_legend().get_window_extent()
    axes.get_legend().remove()
    middle = axes.transAxes.inverted().transform(inside.get_points().mean(axis=0))
    axes.text(*middle, "words", transform=axes.transAxes)
    legend(axes)
    outside = axes.get_legend()
    axes.figure.draw_without_rendering()
    assert not outside.get_window_extent().overlaps(axes.texts[0].get_window_extent())


@pytest.mark.parametrize("width", [7.0, 3.5])
def test_a_legend_takes_no_more_columns_than_the_figure_is_wide(width: float) -> None:
    figure = Figure(figsize=(width, 3.0), layout="constrained")
    axes = figure.subplots()
    for number in range(6):
        draw_over_seeds(axes, {0: [0.0], 1: [float(number)]}, label=f"a line with a long name, {number}")
    legend(axes, columns=3)
    figure.draw_without_rendering()
    assert axes.get_legend().get_window_extent().width <= figure.bbox.width
    assert axes.get_window_extent().width > figure.bbox.width / 2
