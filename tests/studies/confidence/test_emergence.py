"""Part `emergence`: authors without a bias, the closed form of who reads them, and claims on results made by hand."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure as Canvas
from scipy.special import ndtr, owens_t

from holdfast.confidence import Answer, Backend, Store, analyze, run
from holdfast.confidence.templates import read_prompt
from holdfast.lab import Outcome, Results, Status, Trial
from holdfast.studies.confidence import emergence
from tests.studies.confidence.models import TOY, study
from tests.studies.tools import assert_drawn, assert_repeats, judged, results_of

pytest.importorskip("transformers")

CONFIG = TOY.emergence
PLAN = emergence.plan_of(CONFIG, 0)


@pytest.fixture(scope="module")
def results() -> Results:
    return results_of(study, TOY, "emergence")


# The closed form.


@pytest.mark.parametrize(
    ("mean", "correlation", "shown", "hidden", "boost"),
    [
        (0.0, 0.8, 0.7952, 0.5, 1.356),
        (0.5, 0.5, 0.7900, 0.6915, 0.518),
        (0.5, 0.8, 0.8699, 0.6915, 1.093),
        (1.0, 0.8, 0.9275, 0.8413, 0.880),
        (0.7, 0.0, ndtr(0.7), ndtr(0.7), 0.0),
    ],
)
def test_closed_form(mean, correlation, shown, hidden, boost):
    """Values worked out beforehand, to their digits."""
    stay = [float(values[0]) for values in emergence.closed_form(np.array([mean]), correlation)]
    assert stay == pytest.approx([shown, hidden], abs=5e-5)
    assert math.log(stay[0] / (1 - stay[0])) - math.log(stay[1] / (1 - stay[1])) == pytest.approx(boost, abs=1e-3)


def test_closed_form_by_another_way():
    """Phi2(m, m; r) = Phi(m) - 2 T(m, sqrt((1 - r) / (1 + r))) with T Owen's function."""
    mean = np.linspace(-2, 2, 9)
    for correlation in (0.0, 0.3, 0.9):
        shown, hidden = emergence.closed_form(mean, correlation)
        other = 1 - 2 * owens_t(mean, math.sqrt((1 - correlation) / (1 + correlation))) / hidden
        np.testing.assert_allclose(shown, other, rtol=0, atol=1e-7)


# Authors.


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_authors_answer_as_the_closed_form_says(correlation):
    """Stage 1 and hidden: Phi(m). Who was right stays right, and who was wrong stays wrong, as the closed form says."""
    prompts = emergence.prompts_of(PLAN, CONFIG.means)
    authors = 40_000
    rows = np.arange(len(prompts))
    shares = emergence.authors_of(prompts, correlation, authors, 7)(rows, 0)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    right = shares[rows, [prompt.right for prompt in prompts]]
    for prompt, share in zip(prompts, right, strict=True):
        toward = prompt.mean if prompt.displayed in (None, True) else -prompt.mean
        (shown,), (hidden,) = emergence.closed_form(np.array([toward]), correlation)
        expected = {None: hidden, True: shown, False: 1 - shown}[prompt.displayed]
        # Six standard deviations of a share of so many fair draws.
        assert share == pytest.approx(expected, abs=6 * 0.5 / math.sqrt(authors))


def test_authors_are_drawn_anew_at_every_step_and_follow_the_seed():
    prompts = emergence.prompts_of(PLAN, CONFIG.means)
    rows = np.arange(len(prompts))
    targets = emergence.authors_of(prompts, 0.5, 50, 1)
    assert np.array_equal(targets(rows, 3), targets(rows, 3))
    assert not np.array_equal(targets(rows, 3), targets(rows, 4))
    assert not np.array_equal(targets(rows, 3), emergence.authors_of(prompts, 0.5, 50, 2)(rows, 3))


class Reader:
    """Reads prompts as somebody does who knows how authors of each question answer, and how their percepts persist."""

    backend = Backend("reader", "test")

    def __init__(self, correlation: float) -> None:
        self.correlation = correlation
        means = emergence.means_of(PLAN.questions, CONFIG.means)
        self.mean = {question.text: mean for question, mean in zip(PLAN.questions, means, strict=True)}
        self.answers = {question.text: question.options[question.answer or 0] for question in PLAN.questions}
        self.asked: list[Any] = []

    def answer(self, asks):
        (template,) = PLAN.design.templates
        for ask in asks:
            self.asked.append(list(ask.messages))
            prompt = read_prompt(ask.messages, template)
            right = prompt.options.index(self.answers[prompt.text])
            mean = self.mean[prompt.text]
            toward = mean if prompt.displayed in (None, right) else -mean
            (shown,), (hidden,) = emergence.closed_form(np.array([toward]), self.correlation)
            share = hidden if prompt.displayed is None else shown
            if prompt.displayed not in (None, right):
                share = 1 - share
            scores = [math.log(share if place == right else 1 - share) for place in (0, 1)]
            yield Answer(ask.key, tuple(scores), 1.0)


def test_prompts_are_those_of_the_probe_and_both_displays(tmp_path):
    prompts = emergence.prompts_of(PLAN, CONFIG.means)
    assert len(prompts) == 4 * 2 * (1 + 1 + 2)
    reader = Reader(0.5)
    run(PLAN, reader, Store(tmp_path / "store.jsonl"), progress=False)
    known = [prompt.messages for prompt in prompts]
    assert len(reader.asked) == 4 * 2 * 3
    assert all(messages in known for messages in reader.asked)
    for prompt in prompts:
        read = read_prompt(prompt.messages, PLAN.design.templates[0])
        assert read is not None
        assert read.options[prompt.right] == reader.answers[read.text]
        assert prompt.mean == reader.mean[read.text]
        assert prompt.displayed is (None if read.displayed is None else read.displayed == prompt.right)
    assert {prompt.mean for prompt in prompts} == set(CONFIG.means)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8])
def test_a_perfect_reader_shows_what_is_expected(correlation, tmp_path):
    trials = run(PLAN, Reader(correlation), Store(tmp_path / "store.jsonl"), progress=False).trials
    expected = emergence.stays(trials, PLAN, CONFIG.means, correlation)
    # Sums and logarithms of a few numbers in double precision.
    assert analyze(trials, resamples=10).choice_bias.value == pytest.approx(expected["expected"], abs=1e-9)
    for display in ("shown", "hidden"):
        assert expected[f"stay_{display}"] == pytest.approx(expected[f"expected_stay_{display}"], abs=1e-9)
    assert (expected["expected"] > 0.3) == (correlation > 0)


# What comes out.


def test_records(results):
    rows = {row["correlation"]: row for row in results.where(part="emergence")}
    assert set(rows) == {0.0, 0.5, 0.8}
    for row in rows.values():
        assert row["boost_low"] <= row["boost"] <= row["boost_high"]
        assert all(0 < float(row[name]) < 1 for name in ("stay_shown", "stay_hidden"))
    assert rows[0.0]["expected"] == pytest.approx(0.0, abs=1e-6)
    assert rows[0.5]["expected"] < rows[0.8]["expected"]
    assert results.curve("learning", part="emergence", correlation=0.5)


def test_a_trial_repeats(results):
    trial, outcome = results.outcomes[0]
    labels = {"correlation": trial.labels["correlation"]}
    assert_repeats(emergence.part, dataclasses.replace(trial, labels=labels), outcome)


def test_figures(results):
    assert_drawn(emergence.part.figures, results)
    rows = list(emergence.part.figures[0].draw(made_up(scatter=0.0), Canvas().subplots()))
    assert [(row["correlation"], row["boost"], row["closed form"]) for row in rows] == [
        (correlation, pytest.approx(boost), pytest.approx(boost)) for correlation, boost in EXPECTED.items()
    ]


# Claims.

EXPECTED = {0.0: 0.0, 0.5: 0.5, 0.8: 1.1}


def made_up(scatter: float = 0.01, **boosts: float) -> Results:
    """Results of which every claim holds, but for boosts that are changed: `of_5` is that at a correlation of 0.5."""
    outcomes: list[tuple[Trial[Any], Outcome]] = []
    for seed in range(5):
        for place, (correlation, expected) in enumerate(EXPECTED.items()):
            boost = boosts.get(f"of_{round(10 * correlation)}", expected) + scatter * (seed - 2) * (-1) ** place
            row = {"boost": boost, "boost_low": boost - 0.1, "boost_high": boost + 0.1, "expected": expected}
            outcomes.append((Trial(seed, TOY, {"part": "emergence", "correlation": correlation}), Outcome([row])))
    return Results(TOY, outcomes)


ALL = {claim.name for claim in emergence.part.claims}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, set()),
        ({"of_0": 0.05, "of_5": 0.55}, set()),
        ({"of_8": -0.1}, {"emergence-boost", "emergence-grows", "emergence-closed-form"}),
        ({"of_5": 1.2}, {"emergence-grows", "emergence-closed-form"}),
        ({"of_5": -0.1}, {"emergence-grows", "emergence-closed-form"}),
        ({"of_0": 0.3}, {"emergence-none", "emergence-closed-form"}),
        ({"of_0": -0.3}, {"emergence-none", "emergence-closed-form"}),
        ({"of_8": 1.4}, {"emergence-closed-form"}),
    ],
)
def test_claims(change, expected):
    verdicts = judged(study, made_up(**change))
    assert verdicts.keys() >= ALL
    assert {name for name in ALL if verdicts[name].status is Status.CONTRADICTED} == expected
    assert {name for name in ALL if verdicts[name].status is Status.SUPPORTED} == ALL - expected


def test_claims_are_undecided_where_models_scatter():
    verdicts = judged(study, made_up(scatter=1.0))
    assert {verdicts[name].status for name in ("emergence-grows", "emergence-none")} == {Status.INCONCLUSIVE}


def test_scales():
    for config in (emergence.QUICK, emergence.EmergenceConfig(), emergence.GPU):
        assert {0.0, 0.8} <= set(config.correlations)
        assert min(config.means) > 0
        assert config.recipe.dim % config.recipe.heads == 0
        assert config.recipe.warmup < config.recipe.steps
        emergence.plan_of(config, 100)
    trials = list(emergence.trials(dataclasses.replace(TOY, seeds=5, model_seeds=2)))
    assert [(trial.seed, trial.labels["correlation"]) for trial in trials] == [
        (seed, correlation) for seed in range(2) for correlation in CONFIG.correlations
    ]
