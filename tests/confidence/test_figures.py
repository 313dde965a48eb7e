"""Pictures show the numbers of the analysis, and say where there are none."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from holdfast.confidence import PRESETS, Analysis, Observer, analyze, figures, simulate
from tests.confidence.test_choices import bare

DRAWN = [
    figures.plot_change_of_mind,
    figures.plot_confidence_change,
    figures.plot_updates,
    figures.plot_reliability,
    figures.plot_ownership,
]


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return analyze(simulate(PRESETS["both"], 60), resamples=100)


@pytest.fixture
def axes() -> Axes:
    return Figure().subplots()


@pytest.mark.parametrize("plot", DRAWN)
def test_pictures_have_axes_with_names_and_can_be_rendered(plot, analysis: Analysis, axes: Axes) -> None:
    plot(analysis, axes)
    assert axes.get_ylabel()
    axes.figure.draw_without_rendering()


def test_bars_are_as_high_as_the_shares(analysis: Analysis, axes: Axes) -> None:
    figures.plot_change_of_mind(analysis, axes)
    heights = sorted(bar.get_height() for bar in axes.patches)
    rates = sorted(100 * cell.change_of_mind.value for cell in analysis.cells if cell.accuracy is None)
    assert heights == pytest.approx(rates)
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["opposite advice", "same advice", "neutral advice"]


def test_confidence_falls_under_contradiction(analysis: Analysis, axes: Axes) -> None:
    figures.plot_confidence_change(analysis, axes)
    means = {(c.display, c.advice): c.probability_change for c in analysis.cells if c.accuracy is None}
    assert sorted(bar.get_height() for bar in axes.patches) == pytest.approx(sorted(means.values()))
    assert means["hidden", "opposite"] < 0 < means["shown", "neutral"]


def test_updates_lie_on_the_diagonal_of_an_ideal_observer(axes: Axes) -> None:
    analysis = analyze(simulate(Observer(noise=0), 60), resamples=100)
    figures.plot_updates(analysis, axes)
    points = np.concatenate([line.get_xydata() for line in axes.lines if line.get_marker() == "o"])
    assert len(points) == 12
    assert points[:, 1] * analysis.temperature.value == pytest.approx(points[:, 0], abs=1e-9)


def test_ownership_has_three_bars(analysis: Analysis, axes: Axes) -> None:
    figures.plot_ownership(analysis, axes)
    own, other, difference = (bar.get_height() for bar in axes.patches)
    assert own - other == pytest.approx(difference, abs=1e-9)


@pytest.mark.parametrize("plot", DRAWN[1:])
def test_bare_choices_have_no_such_picture(plot, axes: Axes) -> None:
    analysis = analyze(bare(Observer(noise=1.0, bias=1.0), 40), resamples=50)
    plot(analysis, axes)
    assert not axes.patches
    assert axes.texts
