"""Temperature, calibration error, discrimination and Brier score against values that can be checked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit

from holdfast.confidence import (
    auroc,
    brier_score,
    calibrate,
    expected_calibration_error,
    fit_temperature,
    reliability,
)
from holdfast.confidence.calibration import fit_score_temperature, resampled_temperatures
from holdfast.errors import ArgumentError


def test_the_temperature_of_three_right_in_four() -> None:
    """Confidence sigmoid(2 / T) must be 3/4, so that T = 2 / ln 3."""
    log_odds, correct = np.full(400, 2.0), np.arange(400) % 4 > 0
    assert fit_temperature(log_odds, correct) == pytest.approx(2 / math.log(3), abs=1e-9)
    assert 2 / math.log(3) == pytest.approx(1.820478, abs=1e-6)


def test_the_temperature_is_the_likeliest() -> None:
    rng = np.random.default_rng(0)
    log_odds = np.abs(rng.normal(0, 2, 300))
    correct = rng.random(300) < expit(log_odds / 1.7)
    signed = np.where(correct, log_odds, -log_odds)
    best = minimize_scalar(
        lambda t: -log_expit(signed / t).sum(), bounds=(0.1, 20), method="bounded", options={"xatol": 1e-9}
    )
    assert fit_temperature(log_odds, correct) == pytest.approx(best.x, rel=1e-5)
    assert fit_temperature(3 * log_odds, correct) == pytest.approx(3 * best.x, rel=1e-5)


def test_without_an_optimum_it_says_so() -> None:
    assert fit_temperature(np.array([1.0, 2.0]), np.array([1, 1])) == 0
    assert fit_temperature(np.array([1.0, 2.0]), np.array([0, 0])) == math.inf
    assert fit_temperature(np.array([1.0, 1.0]), np.array([1, 0])) == math.inf


def test_resampled_temperatures_are_those_of_the_resamples() -> None:
    """One Newton step is off by the square of the move: a few percent of moves of a tenth."""
    rng = np.random.default_rng(1)
    log_odds = np.abs(rng.normal(0, 2, 400))
    correct = rng.random(400) < expit(log_odds)
    drawn = rng.integers(0, 400, (50, 400))
    weights = np.stack([np.bincount(rows, minlength=400) for rows in drawn]) / 400
    scores, choice = np.stack([log_odds, np.zeros(400)], axis=1), np.zeros(400, np.int64)
    quick = resampled_temperatures(scores, choice, correct, fit_temperature(log_odds, correct), weights)
    exact = np.array([fit_temperature(log_odds[rows], correct[rows]) for rows in drawn])
    assert np.std(np.log(exact)) > 0.03
    assert np.abs(np.log(quick / exact)).max() < 0.25 * np.abs(np.log(exact / exact.mean())).max()
    same = np.ones((1, 400)) / 400
    equal = resampled_temperatures(scores, choice, correct, fit_temperature(log_odds, correct), same)
    assert equal == pytest.approx(fit_temperature(log_odds, correct), rel=1e-8)


def test_scores_of_more_options_have_the_temperature_that_they_were_multiplied_by() -> None:
    """Log-odds against all others are not in proportion to 1 / T: of three equal rivals they keep ln 3."""
    rng = np.random.default_rng(2)
    scores = np.sort(rng.normal(0, 1.5, (4000, 4)), axis=1)[:, ::-1].copy()
    scores[:1000, 3] = np.nan
    shares = np.exp(np.where(np.isnan(scores), -np.inf, scores))
    correct = rng.random(4000) < shares[:, 0] / shares.sum(axis=1)
    choice = np.zeros(4000, np.int64)
    fitted = fit_score_temperature(scores, choice, correct)
    assert fitted == pytest.approx(1.0, abs=0.08)
    for factor in (0.4, 2.5):
        assert fit_score_temperature(factor * scores, choice, correct) == pytest.approx(factor * fitted, rel=1e-9)
        again = resampled_temperatures(factor * scores, choice, correct, factor * fitted, np.ones((1, 4000)))
        assert again == pytest.approx(factor * fitted, rel=1e-6)
    assert fit_score_temperature(scores, choice, np.ones(4000)) == 0
    assert fit_score_temperature(scores, choice, np.zeros(4000)) == math.inf


@pytest.mark.parametrize("bins", [5, 10])
def test_the_calibration_error_of_four_answers(bins: int) -> None:
    confidence, correct = np.array([0.9, 0.9, 0.6, 0.6]), np.array([1, 0, 1, 1])
    assert expected_calibration_error(confidence, correct, bins) == pytest.approx(0.4, abs=1e-12)


def test_a_reliability_diagram_has_every_case_once() -> None:
    confidence = np.array([0.5, 0.549, 0.55, 0.9, 1.0])
    diagram = reliability(confidence, np.array([1, 0, 1, 1, 1]))
    assert diagram.count.tolist() == [2, 1, 0, 0, 0, 0, 0, 0, 1, 1]
    assert diagram.accuracy[0] == 0.5
    assert np.isnan(diagram.accuracy[2])
    low = reliability(np.array([0.3, 0.9]), np.array([0, 1]))
    assert low.edges[0] == 0
    assert low.count.sum() == 2


def test_discrimination_counts_pairs() -> None:
    confidence, correct = np.array([0.9, 0.6, 0.6, 0.8]), np.array([1, 1, 0, 0])
    assert auroc(confidence, correct) == (1 + 1 + 0.5 + 0) / 4
    assert math.isnan(auroc(confidence, np.ones(4)))


def test_the_brier_score_is_a_mean_square() -> None:
    assert brier_score(np.array([0.9, 0.6]), np.array([1, 0])) == pytest.approx((0.01 + 0.36) / 2)


def test_scaling_mends_overconfidence_on_held_out_questions() -> None:
    rng = np.random.default_rng(2)
    log_odds = np.abs(rng.normal(0, 2, 2000))
    correct = rng.random(2000) < expit(log_odds)
    measured = calibrate(2.5 * log_odds, correct, np.arange(2000))
    assert measured.temperature == pytest.approx(2.5, rel=0.2)
    assert measured.error_after < measured.error_before / 2
    assert measured.brier_after < measured.brier_before
    assert measured.auroc == auroc(expit(log_odds), correct)


def test_a_single_question_cannot_be_held_out() -> None:
    measured = calibrate(np.array([1.0, 2.0]), np.array([1, 0]), np.array([0, 0]))
    assert math.isnan(measured.error_after)
    assert measured.diagram_after is None


@pytest.mark.parametrize(("log_odds", "correct"), [([], []), ([1.0], [1, 0]), ([math.inf], [1]), ([1.0], [0.5])])
def test_what_cannot_be_fitted_is_refused(log_odds: list[float], correct: list[float]) -> None:
    with pytest.raises(ArgumentError):
        fit_temperature(np.array(log_odds), np.array(correct))
