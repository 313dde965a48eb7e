"""Means over seeds, axes of sizes and legends."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure
from scipy import stats

from holdfast.lab.figures import draw_over_seeds, legend, seed_mean, size_axis


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
