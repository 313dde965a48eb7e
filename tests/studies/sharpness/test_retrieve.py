"""Part `retrieve` at toy size."""

from __future__ import annotations

import dataclasses

import pytest

from holdfast.lab import Results, Status
from holdfast.nn import FitError
from holdfast.studies.sharpness.arms import ARMS
from holdfast.studies.sharpness.retrieve import part
from holdfast.studies.sharpness.study import study
from tests.studies.sharpness.toy import TOY
from tests.studies.tools import assert_drawn, assert_repeats, judged, results_of


@pytest.fixture(scope="module")
def results() -> Results:
    return results_of(study, TOY, "retrieve")


def test_a_trial_twice_is_the_same(results: Results) -> None:
    assert_repeats(part, *results.outcomes[0])


def test_stacked_seeds_measure_what_single_seeds_do(results: Results) -> None:
    stacked = dataclasses.replace(TOY, retrieve=dataclasses.replace(TOY.retrieve, stacked=True))
    together = results_of(study, stacked, "retrieve")
    assert [trial.seed for trial, _ in together.outcomes] == [(0, 1)]
    for arm in ("plain", "published", "hard"):
        for n in TOY.retrieve.sizes:
            for metric, tolerance in (("entropy", 1e-3), ("max_weight", 1e-3), ("accuracy", 0.051)):
                ours = together.by_seed(metric, arm=arm, n=n)
                assert ours == pytest.approx(results.by_seed(metric, arm=arm, n=n), abs=tolerance)
    assert ours.keys() == {0, 1}


def test_retrieve_records(results: Results) -> None:
    assert set(results.levels("arm")) | {"refit"} == set(ARMS)
    for row in results.where(arm="plain"):
        error = row["ordering_error"] + row["dispersion_error"]  # type: ignore[operator]
        assert error == pytest.approx(1 - row["accuracy"], abs=1e-12)  # type: ignore[operator]
    assert all(row["entropy"] == 0 for row in results.where(arm="hard"))
    assert all(row["fit"] in ("accepted", "refused") for row in results.records if "fit" in row)
    training = results.curve("training", seed=1)
    assert [row["step"] for row in training] == [64, 70]


def test_a_refused_fit_is_recorded_and_no_claim_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise FitError("bins", "too few")

    monkeypatch.setattr("holdfast.nn.fit_temperature", refuse)
    without = results_of(study, dataclasses.replace(TOY, seeds=1), "retrieve")
    assert len(without.where(fit="refused")) == 1
    assert not without.where(arm="refit")
    verdict = judged(study, without)["refit-1024"]
    assert verdict.status is Status.INCONCLUSIVE
    assert "too few" in verdict.reason


def test_figures(results: Results) -> None:
    assert_drawn(part.figures, results)
