"""Part `bounds`: no exception at toy size, and claims that one exception breaks."""

from __future__ import annotations

import math

import pytest
import torch

from holdfast.lab import Outcome, Record, Results, Trial
from holdfast.studies.sharpness import bounds
from holdfast.studies.sharpness.bounds import part
from holdfast.studies.sharpness.study import study
from tests.studies.sharpness.toy import TOY
from tests.studies.tools import assert_repeats, judged, results_of


@pytest.fixture(scope="module")
def results() -> Results:
    return results_of(study, TOY, "bounds")


def test_a_trial_twice_is_the_same(results: Results) -> None:
    assert_repeats(part, *results.outcomes[0])


def test_bounds_hold_at_toy_size(results: Results) -> None:
    rows = {row["check"]: row for row in results.where(seed=0) if "check" in row}
    assert rows.keys() == {"dispersion", "entropy", "monotone", "spectral"}
    assert all(row["exceptions"] == 0 for row in rows.values())
    # Two-level rows are tight.
    assert rows["dispersion"]["slack"] == pytest.approx(0, abs=1e-12)
    assert rows["spectral"]["slack"] > 1  # type: ignore[operator]
    assert len(results.curve("heads", seed=0)) == 2 * (1 + 3) * 2 * 2


def test_row_checks_find_an_exception() -> None:
    (record,) = bounds._merged([("spectral", torch.tensor([0.5, -0.1, math.nan])), ("spectral", torch.ones(1))])
    assert (record["cases"], record["exceptions"]) == (4, 2)


def made_up(exceptions: int, slope_error: float) -> Results:
    outcomes = []
    for seed in range(4):
        rows: list[Record] = [
            {"check": name, "cases": 100, "exceptions": exceptions * (seed == 2), "slack": 0.1}
            for name in ("dispersion", "entropy", "monotone", "spectral")
        ]
        rows += [
            {"style": style, "depth": depth, "slope": 1.0, "slope_error": slope_error + 0.001 * seed}
            for style in ("bert", "gpt")
            for depth in (1, 3)
        ]
        outcomes.append((Trial(seed, TOY.bounds, {"part": "bounds"}), Outcome(rows)))
    return Results(TOY, outcomes)


def test_claims_on_bounds() -> None:
    names = ("weights-bounded", "entropy-bounded", "spread-bounded", "entropy-monotone", "disperses-1", "disperses-3")
    for results, status in ((made_up(0, 0.01), "supported"), (made_up(1, 0.2), "contradicted")):
        found = judged(study, results)
        assert {str(found[name].status) for name in names} == {status}
        assert found["weights-bounded"].evidence.n == 400
