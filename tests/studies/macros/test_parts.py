"""The parts of the study of macros at toy size."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from holdfast.lab import Part, Results
from holdfast.lab.trial import as_outcome
from holdfast.studies.macros import ale, dose, junk, minatar, network, transfer
from holdfast.studies.macros.agents import ARMS as AGENTS
from holdfast.studies.macros.study import study
from holdfast.studies.macros.transfer import weights_of
from tests.studies.macros.toy import TOY
from tests.studies.tools import assert_drawn, assert_repeats, results_of


@pytest.mark.parametrize(
    ("part", "trials", "arms"),
    [(junk.part, 2, junk.ARMS), (dose.part, 2, dose.ARMS), (network.part, 1, network.ARMS)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_part_runs_and_draws(part: Part[Any], trials: int, arms: dict[str, Any]) -> None:
    results = results_of(study, TOY, part.name)
    assert len(results.outcomes) == trials
    for trial, outcome in results.outcomes:
        rows = {(row["arm"], row["seed"]): row for row in outcome.records}
        assert rows.keys() == {(arm, seed) for arm in arms for seed in trial.seeds}
        for (arm, seed), row in rows.items():
            curve = [point for point in outcome.curves["scores"] if (point["arm"], point["seed"]) == (arm, seed)]
            steps = 24 if part is network.part else 40
            assert [point["step"] for point in curve] == [
                place * steps // (len(curve) - 1) for place in range(len(curve))
            ]
            scores = [float(point["score"] or 0.0) for point in curve]
            assert row["auc"] == pytest.approx(sum(scores) / len(scores))
            assert row["final"] == scores[-1]
            assert all(-1e-9 <= score <= 1 + 1e-9 for score in scores)
    assert_drawn(part.figures, results)
    trial, outcome = results.outcomes[-1]
    assert_repeats(part, trial, outcome)


def test_a_similarity_is_carried_to_other_maps() -> None:
    results = results_of(study, TOY, "transfer")
    ((trial, outcome),) = results.outcomes
    for where in transfer.MAPS:
        arms = {row["arm"] for row in outcome.records if row["map"] == where}
        others = {"primitives", "naive", "oracle"}
        assert arms == (set(transfer.ARMS) if where == "source" else others | {"mean", "single"})
    learned = [row for row in outcome.records if row.get("junk_weight") is not None]
    assert {(row["map"], row["arm"], row["seed"]) for row in learned} == {
        ("source", "learned", seed) for seed in trial.seeds
    }
    matrix = outcome.curves["matrix"]
    assert len(matrix) == 11**2
    assert sum(float(row["weight"] or 0.0) for row in matrix) == pytest.approx(11), "rows sum to 1"
    # What records say on average is what the mean matrix says.
    junk_pairs = [row["weight"] for row in matrix if row["first"] != row["second"] and min(pair(row)) >= 8]
    mean = sum(float(weight or 0.0) for weight in junk_pairs) / len(junk_pairs)
    assert sum(float(row["junk_weight"] or 0.0) for row in learned) / len(learned) == pytest.approx(mean)
    assert_drawn(transfer.part.figures, results)


def pair(row: Any) -> tuple[int, int]:
    return int(row["first"]), int(row["second"])


def test_weights_of_pairs_by_hand() -> None:
    sigma = torch.tensor([[[0.9, 0.05, 0.05], [0.05, 0.55, 0.4], [0.05, 0.4, 0.55]]], dtype=torch.float64)
    assert weights_of(sigma, (0, 1, 1)) == [{"junk_weight": pytest.approx(0.4), "other_weight": pytest.approx(0.05)}]


@pytest.mark.parametrize("part", [minatar.part, ale.part], ids=lambda part: part.name)
def test_agents_play(part: Part[Any]) -> None:
    pytest.importorskip("gymnasium")
    config = TOY if part is minatar.part else dataclasses.replace(TOY, games_seeds=2)
    trials = [trial for trial in study.trials(config) if trial.labels["part"] == part.name]
    assert [trial.labels["arm"] for trial in trials[: len(AGENTS)]] == list(AGENTS)
    assert len(trials) == len(AGENTS) * (1 if part is minatar.part else 2)
    outcomes = []
    for trial in trials[: len(AGENTS)] if part is minatar.part else trials[:1]:
        outcome = as_outcome(study.run(trial))
        (row,) = outcome.records
        assert row["actions"] == (2 if trial.labels["arm"] == "primitives" else 6), "two macros are the same"
        assert ("d_eff" in row) == (trial.labels["arm"] in ("learned", "frozen"))
        assert math.isfinite(float(row["score"] or 0.0))
        assert int(row["games"] or 0) > 0
        outcomes.append((trial, outcome))
    assert_drawn(part.figures, Results(config, outcomes))


def test_games_of_the_largest_scale_can_be_made() -> None:
    pytest.importorskip("minatar")
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    from holdfast.rl.rainbow.environments import make_environment

    config = study.scales["gpu"]
    for game in (*config.minatar.games, *config.ale.games):
        make_environment(game, seed=0).reset()
