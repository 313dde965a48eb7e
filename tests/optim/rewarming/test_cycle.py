"""The course of a cycle, by the table and by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from holdfast.errors import ArgumentError
from holdfast.optim.rewarming.cycle import Cycle


def cycle(**settings: Any) -> Cycle:
    return Cycle(**{"peak": 1e-2, "final": 1e-4, "warmup": 0, "period": 100, **settings})


@pytest.mark.parametrize(("step", "rate"), [(0, 0.01), (50, 0.00505), (100, 0.0001), (101, 0.0001), (10**9, 0.0001)])
def test_the_table(step: int, rate: float) -> None:
    assert cycle().rate(step) == pytest.approx(rate, rel=1e-15)


def test_its_ends_are_exact() -> None:
    assert cycle().rate(0) == 0.01
    assert cycle().rate(100) == 0.0001
    warm = cycle(warmup=10, low=1e-3)
    assert (warm.rate(0), warm.rate(10), warm.rate(100)) == (1e-3, 1e-2, 1e-4)


def test_a_warm_up_is_a_line_and_then_a_cosine() -> None:
    warm = cycle(warmup=20)
    assert warm.rate(5) == pytest.approx(1e-4 + 0.25 * (1e-2 - 1e-4), rel=1e-14)
    assert warm.rate(60) == pytest.approx(0.00505, rel=1e-14)
    assert warm.rate(33) == pytest.approx(1e-4 + 0.5 * 0.0099 * (1 + math.cos(math.pi * 13 / 80)), rel=1e-14)


def test_peaks_of_later_cycles() -> None:
    listed = cycle(peaks=[0.1, 0.02])
    assert [listed.rate(0, number) for number in range(4)] == [0.01, 0.1, 0.02, 0.02]
    falling = cycle(peaks=0.5)
    assert [falling.rate(0, number) for number in range(3)] == [0.01, 0.005, 0.0025]
    assert falling.rate(0, 2000) == falling.rate(100, 2000) == 1e-4
    assert cycle(peaks=10.0, count=2).rate(0, 1) == pytest.approx(0.1, rel=1e-15)


def test_after_the_last_cycle_the_final_rate_stays() -> None:
    assert [cycle(count=2).rate(0, number) for number in range(4)] == [0.01, 0.01, 1e-4, 1e-4]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"peak": 0.0}, "peak"),
        ({"peak": math.inf}, "peak"),
        ({"final": 0.02}, "final"),
        ({"final": -1e-9}, "final"),
        ({"low": 0.02}, "low"),
        ({"period": 0}, "period"),
        ({"warmup": 100}, "warmup"),
        ({"warmup": -1}, "warmup"),
        ({"peaks": []}, "peaks"),
        ({"peaks": [0.1, 0.0]}, "peaks"),
        ({"peaks": 10.0}, "peaks"),  # would grow for ever
        ({"peaks": -1.0}, "peaks"),
        ({"count": 0}, "max_cycles"),
    ],
)
def test_settings_outside_their_range_are_refused(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(ArgumentError, match=f"^{name}: "):
        cycle(**settings)
