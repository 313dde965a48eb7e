"""Bare choices: a logistic model of keeping one's answer, with a random intercept for each question.

    P(stay) = sigmoid(kappa L0 + b V + b_other O + w_same [s = +1] l - w_opposite [s = -1] l + u),   u ~ N(0, sigma^2)

with l = ln(a / (1 - a)), V own answer shown, O another model's shown. The integral over u is taken by Gauss-Hermite
quadrature, the fit by BFGS with the exact gradient. A logistic model without u is fitted beside it: its coefficients
are smaller than those of any single question, since curves of questions of different difficulty are averaged.

Coefficients are in units of the noise in the model's own decisions; their ratios have no unit. Without confidences
(no L0) the question's intercept takes its place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logsumexp

from holdfast.confidence.intervals import Estimate, refused
from holdfast.confidence.observers import CERTAIN, advice_log_odds
from holdfast.confidence.trials import FloatArray, IntArray, Trials
from holdfast.errors import ArgumentError, count_of

NODES = 15
"""Of the quadrature; more are taken where the likelihood still moves."""

MOST_NODES = 60
"""Beyond these the model is taken as it is."""

SEPARATED = 1e-3
"""Nats a trial below which choices follow from the columns without error, and coefficients have no limit."""


class Design(NamedTuple):
    """What a model of choices is fitted to.

    Arguments:
        columns: (n, k) regressors.
        stay: (n) 1: the answer was kept, 0: changed, 1/2: a tie.
        question: (n) number of the question.
        names: of the columns.
    """

    columns: FloatArray
    stay: FloatArray
    question: IntArray
    names: tuple[str, ...]


@dataclass(frozen=True)
class ChoiceModel:
    """A fitted model of choices.

    Arguments:
        coefficients: by name (`confidence`, `choice_bias`, `bias_other`, `weight_same`, `weight_opposite`, and
            `intercept` where there is no confidence), with 95 % Wald intervals.
        ownership_bias: bias towards the own answer less that towards another model's.
        ratio: weight of contradicting over that of agreeing advice, with an interval by the delta method on its
            logarithm.
        plain: the same coefficients without random intercepts: too small.
        spread: standard deviation of the questions' intercepts.
        trials: how many were fitted.
        questions: of how many questions.
        nodes: of the quadrature in the end.
        warning: what is wrong with the fit; empty: nothing.
    """

    coefficients: dict[str, Estimate]
    ownership_bias: Estimate
    ratio: Estimate
    plain: dict[str, float]
    spread: float
    trials: int
    questions: int
    nodes: int
    warning: str = ""


def choice_design(trials: Trials) -> Design:
    """Regressors of the model, from valid trials.

    Advisers who are said to be nearly always right, beyond `CERTAIN`, are left out: what they are worth is cut off.
    Columns are numbers from the start: a minus sign in front of a column of truth values would be a negation.

    Errors:
        ArgumentError: no valid trial, or an answer that is known to be the other one is shown as its own.
    """
    rows = trials.valid & (trials.display != "shown_flipped") & ~(trials.accuracy > CERTAIN)
    if not rows.any():
        raise ArgumentError("trials", "a valid trial with an adviser who can be wrong", "none")
    chosen = trials.where(np.asarray(rows))
    same, opposite = (np.asarray(chosen.advice == side, np.float64) for side in ("same", "opposite"))
    worth = np.where(same + opposite > 0, advice_log_odds(chosen.accuracy, chosen.options), 0.0)
    columns = {
        "choice_bias": np.asarray(chosen.display == "shown", np.float64),
        "bias_other": np.asarray(chosen.display == "other", np.float64),
        "weight_same": same * worth,
        "weight_opposite": -opposite * worth,
    }
    if chosen.source == "choices":
        columns = {"intercept": np.ones(len(chosen)), **columns}
    else:
        columns = {"confidence": chosen.initial_log_odds, **columns}
    used = {name: values for name, values in columns.items() if values.any()}
    code = np.unique(chosen.question, return_inverse=True)[1].astype(np.int64)
    return Design(np.stack(list(used.values()), axis=1), 1 - chosen.change_of_mind, code, tuple(used))


def fit_choices(design: Design, nodes: int = NODES) -> ChoiceModel:
    """Fit the model, and the plain one beside it.

    Arguments:
        design: from `choice_design`, or made by hand.
        nodes: of the quadrature to begin with.
    """
    nodes = count_of("nodes", nodes, 2)
    order = np.argsort(design.question, kind="stable")
    columns, stay, question = design.columns[order], design.stay[order], design.question[order]
    unit = np.sqrt((columns**2).mean(axis=0))
    scaled = columns / unit
    starts = np.flatnonzero(np.r_[True, question[1:] != question[:-1]])

    def plain_loss(beta: FloatArray) -> tuple[float, FloatArray]:
        linear = scaled @ beta
        loss = -(stay @ log_expit(linear) + (1 - stay) @ log_expit(-linear))
        return float(loss), -(scaled.T @ (stay - expit(linear)))

    plain = minimize(plain_loss, np.zeros(len(unit)), jac=True, method="BFGS").x
    start = np.r_[plain, 0.0]
    while True:
        likelihood = _Marginal(scaled, stay, starts, nodes)
        fitted = minimize(
            likelihood.loss, start, jac=True, method="BFGS", options={"gtol": 1e-4 * math.sqrt(len(stay))}
        )
        finer = _Marginal(scaled, stay, starts, 2 * nodes)
        start = fitted.x
        if 2 * nodes > MOST_NODES or abs(finer.loss(start)[0] - float(fitted.fun)) < 0.05:
            break
        nodes *= 2
    beta, spread = start[:-1], math.exp(start[-1])
    decided = float(fitted.fun) < SEPARATED * len(stay)
    warning = "the columns decide all choices without error: coefficients have no limit" if decided else ""
    covariance = _inverse(_hessian(likelihood, start))
    if covariance is None:
        warning = warning or "the likelihood is flat: the design cannot tell these coefficients apart"
        covariance = np.full((len(start), len(start)), np.nan)
    covariance = covariance[:-1, :-1] / np.outer(unit, unit)
    values = beta / unit
    contrasts = np.eye(len(values))
    coefficients = {
        name: refused(warning) if warning else _wald(values, covariance, contrast)
        for name, contrast in zip(design.names, contrasts, strict=True)
    }
    ownership = refused(warning or "the design does not show both its own answer and another model's")
    if not warning and {"choice_bias", "bias_other"} <= set(design.names):
        own, other = (contrasts[design.names.index(name)] for name in ("choice_bias", "bias_other"))
        ownership = _wald(values, covariance, own - other)
    return ChoiceModel(
        coefficients,
        ownership,
        _ratio(design.names, values, covariance, warning),
        dict(zip(design.names, (plain / unit).tolist(), strict=True)),
        spread,
        len(stay),
        len(starts),
        nodes,
        warning,
    )


class _Marginal:
    """Negative marginal log-likelihood with its gradient in the coefficients and ln sigma."""

    def __init__(self, columns: FloatArray, stay: FloatArray, starts: IntArray, nodes: int) -> None:
        points, weights = np.polynomial.hermite_e.hermegauss(nodes)
        self.points, self.log_weights = points, np.log(weights) - 0.5 * math.log(2 * math.pi)
        self.columns, self.stay, self.starts = columns, stay, starts
        self.lengths = np.diff(np.r_[starts, len(stay)])

    def loss(self, parameters: FloatArray) -> tuple[float, FloatArray]:
        """Value and gradient."""
        beta, spread = parameters[:-1], math.exp(min(float(parameters[-1]), 5.0))
        linear = (self.columns @ beta)[:, None] + spread * self.points
        # ln P = y ln s(x) + (1 - y) ln s(-x) = ln s(-x) + y x
        log_likelihood = log_expit(-linear) + self.stay[:, None] * linear
        by_question = np.add.reduceat(log_likelihood, self.starts, axis=0) + self.log_weights
        total = logsumexp(by_question, axis=1)
        posterior = np.exp(by_question - total[:, None])
        residual = self.stay[:, None] - expit(linear)
        weighted = residual * np.repeat(posterior, self.lengths, axis=0)
        gradient = np.r_[self.columns.T @ weighted.sum(axis=1), spread * float((weighted @ self.points).sum())]
        return -float(total.sum()), -gradient


def _hessian(likelihood: _Marginal, at: FloatArray, step: float = 1e-4) -> FloatArray:
    """Second derivatives, by central differences of the gradient."""
    rows = []
    for place in range(len(at)):
        move = np.zeros_like(at)
        move[place] = step
        rows.append((likelihood.loss(at + move)[1] - likelihood.loss(at - move)[1]) / (2 * step))
    return np.asarray((np.array(rows) + np.array(rows).T) / 2)


def _inverse(hessian: FloatArray) -> FloatArray | None:
    """Covariance, or `None` where the coefficients' part is not positive; a spread of 0 is left out of it."""
    spread_known = np.linalg.eigvalsh(hessian)[0] > 1e-8
    size = len(hessian) if spread_known else len(hessian) - 1
    part = hessian[:size, :size]
    if not np.isfinite(part).all() or np.linalg.eigvalsh(part)[0] <= 1e-8:
        return None
    covariance = np.zeros_like(hessian)
    covariance[:size, :size] = np.linalg.inv(part)
    return covariance


def _wald(values: FloatArray, covariance: FloatArray, contrast: FloatArray) -> Estimate:
    """A linear combination of coefficients with its interval."""
    value, half = float(contrast @ values), 1.96 * math.sqrt(contrast @ covariance @ contrast)
    return Estimate(value, value - half, value + half)


def _ratio(names: tuple[str, ...], values: FloatArray, covariance: FloatArray, warning: str) -> Estimate:
    """Weight of contradiction over that of agreement."""
    if warning or "weight_same" not in names or "weight_opposite" not in names:
        return refused(warning or "the design lacks agreeing or contradicting advice")
    same, opposite = names.index("weight_same"), names.index("weight_opposite")
    error_same = math.sqrt(covariance[same, same])
    if values[same] - 1.96 * error_same <= 0 or values[opposite] <= 0:
        return refused("the weight of agreeing advice is not clearly above 0")
    share = np.zeros(len(values))
    share[opposite], share[same] = 1 / values[opposite], -1 / values[same]
    half = 1.96 * math.sqrt(share @ covariance @ share)
    ratio = float(values[opposite] / values[same])
    return Estimate(ratio, ratio * math.exp(-half), ratio * math.exp(half))
