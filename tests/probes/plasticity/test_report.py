"""What the probe says, by its table of remedies, on ratios made by hand."""

from __future__ import annotations

import json
import math

import matplotlib
import pytest

from holdfast.probes.plasticity import ActivationState, FeatureChange, LayerMetrics, LayerState, PlasticityReport
from holdfast.probes.plasticity.learning_speed import SpeedRatio
from holdfast.probes.plasticity.report import Curves

matplotlib.use("agg")


def ratio(value: float, half: float = 0.02) -> SpeedRatio:
    return SpeedRatio(value, (value - half, value + half), 0.1, 0.5, (value,))


def report(
    peak: SpeedRatio | None, current: SpeedRatio | None = None, restored: SpeedRatio | None = None
) -> PlasticityReport:
    metrics = LayerMetrics("relu", 9, 4, 0.25, math.nan, 3.0, 2.5, 1.5)
    change = FeatureChange(250, math.nan, 3.0, 0.25)
    return PlasticityReport(
        peak=peak,
        current=current,
        restored=restored,
        twins=(0.95, 1.05),
        twin_loss=0.7 if peak is None else 0.1,
        constant=2.3,
        projected=False,
        steps=250,
        examples=500,
        draws=3,
        layers={"0": LayerState(4.0, 2.0, 0.01, 0.02)},
        activations={"1": ActivationState(metrics, metrics, change, change)},
        elr_spread=3.0,
        elr_spread_fresh=math.nan,
        curves=Curves((1.0, 0.5), None if current is None else (1.0, 0.9), None, ((1.0, 0.4), (1.1, math.inf))),
    )


CASES = {
    "none": (report(ratio(0.97)), "No loss of plasticity", "do nothing"),
    "none now": (report(ratio(0.97), ratio(0.85)), "0.85 [0.83, 0.87] at the current rate", "do nothing"),
    "rewarm": (report(ratio(1.03), ratio(0.07)), "The learning rate has become too low", "Rewarm"),
    "project": (report(ratio(0.39), ratio(0.3), ratio(0.9)), "Plasticity is lost", "Projector"),
    "reset": (report(ratio(0.02), None, ratio(0.02)), "Plasticity is lost", "ReDo"),
    "reset held": (report(ratio(0.5)), "Plasticity is lost", "ReDo"),
    "more draws": (report(ratio(0.75, 0.1)), "Not told", "more draws"),
    "more draws now": (report(ratio(0.9), ratio(0.7, 0.2)), "Not told", "more draws"),
    "more steps": (report(None), "Too short to tell: in 250 steps fresh networks came to 70%", "more steps"),
}


@pytest.mark.parametrize("name", CASES)
def test_each_case_has_its_remedy(name):
    found, *words = CASES[name]
    assert name.startswith(found.remedy)
    assert all(word in found.verdict for word in words)
    assert found.verdict.count(". ") == 0
    assert " ".join(str(found).split()).startswith(found.verdict)


def test_one_draw_has_no_interval_and_still_a_verdict():
    alone = SpeedRatio(0.4, (math.nan, math.nan), 0.1, 0.5, (0.4,))
    assert report(alone).remedy == "reset"
    assert "nan" not in str(report(alone))


def test_the_report_is_plain_data_and_a_picture():
    from matplotlib.figure import Figure

    found = report(ratio(0.39), None, ratio(0.9))
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (plain["remedy"], plain["peak"]["ratio"], plain["current"]) == ("project", 0.39, None)
    assert plain["activations"]["1"]["now"]["dead"] is None
    assert plain["curves"]["twins"][1][1] is None
    ax = Figure().subplots()
    found.plot(ax)
    assert [line.get_label() for line in ax.lines][:1] == ["fresh networks"]
    assert ax.get_ylim()[1] == pytest.approx(1.15 * 1.1)
    for column in ("srank", "ELR", "dormant"):
        assert column in str(found)
        assert column in found.explain()
