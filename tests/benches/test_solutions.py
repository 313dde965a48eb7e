"""What is told of the cost of power-propagation and second-order steps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.benches.solutions import step
from holdfast.errors import ArgumentError

TIMES = {
    "adamw-foreach": [10.0, 20.0],
    "adamw-fused": [5.0, 5.0],
    "sgd": [2.0, 2.0],
    "powerprop-adamw 2": [15.0, 30.0],
    "powerprop-adamw 4": [17.0, 34.0],
    "powerprop-fused-adamw": [12.5, 12.5],
    "powerprop-sgd": [8.0, 8.0],
    "muon": [100.0, 200.0],
    "training": [1000.0, 2000.0],
    "training-powerprop": [1050.0, 2100.0],
}


def test_every_arm_steps():
    report = step.run(replace(step.TOY, device="cpu"), lambda row: None)
    assert {"adamw-foreach", "powerprop-adamw 3", "powerprop-sgd", "muon", "training-powerprop"} <= {
        row["arm"] for row in report.rows
    }
    assert all(row["ms"] > 0 for row in report.rows)
    assert "aim" not in report.headline


def test_ratios_are_taken_within_a_round():
    words, number = step.summary(step.rows_of(TIMES), aims=True)
    assert number == pytest.approx(1.7)
    assert words.startswith("PowerProp(AdamW) takes 1.70 steps of foreach AdamW (aim 1.8), ")
    assert "powerprop-fused-adamw 2.50 of adamw-fused's, powerprop-sgd 4.00 of sgd's, " in words
    assert words.endswith("training ResNet-18 with it 1.05 of training with AdamW (aim 1.1), muon 10.0")
    slow = step.rows_of({**TIMES, "powerprop-adamw 4": [20.0, 40.0]})
    assert "(aim 1.8, missed)" in step.summary(slow, aims=True)[0]
    long = step.rows_of({**TIMES, "training-powerprop": [1200.0, 2400.0]})
    assert "1.20 of training with AdamW (aim 1.1, missed)" in step.summary(long, aims=True)[0]
    assert step.summary([], aims=True) == ("no time was measured", None)


def test_settings_that_do_not_fit_are_refused():
    for name in ("width", "layers", "channels", "batch", "rounds"):
        with pytest.raises(ArgumentError, match=f"{name}: expected a whole number of at least 1"):
            step.run(replace(step.TOY, device="cpu", **{name: 0}), lambda row: None)
