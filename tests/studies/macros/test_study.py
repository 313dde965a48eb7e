"""The study of macros: its scales, and its claims on results made by hand."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest

from holdfast.lab import Outcome, Record, Results, Status, Trial
from holdfast.studies.macros import agents, dose, junk, network
from holdfast.studies.macros.study import study
from tests.studies.macros.toy import TOY
from tests.studies.tools import Change, judged, raised

LAPTOP, GPU = study.scales["laptop"], study.scales["gpu"]

GAMES = {"minatar", "ale"}


@pytest.mark.parametrize("scale", study.scales)
def test_scales(scale: str) -> None:
    config = study.scales[scale]
    seeds: dict[str, list[int]] = {}
    for trial in study.trials(config):
        part = str(trial.labels["part"])
        seeds.setdefault(part, []).extend(trial.seeds)
        assert (trial.gpu > 0) == (part in GAMES)
    assert {part.name for part in study.parts} - (set() if scale == "gpu" else GAMES) == seeds.keys()
    ranges = {"network": config.network_range, "minatar": config.games_range, "ale": config.games_range[:2]}
    for part, of_part in seeds.items():
        assert set(of_part) == set(ranges.get(part, config.seed_range)), part
    assert sorted(seeds["junk"]) == list(config.seed_range), "each seed is trained once"


def test_what_claims_say_of_the_scales_that_judge() -> None:
    for config in (LAPTOP, GPU):
        assert config.seeds >= 40
        assert config.first_seed == 100
        assert config.transfer.batch == 20, "as many similarities are averaged"
        assert config.junk.arms == tuple(junk.ARMS)
        assert (config.junk.grid.side, config.junk.grid.junk, config.junk.table.steps) == (13, 24, 40_000)
        assert (config.dose.doses, config.dose.grid.side) == ((8, 16, 24, 36), 13)
        assert (config.transfer.source.junk, config.transfer.table.steps) == (56, 30_000)
        assert config.transfer.moved.goal == (0, 8)
        assert config.transfer.larger.side == 11
        assert (config.network.grid.side, config.network.grid.junk) == (9, 24)
    assert "primitives" in set(junk.ARMS) & set(dose.ARMS) & set(network.ARMS) & set(agents.ARMS)


def test_more_seeds_keep_whole_batches() -> None:
    more = dataclasses.replace(TOY, seeds=5)
    assert [trial for trial in study.trials(TOY) if len(trial.seeds) == TOY.junk.batch] == [
        trial for trial in study.trials(more) if trial in list(study.trials(TOY)) and len(trial.seeds) == TOY.junk.batch
    ]


JUNK = {
    "primitives": 0.4,
    "naive": 0.16,
    "steps": 0.2,
    "raw": 0.45,
    "sinkhorn": 0.4,
    "oracle": 0.65,
    "frozen-raw": 0.1,
    "frozen-sinkhorn": 0.02,
    "shuffled": 0.12,
    "uniform": 0.02,
}
DOSE = {
    8: {"oracle": 0.75, "learned": 0.68, "naive": 0.6, "primitives": 0.4},
    16: {"oracle": 0.7, "learned": 0.5, "naive": 0.4, "primitives": 0.4},
    24: {"oracle": 0.6, "learned": 0.4, "naive": 0.15, "primitives": 0.4},
    36: {"oracle": 0.5, "learned": 0.3, "naive": 0.02, "primitives": 0.4},
}
SOURCE = {"primitives": 0.8, "naive": 0.2, "learned": 0.37, "frozen": 0.05, "shuffled": 0.15, "oracle": 0.5}
CARRIED = {"primitives": 0.8, "naive": 0.2, "mean": 0.6, "single": 0.45, "oracle": 0.6}
NETWORK = {"primitives": 0.3, "naive": 0.4, "learned": 0.1, "oracle": 0.42, "frozen": 0.1, "shuffled": 0.05}
RETURNS = {"primitives": 5.0, "naive": 4.0, "learned": 6.0, "frozen": 3.0}


def rows_of(trial: Trial[Any]) -> list[dict[str, Any]]:
    """What a trial of the study might have found, such that every claim holds."""
    part = trial.labels["part"]
    if part in GAMES:
        noise = random.Random(f"{trial.seeds} {trial.labels}").random()
        return [{"score": RETURNS[str(trial.labels["arm"])] + 0.1 * noise}]
    tables: dict[Any, dict[str, float]] = {None: JUNK}
    if part == "dose":
        tables = {None: DOSE[int(trial.labels["junk"] or 0)]}
    elif part == "network":
        tables = {None: NETWORK}
    elif part == "transfer":
        tables = {"source": SOURCE} | dict.fromkeys(("rooms", "open", "moved", "larger"), CARRIED)
    rows = []
    for seed in trial.seeds:
        for where, table in tables.items():
            for arm, score in table.items():
                noise = random.Random(f"{seed} {part} {trial.labels.get('junk')} {where} {arm}").uniform(-0.01, 0.01)
                row: dict[str, Any] = {"arm": arm, "seed": seed, "auc": score + noise}
                if where is not None:
                    row["map"] = where
                if where == "source" and arm == "learned":
                    row |= {"junk_weight": 0.012 + 0.1 * noise, "other_weight": 0.001}
                rows.append(row)
    return rows


def made_up(change: Change = lambda row: row) -> Results:
    """Results of the largest scale, with every row changed."""
    outcomes = []
    for trial in study.trials(GPU):
        rows: list[Record] = []
        for row in rows_of(trial):
            changed = change({**trial.labels, **row})
            rows.append({name: changed[name] for name in row})
        outcomes.append((trial, Outcome(rows)))
    return Results(GPU, outcomes)


def test_every_claim_can_be_supported() -> None:
    statuses = {name: verdict.status for name, verdict in judged(study, made_up()).items()}
    assert statuses == dict.fromkeys(statuses, Status.SUPPORTED)


CONTRADICTIONS: dict[str, Change] = {
    "junk-hurts": raised("auc", 0.3, part="junk", arm="naive"),
    "junk-learned": raised("auc", -0.25, part="junk", arm="raw"),
    "junk-controls": raised("auc", 0.3, part="junk", arm="shuffled"),
    "junk-sinkhorn": raised("auc", -0.2, part="junk", arm="sinkhorn"),
    "junk-sinkhorn-controls": raised("auc", 0.3, part="junk", arm="frozen-sinkhorn"),
    "junk-beats-primitives": raised("auc", -0.1, part="junk", arm="raw"),
    "junk-rival": raised("auc", 0.3, part="junk", arm="steps"),
    "junk-window-primitives": raised("auc", 0.1, part="junk", arm="primitives"),
    "junk-window-naive": raised("auc", 0.2, part="junk", arm="naive"),
    "junk-window-oracle": raised("auc", -0.1, part="junk", arm="oracle"),
    "dose-few": raised("auc", -0.3, part="dose", arm="naive", junk=8),
    "dose-many": raised("auc", 0.5, part="dose", arm="naive", junk=36),
    "dose-monotone": raised("auc", 0.3, part="dose", arm="naive", junk=24),
    "dose-learned": raised("auc", -0.2, part="dose", arm="learned", junk=36),
    "dose-oracle": raised("auc", -0.2, part="dose", arm="oracle", junk=36),
    "transfer-carried": raised("auc", -0.35, part="transfer", arm="mean", map="moved"),
    "transfer-single": raised("auc", -0.2, part="transfer", arm="single", map="open"),
    "transfer-averaged": raised("auc", 0.2, part="transfer", arm="single", map="rooms"),
    "transfer-larger": raised("auc", -0.5, part="transfer", arm="mean", map="larger"),
    "transfer-weights": raised("other_weight", 0.004, part="transfer"),
    "map-learned": raised("auc", -0.1, part="transfer", arm="learned", map="source"),
    "map-controls": raised("auc", 0.1, part="transfer", arm="shuffled", map="source"),
    "map-primitives": raised("auc", -0.5, part="transfer", arm="primitives", map="source"),
    "network-null": raised("auc", 0.5, part="network", arm="learned"),
    "network-hurts": raised("auc", 0.35, part="network", arm="learned"),
    "network-macros": raised("auc", 0.2, part="network", arm="primitives"),
    "network-oracle": raised("auc", 0.2, part="network", arm="oracle"),
    "network-wrong": raised("auc", 0.3, part="network", arm="shuffled"),
    "minatar-hurts": raised("score", 3.0, part="minatar", arm="naive"),
    "minatar-learned": raised("score", -1.5, part="minatar", arm="learned"),
    "minatar-controls": raised("score", 9.0, part="minatar", arm="frozen"),
}


def test_every_claim_can_be_contradicted() -> None:
    assert CONTRADICTIONS.keys() == {claim.name for claim in study.claims}
    for name, change in CONTRADICTIONS.items():
        assert judged(study, made_up(change))[name].status is Status.CONTRADICTED, name


def test_alike_is_judged_from_twenty_similarities_on() -> None:
    few = dataclasses.replace(GPU, seeds=19)
    outcomes = [(trial, Outcome(rows_of(trial))) for trial in study.trials(few)]
    assert judged(study, Results(few, outcomes))["transfer-weights"].status is Status.INCONCLUSIVE


def test_what_is_missing_is_said() -> None:
    assert "--config.minatar.games" in judged(study, Results(LAPTOP, []))["minatar-learned"].reason
