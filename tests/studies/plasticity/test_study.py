"""The study of plasticity: its scales, and its claims on results made by hand."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from typing import Any

import pytest

from holdfast.lab import Outcome, Record, Results, Status
from holdfast.studies.plasticity import grokking, shuffling
from holdfast.studies.plasticity.study import study
from tests.studies.plasticity.toy import TOY
from tests.studies.tools import Change, judged, raised

LAPTOP = study.scales["laptop"]
GPU = dataclasses.replace(study.scales["gpu"], cifar=dataclasses.replace(study.scales["gpu"].cifar, folder="images"))
"""With the images that a user would have to bring."""

DEAR = ("grokking", "shuffling", "clamp", "sweep", "offsets", "cifar")
LARGE = {"sweep", "offsets", "cifar", "atari"}
LEFT_OUT = {"quick": LARGE, "laptop": LARGE, "gpu": {"cifar"}, "paper": set[str]()}


@pytest.mark.parametrize("scale", study.scales)
def test_scales(scale: str) -> None:
    config = study.scales[scale]
    trials = list(study.trials(config))
    seeds: dict[str, set[int]] = {}
    for trial in trials:
        seeds.setdefault(str(trial.labels["part"]), set()).update(trial.seeds)
    assert {part.name for part in study.parts} - LEFT_OUT[scale] == seeds.keys()
    for part, of_part in seeds.items():
        assert of_part == set(config.dear_range if part in DEAR else config.seed_range), part
    for trial in trials:
        assert (trial.gpu > 0) == (trial.labels["part"] in LARGE)
    phases = config.grokking.phases
    for name in config.grokking.arms:
        arm = grokking.ARMS[name]
        if arm.peak:  # what changed before and after the re-warm was measured
            before, total = config.grokking.steps(arm)
            assert before % config.grokking.change_every == 0
            assert before + config.grokking.change_every <= total
    assert phases.warmup < phases.cycle


def test_scales_that_judge() -> None:
    for config in (LAPTOP, GPU, study.scales["paper"]):
        assert len(config.dear_range) >= 5
        assert set(config.grokking.arms) == set(grokking.ARMS)
        assert set(config.shuffling.arms) == set(shuffling.ARMS)
    assert LAPTOP.grokking.phases.after == 1200, "a claim says so"
    assert LAPTOP.grokking.phases.late == 3000, "a claim says so"
    assert LAPTOP.shuffling.tasks == 40, "a claim says so"
    assert LAPTOP.fitted_q.goals == 60, "a claim says so"
    assert LAPTOP.clamp.rates[-1] == 4 * LAPTOP.clamp.rates[0], "a claim says so"
    assert LAPTOP.warm_start.fractions[0] == 0.1, "claims say so"


def test_seeds_do_not_change_a_trial() -> None:
    more = dataclasses.replace(TOY, seeds=3, dear_seeds=2)
    assert [trial for trial in study.trials(more) if trial in list(study.trials(TOY))] == list(study.trials(TOY))


BEST = {
    "rewarm": 0.999,
    "low": 0.47,
    "rewarm-less": 0.5,
    "free": 0.6,
    "no-scale-decay": 0.45,
    "late": 0.998,
    "high": 1.0,
    "adamw": 1.0,
    "mlp-rewarm": 0.95,
    "mlp-low": 0.4,
    "mlp-free": 0.25,
}
LAST = {
    "plain": 0.1,
    "layernorm": 0.5,
    "projected": 0.85,
    "decay": 0.15,
    "known": 0.7,
    "detected": 0.7,
    "shrink": 0.8,
    "init": 0.75,
}
SPEED = {"plain": 0.02, "layernorm": 0.4, "projected": 0.9, "decay": 1.0, "fresh": 1.0}
PRIMACY = {
    "fresh": 0.64,
    "decay": 0.55,
    "constant": 0.6,
    "rewarm": 0.61,
    "fresh-high": 0.66,
    "rewarm-high": 0.65,
    "shrink": 0.62,
}
AREA = {"plain": 0.86, "layernorm": 0.88, "projected": 0.9, "decay": 0.82, "known": 0.905, "reset": 0.905}
NORM_COST = {0.5: 0.01, 1.0: 0.0, 2.0: 0.02}


def rows_of(labels: Mapping[str, Any], seed: int) -> list[dict[str, Any]]:
    """What a trial of the study might have found, such that every claim holds."""
    part, arm = labels["part"], str(labels.get("arm"))
    noise = 0.001 * random.Random(f"{seed} {labels}").random()
    if part == "grokking":
        step = 300 if arm == "high" else 400 + 1000 * noise
        return [{"best": BEST[arm] + noise * (BEST[arm] < 0.99), "step": step, "before": 0.01, "after": 0.12 + noise}]
    if part == "shuffling":
        record = {"speed": SPEED.get(arm, 0.7) + noise}
        if arm == "fresh":
            return [record]
        record |= {"last": LAST[arm] + noise, "online": 0.45 + 0.02 * (arm == "detected") + noise}
        record |= {"speed_current": 0.07 + noise} if arm == "decay" else {}
        return [record | ({"found": 39, "changes": 39, "false": 0} if arm == "detected" else {})]
    if part == "primacy":
        return [{"accuracy": PRIMACY[arm] + noise, "memorised": 1.0}]
    if part == "warm_start":
        small = labels["fraction"] == 0.1
        if labels["schedule"] == "decay":
            accuracy = 0.67 - 0.04 * small * (labels["norms"] == "free")
        else:
            accuracy = 0.7 - 0.04 * small * (labels["norms"] == "free")
        return [{"accuracy": accuracy + noise}]
    if part == "fitted_q":
        return [{"last": AREA[arm] + noise}]
    if part == "clamp":
        norm = float(labels["norm"])
        return [{"average": 0.8 + 5 * float(labels["rate"]) / norm - NORM_COST[norm] + noise}]
    if part == "sweep":
        shares = {("bare", "held"): 0.8, ("bare", "free"): 0.2, ("norm", "held"): 0.1, ("scale-decay", "held"): 0.9}
        return [
            {
                "rate": 0.0,
                "norms": norms,
                "grokked": shares.get((labels["network"], norms), 0.3) + noise * (norms == "held"),
            }
            for norms in ("held", "free")
        ]
    if part == "cifar":
        low = 0.05 * (labels["fraction"] == 0.1) * (labels["norms"] == "free")
        return [{"accuracy": 0.8 - low + noise}]
    if part == "atari":
        return [{"score": {"high": 10.0, "low": 5.0, "cyclic": 12.0, "stopped": 13.0}[arm], "episodes": 9}]
    assert part == "offsets"
    return [
        {"offset": offset, "peak": peak, "best": 1.0 if peak == GPU.offsets.peaks[-1] else 0.4 + noise}
        for offset in GPU.offsets.offsets
        for peak in GPU.offsets.peaks
    ]


def made_up(change: Change = lambda row: row) -> Results:
    """Results of the largest scale, with every row changed."""
    outcomes = []
    for trial in study.trials(GPU):
        rows: list[Record] = []
        for row in rows_of(trial.labels, trial.seeds[0]):
            changed = change({**trial.labels, **row})
            rows.append({name: changed[name] for name in row})
        outcomes.append((trial, Outcome(rows)))
    return Results(GPU, outcomes)


def test_every_claim_can_be_supported() -> None:
    statuses = {name: verdict.status for name, verdict in judged(study, made_up()).items()}
    assert statuses == dict.fromkeys(statuses, Status.SUPPORTED)


CONTRADICTIONS: dict[str, Change] = {
    "grokking-rewarm": raised("best", -0.1, arm="rewarm"),
    "grokking-free": raised("best", 0.395, arm="free"),
    "grokking-scale-decay": raised("best", 0.4, arm="no-scale-decay"),
    "grokking-low": raised("best", 0.3, arm="rewarm-less"),
    "grokking-late": raised("best", -0.3, arm="late"),
    "grokking-features": raised("after", -0.1, arm="rewarm"),
    "grokking-tuned": raised("step", 500, arm="high"),
    "grokking-mlp": raised("best", 0.4, arm="mlp-free"),
    "shuffling-projected": raised("last", -0.3, arm="projected"),
    "shuffling-decay": raised("last", 0.3, arm="decay"),
    "shuffling-layernorm": raised("last", 0.3, arm="layernorm"),
    "shuffling-detected": raised("found", -3, arm="detected"),
    "shuffling-online": raised("online", -0.1, arm="detected"),
    "shuffling-rivals": raised("last", 0.15, arm="init"),
    "probe-speeds": raised("speed", 0.3, arm="layernorm"),
    "probe-decay": raised("speed_current", 0.3, arm="decay"),
    "probe-fresh": raised("speed", -0.2, arm="fresh"),
    "primacy-rewarm": raised("accuracy", -0.04, part="primacy", arm="rewarm"),
    "primacy-decay": raised("accuracy", 0.07, part="primacy", arm="decay"),
    "primacy-norms": raised("accuracy", -0.05, part="primacy", arm="rewarm", norms="free"),
    "primacy-peak": raised("accuracy", -0.05, part="primacy", arm="rewarm-high"),
    "warm-start-gap": raised("accuracy", 0.04, schedule="decay", norms="free", fraction=0.1),
    "warm-start-closes": raised("accuracy", -0.05, schedule="rewarm", norms="held", fraction=0.1),
    "warm-start-norms": raised("accuracy", 0.04, schedule="rewarm", norms="free", fraction=0.1),
    "warm-start-rewarm": raised("accuracy", -0.05, schedule="rewarm", norms="held", fraction=0.1),
    "fitted-q-decay": raised("last", 0.06, part="fitted_q", arm="decay"),
    "fitted-q-order": raised("last", 0.06, part="fitted_q", arm="plain"),
    "fitted-q-rewarm": raised("last", -0.05, part="fitted_q", arm="known"),
    "fitted-q-fresh": raised("last", 0.05, part="fitted_q", arm="reset"),
    "clamp-rate": raised("average", -0.1, norm=2.0, rate=1e-2),
    "clamp-ratio": raised("average", -0.1, norm=2.0),
    "sweep-held": raised("grokked", 0.7, network="bare", norms="free"),
    "sweep-scale-decay": raised("grokked", 0.85, network="norm", norms="held"),
    "offsets-any": raised("best", -0.3, offset=10_000, peak=1e-2),
    "offsets-never": raised("best", 0.5985, offset=0, peak=1e-3),
    "cifar-gap": raised("accuracy", 0.05, part="cifar", schedule="decay", norms="free", fraction=0.1),
    "cifar-closes": raised("accuracy", -0.05, part="cifar", schedule="rewarm", norms="held", fraction=0.1),
    "cifar-norms": raised("accuracy", 0.1, part="cifar", schedule="rewarm", norms="free", fraction=0.1),
    "atari-cyclic": raised("score", -5, part="atari", arm="cyclic"),
    "atari-stopped": raised("score", -5, part="atari", arm="stopped"),
}


def test_every_claim_can_be_contradicted() -> None:
    assert CONTRADICTIONS.keys() == {claim.name for claim in study.claims}
    for name, change in CONTRADICTIONS.items():
        assert judged(study, made_up(change))[name].status is Status.CONTRADICTED, name


def test_false_alarms_contradict_the_detector() -> None:
    verdicts = judged(study, made_up(raised("false", 9, arm="detected")))
    assert verdicts["shuffling-detected"].status is Status.CONTRADICTED


def test_what_is_missing_is_said() -> None:
    verdicts = judged(study, Results(LAPTOP, []))
    assert "--config.cifar.folder" in verdicts["cifar-gap"].reason
    assert "--config.atari.games" in verdicts["atari-cyclic"].reason


def test_laptops_leave_what_needs_a_gpu_to_it() -> None:
    verdicts = judged(study, Results(LAPTOP, made_up().outcomes))
    assert {name for name, verdict in verdicts.items() if verdict.status is Status.INCONCLUSIVE} == {
        "offsets-any",
        "offsets-never",
        "atari-cyclic",
        "atari-stopped",
    }
