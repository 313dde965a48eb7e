"""Which mechanisms the log-odds need: nested models, compared on questions that they were not fitted to.

    L1 = m + V b + s (w_s ln(a / (1 - a)) + shift_s) + noise        m: one for each question and wording

Models: `bayes` (b = 0, weights 1, nothing fitted), `bias` (+ b), `one_weight` (+ one weight for all advice),
`two_weights` (+ one for each side), `shifts` (+ reactions to mere agreement and disagreement). m is taken out by
subtracting means within each question, so that how hard it is plays no part. All are fitted by least squares from sums
over questions, and cross-validation costs no more than one fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from holdfast.confidence.observers import CERTAIN, advice_log_odds
from holdfast.confidence.trials import FloatArray, IntArray, Trials
from holdfast.errors import ArgumentError, count_of

FOLDS = 10
"""Parts of a cross-validation."""

COLUMNS = ("bias", "bias_other", "advice", "opposite", "agreed", "contradicted")
"""Departures from the ideal observer: `advice` of both weights from 1, `opposite` of one weight from the other."""

MODELS = {
    "bayes": (),
    "bias": ("bias", "bias_other"),
    "one_weight": ("bias", "bias_other", "advice"),
    "two_weights": ("bias", "bias_other", "advice", "opposite"),
    "shifts": COLUMNS,
}
"""What each model fits."""


@dataclass(frozen=True)
class ModelScore:
    """How well a model predicts.

    Arguments:
        name: of the model.
        parameters: fitted ones, the variance of the noise not counted.
        held_out: negative log-likelihood of a trial of a question that was not fitted, in nats.
        gain: by how much that is lower than the one of `bayes`.
        gain_error: standard error of the gain over questions.
        bic: Bayesian information criterion, less the lowest one.
    """

    name: str
    parameters: int
    held_out: float
    gain: float
    gain_error: float
    bic: float


@dataclass(frozen=True)
class Comparison:
    """Models from simple to rich.

    Arguments:
        models: their scores.
        needed: the simplest model that no richer one beats, by two standard errors on held-out questions and by BIC.
        trials: how many were fitted.
        questions: of how many questions.
    """

    models: tuple[ModelScore, ...]
    needed: str
    trials: int
    questions: int


def compare(trials: Trials, temperature: float = 1.0, folds: int = FOLDS, seed: int = 0) -> Comparison:
    """Fit and cross-validate all models.

    Arguments:
        trials: of questions of two options, with log-odds. Advisers beyond `CERTAIN` are left out.
        temperature: that log-odds are divided by, so that weights of 1 are ideal.
        folds: parts that questions are split into.
        seed: of the split.

    Errors:
        ArgumentError: bare choices, more than two options, or fewer questions than folds.
    """
    if trials.source == "choices" or (trials.options > 2).any():
        raise ArgumentError("trials", "log-odds of questions of two options", "bare choices or more options")
    rows = trials.valid & (trials.display != "shown_flipped") & ~(trials.accuracy > CERTAIN)
    chosen = trials.where(np.asarray(rows))
    if chosen.questions < count_of("folds", folds, 2):
        raise ArgumentError("trials", f"at least {folds} questions", chosen.questions)
    columns, ideal_update = _regressors(chosen)
    response = chosen.final_log_odds / temperature - ideal_update
    unit = _units(chosen)
    centred = _centred(np.column_stack([columns, response]), unit)
    sums = _sums(centred, chosen.question_code)
    freedom = np.bincount(chosen.question_code) - np.bincount(
        np.unique(np.column_stack([chosen.question_code, unit]), axis=0)[:, 0]
    )
    fold = np.random.default_rng(count_of("seed", seed)).permutation(chosen.questions) % folds
    losses, bics = {}, {}
    for name, used in MODELS.items():
        places = [k for k, column in enumerate(COLUMNS) if column in used and columns[:, k].any()]
        losses[name] = _held_out(sums, freedom, fold, places)
        variance = _variance(sums.sum(axis=0), freedom.sum(), places)[1]
        bics[name] = float(freedom.sum() * (math.log(2 * math.pi * variance) + 1)), len(places)
    criteria = {name: deviance + count * math.log(freedom.sum()) for name, (deviance, count) in bics.items()}
    scores, needed = [], "bayes"
    for name, loss in losses.items():
        gain, error = _gain(losses["bayes"], loss, freedom)
        relative = criteria[name] - min(criteria.values())
        scores.append(ModelScore(name, bics[name][1], float(loss.sum() / freedom.sum()), gain, error, relative))
        step, step_error = _gain(losses[needed], loss, freedom)
        if step > 2 * step_error and criteria[name] < criteria[needed]:
            needed = name
    return Comparison(tuple(scores), needed, len(chosen), chosen.questions)


def pooled_regression(trials: Trials) -> dict[str, float]:
    """One regression over all trials, those with advisers who are always right among them, instead of contrasts.

    Secondary: log-odds that came to a limit bend it, and a reaction to mere disagreement goes into its weights.

    Arguments:
        trials: of questions of two options, with log-odds.

    Returns:
        `choice_bias`, `weight_same` and `weight_opposite`, those that the design has.
    """
    chosen = trials.where(np.asarray(trials.valid & (trials.display != "shown_flipped")))
    if not len(chosen):
        return {}
    columns, worth = _regressors(chosen)
    same = np.asarray(chosen.advice == "same", np.float64)
    design = np.column_stack([columns[:, :2], same * worth, columns[:, COLUMNS.index("opposite")]])
    centred = _centred(np.column_stack([design, chosen.final_log_odds]), _units(chosen))
    values = np.linalg.lstsq(centred[:, :-1], centred[:, -1], rcond=None)[0]
    names = ("choice_bias", "bias_other", "weight_same", "weight_opposite")
    return {name: float(v) for name, v, used in zip(names, values, centred.T, strict=False) if used.any()}


def _units(trials: Trials) -> IntArray:
    """(trials) Number of the question in its wording."""
    wordings = int(trials.template_code.max()) + 1
    return np.asarray(np.unique(trials.question_code * wordings + trials.template_code, return_inverse=True)[1])


def _regressors(trials: Trials) -> tuple[FloatArray, FloatArray]:
    """(trials, columns) of departures from the ideal observer, and what that observer would add."""
    same, opposite = (np.asarray(trials.advice == side, np.float64) for side in ("same", "opposite"))
    worth = np.where(same + opposite > 0, advice_log_odds(trials.accuracy), 0.0)
    columns = {
        "bias": np.asarray(trials.display == "shown", np.float64),
        "bias_other": np.asarray(trials.display == "other", np.float64),
        "advice": (same - opposite) * worth,
        "opposite": -opposite * worth,
        "agreed": same,
        "contradicted": -opposite,
    }
    return np.stack([columns[name] for name in COLUMNS], axis=1), columns["advice"]


def _centred(values: FloatArray, unit: IntArray) -> FloatArray:
    """Values less their mean within each unit."""
    count = np.bincount(unit)
    means = np.stack([np.bincount(unit, column) / count for column in values.T], axis=1)
    return np.asarray(values - means[unit])


def _sums(values: FloatArray, question: IntArray) -> FloatArray:
    """(questions, k, k) Sums of products within each question: all that least squares needs."""
    order = np.argsort(question, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(question[order]) > 0])
    products = values[order][:, :, None] * values[order][:, None, :]
    return np.asarray(np.add.reduceat(products, starts, axis=0))


def _variance(total: FloatArray, freedom: int, places: list[int]) -> tuple[FloatArray, float]:
    """Coefficients, with 1 for the response, and the variance of the noise."""
    coefficients = np.zeros(len(total))
    coefficients[-1] = 1.0
    if places:
        coefficients[places] = -np.linalg.lstsq(total[np.ix_(places, places)], total[places, -1], rcond=None)[0]
    # Noise-free observers leave rounding errors, of which no logarithm is to be taken.
    return coefficients, max(float(coefficients @ total @ coefficients) / freedom, 1e-18)


def _held_out(sums: FloatArray, freedom: IntArray, fold: IntArray, places: list[int]) -> FloatArray:
    """(questions) Negative log-likelihood of each question under the fit to the other folds."""
    loss = np.zeros(len(sums))
    for part in np.unique(fold):
        inside = fold == part
        coefficients, variance = _variance(sums[~inside].sum(axis=0), int(freedom[~inside].sum()), places)
        squares = np.einsum("qij,i,j->q", sums[inside], coefficients, coefficients)
        loss[inside] = 0.5 * (squares / variance + freedom[inside] * math.log(2 * math.pi * variance))
    return loss


def _gain(base: FloatArray, loss: FloatArray, freedom: IntArray) -> tuple[float, float]:
    """How much lower a loss a trial is, with its standard error over questions."""
    difference = (base - loss) / freedom.mean()
    return float(difference.mean()), float(difference.std(ddof=1) / math.sqrt(len(difference)))
