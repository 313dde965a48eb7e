"""The mixed logistic model of bare choices, and the plain one that it replaces."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import check_grad
from scipy.special import expit

from holdfast.confidence import Design, Observer, choice_design, fit_choices, read_choice, simulate
from holdfast.confidence.choices import _Marginal
from holdfast.confidence.observers import draw_evidence
from holdfast.errors import ArgumentError

TRUTH = {"confidence": 1.0, "choice_bias": 0.8, "weight_same": 0.8, "weight_opposite": 2.0}
TOLERANCE = {"confidence": 0.06, "choice_bias": 0.06, "weight_same": 0.06, "weight_opposite": 0.12}


def choices(seed: int, questions: int = 150, spread: float = 0.8) -> Design:
    """Choices of a model that is as described: 30 a question."""
    rng = np.random.default_rng(seed)
    confidence = np.abs(draw_evidence(rng, questions)[0])
    own = rng.normal(0, spread, questions)
    accuracies, sides = np.array([0.5, 0.6, 0.7, 0.8, 0.9]), np.array([1.0, -1.0, 0.0])
    question, shown, level, side = (axis.ravel() for axis in np.indices((questions, 2, 5, 3)))
    worth = np.log(accuracies / (1 - accuracies))[level]
    same, opposite = (sides[side] == 1).astype(float), (sides[side] == -1).astype(float)
    columns = np.stack([confidence[question], shown.astype(float), same * worth, -opposite * worth], axis=1)
    stay = rng.random(len(question)) < expit(columns @ np.array(list(TRUTH.values())) + own[question])
    return Design(columns, stay.astype(float), question, tuple(TRUTH))


def test_recovery() -> None:
    models = [fit_choices(choices(seed)) for seed in range(20)]
    for name, truth in TRUTH.items():
        mixed = np.mean([model.coefficients[name].value for model in models])
        assert mixed == pytest.approx(truth, abs=TOLERANCE[name]), name
        covered = [m.coefficients[name].low <= truth <= m.coefficients[name].high for m in models]
        assert np.mean(covered) >= 0.8, name
    assert np.mean([model.spread for model in models]) == pytest.approx(0.8, abs=0.15)


@pytest.mark.parametrize(("spread", "kept"), [(0.8, 0.905), (1.2, 0.817)])
def test_the_plain_model_is_attenuated(spread: float, kept: float) -> None:
    """By 1 / sqrt(1 + c^2 sigma^2) with c = 16 sqrt(3) / (15 pi), where curves are averaged over questions."""
    models = [fit_choices(choices(seed, spread=spread)) for seed in range(40, 46)]
    assert kept == pytest.approx(1 / math.sqrt(1 + (16 * math.sqrt(3) / (15 * math.pi) * spread) ** 2), abs=1e-3)
    plain, mixed = (
        np.mean([value(model) for model in models]) / TRUTH["weight_opposite"]
        for value in (lambda m: m.plain["weight_opposite"], lambda m: m.coefficients["weight_opposite"].value)
    )
    assert plain == pytest.approx(kept, abs=0.05)
    assert plain < 0.93
    assert mixed == pytest.approx(1.0, abs=0.08)
    if spread > 1:
        assert plain < 0.9


def test_the_marginal_likelihood_is_the_integral() -> None:
    columns, stay = np.array([[0.5], [1.0], [-0.3]]), np.array([1.0, 0.0, 1.0])
    beta, spread = 0.7, 0.9

    def integrand(u: float) -> float:
        p = expit(columns[:, 0] * beta + u)
        density = math.exp(-0.5 * (u / spread) ** 2) / (spread * math.sqrt(2 * math.pi))
        return float(np.prod(np.where(stay == 1, p, 1 - p))) * density

    model = _Marginal(columns, stay, np.array([0]), 30)
    assert model.loss(np.array([beta, math.log(spread)]))[0] == pytest.approx(
        -math.log(quad(integrand, -12, 12)[0]), rel=1e-6
    )


def test_the_gradient_is_exact() -> None:
    design = choices(0, questions=12)
    starts = np.flatnonzero(np.r_[True, np.diff(design.question) > 0])
    model = _Marginal(design.columns, design.stay, starts, 15)
    point = np.array([0.5, 0.3, 0.4, 1.0, -0.4])
    error = check_grad(lambda x: model.loss(x)[0], lambda x: model.loss(x)[1], point)
    assert error < 1e-4 * np.linalg.norm(model.loss(point)[1])


def test_columns_are_numbers_and_contradiction_counts_downwards() -> None:
    """A minus sign in front of truth values is a negation in some libraries, and no effect at all in others."""
    design = choice_design(simulate(Observer(), 5))
    assert design.columns.dtype == np.float64
    column = dict(zip(design.names, design.columns.T, strict=True))
    assert set(np.round(np.unique(column["weight_opposite"]), 6)) == {-2.197225, -1.386294, -0.847298, -0.405465, 0.0}
    assert column["weight_same"].min() == 0
    assert set(column["choice_bias"]) == {0.0, 1.0}


def test_choices_without_confidences_have_an_intercept() -> None:
    design = choice_design(bare(Observer(noise=1.0, bias=1.0, weight_opposite=2.0)))
    assert design.names == ("intercept", "choice_bias", "weight_same", "weight_opposite")
    model = fit_choices(design)
    assert model.coefficients["choice_bias"].low > 0
    assert model.ratio.low <= 2.0 <= model.ratio.high


def test_ownership_has_an_interval() -> None:
    model = fit_choices(choice_design(simulate(Observer(noise=1.0, bias=1.0, bias_other=1.0), 150)))
    own, other = (model.coefficients[name].value for name in ("choice_bias", "bias_other"))
    assert model.ownership_bias.value == pytest.approx(own - other)
    assert model.ownership_bias.low < 0 < model.ownership_bias.high


def test_choices_without_error_have_no_coefficients() -> None:
    model = fit_choices(choice_design(simulate(Observer(noise=0, bias=1.0), 60)))
    assert "without error" in model.warning
    assert not any(entry.known for entry in model.coefficients.values())
    assert not model.ratio.known


def test_the_order_of_rows_does_not_matter() -> None:
    design = choices(1, questions=40)
    shuffled = np.random.default_rng(0).permutation(len(design.stay))
    again = Design(design.columns[shuffled], design.stay[shuffled], design.question[shuffled], design.names)
    for name in TRUTH:
        assert fit_choices(again).coefficients[name].value == pytest.approx(
            fit_choices(design).coefficients[name].value, rel=1e-3
        )


def test_nothing_to_fit_is_an_error() -> None:
    with pytest.raises(ArgumentError, match="trials"):
        choice_design(simulate(Observer(), 3, accuracies=(1.0,)))


def bare(observer: Observer, questions: int = 120):
    """Trials of which only the choices are known."""
    trials = simulate(observer, questions, displays=("shown", "hidden"))

    def choose(stage):
        best = stage.scores.argmax(axis=2)
        scores = np.stack([read_choice(int(option), 2).scores for option in best.ravel()]).reshape(stage.scores.shape)
        return dataclasses.replace(stage, scores=scores, mass=np.full(stage.mass.shape, np.nan))

    stages = {name: choose(getattr(trials, name)) for name in ("stage_1", "stage_2")}
    return dataclasses.replace(trials, **stages, source="choices")
