"""Part `classes`: counts, laws, and claims that one exception breaks."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.lab import Results
from holdfast.studies.lists.classes import natural_formula, order_natural_formula, part, permutation_formula
from holdfast.studies.lists.study import study
from tests.studies.lists.toy import TOY
from tests.studies.tools import assert_drawn, results_of, with_changes


@pytest.fixture(scope="module")
def results() -> Results:
    return results_of(study, TOY, "classes")


def test_formulas() -> None:
    assert [natural_formula(k) for k in range(8)] == [1, 2, 6, 18, 54, 162, 486, 1458]
    assert [order_natural_formula(k) for k in range(5)] == [1, 4, 20, 100, 500]
    assert [permutation_formula(n) for n in range(9)] == [1, 1, 4, 20, 138, 1182, 12166, 146050, 2003882]


def test_classes_are_counted(results: Results) -> None:
    counted = {(row["class"], row["size"]): row for row in results.records if "class" in row}
    assert counted["natural", 3]["counted"] == 18
    assert counted["natural", 3]["of"] == 20
    assert counted["order-natural", 2]["counted"] == 20
    assert counted["permutation type", 3]["counted"] == 20
    assert (counted["gluable", "2, 2, 2"]["counted"], counted["gluable", "2, 2, 2"]["of"]) == (90, 216)
    faces = {(row["faces"], row["values"]): row for row in results.records if "faces" in row}
    assert [faces[known, 4]["told_apart"] for known in (1, 2, 3)] == [6, 18, 24]
    assert [faces[known, 4]["most_left"] for known in (1, 2, 3)] == [4, 2, 1]


def test_laws_that_hold_and_laws_that_fail(results: Results) -> None:
    exceptions = {row["law"]: row["exceptions"] for row in results.records if "law" in row}
    failing = {"h . (f + g) = h . f + h . g", "f . g = g . f", "sort . (g + h) = sort . g + sort . h"}
    assert {law for law, count in exceptions.items() if count} == failing
    assert len(exceptions) == 13


ROWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "classes-natural": ({"class": "natural", "size": 2}, {"counted": 3}),
    "classes-permutation": ({"class": "permutation type", "size": 2}, {"counted": 3}),
    "classes-order": ({"class": "order-natural", "size": 1}, {"counted": 3}),
    "classes-gluable": ({"class": "gluable", "size": "1, 1, 1"}, {"counted": 3}),
    "faces": ({"faces": 2, "values": 4}, {"most_left": 3}),
    "no-aliens": ({"law": "no value that was not there"}, {"exceptions": 1}),
    "natural-form": ({"law": "natural functions are sums of blocks"}, {"exceptions": 1}),
    "closure": ({"law": "sums are filter equivariant"}, {"exceptions": 1}),
    "laws": ({"law": "examples of compositions"}, {"exceptions": 1}),
    "laws-that-fail": ({"law": "f . g = g . f"}, {"exceptions": 0}),
    "classes-apart": ({"filter": False}, {"map": False}),
}
"""For each claim a row, and a change of it that makes the claim false."""


def test_every_claim_is_tried_below() -> None:
    assert ROWS.keys() == {claim.name for claim in part.claims}


@pytest.mark.parametrize("claim", ROWS)
def test_claims_without_chance_hold_and_one_changed_row_breaks_them(claim: str, results: Results) -> None:
    row, change = ROWS[claim]

    def changed(record: dict[str, Any]) -> dict[str, Any]:
        return record | (change if all(record.get(name) == value for name, value in row.items()) else {})

    test = next(item.test for item in part.claims if item.name == claim)
    assert test(results).favours
    assert not test(with_changes(results, changed)).favours


def test_figures(results: Results) -> None:
    assert_drawn(part.figures, results)
