"""Evidence put together from that of several statements."""

from __future__ import annotations

import pytest

from holdfast.errors import ArgumentError
from holdfast.lab import Evidence, all_of, within
from holdfast.lab.results import Values


def evidence(p_value: float | None, favours: bool = True) -> Evidence:
    return Evidence(favours=favours, p_value=p_value, n=3, test="t", reason="" if p_value is not None else "lost")


@pytest.mark.parametrize(
    ("links", "p_value", "favours"),
    [
        ([(0.01, True), (0.03, True)], 0.03, True),
        ([(0.01, True), (None, True)], None, True),
        ([(0.01, True), (0.004, False), (0.9, False)], 0.012, False),
        ([(None, True), (0.4, False)], 0.8, False),
    ],
)
def test_all_of(links: list[tuple[float | None, bool]], p_value: float | None, favours: bool) -> None:
    answer = all_of([evidence(*link) for link in links])
    assert answer.p_value == (None if p_value is None else pytest.approx(p_value))
    assert answer.favours == favours


@pytest.mark.parametrize(("shift", "favours", "below"), [(0.0, True, 0.01), (5.0, False, 0.01), (2.4, True, 1.0)])
def test_within(shift: float, favours: bool, below: float) -> None:
    values = Values({seed: 15.0 + shift + 0.1 * (seed - 2) for seed in range(5)})
    answer = within(values, 12.8, 18.4, "ratio")
    assert answer.favours == favours
    assert answer.p_value is not None
    assert answer.p_value < below
    assert answer.effect == pytest.approx(15.0 + shift)


def test_all_of_nothing() -> None:
    with pytest.raises(ArgumentError, match="links"):
        all_of([])


def test_within_keeps_the_interval_of_a_share_possible() -> None:
    values = dict(enumerate([0.8, 1.0, 1.0, 0.9]))
    free, share = (within(values, 0.2, 0.6, "a share", bounds=bounds) for bounds in (None, (0, 1)))
    assert free.high > 1.0 == share.high
    assert (share.effect, share.low, share.p_value, share.favours) == (
        free.effect,
        free.low,
        free.p_value,
        free.favours,
    )
