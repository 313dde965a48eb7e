"""The study of solutions: its scales, and its claims on results made by hand."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from typing import Any

import pytest

from holdfast.lab import Outcome, Record, Results, Status
from holdfast.studies.solutions import glyphs, matched, pairs, pruning, vit
from holdfast.studies.solutions.study import study
from tests.studies.solutions.toy import TOY
from tests.studies.tools import Change, assert_drawn, judged, raised

LAPTOP, GPU = study.scales["laptop"], dataclasses.replace(study.scales["gpu"], seeds=5)
LARGE = {"glyphs", "vit"}


@pytest.mark.parametrize("scale", study.scales)
def test_scales(scale: str) -> None:
    config = study.scales[scale]
    trials = list(study.trials(config))
    parts = {str(trial.labels["part"]) for trial in trials}
    assert parts == {part.name for part in study.parts} - (set() if scale == "gpu" else LARGE)
    assert {seed for trial in trials for seed in trial.seeds} == set(config.seed_range)
    assert config.first_seed == 100, "settings were chosen on other seeds"
    for trial in trials:
        assert (trial.gpu > 0) == (trial.labels["part"] in LARGE)
    arms = {"pairs": pairs.ARMS, "pruning": pruning.ARMS, "glyphs": {**glyphs.FACTORIAL, **glyphs.SWEEPS}}
    for trial in trials:
        known: Mapping[str, Any] = arms.get(str(trial.labels["part"]), {**matched.SWEEPS, **vit.SWEEPS})
        assert trial.labels.get("arm", next(iter(known))) in known


def test_scales_that_judge() -> None:
    for config in (LAPTOP, GPU):
        assert len(config.seed_range) >= 5
        assert len(config.large_range) >= 5
        assert set(config.pairs.arms) == set(pairs.ARMS)
        assert set(config.pruning.arms) == set(pruning.ARMS)
        assert set(config.matched.arms) == set(matched.SWEEPS)
        assert dict(zip(config.matched.streams, config.matched.levels, strict=True)) == {"pairs": 0.95, "permuted": 0.9}
    assert GPU.glyphs.level == 0.9, "a claim says so"
    assert GPU.vit.level == 0.95, "a claim says so"
    assert GPU.glyphs.tasks == 10, "a claim says so"


def test_the_arms_that_claims_name() -> None:
    assert pairs.ARMS["shampoo"] == dataclasses.replace(
        pairs.ARMS["sgd"], label="Shampoo's direction", method="shampoo"
    )
    assert {pairs.ARMS[f"{method}-long"].length for method in ("sgd", "shampoo")} == {10}
    assert {pairs.ARMS[f"{method}-slow"].bias_rate for method in ("sgd", "shampoo")} == {0.01}
    assert len(pruning.L1) == 10, "a claim says so"
    assert {arm.gradual for arm in pruning.GRADUAL.values()} == set(pruning.FRACTIONS)
    assert len(glyphs.FACTORIAL) == 2 + 3 * 2 * 2


OLD = {
    "sgd": 0.08,
    "shampoo": 0.65,
    "shampoo-reset": 0.19,
    "shampoo-0.9": 0.33,
    "shampoo-0.99": 0.55,
    "sgd-bias": 0.0,
    "shampoo-bias": 0.25,
    "sgd-slow": 0.08,
    "shampoo-slow": 0.65,
    "sgd-torch": 0.0,
    "shampoo-torch": 0.01,
    "sgd-long": 0.02,
    "shampoo-long": 0.43,
}
MATCHED = {
    "pairs": {"sgd": 0.22, "shampoo": 0.64, "adamw": 0.4, "adagrad": 0.5, "muon": 0.2, "soap": 0.2},
    "permuted": {"sgd": 0.54, "shampoo": 0.64, "adamw": 0.53, "adagrad": 0.6, "muon": 0.45, "soap": 0.54},
}
KEPT = {"sgd": 0.75, "power-3": 0.89, "recipe": 0.975, "adamw": 0.77}


def rows_of(labels: Mapping[str, Any], seed: int) -> list[dict[str, Any]]:
    """What a trial of the study might have found, such that every claim holds."""
    part, arm = labels["part"], str(labels.get("arm"))
    noise = 0.001 * random.Random(f"{seed} {labels}").random()
    if part == "pairs":
        shampoo = arm == "shampoo"
        record = {"learn": 0.98 + noise, "old": OLD[arm] + noise, "cosine": 0.63 - 0.12 * shampoo + noise}
        return [record | {"rank": 38 - 2 * shampoo + noise, "stable_rank": 3 + 2 * shampoo + noise}]
    if part == "matched":
        return [{"matched": MATCHED[labels["stream"]][arm] + noise, "bracketed": 1, "best": 0.99}]
    if part == "pruning":
        dense = {"dense": 0.98 + noise}
        if arm in pruning.GRADUAL:
            return [dense | {f"kept-{arm.removeprefix('gradual-')}": 0.94 + noise}]
        kept = KEPT.get(arm, 0.95 if arm == "l1-0.001" else 0.9)
        return [dense | {f"kept-{fraction:g}": kept + 2 * noise for fraction in pruning.FRACTIONS}]
    if part == "vit":
        return [{"matched": {"shampoo": 0.5, "adamw": 0.3}.get(arm, 0.2) + noise, "bracketed": 1, "best": 0.99}]
    assert part == "glyphs"
    if labels["stream"] == "linear":
        return [{"accuracy": 0.9 + noise}]
    if labels["stream"] == "permuted":
        return [{"matched": MATCHED["permuted"][arm] + noise, "bracketed": 1, "best": 0.99}]
    return [{"learn": 0.98, "old": 0.5 * (arm == "shampoo-0.999") + noise}]


def made_up(change: Change = lambda row: row) -> Results:
    """Results of the largest scale, with every row changed."""
    outcomes = []
    for trial in study.trials(GPU):
        rows: list[Record] = []
        for row in rows_of(trial.labels, trial.seeds[0]):
            changed = change({**trial.labels, "seed": trial.seeds[0], **row})
            rows.append({name: changed[name] for name in row})
        curves: dict[str, list[Record]] = {}
        if trial.labels["part"] == "pairs":
            curves = {"tasks": [{"task": task, "after": 0.9, "end": 0.2 * task} for task in range(1, 6)]}
        outcomes.append((trial, Outcome(rows, curves)))
    return Results(GPU, outcomes)


def test_every_claim_can_be_supported() -> None:
    statuses = {name: verdict.status for name, verdict in judged(study, made_up()).items()}
    assert statuses == dict.fromkeys(statuses, Status.SUPPORTED)


CONTRADICTIONS: dict[str, Change] = {
    "pairs-shampoo": raised("old", -0.4, part="pairs", arm="shampoo"),
    "pairs-learn": raised("learn", -0.03, part="pairs", arm="shampoo"),
    "pairs-cosine": raised("cosine", 0.1, arm="shampoo"),
    "pairs-every-seed": raised("cosine", 0.2, arm="shampoo", seed=103),
    "pairs-biases": raised("old", 0.45, part="pairs", arm="shampoo-bias"),
    "pairs-torch": raised("old", 0.2, arm="shampoo-torch"),
    "pairs-slow-biases": raised("old", -0.4, arm="shampoo-slow"),
    "pairs-memory": raised("old", 0.3, arm="shampoo-reset"),
    "pairs-beta": raised("old", 0.3, part="pairs", arm="shampoo-0.9"),
    "pairs-length": raised("old", 0.2, arm="shampoo-long"),
    "pairs-long": raised("old", 0.45, arm="sgd-long"),
    "pairs-rank": raised("rank", 4, arm="shampoo"),
    "pairs-changes": raised("stable_rank", -2, arm="shampoo"),
    "matched-permuted": raised("matched", 0.1, part="matched", stream="permuted", arm="sgd"),
    "matched-pairs": raised("matched", 0.3, stream="pairs", arm="sgd"),
    "matched-adamw": raised("matched", 0.3, stream="pairs", arm="adamw"),
    "matched-adamw-permuted": raised("matched", 0.2, part="matched", stream="permuted", arm="adamw"),
    "matched-comparator": raised("matched", -0.2, stream="pairs", arm="adagrad"),
    "matched-adagrad-permuted": raised("matched", 0.1, stream="permuted", arm="adagrad"),
    "matched-muon": raised("matched", 0.2, stream="pairs", arm="muon"),
    "matched-soap": raised("matched", 0.2, stream="pairs", arm="soap"),
    "matched-muon-permuted": raised("matched", 0.2, stream="permuted", arm="muon"),
    "matched-soap-permuted": raised("matched", 0.2, stream="permuted", arm="soap"),
    "pruning-power": raised("kept-0.1", -0.1, arm="power-3"),
    "pruning-plain": raised("kept-0.1", 0.15, arm="sgd"),
    "pruning-gain": raised("kept-0.1", 0.12, arm="sgd"),
    "pruning-every-seed": raised("kept-0.1", 0.11, arm="sgd", seed=102),
    "pruning-without-decay": raised("kept-0.1", 0.08, arm="power-3"),
    "pruning-recipe": raised("kept-0.05", -0.05, arm="recipe"),
    "pruning-dense": raised("dense", -0.05, arm="recipe"),
    **{f"pruning-l1-{k:g}": raised(f"kept-{k:g}", 0.05, arm="l1-0.001") for k in pruning.FRACTIONS},
    **{f"pruning-gradual-{k:g}": raised(f"kept-{k:g}", 0.05, arm=f"gradual-{k:g}") for k in pruning.FRACTIONS},
    "glyphs-hard": raised("accuracy", 0.08, part="glyphs"),
    "glyphs-shampoo": raised("old", 0.5, part="glyphs", arm="sgd"),
    "glyphs-memory": raised("old", 0.5, part="glyphs", arm="shampoo-0.999-reset"),
    "glyphs-beta": raised("old", 0.5, part="glyphs", arm="shampoo-0.9"),
    "glyphs-biases": raised("old", 0.5, part="glyphs", arm="shampoo-0.999-bias"),
    "glyphs-permuted": raised("matched", 0.1, part="glyphs", arm="sgd"),
    "glyphs-permuted-adamw": raised("matched", 0.1, part="glyphs", arm="adamw"),
    "vit-shampoo": raised("matched", 0.29, part="vit", arm="sgd"),
    "vit-adamw": raised("matched", 0.19, part="vit", arm="adamw"),
    "vit-muon": raised("matched", 0.1, part="vit", arm="muon"),
    "vit-soap": raised("matched", 0.1, part="vit", arm="soap"),
}


def test_every_claim_can_be_contradicted() -> None:
    assert CONTRADICTIONS.keys() == {claim.name for claim in study.claims}
    for name, change in CONTRADICTIONS.items():
        assert judged(study, made_up(change))[name].status is Status.CONTRADICTED, name


def test_what_was_not_learnt_is_not_compared() -> None:
    verdicts = judged(study, made_up(raised("learn", -0.2, arm="shampoo")))
    assert verdicts["pairs-shampoo"].status is Status.INCONCLUSIVE
    assert "not learnt, retention is meaningless" in verdicts["pairs-shampoo"].reason
    assert verdicts["pairs-long"].status is Status.SUPPORTED


def test_without_a_bracket_there_is_no_comparison() -> None:
    def change(row: dict[str, Any]) -> dict[str, Any]:
        lost = row["part"] in ("matched", "vit") and row["arm"] == "muon" and row["seed"] == 102
        return {**row, "matched": None, "bracketed": 0} if lost else row

    verdicts = judged(study, made_up(change))
    assert verdicts["matched-pairs"].status is Status.SUPPORTED
    for name, level in (("matched-muon", 0.95), ("matched-muon-permuted", 0.9), ("vit-muon", 0.95)):
        assert verdicts[name].status is Status.INCONCLUSIVE
        expected = f"no two neighbouring rates of Muon bracket a learning accuracy of {level:g} at seed 102"
        assert expected in verdicts[name].reason


def test_l1_is_tuned_for_each_fraction() -> None:
    results = made_up(raised("kept-0.01", 0.2, arm="adam-l1-0.004"))
    assert [pruning.tuned(results, fraction)[0] for fraction in (0.1, 0.01)] == ["l1-0.001", "adam-l1-0.004"]


def test_figures() -> None:
    for part in study.parts:
        assert_drawn(part.figures, made_up())


def test_seeds_do_not_change_a_trial() -> None:
    more = dataclasses.replace(TOY, seeds=3, large_seeds=2)
    assert [trial for trial in study.trials(more) if trial in list(study.trials(TOY))] == list(study.trials(TOY))


def test_laptops_leave_what_needs_a_gpu_to_it() -> None:
    verdicts = judged(study, Results(LAPTOP, made_up().outcomes))
    reasons = {name: verdict.reason for name, verdict in verdicts.items() if verdict.status is Status.INCONCLUSIVE}
    assert {name.split("-")[0] for name in reasons} == LARGE
    assert all("--scale gpu" in reason for reason in reasons.values())
