"""The study of softmax attention that disperses: its scales, and claims on results made by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest

from holdfast.lab import Outcome, Record, Results, Trial
from holdfast.lab.trial import as_outcome
from holdfast.studies.sharpness.study import study
from holdfast.studies.sharpness.traces.part import TracesConfig
from tests.studies.sharpness.toy import TOY, TRAINED
from tests.studies.tools import judged


@pytest.mark.parametrize("scale", ["quick", "laptop", "gpu"])
def test_scales(scale: str) -> None:
    config = study.scales[scale]
    trials = list(study.trials(config))
    by_part = {
        part: sorted(seed for trial in trials if trial.labels["part"] == part for seed in trial.seeds)
        for part in ("retrieve", "control", "bounds", "needle")
    }
    seeds = list(config.seed_range)
    alternatives = [trial for trial in trials if trial.labels["part"] == "trained-with"]
    for arm in config.trained_with.arms:
        assert sorted(seed for trial in alternatives if trial.labels["arm"] == arm for seed in trial.seeds) == seeds
    assert by_part == {"retrieve": seeds, "control": seeds, "bounds": seeds, "needle": [100]}
    assert {trial.labels["part"] for trial in trials if trial.labels["part"] == "traces"} == (
        {"traces"} if scale == "gpu" else set()
    )
    assert {trial.gpu for trial in trials if trial.labels["part"] != "needle"} == {1.0 if scale == "gpu" else 0.0}
    assert len([trial for trial in trials if trial.labels["part"] == "retrieve"]) == (
        1 if scale == "gpu" else len(seeds)
    )


def test_seeds_do_not_change_a_trial() -> None:
    more = dataclasses.replace(TOY, seeds=4)
    assert [t for t in study.trials(more) if t.seed in (0, 1)] == list(study.trials(TOY))


def test_gpu_scale_at_toy_size() -> None:
    config = study.scales["gpu"]
    small = {**TRAINED, "steps": 3, "device": "cpu"}
    config = dataclasses.replace(
        config,
        retrieve=dataclasses.replace(config.retrieve, **small),
        trained_with=dataclasses.replace(config.trained_with, **small),
        control=dataclasses.replace(config.control, **small),
        bounds=dataclasses.replace(TOY.bounds, rows=5, sizes=(64, 128)),
        needle=TOY.needle,
        traces=TracesConfig(
            device="cpu",
            algorithms=("minimum", "bubble_sort"),
            train_sizes=(3, 4),
            test_sizes=(4, 5),
            test_examples=2,
            entropy_examples=2,
            steps=2,
            batch_size=2,
            width=16,
            layers=1,
            heads=2,
        ),
        trace_seeds=1,
    )
    trials = list(study.trials(config))
    traces = [trial for trial in trials if trial.labels["part"] == "traces"]
    assert sorted({arm for trial in traces for arm in trial.config.arms}) == sorted(config.traces.arms)
    assert len(traces) == (len(config.traces.arms) - 1), "plain and adaptive-inference share a network"
    results = Results(config, [(trial, as_outcome(study.run(trial))) for trial in trials])
    accuracy = results.by_seed("accuracy", part="retrieve", arm="plain", n=64)
    assert list(accuracy) == list(range(100, 110))
    assert len(set(results.by_seed("entropy", part="retrieve", arm="plain", n=64).values())) == 10
    assert all(verdict.status for verdict in judged(study, results).values())


SIZES = (16, 64, 256, 1024, 4096)


def made_up(
    *,
    gain: float = 0.0,
    refit: float = 0.0,
    hard: float = 0.0,
    control: float = 0.0,
    trained: float = 0.0,
    slope: float = 1.0,
) -> Results:
    """Five seeds in which the arms differ from plain softmax by the given amounts, give or take 0.001."""
    outcomes = []
    for seed in range(5):
        noise = 0.0005 * (seed - 2)
        rows: list[Record] = []
        for n in (*SIZES, 512):
            plain = 0.9 - 0.05 * math.log2(n / 16) + 0.02 * seed
            act = n > 64
            arms = (("plain", 0.0), ("published", gain), ("refit", refit), ("hard", hard), ("log-n", 0.01))
            for arm, change in arms:
                accuracy = plain + ((change + noise) * act if arm != "plain" else 0.0)
                entropy = slope * math.log(n) - 3 + 0.001 * seed * math.log(n)
                rows.append({"arm": arm, "n": n, "accuracy": accuracy + noise / 9, "entropy": entropy})
        outcomes.append((Trial(seed, TOY.retrieve, {"part": "retrieve"}), Outcome(rows)))
        rows = [
            {"arm": arm, "n": n, "accuracy": 0.9 + change + noise * (1 + change)}
            for n in (64, 256)
            for arm, change in (("plain", 0.0), ("published", control))
        ]
        outcomes.append((Trial(seed, TOY.control, {"part": "control"}), Outcome(rows)))
        for arm in TOY.trained_with.arms:
            rows = [{"n": 1024, "accuracy": 0.6 + 0.02 * seed + trained + noise}]
            outcomes.append((Trial(seed, TOY.trained_with, {"part": "trained-with", "arm": arm}), Outcome(rows)))
    # Enough cases for what is identical in all seeds to be judged.
    retrieve, control = (
        dataclasses.replace(part, sets=20_000, large_sets=20_000) for part in (TOY.retrieve, TOY.control)
    )
    return Results(dataclasses.replace(TOY, retrieve=retrieve, control=control), outcomes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"gain": 0.05}, {"rises-256": "supported", "rises-1024": "supported", "same-16": "supported"}),
        ({"gain": -0.05}, {"rises-256": "contradicted", "rises-512": "contradicted"}),
        ({"gain": 0.0}, {"rises-256": "inconclusive", "rises-1024": "inconclusive"}),
        ({"gain": 0.05, "refit": 0.1}, {"refit-1024": "supported", "refit-4096": "supported"}),
        ({"gain": 0.05, "refit": 0.02}, {"refit-1024": "contradicted"}),
        ({"hard": 0.1}, {"hard-1024": "contradicted"}),
        ({"hard": -0.1}, {"hard-1024": "supported"}),
        ({"refit": 0.05}, {"refit-log-n": "supported"}),
        ({"refit": -0.05}, {"refit-log-n": "contradicted"}),
        ({"trained": 0.05}, {"trained-published": "supported", "trained-entmax": "supported"}),
        ({"trained": -0.05}, {"trained-ssmax": "contradicted", "trained-scale-invariant": "contradicted"}),
        ({"control": 0.03}, {"control-64": "contradicted", "control-256": "contradicted"}),
        ({"control": -0.03}, {"control-64": "supported", "control-256": "supported"}),
        ({"slope": 1.02}, {"disperses-trained": "supported"}),
        ({"slope": 0.5}, {"disperses-trained": "contradicted"}),
    ],
)
def test_claims(changes: dict[str, float], expected: dict[str, str]) -> None:
    found = judged(study, made_up(**changes))
    assert {claim: str(found[claim].status) for claim in expected} == expected
