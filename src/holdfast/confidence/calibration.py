"""Calibration of confidences: temperature, expected calibration error, discrimination, Brier score, reliability.

Log-odds here are those of the chosen option against the others, and outcomes say whether it was right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, log_expit, softmax
from scipy.stats import rankdata

from holdfast.confidence.trials import BoolArray, FloatArray, IntArray
from holdfast.confidence.trials import log_odds as log_odds_of
from holdfast.errors import ArgumentError, count_of

LONGEST_STEP = 3.0
"""Of ln T: a resample without a temperature, as one of right answers alone, would go on for ever."""

LONGEST_SEARCH = 7.0
"""Of ln T, from 0 either way: beyond a thousand, confidence says nothing."""

BINS = 10
"""Bins of a reliability diagram, as is usual."""


def fit_temperature(log_odds: FloatArray, correct: BoolArray | FloatArray, weights: FloatArray | None = None) -> float:
    """Temperature T that makes sigmoid(L / T) likeliest, given what was right (Guo et al. 2017).

    Arguments:
        log_odds: (n) of the chosen options.
        correct: (n) whether they are right.
        weights: (n) positive ones, of the cases; left out: all are equal.

    Returns:
        T; infinite where confidence says nothing about being right (or the opposite), 0 where it is never wrong.

    Errors:
        ArgumentError: nothing to fit to, or values that are not finite.
    """
    values, outcomes = _checked(log_odds, correct)
    signed = np.where(outcomes > 0, values, -values)
    weighted = signed if weights is None else weights * signed
    if weighted.sum() <= 0:
        return math.inf
    if signed.min() >= 0:
        return 0.0

    def rise(log_inverse: float) -> float:
        """Derivative of the log-likelihood in 1 / T, which falls as 1 / T grows."""
        return float(weighted @ expit(-math.exp(log_inverse) * signed))

    low, high = -1.0, 1.0
    while rise(low) < 0:
        low -= 1.0
    while rise(high) > 0:
        high += 1.0
    return math.exp(-float(brentq(rise, low, high, xtol=1e-12)))


def fit_score_temperature(
    scores: FloatArray, choice: IntArray, correct: BoolArray | FloatArray, weights: FloatArray | None = None
) -> float:
    """Temperature T of softmax(scores / T) that makes it likeliest which choices were right.

    For two options this is `fit_temperature` of the log-odds. For more the log-odds of the chosen option against all
    others are not in proportion to 1 / T, but what advice adds to a score is.

    Arguments:
        scores: (n, options) logits or log-probabilities, NaN at options that do not exist.
        choice: (n) option that was chosen, the one with the highest score.
        correct: (n) whether it is right.
        weights: (n) positive ones, of the cases; left out: all are equal.

    Returns:
        T; infinite where scores say nothing about being right, 0 where they are never wrong.
    """
    if scores.shape[1] == 2:
        return fit_temperature(_tempered(scores, choice, 1.0)[0], correct, weights)
    outcomes = np.asarray(correct, np.float64)
    cases = np.ones(len(outcomes)) if weights is None else weights

    def rise(log_temperature: float) -> float:
        """Derivative of the log-likelihood in ln T."""
        log_odds, slope = _tempered(scores, choice, math.exp(log_temperature))
        return float((cases * slope) @ (expit(log_odds) - outcomes))

    # The likelihood may have several peaks in principle: the highest of a grid is where the root is looked for.
    grid = np.linspace(-LONGEST_SEARCH, LONGEST_SEARCH, 40)
    likelihood = []
    for log_temperature in grid:
        log_odds, _ = _tempered(scores, choice, math.exp(log_temperature))
        likelihood.append(cases @ np.where(outcomes > 0, log_expit(log_odds), log_expit(-log_odds)))
    place = int(np.argmax(likelihood))
    if place in (0, len(grid) - 1):
        return math.inf if place else 0.0
    return math.exp(float(brentq(rise, grid[place - 1], grid[place + 1], xtol=1e-12)))


def resampled_temperatures(
    scores: FloatArray, choice: IntArray, correct: BoolArray | FloatArray, temperature: float, weights: FloatArray
) -> FloatArray:
    """What the temperature would be with cases weighted otherwise: one Newton step in ln T from the fitted one.

    Arguments:
        scores: (n, options) as it was fitted to.
        choice: (n) likewise.
        correct: (n) likewise.
        temperature: fitted with equal weights, finite and positive.
        weights: (resamples, n) weights of the cases.

    Returns:
        (resamples) temperatures.
    """
    log_odds, slope = _tempered(scores, choice, temperature)
    values, outcomes = _checked(log_odds, correct)
    signed, slope = np.where(outcomes > 0, values, -values), np.where(outcomes > 0, slope, -slope)
    wrong = expit(-signed)
    rise = weights @ (wrong * slope)
    curvature = weights @ (wrong * (1 - wrong) * slope**2)
    step = -rise / np.maximum(curvature, 1e-12)
    return np.asarray(temperature * np.exp(np.clip(step, -LONGEST_STEP, LONGEST_STEP)))


@dataclass(frozen=True, eq=False)
class Reliability:
    """Data of a reliability diagram; NaN in bins without cases.

    Arguments:
        edges: (bins + 1) of the bins.
        confidence: (bins) mean confidence.
        accuracy: (bins) share that is right.
        count: (bins) cases.
    """

    edges: FloatArray
    confidence: FloatArray
    accuracy: FloatArray
    count: IntArray

    @property
    def error(self) -> float:
        """Expected calibration error: the mean distance of accuracy from confidence, weighted with the cases."""
        filled = self.count > 0
        distance = np.abs(self.accuracy[filled] - self.confidence[filled])
        return float(distance @ self.count[filled] / self.count.sum())


def reliability(confidence: FloatArray, correct: BoolArray | FloatArray, bins: int = BINS) -> Reliability:
    """Accuracy against confidence in bins of equal width.

    Arguments:
        confidence: (n) probabilities of being right. Bins go from 1/2 to 1, or from 0 where some lie below 1/2, as
            those of a choice among more than two options can.
        correct: (n) whether it was right.
        bins: how many.
    """
    values, outcomes = _checked(confidence, correct)
    lowest = 0.5 if values.min() >= 0.5 - 1e-12 else 0.0
    edges = np.linspace(lowest, 1.0, bins + 1)
    # A confidence of .9 belongs to the bin that begins there, also where the edge came out as .9000000000000001.
    place = np.clip(((values - lowest) / (1.0 - lowest) * bins + 1e-9).astype(np.int64), 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    mean = [np.bincount(place, column, bins) / np.where(count, count, np.nan) for column in (values, outcomes)]
    return Reliability(edges, mean[0], mean[1], count)


def expected_calibration_error(confidence: FloatArray, correct: BoolArray | FloatArray, bins: int = BINS) -> float:
    """Mean distance of accuracy from confidence over bins of equal width, weighted with their cases."""
    return reliability(confidence, correct, bins).error


def brier_score(confidence: FloatArray, correct: BoolArray | FloatArray) -> float:
    """Mean squared distance of confidence from 1 (right) or 0 (wrong)."""
    values, outcomes = _checked(confidence, correct)
    return float(np.mean((values - outcomes) ** 2))


def auroc(confidence: FloatArray, correct: BoolArray | FloatArray) -> float:
    """Chance that a right answer has a higher confidence than a wrong one, ties counting half; NaN without both."""
    values, outcomes = _checked(confidence, correct)
    right = int(outcomes.sum())
    wrong = len(outcomes) - right
    if not right or not wrong:
        return math.nan
    ranks = rankdata(values)[outcomes > 0].sum()
    return float((ranks - right * (right + 1) / 2) / (right * wrong))


@dataclass(frozen=True, eq=False)
class Calibration:
    """How well first-stage confidence says what is right, before and after temperature scaling.

    Each half of the questions is scaled by the temperature that fits the other half.

    Arguments:
        temperature: that fits all questions.
        accuracy: share of first answers that are right.
        mean_confidence: before scaling.
        auroc: of confidence against being right, which scaling leaves alone.
        error_before: expected calibration error.
        error_after: the same after scaling; NaN where no temperature fits.
        brier_before: Brier score.
        brier_after: the same after scaling.
        diagram: reliability before scaling.
        diagram_after: after it.
    """

    temperature: float
    accuracy: float
    mean_confidence: float
    auroc: float
    error_before: float
    error_after: float
    brier_before: float
    brier_after: float
    diagram: Reliability
    diagram_after: Reliability | None


def calibrate(log_odds: FloatArray, correct: BoolArray | FloatArray, question: IntArray, seed: int = 0) -> Calibration:
    """Measure calibration, with halves of the questions as held-out data.

    Arguments:
        log_odds: (n) of the chosen options.
        correct: (n) whether they are right.
        question: (n) number of the question, so that no question is in both halves.
        seed: of the split.
    """
    values, outcomes = _checked(log_odds, correct)
    codes, place = np.unique(question, return_inverse=True)
    half = (np.random.default_rng(count_of("seed", seed)).permutation(len(codes)) % 2)[place]
    scaled = np.full_like(values, np.nan)
    for part in (0, 1):
        if (half == part).any() and (half != part).any():
            temperature = fit_temperature(values[half != part], outcomes[half != part])
            if 0 < temperature < math.inf:
                scaled[half == part] = values[half == part] / temperature
    after = None if np.isnan(scaled).any() else expit(scaled)
    before = expit(values)
    diagram = reliability(before, outcomes)
    diagram_after = None if after is None else reliability(after, outcomes)
    return Calibration(
        temperature=fit_temperature(values, outcomes),
        accuracy=float(outcomes.mean()),
        mean_confidence=float(before.mean()),
        auroc=auroc(before, outcomes),
        error_before=diagram.error,
        error_after=math.nan if diagram_after is None else diagram_after.error,
        brier_before=brier_score(before, outcomes),
        brier_after=math.nan if after is None else brier_score(after, outcomes),
        diagram=diagram,
        diagram_after=diagram_after,
    )


def _tempered(scores: FloatArray, choice: IntArray, temperature: float) -> tuple[FloatArray, FloatArray]:
    """(n) Log-odds of the chosen option with scores divided by T, and minus their derivative in ln T."""
    scaled = scores / temperature
    values = log_odds_of(scaled, choice)
    chosen = np.take_along_axis(scaled, choice[:, None], axis=1)[:, 0]
    others = np.where(np.isnan(scaled), -np.inf, scaled)
    np.put_along_axis(others, choice[:, None], -np.inf, axis=1)
    mean = (softmax(others, axis=1) * np.where(np.isfinite(others), others, 0.0)).sum(axis=1)
    return values, np.asarray(chosen - mean)


def _checked(values: FloatArray, correct: BoolArray | FloatArray) -> tuple[FloatArray, FloatArray]:
    """Both as numbers, or an error."""
    numbers, outcomes = np.asarray(values, np.float64), np.asarray(correct, np.float64)
    if not len(numbers) or numbers.shape != outcomes.shape or not np.isfinite(numbers).all():
        raise ArgumentError("confidence", "finite numbers, one for each outcome", f"{numbers.shape}, {outcomes.shape}")
    if not np.isin(outcomes, (0.0, 1.0)).all():
        raise ArgumentError("correct", "right or wrong for each case", repr(outcomes))
    return numbers, outcomes
