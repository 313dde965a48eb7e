"""Part `trained`: what models are trained on is what the observer says, and claims on results made by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure as Canvas
from scipy.special import logit

from holdfast.confidence import Store, contrast, run
from holdfast.lab import Failure, Outcome, Results, Status, Trial
from holdfast.studies.confidence import trained
from tests.studies.confidence.models import TOY, learned, study
from tests.studies.tools import assert_drawn, assert_repeats, judged, results_of

for module in ("transformers", "aiohttp", "starlette", "tenacity", "uvicorn"):
    pytest.importorskip(module)

CONFIG = TOY.trained


@pytest.fixture(scope="module")
def results() -> Results:
    return results_of(study, TOY, "trained")


# What is learned.


@pytest.mark.parametrize("arm", trained.ARMS)
def test_the_observer_has_the_parameters_that_are_to_be_found(arm, tmp_path):
    plan = trained.plan_of(dataclasses.replace(CONFIG, questions=12), 3)
    observer = trained.observer_of(trained.ARMS[arm], CONFIG, plan, 3)
    trials = run(plan, observer, Store(tmp_path / "store.jsonl"), progress=False).trials
    contrasts = contrast(trials)
    for parameter, name in trained.FOUND.items():
        # Sums of a few log-odds below 10 in double precision.
        assert contrasts.mean(name) == pytest.approx(trained.ARMS[arm][parameter], abs=1e-12)
    assert 0.3 < trained.accuracy_of(trials) < 1


def test_laptop_observers_are_uncertain_and_change_their_minds(tmp_path):
    """A model that knows all answers never changes its mind, and log-odds that are far out are hardly learned."""
    config = trained.TrainedConfig()
    plan = trained.plan_of(config, 0)
    observer = trained.observer_of(trained.ARMS["both"], config, plan, 0)
    trials = run(plan, observer, Store(tmp_path / "store.jsonl"), progress=False).trials
    assert 0.55 < trained.accuracy_of(trials) < 0.95
    opposed = trials.change_of_mind[(trials.advice == "opposite") & (trials.display == "hidden")]
    assert 0.2 < opposed.mean() < 0.95
    assert np.quantile(np.abs(trials.final_log_odds), 0.95) < 6


def test_transcripts_are_all_that_the_probe_asks_and_nothing_else(tmp_path):
    conversations, shares = learned("both")
    plan = trained.plan_of(CONFIG, 0)
    assert len(conversations) == plan.requests == 4 * 2 * (1 + 2 * 3 * 2)
    asked = []

    class Spy:
        """An observer that notes what it is asked."""

        observer = trained.observer_of(trained.ARMS["both"], CONFIG, plan, 0)
        backend = observer.backend

        def answer(self, asks):
            for ask in asks:
                asked.append(ask.messages)
                yield from self.observer.answer([ask])

    run(plan, Spy(), Store(tmp_path / "store.jsonl"), progress=False)
    assert sorted(map(str, asked)) == sorted(str(tuple(messages)) for messages in conversations)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    read = np.array([Spy.observer.read(messages).scores for messages in conversations])
    np.testing.assert_allclose(logit(shares[:, 0]), read[:, 0] - read[:, 1], atol=1e-9)


def test_arms_differ_in_the_observer_alone():
    (both, of_both), (bayes, of_bayes) = learned("both"), learned("bayes")
    assert both == bayes, "both make the same first choices"
    first = [len(messages) == 1 for messages in both]
    assert np.array_equal(of_both[first], of_bayes[first])
    assert np.abs(of_both - of_bayes).max() > 0.1


# What comes out.


def test_records(results):
    rows = {row["arm"]: row for row in results.where(part="trained")}
    assert rows.keys() == trained.ARMS.keys()
    for arm, row in rows.items():
        assert {name: row[f"true_{name}"] for name in trained.FOUND} == trained.ARMS[arm]
        for name in trained.FOUND.values():
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
        assert 0 <= row["endpoint_difference"] < trained.SAME_TO
        assert row["endpoint_readings"] == 2 * 2 * 13
        assert 0 < row["mass"] <= 1
    (learning, cells, updates) = (results.curve(name, arm="both") for name in ("learning", "cells", "updates"))
    assert [point["step"] for point in learning] == list(range(10, 101, 10))
    assert {(row["display"], row["advice"]) for row in cells if row["accuracy"] is None} == {
        (display, advice) for display in ("shown", "hidden") for advice in ("same", "opposite", "neutral")
    }
    assert [(row["advice"], row["accuracy"]) for row in updates] == [
        (advice, accuracy) for advice in ("same", "opposite") for accuracy in (0.6, 0.9)
    ]


def test_an_endpoint_that_reads_something_else_is_seen(tmp_path):
    """A leaning towards a place would not do: the mean over the orders takes it out."""
    plan = trained.plan_of(CONFIG, 0)
    observer = trained.observer_of(trained.ARMS["both"], CONFIG, plan, 0)

    class Other:
        """Answers as the observer in process, and otherwise behind a server."""

        backend = observer.backend
        factor = 1.0

        def answer(self, asks):
            for answer in observer.answer(asks):
                one, other = answer.scores
                yield dataclasses.replace(answer, scores=(self.factor * one, other))

    part = trained.part_of(plan, 2)
    for factor in (1.0, 1.01):
        responder = Other()
        folder = tmp_path / str(factor)
        store = Store(folder / "in_process.jsonl")
        folder.mkdir()
        run(plan, responder, store, progress=False)
        responder.factor = factor
        found = trained.through_endpoint(part, responder, store, folder)
        assert found["endpoint_readings"] == part.requests
        assert (found["endpoint_difference"] > 1e-3) == (factor > 1)


def test_a_trial_repeats(results):
    trial, outcome = results.outcomes[0]
    assert_repeats(trained.part, dataclasses.replace(trial, labels={"arm": trial.labels["arm"]}), outcome)


def test_figures(results):
    assert_drawn(trained.part.figures, results)


def test_figures_draw_means_over_seeds():
    cells = [
        {"display": "shown", "advice": advice, "accuracy": accuracy, "trials": 8, "change_of_mind": share}
        | {"ideal_change_of_mind": 0.1, "probability_change": -share}
        for advice, accuracy, share in (("opposite", None, 0.2), ("opposite", 0.6, 0.9), ("same", None, 0.0))
    ]
    more = [{**row, "change_of_mind": float(row["change_of_mind"]) + 0.1} for row in cells]
    outcomes = [
        (Trial(seed, TOY, {"part": "trained", "arm": "both"}), Outcome([{"a": 1}], {"cells": rows}))
        for seed, rows in enumerate((cells, more))
    ]
    figures = {figure.name: figure for figure in trained.part.figures}
    axes = Canvas().subplots()
    rows = list(figures["trained-changes"].draw(Results(TOY, outcomes), axes))
    assert [(row["advice"], row["mean"], row["ideal"], row["seeds"]) for row in rows] == [
        ("opposite", pytest.approx(0.25), pytest.approx(0.1), 2),
        ("same", pytest.approx(0.05), pytest.approx(0.1), 2),
    ]
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([25.0, 5.0]), "in percent"


# Claims.


def made_up(
    scatter: float = 0.01, endpoint: float = 1e-5, bayes: dict[str, float] | None = None, **both: float
) -> Results:
    """Results of which every claim holds, but for what is changed: estimates of either arm, and the difference of the
    endpoint."""
    outcomes: list[tuple[Trial[Any], Outcome]] = []
    changed = {"both": both, "bayes": bayes or {}}
    for seed in range(5):
        for arm, parameters in trained.ARMS.items():
            row: dict[str, float] = {"endpoint_difference": endpoint, "endpoint_readings": 100}
            for place, (parameter, name) in enumerate(trained.FOUND.items()):
                value = changed[arm].get(name, parameters[parameter]) + scatter * (seed - 2) * (-1) ** place
                row |= {name: value, f"{name}_low": value - 0.1, f"{name}_high": value + 0.1}
                row[f"true_{parameter}"] = parameters[parameter]
            outcomes.append((Trial(seed, TOY, {"part": "trained", "arm": arm}), Outcome([row])))
    return Results(TOY, outcomes)


ALL = {claim.name for claim in trained.part.claims}


def failing(results: Results, status: Status = Status.CONTRADICTED) -> set[str]:
    verdicts = {name: verdict for name, verdict in judged(study, results).items() if name in ALL}
    assert {verdict.status for verdict in verdicts.values()} <= {Status.SUPPORTED, status}
    return {name for name, verdict in verdicts.items() if verdict.status is status}


def test_claims_hold_where_everything_is_found():
    assert len(ALL) == 5
    assert failing(made_up()) == set()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"choice_bias": 1.2}, {"trained-bias"}),
        ({"choice_bias": 0.8}, {"trained-bias"}),
        ({"choice_bias": 1.1}, set()),
        ({"weight_same": 1.0}, {"trained-same"}),
        ({"weight_opposite": 2.6}, {"trained-opposite"}),
        ({"weight_opposite": 1.4}, {"trained-opposite"}),
        ({"weight_opposite": 1.675}, set()),
        ({"bayes": {"choice_bias": 0.2}}, {"trained-control"}),
        ({"bayes": {"weight_same": 0.8}}, {"trained-control"}),
        ({"bayes": {"weight_opposite": 1.3}}, {"trained-control"}),
        ({"bayes": {"choice_bias": -0.05, "weight_opposite": 0.85}}, set()),
        ({"endpoint": 2e-3}, {"trained-endpoint"}),
    ],
)
def test_claims_fail_where_something_else_is_found(change, expected):
    assert failing(made_up(**change)) == expected


def test_claims_are_undecided_where_models_scatter():
    found = failing(made_up(scatter=0.3), Status.INCONCLUSIVE)
    assert found >= {"trained-bias", "trained-same"}


def test_a_failed_model_leaves_the_endpoint_undecided():
    results = made_up()
    trial = results.outcomes[0][0]
    lost = Results(TOY, results.outcomes[1:], [Failure("key", trial, "it broke", "")])
    assert judged(study, lost)["trained-endpoint"].status is Status.INCONCLUSIVE


def test_drawn_recovery():
    figures = {figure.name: figure for figure in trained.part.figures}
    rows = figures["trained-recovery"].draw(made_up(scatter=0.0), Canvas().subplots())
    assert len(rows) == 5 * 2 * 3
    assert all(row["found"] == pytest.approx(row["trained in"]) for row in rows)


def test_scales():
    for config in (trained.QUICK, trained.TrainedConfig(), trained.GPU):
        assert set(config.arms) == trained.ARMS.keys()
        assert config.recipe.dim % config.recipe.heads == 0
        assert config.recipe.warmup < config.recipe.steps
        assert config.endpoint_questions <= config.questions
        trained.plan_of(config, 100)
    trials = list(trained.trials(dataclasses.replace(TOY, seeds=5, model_seeds=3)))
    assert [(trial.seed, trial.labels["arm"]) for trial in trials] == [
        (s, arm) for s in range(3) for arm in trained.ARMS
    ]
