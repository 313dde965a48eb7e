"""Part `exact`: extensions that are exact, aliases, and claims that one exception breaks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from holdfast.lab import Results
from holdfast.lists.functions import FUNCTIONS
from holdfast.studies.lists import exact
from holdfast.studies.lists.exact import ALIASES, ExactConfig, part
from holdfast.studies.lists.study import study
from tests.studies.lists.toy import TOY
from tests.studies.tools import assert_drawn, assert_repeats, results_of, with_changes

pytestmark = pytest.mark.filterwarnings("ignore::holdfast.lists.ExpensivePlan")


@pytest.fixture(scope="module")
def results() -> Results:
    return results_of(study, TOY, "exact")


def test_every_extension_is_exact(results: Results) -> None:
    rows = [row for row in results.where(seed=0) if "mode" in row]
    assert {(row["mode"], row["engine"]) for row in rows} == {
        (mode, engine) for mode, engines in exact.MODES.items() for engine in engines
    }
    assert not [row for row in rows if row["errors"] or row["problem"]]
    by_mode = {mode: {row["function"] for row in rows if row["mode"] == mode} for mode in exact.MODES}
    assert (len(by_mode["group"]), len(by_mode["positional"])) == (23, 15)
    assert by_mode["relabel rank"] - by_mode["relabel any"] == set(exact.ORDER_NATURAL)


@pytest.mark.parametrize(
    ("name", "mode", "engine"), [("rotate left", "distinct", "pairs"), ("nub, keep first", "positional", "pairs")]
)
def test_a_function_that_the_mode_is_wrong_for_is_counted_as_an_error(name: str, mode: str, engine: str) -> None:
    (named,) = (named for named in FUNCTIONS if named.name == name)
    row = exact._cell(named, mode, engine, ExactConfig(lists=20), np.random.default_rng(0))
    assert row["errors"] > 10
    assert row["problem"]


def test_aliases(results: Results) -> None:
    rows = {row["control"]: row for row in results.where(seed=0) if "control" in row}
    assert len(rows) == 24
    assert rows["rotate left"]["became"] == "[5, 2, 4, 1, 3]"
    assert rows["smallest to front"]["became"] == "[1, 2, 3, 4, 5]"
    assert rows["tail"]["became"] == "WrongMultiplicity"
    assert all(row["refused"] == row["lists"] for row in rows.values())
    assert all(rows[name]["aliased"] == rows[name]["lists"] for name in ALIASES)


def test_queries_are_counted_beside_the_least_number(results: Results) -> None:
    assert exact.least_queries(1024, 8) == pytest.approx(573.2, abs=0.1)
    rows = {(row["task"], row["method"], row["n"]): row for row in results.where(seed=0) if "queries" in row}
    assert len(rows) == 2 * 2 * len(TOY.exact.sizes)
    for (_, _, n), row in rows.items():
        assert row["queries"] <= n * (n - 1) / 2
    assert (
        rows["sort", "block merge", 64]["queries"] < exact.least_queries(64, 2) < rows["sort", "merge", 64]["queries"]
    )


def test_a_bound_shows_beside_the_line_that_all_but_reaches_it(results: Results) -> None:
    axes = Figure().subplots()
    exact.draw_queries(results, axes)
    bounds = [line for line in axes.lines if line.get_label().startswith("least ")]
    others = [line for line in axes.lines if line not in bounds]
    assert (len(bounds), len(others)) == (2, 4)
    assert min(line.get_linewidth() for line in bounds) > max(line.get_linewidth() for line in others)
    assert min(line.get_zorder() for line in bounds) > max(line.get_zorder() for line in others)


ROWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "exact": ({"mode": "group", "engine": "cover", "function": "sort"}, {"errors": 1}),
    "aliasing": ({"control": "riffle"}, {"aliased": 0}),
    "refused": ({"control": "head"}, {"refused": 0}),
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


def test_a_trial_twice_is_the_same(results: Results) -> None:
    assert_repeats(part, *results.outcomes[0])


def test_figures(results: Results) -> None:
    assert_drawn(part.figures, results)
