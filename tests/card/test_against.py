"""Two cards side by side: what chance makes is not called a difference, and what is one is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from holdfast.card import Card, Measure, Outcome, compare
from holdfast.card.against import chance
from tests.card.fakes import card, finding, measure

FAMILIES = 1000
DRAWS = 8
MEASURES = 6


def drawn(rng: np.random.Generator, shift: float = 0.0, shared: np.ndarray | None = None) -> Card:
    """A card with figures of normal draws, the first of them shifted; with shared parts they are compared in pairs."""
    findings = []
    for number in range(MEASURES):
        values = rng.normal(shift if number == 0 else 0.0, 1.0, DRAWS)
        if shared is not None:
            values = values + 5 * shared[number]
        further = {} if shared is None else {"units": "rows", "values": tuple(values.tolist())}
        error = float(values.std(ddof=1)) / math.sqrt(DRAWS)
        figure = measure(float(values.mean()), error, degrees=DRAWS - 1, **further)
        findings.append(finding(f"p{number}", measures=(figure,)))
    return card(findings)


@pytest.mark.parametrize("paired", [False, True])
def test_a_family_of_equal_models_is_called_different_in_one_of_twenty_at_most(paired):
    rng = np.random.default_rng(100)
    wrong = 0
    for _ in range(FAMILIES):
        shared = rng.normal(size=(MEASURES, DRAWS)) if paired else None
        wrong += bool(compare(drawn(rng, shared=shared), drawn(rng, shared=shared)).beyond_noise)
    # Three standard errors of a share of .05 among so many.
    assert wrong / FAMILIES <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / FAMILIES)
    assert wrong > 0


@pytest.mark.parametrize("paired", [False, True])
def test_a_difference_is_found_and_no_other(paired):
    rng = np.random.default_rng(101)
    found, others = 0, 0
    for _ in range(50):
        shared = rng.normal(size=(MEASURES, DRAWS)) if paired else None
        named = [one.probe for one in compare(drawn(rng, 4.0, shared), drawn(rng, 0.0, shared)).beyond_noise]
        found += "p0" in named
        others += len(set(named) - {"p0"})
    assert found >= 49
    assert others <= 8


def test_pairs_see_what_single_figures_do_not():
    values = np.array([1.0, 5.0, 9.0, 2.0, 7.0])
    error = float(values.std(ddof=1)) / math.sqrt(len(values))

    def of(shift: float, units: str) -> Measure:
        noise = np.array([0.0, 0.01, -0.01, 0.02, -0.02]) if shift else np.zeros(5)
        return measure(float(values.mean()) + shift, error, units=units, values=tuple(values + shift + noise))

    assert chance(of(0, "rows"), of(0.2, "rows")) < 0.001
    assert chance(of(0, "rows"), of(0.2, "others")) > 0.5
    assert chance(of(0, ""), of(0.2, "")) > 0.5


@pytest.mark.parametrize("draws_noise", [0.0, 0.3])
def test_what_models_of_a_kind_differ_by_is_chance_though_both_cards_know_it_from_the_same_ones(draws_noise):
    """Two networks beside the same twins, all of one kind: p below .05 in one of twenty."""
    rng = np.random.default_rng(100)
    draws, twins, families = 3, 6, 4000
    wrong = 0
    for _ in range(families):
        networks = rng.normal(size=2 + twins)
        gains = 20 + networks + draws_noise * rng.normal(size=(draws, 2 + twins))
        fresh = gains[:, 2:].mean(1)
        spread = float(gains[:, 2:].mean(0).std(ddof=1)) / float(fresh.mean())
        both = [
            measure(
                float((gains[:, one] / fresh).mean()),
                units="beside the same",
                values=tuple((gains[:, one] / fresh).tolist()),
                spread=spread,
                spread_degrees=twins - 1,
            )
            for one in (0, 1)
        ]
        wrong += chance(*both) < 0.05
    error = math.sqrt(0.05 * 0.95 / families)
    assert abs(wrong / families - 0.05) < 4 * error


def test_a_spread_has_the_degrees_of_one_card():
    """Against the formula: no draw differs from the others, so t = 1 / hypot(.3, .4) = 2 with 5 degrees of freedom."""
    from scipy import stats

    here, there = (
        measure(value, units="draws", values=(value, value), spread=spread, spread_degrees=5)
        for value, spread in ((2.0, 0.3), (1.0, 0.4))
    )
    assert chance(here, there) == pytest.approx(2 * stats.t.sf(2.0, 5))


def test_figures_without_chance_differ_or_do_not():
    assert chance(measure(1.0), measure(1.0)) == 1
    assert chance(measure(1.0), measure(1.0 + 1e-9)) == 0
    assert chance(measure(1.0, 0.1), measure(1.0)) == 1


def test_welch():
    """Against the formula: t = 2 / hypot(3/5, 4/5) = 2, with 4 and 9 degrees of freedom."""
    from scipy import stats

    degrees = 1 / (0.6**4 / 4 + 0.8**4 / 9)
    assert chance(measure(3.0, 0.6, degrees=4), measure(1.0, 0.8, degrees=9)) == pytest.approx(
        2 * stats.t.sf(2.0, degrees)
    )
    assert chance(measure(3.0, 0.6), measure(1.0, 0.8)) == pytest.approx(2 * stats.norm.sf(2.0))


def test_all_figures_are_one_family():
    """p = .02 alone is a difference; among three Holm makes .06 of it."""
    from scipy import stats

    apart = float(stats.norm.isf(0.01)) * math.hypot(1.0, 1.0)

    def of(value: float, probes: int) -> Card:
        figures = [measure(value, 1.0), *[measure(0.0, 1.0)] * (probes - 1)]
        return card([finding(f"p{number}", measures=(figure,)) for number, figure in enumerate(figures)])

    assert compare(of(0.0, 1), of(apart, 1)).beyond_noise
    assert compare(of(0.0, 3), of(apart, 3)).differences[0].p == pytest.approx(0.06)


def test_what_is_said():
    here = card([finding("a", measures=(measure(0.9, 0.01),)), finding("b"), finding("c")])
    there = card(
        [
            finding("a", measures=(measure(0.1, 0.01),)),
            finding("b"),
            finding("c", Outcome.NOT_RUN, measures=()),
            finding("d"),
        ]
    )
    comparison = compare(here, there)
    assert str(comparison).splitlines() == [
        "a: entropy is 0.9, in the other 0.1: better here.",
        "no more than chance would make: b",
        "measured here only: c",
        "measured there only: d",
    ]
    assert comparison.to_dict()["differences"][0]["beyond_noise"] is True
    back = compare(there, here)
    assert back.beyond_noise[0].better == "there"
    assert "Nothing differs by more than chance." in str(compare(here, here))


def test_a_figure_that_is_no_number_is_not_compared():
    here, there = (card([finding("a", measures=(measure(value, 0.1),))]) for value in (math.nan, 1.0))
    assert compare(here, there).differences == ()
