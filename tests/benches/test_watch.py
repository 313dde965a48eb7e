"""What is told of the cost of watching a training."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.benches.watch import cost
from holdfast.benches.watch.trainings import Training
from holdfast.errors import ArgumentError


def test_steps_with_and_without_a_measurement_have_their_own_median():
    assert cost.step_ms([10, 10, 10, 90], 0) == 10
    assert cost.step_ms([10, 12, 11, 31, 10, 12, 900, 31], 4) == pytest.approx((3 * 11.5 + 31) / 4)
    assert cost.step_ms([3, 5, 4], 1) == 4


def test_ratios_are_taken_within_a_round():
    def training(plain: float, measured: float, told: float) -> Training:
        return Training((plain, measured), "", (told,))

    trainings = {
        0: [training(10, 10, 0.5), training(20, 20, 0.5), training(30, 30, 0.5)],
        2: [training(10, 14, 0.1), training(20, 26, 0.2), training(30, 36, 0.3)],
    }
    without, with_it = cost.rows_of("Trainer", trainings)
    assert (without["to_without"], without["ms_per_step"]) == (1, 20)
    assert with_it["arm"] == "every 2"
    assert with_it["to_without"] == pytest.approx(1.15)
    assert (with_it["low"], with_it["high"]) == pytest.approx((1.125, 1.175))
    assert (with_it["told"], with_it["rounds"]) == (0.2, 3)
    words, number = cost.summary([without, with_it], cost.Options(every=(2,)))
    assert number == pytest.approx(1.15)
    assert words == "every 2 steps 15.0% in Trainer (aim 5%, missed)"


def test_settings_that_do_not_fit_are_refused():
    for changed in ({"rounds": 0}, {"batch": 0}, {"width": 3}, {"every": ()}, {"every": (0,)}):
        with pytest.raises(ArgumentError, match=next(iter(changed))):
            cost.run(replace(cost.TOY, **changed), lambda row: None)
