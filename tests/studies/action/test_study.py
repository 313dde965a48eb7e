"""The study of action: its scales, and its claims on results made by hand."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from typing import Any

import pytest

from holdfast.lab import Outcome, Record, Results, Status
from holdfast.studies.action import copycat, manipulation
from holdfast.studies.action.study import study
from tests.studies.action.toy import TOY
from tests.studies.tools import Change, judged, raised

LAPTOP = study.scales["laptop"]


@pytest.mark.parametrize("scale", study.scales)
def test_scales(scale: str) -> None:
    config = study.scales[scale]
    trials = list(study.trials(config))
    seeds: dict[str, set[int]] = {}
    for trial in trials:
        seeds.setdefault(str(trial.labels["part"]), set()).update(trial.seeds)
    everyone, policies, few = (set(places) for places in (config.seed_range, config.policy_range, config.long_range))
    assert [seeds[part] for part in ("control", "conditioning", "copycat")] == [policies] * 3
    assert [seeds[part] for part in ("latency", "parity", "dark_room")] == [everyone, few, few]
    assert seeds.get("manipulation", policies) == policies
    assert {trial.gpu > 0 for trial in trials if trial.labels["part"] != "parity"} == {scale in ("gpu", "paper")}
    assert 50 in config.latency.contexts, "a claim asks for it"
    assert config.latency.contexts[-1] // 16 in config.latency.contexts, "a claim compares with it"
    assert {"xlstm10", "xlstm11", "transformer"} <= set(config.control.arms)
    assert set(config.conditioning.arms) <= set(config.control.arms)
    assert config.conditioning.cloning == config.control.cloning, "they are compared with those of part control"
    assert {"xlstm10", "xlstm11"} <= set(config.dark_room.arms)


def test_scales_that_judge_have_seeds_enough() -> None:
    for scale in ("laptop", "gpu", "paper"):
        assert min(len(study.scales[scale].policy_range), len(study.scales[scale].long_range)) >= 3


def test_seeds_do_not_change_a_trial() -> None:
    more = dataclasses.replace(TOY, seeds=3)
    assert [trial for trial in study.trials(more) if trial in list(study.trials(TOY))] == list(study.trials(TOY))


def test_meta_world_is_left_out_where_it_is_missing_and_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manipulation, "find_spec", lambda name: None)
    assert not list(manipulation.trials(LAPTOP))
    assert list(manipulation.trials(study.scales["gpu"])), "a larger scale cannot do without it"
    verdicts = judged(study, Results(LAPTOP, []))
    assert "holdfast[metaworld]" in verdicts["manipulation-success"].reason
    monkeypatch.setattr(manipulation, "find_spec", lambda name: object())
    assert len(list(manipulation.trials(LAPTOP))) == 2 * LAPTOP.policy_seeds


MS = {"xlstm10": 4.0, "xlstm11": 4.0, "recompute": 6.0}
LOSS = {"xlstm10": 0.2, "xlstm11": 0.22, "transformer": 0.25, "rat": 0.3}


def rows_of(labels: Mapping[str, Any], seed: int) -> list[dict[str, Any]]:
    """What a trial of the study might have found, such that every claim holds."""
    part, arm = labels["part"], str(labels.get("arm"))
    rng = random.Random(f"{seed} {labels}")
    noise = 0.001 * rng.random()
    if part == "latency":
        batch = int(labels["batch"])
        return [
            {
                "arm": name,
                "context": context,
                "ms": (1 + 0.001 * rng.random()) * batch * MS.get(name, 0.2 + context * batch**0.5 / 400),
                "bytes": 100 if name.startswith("xlstm") else context,
            }
            for name in ("xlstm10", "xlstm11", "cache", "recompute")
            for context in LAPTOP.latency.contexts
        ]
    if part == "control":
        if labels["view"] == "masked":
            score = 0.4 + 0.03 * int(labels["context"])
        else:
            score = {"": 0.95, "shuffled": 0.0, "untrained": -0.1}[str(labels["control"])]
        return [{"task": "all", "score": score + noise, "loss": LOSS[arm] + noise, "parameters": 1}]
    if part == "conditioning":
        return [{"task": "all", "score": 0.94 + noise, "loss": LOSS[arm] + 0.1 + noise}]
    if part == "copycat":
        without = labels["actions"] == "without"
        return [
            {"task": "all", "score": 0.5 + 0.3 * without + noise, "loss": 0.2 + 0.2 * without + 2 * noise * without}
        ]
    if part == "manipulation":
        without = labels["actions"] == "without"
        success = 0.4 + 0.4 * without + noise
        return [{"task": "all", "success": success, "loss": 1.8 + 0.2 * without + noise}]
    if part == "parity":
        told = arm in ("slstm", "both")
        return [{"length": length, "accuracy": 1.0 if told else 0.5} for length in LAPTOP.parity.lengths]
    assert part == "dark_room"
    rise = 0.15 if arm == "xlstm11" else 0.1
    return [
        {"episode": episode, "score": 0.2 + rise * (episode - 1) + 0.001 * rng.random(), "learner": 0.5}
        for episode in range(1, 5)
    ]


def made_up(change: Change = lambda row: row) -> Results:
    """Results of the scale that judges, with every row changed."""
    config = dataclasses.replace(LAPTOP, manipulation=dataclasses.replace(LAPTOP.manipulation, required=True))
    outcomes = []
    for trial in study.trials(config):
        rows: list[Record] = []
        for row in rows_of(trial.labels, trial.seeds[0]):
            changed = change({**trial.labels, **row})
            rows.append({name: changed[name] for name in row})
        outcomes.append((trial, Outcome(rows)))
    return Results(config, outcomes)


def test_every_claim_can_be_supported() -> None:
    statuses = {name: verdict.status for name, verdict in judged(study, made_up()).items()}
    assert statuses == dict.fromkeys(statuses, Status.SUPPORTED)


CONTRADICTIONS: dict[str, Change] = {
    "latency-flat": raised("ms", 2.0, arm="xlstm10", context=12800),
    "latency-grows": raised("ms", 30.0, arm="cache", context=800),
    "latency-faster": raised("ms", 30.0, arm="xlstm10", context=12800),
    "latency-short": raised("ms", 30.0, arm="cache", context=50),
    "latency-batch": raised("ms", 400.0, part="latency", arm="xlstm10", batch=16),
    "latency-bytes": raised("bytes", 1, arm="xlstm10", context=12800),
    "control-score": raised("score", -0.3, part="control", arm="xlstm10", view="whole"),
    "control-match": raised("score", 0.3, part="control", arm="transformer"),
    "control-perplexity": raised("loss", 0.3, part="control", arm="xlstm10"),
    "control-slstm": raised("score", 0.3, part="control", arm="xlstm11"),
    "control-masked": raised("score", 0.6, part="control", view="masked", context=1),
    "control-masked-score": raised("score", -0.5, part="control", view="masked"),
    "control-shuffled": raised("score", 0.6, control="shuffled"),
    "control-untrained": raised("score", 0.6, control="untrained"),
    "conditioning-ranking": lambda row: {**row, "loss": 1 - row["loss"]} if row["part"] == "conditioning" else row,
    "conditioning-score": raised("score", -0.3, part="conditioning", arm="xlstm10"),
    "copycat-loss": raised("loss", 0.5, part="copycat", actions="with"),
    "copycat-score": raised("score", 0.5, part="copycat", actions="with"),
    "manipulation-success": raised("success", 0.3, part="manipulation", actions="with"),
    "manipulation-loss": raised("loss", 0.3, part="manipulation", actions="with"),
    "parity-slstm": raised("accuracy", -0.3, arm="slstm", length=32),
    "parity-slstm-longer": raised("accuracy", -0.3, arm="slstm", length=256),
    "parity-both": raised("accuracy", -0.3, part="parity", arm="both", length=32),
    "parity-mlstm": raised("accuracy", 0.4, arm="mlstm", length=64),
    "parity-unmixed": raised("accuracy", 0.4, arm="unmixed", length=64),
    "dark-room-xlstm10": raised("score", 0.9, part="dark_room", arm="xlstm10", episode=1),
    "dark-room-xlstm11": raised("score", 0.9, part="dark_room", arm="xlstm11", episode=1),
    "dark-room-slstm": raised("score", 0.9, part="dark_room", arm="xlstm10", episode=4),
    "dark-room-half": raised("score", -0.5, part="dark_room", arm="xlstm11"),
}


def test_every_claim_can_be_contradicted() -> None:
    assert CONTRADICTIONS.keys() == {claim.name for claim in study.claims}
    for name, change in CONTRADICTIONS.items():
        assert judged(study, made_up(change))[name].status is Status.CONTRADICTED, name


def test_arms_that_past_actions_make() -> None:
    assert tuple(copycat.SEEN) == tuple(manipulation.SEEN) == ("without", "with")
