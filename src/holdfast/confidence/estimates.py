"""The primary estimates: contrasts with intervals over questions, as reported and on calibrated log-odds.

**Calibrated.** Weights are compared with those of an ideal observer in log-odds that mean what they say, L / T. T is
what makes first-stage confidence fit first answers, taken back to readings without noise: a reading that is noisy is
overconfident even where what it reads is not, and that must not look like too little weight on advice. Noise has twice
the variance in a reading of one order that it has in the mean of two, so that to first order

    T = 2 T(mean of both orders) - T(one order)

The resamples of questions that give intervals go through T as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from holdfast.confidence.calibration import fit_score_temperature, resampled_temperatures
from holdfast.confidence.contrasts import Contrasts
from holdfast.confidence.intervals import Estimate, interval, p_value, question_weights, refused
from holdfast.confidence.trials import FloatArray, IntArray, Trials

ABSOLUTE = ("choice_bias", "ownership_bias", "weight_same", "weight_opposite", "intercept_opposite")
"""Estimates that are in log-odds, which calibration changes."""

NOISIEST = 1.3
"""Where a single order has a temperature so many times that of the mean, there is no going back to no noise."""


@dataclass(frozen=True, eq=False)
class Estimates:
    """Estimates of the contrasts with their resamples.

    Arguments:
        reported: by name, in log-odds as they were reported.
        calibrated: the same for those in log-odds, divided by the temperature.
        temperature: that makes log-odds mean what they say.
        p_values: of the five comparisons with an ideal observer that verdicts are made from; NaN: cannot be made.
        update: (2, accuracies) mean change by agreement and contradiction for each stated accuracy.
    """

    reported: dict[str, Estimate]
    calibrated: dict[str, Estimate]
    temperature: Estimate
    p_values: dict[str, float]
    updates: tuple[tuple[Estimate, ...], tuple[Estimate, ...]]


def estimate(trials: Trials, contrasts: Contrasts, resamples: int, seed: int) -> Estimates:
    """Means over questions with intervals.

    Arguments:
        trials: that the contrasts were made of.
        contrasts: from `contrast`.
        resamples: draws of questions.
        seed: of the draws.
    """
    weights = question_weights(contrasts.questions, resamples, seed)
    means = {name: float(values.mean()) for name, values in contrasts.values.items()}
    again = dict(zip(means, (weights @ np.stack(list(contrasts.values.values()), axis=1)).T, strict=True))
    questions = contrasts.questions
    reported = {name: _interval(means[name], again[name], questions) for name in means}
    reported["ratio"] = _ratio(means, again, reported["weight_same"], questions)
    temperature, temperatures = _temperature(trials, contrasts.question, weights)
    calibrated = dict.fromkeys(ABSOLUTE, refused(temperature.reason))
    if temperature.known:
        calibrated = {
            name: interval(means[name] / temperature.value, again[name] / temperatures, questions)
            if reported[name].known
            else reported[name]
            for name in ABSOLUTE
        }
    p_values = {name: _p(means[name], again[name], questions) for name in ("choice_bias", "ownership_bias")}
    for name in ("weight_opposite", "weight_same"):
        p_values[name] = _p(*_departure(means[name], again[name], temperature.value, temperatures), questions)
    difference = means["weight_opposite"] - means["weight_same"] if reported["ratio"].known else math.nan
    p_values["ratio"] = _p(difference, again["weight_opposite"] - again["weight_same"], questions)
    updates = tuple(
        tuple(_interval(float(values.mean()), weights @ values, questions) for values in contrasts.updates[:, place].T)
        for place in (0, 1)
    )
    return Estimates(reported, calibrated, temperature, p_values, (updates[0], updates[1]))


def first_answers(trials: Trials) -> tuple[IntArray, FloatArray]:
    """Rows that stand for units (a question in one wording) with a known answer, and whether stage 1 was right."""
    wordings = int(trials.template_code.max(initial=0)) + 1
    rows = np.flatnonzero((trials.answer >= 0) & trials.valid)
    first = rows[np.unique((trials.question_code * wordings + trials.template_code)[rows], return_index=True)[1]]
    return first, np.asarray(trials.choice[first] == trials.answer[first], np.float64)


def _temperature(trials: Trials, question: IntArray, weights: FloatArray) -> tuple[Estimate, FloatArray]:
    """Temperature without the noise of readings, and that of each resample."""
    nothing = np.full(len(weights), np.nan)
    rows, correct = first_answers(trials)
    inside = np.isin(trials.question_code[rows], question)
    rows, correct = rows[inside], correct[inside]
    if not len(rows):
        return refused("no answer key"), nothing
    single = _single_order(trials, rows)
    if single is None:
        return refused("one order alone: a leaning to a place, and noise, look like overconfidence"), nothing
    means, choice = trials.stage_1.mean_scores[rows], trials.choice[rows]
    case_weights = weights[:, np.searchsorted(question, trials.question_code[rows])]
    temperature = fit_score_temperature(means, choice, correct)
    if not 0 < temperature < math.inf:
        return refused("first answers are all right, or confidence says nothing about being right"), nothing
    temperatures = resampled_temperatures(means, choice, correct, temperature, case_weights)
    orders = single.shape[1]
    twice = single.reshape(-1, single.shape[2]), np.repeat(choice, orders), np.repeat(correct, orders)
    noisy = fit_score_temperature(*twice)
    if not noisy < NOISIEST * temperature:
        return refused("readings of the two orders have too little in common: average more wordings"), nothing
    again = 2 * temperatures - resampled_temperatures(*twice, noisy, np.repeat(case_weights, orders, axis=1) / orders)
    temperature = 2 * temperature - noisy
    # A resample of few questions may go further back than there is to go.
    again = np.maximum(again, temperature / 10)
    return interval(temperature, again, len(question)), again


def _single_order(trials: Trials, rows: IntArray) -> FloatArray | None:
    """(rows, orders, options) Scores in each order, without what places add to them on average; `None` without both
    orders."""
    scores, options = trials.stage_1.scores[rows], trials.options[rows]
    if scores.shape[1] < 2 or np.isnan(scores).all(axis=2).any():
        return None
    exists = np.arange(scores.shape[2]) < options[:, None]
    mean = np.where(exists[:, None], scores, 0.0).sum(axis=2) / options[:, None]
    centred = scores - mean[:, :, None]
    moved = centred - centred.mean(axis=1, keepdims=True)
    place = np.broadcast_to(np.arange(scores.shape[2]), exists.shape)
    # As listed, and the other way round.
    places = np.stack([place, options[:, None] - 1 - place], axis=1)
    # Questions with as many options have the same places.
    there = np.broadcast_to(exists[:, None], scores.shape)
    group = np.broadcast_to(options[:, None, None] * scores.shape[2], scores.shape)[there] + places[there]
    added = np.bincount(group, moved[there]) / np.maximum(np.bincount(group), 1)
    cleared = scores.copy()
    cleared[there] -= added[group]
    return np.asarray(cleared)


def _interval(value: float, again: FloatArray, questions: int) -> Estimate:
    return refused("the design does not tell") if math.isnan(value) else interval(value, again, questions)


def _p(value: float, again: FloatArray, questions: int) -> float:
    return math.nan if math.isnan(value) else p_value(value, again, 0.0, questions)


def _departure(
    weight: float, again: FloatArray, temperature: float, temperatures: FloatArray
) -> tuple[float, FloatArray]:
    """How far a weight is from 1 on calibrated log-odds: from T as reported.

    On a logarithmic scale, where the spread of T does not depend on T, unless a weight is not positive.
    """
    if weight > 0 and (again > 0).all():
        return math.log(weight / temperature), np.log(again / temperatures)
    return weight - temperature, again - temperatures


def _ratio(means: dict[str, float], again: dict[str, FloatArray], same: Estimate, questions: int) -> Estimate:
    """Weight of contradiction over that of agreement, where the latter is clearly positive."""
    if not same.known or math.isnan(means["weight_opposite"]):
        return refused("the design does not tell")
    if same.low <= 0:
        return refused("the weight of agreeing advice is not clearly above 0")
    positive = again["weight_same"] > 0
    ratios = np.full(len(positive), math.inf)
    np.divide(again["weight_opposite"], again["weight_same"], out=ratios, where=positive)
    return interval(means["weight_opposite"] / means["weight_same"], ratios, questions)
