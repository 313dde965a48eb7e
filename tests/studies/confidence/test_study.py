"""The study of confidence: its scales, its parts at toy size, and its claims on results made by hand."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from holdfast.confidence import PRESETS, SimulatedResponder
from holdfast.confidence.observer_server import ObserverServer, latitude_answers, serving
from holdfast.lab import Outcome, Record, Results, Trial
from holdfast.studies.confidence import fusion, models, observers, served, traps
from holdfast.studies.confidence.study import study
from tests.confidence import tiny
from tests.studies.confidence.toy import TOY
from tests.studies.tools import assert_drawn, assert_repeats, judged, results_of

LAPTOP = study.scales["laptop"]


@pytest.mark.parametrize("scale", study.scales)
def test_scales(scale: str) -> None:
    config = study.scales[scale]
    trials = list(study.trials(config))
    parts = {str(trial.labels["part"]) for trial in trials}
    assert parts >= {"observers", "traps", "served", "fusion"}
    assert ("models" in parts) == (scale == "paper")
    assert config.first_seed >= 10, "settings were chosen on the seeds before"
    assert config.seeds >= (5 if scale == "quick" else 60)
    assert {trial.seed for trial in trials if trial.labels["part"] == "observers"} == set(config.seed_range)
    of_few = {trial.seed for trial in trials if trial.labels["part"] == "served"}
    assert of_few == set(list(config.seed_range)[: config.model_seeds])


@pytest.mark.parametrize("part", [observers.part, traps.part, served.part, fusion.part], ids=lambda part: part.name)
def test_parts_at_toy_size(part: Any) -> None:
    results = results_of(study, TOY, part.name)
    assert_drawn(part.figures, results)
    trial, outcome = results.outcomes[-1]
    assert_repeats(part, trial, outcome)


def test_what_observers_are_said_to_be() -> None:
    results = results_of(study, TOY, "observers")
    true = results.by_seed("truth", part="observers", preset="both", kind="one", parameter="weight_opposite")
    value = results.by_seed("value", part="observers", preset="both", kind="one", parameter="weight_opposite")
    assert true == {0: 2.5}
    assert value[0] == pytest.approx(2.5, abs=0.3)  # 20 questions, noise .3
    wrong = results.by_seed("false", part="observers", preset="both", kind="one")
    assert wrong == {0: 0}


def test_the_server_is_the_observer_in_process() -> None:
    results = results_of(study, TOY, "served")
    for way in TOY.served.ways:
        apart = results.by_seed("apart", part="served", way=way, estimate="weight_same")
        assert apart[0] < 1e-9
        planned = results.by_seed("planned", part="served", way=way)
        assert results.by_seed("answered", part="served", way=way) == planned
    assert results.by_seed("refused", part="served", way="storm")[0] > 0, "there was a storm"
    verdicts = judged(study, results)
    assert {str(verdicts[name].status) for name in ("served-same", "served-plan")} == {"supported"}


@pytest.mark.parametrize("name", traps.TRAPS)
def test_traps_without_noise(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sound reading is the truth at every level, the naive one where nothing is turned up, and not at the worst."""
    trap = traps.TRAPS[name]
    if name == "regression":
        return  # noise is what is turned up
    quiet = dataclasses.replace(trap, observer={**trap.observer, "noise": 1e-9})
    monkeypatch.setitem(traps.TRAPS, name, quiet)
    rows = traps.run(Trial(1, traps.TrapsConfig(questions=300), {"trap": name}))
    # Calibration knows the temperature from 300 right or wrong answers only.
    assert all(float(row["sound"] or 0) == pytest.approx(trap.true, abs=trap.tolerance) for row in rows)
    if name != "calibration":
        assert float(rows[0]["sound"] or 0) == pytest.approx(trap.true, abs=1e-6)
    assert abs(float(rows[-1]["naive"] or 0) - trap.true) > 2 * trap.tolerance
    if name != "probability":  # of which no level is harmless
        assert float(rows[0]["naive"] or 0) == pytest.approx(trap.true, abs=1e-6)


def test_fusion_of_advice_that_is_as_good_as_it_says() -> None:
    config = dataclasses.replace(TOY.fusion, cases=100_000, accuracies=(0.7,))
    rows = {str(row["policy"]): row for row in fusion.run(Trial(3, config))}
    # Standard errors of shares of 100,000 cases are below .0013, of losses below .002.
    for policy, accuracy, loss in (("fused", 0.8226, 0.3755), ("stubborn", 0.7768, 0.4305), ("hidden", 0.7997, 0.4304)):
        assert rows[policy]["accuracy"] == pytest.approx(accuracy, abs=0.005)
        assert rows[policy]["log_loss"] == pytest.approx(loss, abs=0.007)
    assert rows["stubborn"]["changed"] == 0


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = tiny.tokenizer()
    labels = tuple(tokenizer(label)["input_ids"][0] for label in "AB")
    tiny.answering(tiny.llama(), labels).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_model_of_ones_own(checkpoint: str, tmp_path: Path) -> None:
    """One in process and one behind an endpoint; what is known of both is not asked again."""
    responder = SimulatedResponder(PRESETS["both"], answers=latitude_answers())
    server = ObserverServer(responder)
    with serving(server) as address:
        asked = (checkpoint, f"{address}#observer")
        config = dataclasses.replace(
            TOY, models=dataclasses.replace(TOY.models, models=asked, answers=str(tmp_path / "answers"))
        )
        results = results_of(study, config, "models")
        before = server.seen.requests
        again = results_of(study, config, "models")
    assert server.seen.requests == before == 12 * 2 * (1 + 3 * 3 * 2)
    assert again.records == results.records
    assert len(list((tmp_path / "answers").iterdir())) >= 2
    observer = next(row for row in results.records if row["model"] == asked[1])
    assert float(observer["choice_bias_low"] or 0) <= 1.0 <= float(observer["choice_bias_high"] or 0)
    assert judged(study, results)["models-clings"].evidence.n >= 10
    assert_drawn(models.part.figures, results)


def made_up(
    *,
    error: float = 0.0,
    covered: float = 0.96,
    accused: float = 0.02,
    missed: bool = False,
    naive: float = 1.0,
    sound: float = 0.0,
    apart: float = 0.0,
    extra: int = 0,
    fused: float = 0.0,
    hiding: float = 0.1,
    model: dict[str, float] | None = None,
    seeds: int = 40,
) -> Results:
    """Results of which every claim holds, but for what is changed.

    Arguments:
        error: of every estimate of the observers.
        covered: share of their intervals, and of those behind a server, that hold the truth.
        accused: share of ideal observers.
        missed: whether biased observers are.
        naive: error of the naive readings.
        sound: error of the sound ones.
        apart: what the way over a network changes.
        extra: requests beside the plan.
        fused: more loss of fusion, and fewer right answers.
        hiding: more loss of a paper-like model whose answer is hidden.
        model: estimates of a model of one's own.
        seeds: number of seeds.
    """
    outcomes: list[tuple[Trial[Any], Outcome]] = []

    def add(part: str, rows: list[Record], seed: int, **labels: str | int) -> None:
        outcomes.append((Trial(seed, LAPTOP, {"part": part, **labels}), Outcome(rows)))

    for seed in range(seeds):
        scatter = 0.0005 * (seed - (seeds - 1) / 2)
        known: Record = {"covered": covered + scatter / 10, "truth": 1.0, "value": 1.0}
        for preset in LAPTOP.observers.presets:
            rows: list[Record] = [
                {"parameter": name, "error": error + scatter, **known} for name in observers.PARAMETERS
            ]
            found: Record = {"found": int(not missed), "missed": int(missed)}
            add("observers", [*rows, found], seed, preset=preset, kind="one")
        add("observers", [{"accused": accused + (scatter > 0) * 0.01}], seed, preset="bayes", kind="many")
        for name, trap in traps.TRAPS.items():
            level = trap.levels[-1]
            row: Record = {"level": level, "naive": trap.true - naive + scatter, "sound": trap.true + sound + scatter}
            add("traps", [row], seed, trap=name)
        for way in LAPTOP.served.ways:
            rows = [{"estimate": name, "apart": apart, **known} for name in served.ESTIMATES]
            counts: Record = {"requests": 100 + extra, "planned": 100, "answered": 100 - extra, "leaks": 0}
            add("served", [*rows, counts], seed, way=way)
        losses = {"first": 0.45, "fused": 0.3 + fused, "stubborn": 0.4, "shown": 0.35, "hidden": 0.35 + hiding}
        noisy = {policy: loss + place * scatter for place, (policy, loss) in enumerate(losses.items())}
        rows = [
            {"policy": policy, "advisers": accuracy, "log_loss": loss, "accuracy": 1 - loss}
            for policy, loss in noisy.items()
            for accuracy in LAPTOP.fusion.accuracies
        ]
        add("fusion", rows, seed)
    estimates = {
        "odds": 0.3,
        "choice_bias": 1.0,
        "rise": 0.5,
        "ownership_bias": 0.8,
        "weight_opposite": 2.5,
        "weight_same": 0.9,
        "ratio": 2.7,
        "rank": -0.6,
    }
    one: Record = {"compared": 500}
    for name, value in (estimates | (model or {})).items():
        one |= {name: value, f"{name}_low": value - 0.05, f"{name}_high": value + 0.05, f"{name}_why": ""}
    add("models", [one], 100, model="m", questions="latitude")
    return Results(LAPTOP, outcomes)


MINE = {claim.name for part in (observers, traps, served, fusion, models) for claim in part.CLAIMS}


def statuses(**changes: Any) -> dict[str, str]:
    return {name: str(verdict.status) for name, verdict in judged(study, made_up(**changes)).items() if name in MINE}


def test_all_claims_can_be_supported() -> None:
    assert {name for name, status in statuses().items() if status != "supported"} == set()


@pytest.mark.parametrize(
    ("changes", "contradicted"),
    [
        ({"error": 0.1}, {"observers-recovered"}),
        ({"covered": 0.7}, {"observers-coverage", "served-covered"}),
        ({"accused": 0.3}, {"observers-unaccused"}),
        ({"missed": True}, {"observers-found"}),
        ({"naive": 0.05}, {"traps-mislead"}),
        ({"sound": -0.5}, {"traps-avoided"}),
        ({"apart": 1e-3}, {"served-same"}),
        ({"extra": 1}, {"served-plan"}),
        ({"fused": 0.3}, {"fusion-loss", "fusion-accuracy"}),
        ({"hiding": -0.04}, {"fusion-hiding"}),
        ({"model": {"odds": 1.5}}, {"models-clings"}),
        ({"model": {"choice_bias": -0.3}}, {"models-bias"}),
        ({"model": {"rise": -0.3}}, {"models-rise"}),
        ({"model": {"ownership_bias": -0.2}}, {"models-ownership"}),
        ({"model": {"weight_opposite": 0.4}}, {"models-contradiction"}),
        ({"model": {"weight_same": 1.5}}, {"models-agreement"}),
        ({"model": {"ratio": 0.5}}, {"models-asymmetric"}),
        ({"model": {"rank": 0.3}}, {"models-confidence"}),
    ],
)
def test_claims_can_be_contradicted(changes: dict[str, Any], contradicted: set[str]) -> None:
    assert {name for name, status in statuses(**changes).items() if status == "contradicted"} == contradicted


def test_few_seeds_and_refused_estimates_decide_nothing() -> None:
    few = statuses(seeds=2)
    exactly = {"served-same", "served-plan"}
    assert {few[name] for name in MINE - exactly if not name.startswith("models")} == {"inconclusive"}
    unknown = statuses(model={"ratio": math.nan})
    assert unknown["models-asymmetric"] == "inconclusive"
    assert unknown["models-contradiction"] == "supported"
