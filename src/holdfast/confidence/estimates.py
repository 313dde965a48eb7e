"""The primary estimates: contrasts with intervals over questions, as reported and on calibrated log-odds.

**Calibrated.** Weights are compared with those of an ideal observer in log-odds that mean what they say, L / T. T is
what makes first-stage confidence fit first answers, taken back to readings without noise: a reading that is noisy is
overconfident even where what it reads is not, and that must not look like too little weight on advice. Noise has n
times the variance in a reading of one order that it has in the mean of n, so that to first order, with r the mean of
1 / n over questions,

    T = (T(mean of all orders) - r T(one order)) / (1 - r)

where n is the number of options K, so that each stood at each place: with fewer orders a leaning to a place does not
cancel out and looks like overconfidence too, and nothing is calibrated. The resamples of questions that give intervals
go through T as well.
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
"""Where a single order has a temperature so many times that of a mean of two, there is no going back to no noise."""


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
    single = _single_orders(trials, rows)
    if single is None:
        reason = "one order, or fewer than options: a leaning to a place, and noise, look like overconfidence"
        return refused(reason), nothing
    readings, of = single
    means, choice = trials.stage_1.mean_scores[rows], trials.choice[rows]
    case_weights = weights[:, np.searchsorted(question, trials.question_code[rows])]
    temperature = fit_score_temperature(means, choice, correct)
    if not 0 < temperature < math.inf:
        return refused("first answers are all right, or confidence says nothing about being right"), nothing
    temperatures = resampled_temperatures(means, choice, correct, temperature, case_weights)
    share = 1 / trials.options[rows]
    every = readings, choice[of], correct[of]
    noisy = fit_score_temperature(*every, share[of])
    temperature = (temperature - share.mean() * noisy) / (1 - share.mean())
    if not noisy < NOISIEST * (temperature + noisy) / 2:
        return refused("readings of the orders have too little in common: average more wordings"), nothing
    total = case_weights.sum(axis=1)
    of_resample = np.divide(case_weights @ share, total, out=np.full_like(total, share.mean()), where=total > 0)
    noisy_again = resampled_temperatures(*every, noisy, case_weights[:, of] * share[of])
    again = (temperatures - of_resample * noisy_again) / (1 - of_resample)
    # A resample of few questions may go further back than there is to go.
    again = np.maximum(again, temperature / 10)
    return interval(temperature, again, len(question)), again


def _single_orders(trials: Trials, rows: IntArray) -> tuple[FloatArray, IntArray] | None:
    """(readings, options) Scores of each order by itself, without what places add to them on average, and (readings)
    the row that each is of; `None` where a row was not asked in as many orders as it has options."""
    scores, options = trials.stage_1.scores[rows], trials.options[rows]
    orders, width = scores.shape[1:]
    asked = np.asarray(~np.isnan(scores).all(axis=2))
    if (asked.sum(axis=1) < options).any():
        return None
    exists = np.asarray(np.arange(width) < options[:, None])
    there = asked[:, :, None] & exists[:, None]
    mean = np.where(there, scores, 0.0).sum(axis=2) / options[:, None]
    centred = np.where(there, scores - mean[:, :, None], 0.0)
    moved = centred - centred.sum(axis=1, keepdims=True) / options[:, None, None]
    # In order r the option k stood at the place k - r.
    places = (np.arange(width) - np.arange(orders)[:, None]) % options[:, None, None]
    # Questions with as many options have the same places.
    group = (options[:, None, None] * width + places)[there]
    added = np.bincount(group, moved[there]) / np.maximum(np.bincount(group), 1)
    cleared = scores.copy()
    cleared[there] -= added[group]
    return cleared[asked], np.nonzero(asked)[0]


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
