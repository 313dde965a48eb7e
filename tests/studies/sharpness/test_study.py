"""The study of softmax attention that disperses: every part at toy size, and claims on results made by hand."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.lab import Evidence, Outcome, Results, Status, Trial
from holdfast.lab.seeds import TEST
from holdfast.lab.trial import Record
from holdfast.lab.verdict import judge
from holdfast.nn import FitError
from holdfast.studies.sharpness import bounds as _sharpness_bounds
from holdfast.studies.sharpness import retrieval as _sharpness_retrieval
from holdfast.studies.sharpness.study import (
    BoundsConfig,
    ControlConfig,
    NeedleConfig,
    RetrieveConfig,
    SharpnessConfig,
    TrainedWithConfig,
    study,
)
from holdfast.studies.sharpness.traces import TracesConfig

TRAINED: dict[str, Any] = {
    "steps": 70,
    "batch_size": 16,
    "width": 16,
    "sizes": (16, 64),
    "sets": 40,
    "large_sets": 20,
    "fit_sizes": (16, 32, 64),
    "fit_sets": 64,
}
TOY = SharpnessConfig(
    seeds=2,
    retrieve=RetrieveConfig(**TRAINED),
    trained_with=TrainedWithConfig(**TRAINED),
    control=ControlConfig(**TRAINED),
    needle=NeedleConfig(fit_rows=64, sizes=(16, 256, 1024, 131072)),
    bounds=BoundsConfig(rows=20, row_sizes=(2, 16, 64), sizes=(64, 256), dim=16, heads=2),
)


@pytest.fixture(scope="module")
def toy() -> Results:
    """Every trial of the toy configuration."""
    return Results(TOY, [(trial, study.run(trial)) for trial in study.trials(TOY)])


def only(part: str, config: SharpnessConfig = TOY) -> list[Trial[Any]]:
    return [trial for trial in study.trials(config) if trial.labels["part"] == part]


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


@pytest.mark.parametrize("part", ["retrieve", "trained-with", "control", "bounds", "needle"])
def test_a_trial_twice_is_the_same(part: str, toy: Results) -> None:
    trial = only(part)[0]
    first = next(outcome for done, outcome in toy.outcomes if done == trial)
    torch.rand(7)  # the global state of random numbers is of no concern
    assert study.run(trial) == first


def test_stacked_seeds_measure_what_single_seeds_do(toy: Results) -> None:
    stacked = dataclasses.replace(TOY, retrieve=dataclasses.replace(TOY.retrieve, stacked=True))
    (trial,) = only("retrieve", stacked)
    assert trial.seed == (0, 1)
    together = Results(stacked, [(trial, study.run(trial))])
    for arm in ("plain", "published", "hard"):
        for n in TOY.retrieve.sizes:
            for metric, tolerance in (("entropy", 1e-3), ("max_weight", 1e-3), ("accuracy", 0.051)):
                ours = together.by_seed(metric, part="retrieve", arm=arm, n=n)
                assert ours == pytest.approx(toy.by_seed(metric, part="retrieve", arm=arm, n=n), abs=tolerance)
    assert ours.keys() == {0, 1}


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
    results = Results(config, [(trial, study.run(trial)) for trial in trials])
    accuracy = results.by_seed("accuracy", part="retrieve", arm="plain", n=64)
    assert list(accuracy) == list(range(100, 110))
    assert len(set(results.by_seed("entropy", part="retrieve", arm="plain", n=64).values())) == 10
    assert all(verdict.status for verdict in judged(results).values())


def test_evaluation_equals_one_pass_over_all_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    config, seeds = TOY.retrieve, (0, 1)
    monkeypatch.setattr(_sharpness_retrieval, "CHUNK", 7 * 64)
    net, _ = _sharpness_retrieval._train(config, seeds, _sharpness_retrieval._plain)
    with torch.no_grad():
        records = _sharpness_retrieval._evaluate(
            net, seeds, lambda n: _sharpness_retrieval._arms(n, 16, [None, None]), config
        )
        chunks = list(_sharpness_retrieval._chunks(config, seeds, TEST, 64, config.sets))
        assert [sets.query.shape[1] for sets in chunks] == [7, 7, 7, 7, 7, 5]
        items, query, winner = (
            torch.cat([getattr(sets, name) for sets in chunks], dim=1) for name in ("items", "query", "winner")
        )
        target = torch.cat([sets.winning_class for sets in chunks], dim=1)
        correct = (net(items, query).argmax(dim=-1) == target).double().mean(dim=1)
        weights = net.encode(items, query)[1].softmax(dim=-1)
    for s in seeds:
        (record,) = [r for r in records if (r["arm"], r["n"], r["seed"]) == ("plain", 64, s)]
        assert record["accuracy"] == pytest.approx(correct[s].item(), abs=1e-12)
        entropy = torch.special.entr(weights[s]).sum(-1).mean().item()
        assert record["entropy"] == pytest.approx(entropy, abs=1e-5)
        on_winner = weights[s].gather(-1, winner[s, :, None]).mean().item()
        assert record["max_weight"] == pytest.approx(on_winner, abs=1e-6)


def test_retrieve_records(toy: Results) -> None:
    assert set(toy.levels("arm", part="retrieve")) | {"refit"} == set(_sharpness_retrieval.ARMS)
    for row in toy.where(part="retrieve", arm="plain"):
        error = row["ordering_error"] + row["dispersion_error"]  # type: ignore[operator]
        assert error == pytest.approx(1 - row["accuracy"], abs=1e-12)  # type: ignore[operator]
    assert all(row["entropy"] == 0 for row in toy.where(part="retrieve", arm="hard"))
    assert all(row["fit"] in ("accepted", "refused") for row in toy.records if "fit" in row)
    training = toy.curve("training", part="retrieve", seed=1)
    assert [row["step"] for row in training] == [64, 70]


def test_a_network_trained_with_softmax_again_is_the_same_network(toy: Results) -> None:
    """The control of the networks trained with an alternative: same start, same sets, same test."""
    config = dataclasses.replace(TOY.trained_with, arms=("plain",))
    again = study.run(Trial(0, config, {"part": "trained-with", "arm": "plain"}))
    for row in again.records:
        (first,) = toy.where(part="retrieve", arm="plain", n=row["n"], seed=0)
        assert row["accuracy"] == pytest.approx(first["accuracy"], abs=0.051)
        assert row["entropy"] == pytest.approx(first["entropy"], abs=1e-3)


def test_training_with_an_alternative_makes_another_network(toy: Results) -> None:
    for arm in TOY.trained_with.arms:
        (with_it,) = toy.where(part="trained-with", arm=arm, n=64, seed=0)
        (switched_on,) = toy.where(part="retrieve", arm=arm, n=64, seed=0)
        assert with_it["entropy"] != switched_on["entropy"]
        losses = [row["loss"] for row in toy.curve("training", part="trained-with", arm=arm, seed=0)]
        assert losses[-1] < losses[0]


def test_settings_of_the_arms_are_those_of_the_task() -> None:
    logits = torch.tensor([[[3.0, *[-2.0] * 255]]], dtype=torch.float64)
    weights = dict(
        zip(
            _sharpness_retrieval.ARMS,
            _sharpness_retrieval._weights(logits, _sharpness_retrieval._arms(256, 16, [None])),
            strict=True,
        )
    )
    factors = {
        "plain": 1.0,
        "refit": 1.0,
        "log-n": 2.0,
        "ssmax": 0.43 * math.log(256),
        "yarn": (0.1 * math.log(16) + 1) ** 2,
        "llama4": 1 + 0.1 * math.log(17),
    }
    for arm, factor in factors.items():
        torch.testing.assert_close(weights[arm], (factor * logits).softmax(-1), atol=1e-12, rtol=0)
    assert {arm for arm in weights if weights[arm][0, 0, 0] == 1} == {"entmax", "sparsemax", "hard"}
    with pytest.raises(ArgumentError, match="arms"):
        TrainedWithConfig(arms=("refit",))


def test_training_learns() -> None:
    config = dataclasses.replace(TOY.retrieve, steps=400, width=64, batch_size=64)
    outcome = study.run(Trial(0, config, {"part": "retrieve"}))
    rows = outcome.curves["training"]
    assert rows[-1]["accuracy"] > 0.8 > 0.5 > rows[0]["accuracy"]  # type: ignore[operator]


def test_a_refused_fit_is_recorded_and_no_claim_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise FitError("bins", "too few")

    monkeypatch.setattr("holdfast.nn.fit_temperature", refuse)
    results = Results(TOY, [(trial, study.run(trial)) for trial in [*only("retrieve")[:1], *only("needle")]])
    assert len(results.where(fit="refused")) == 2
    assert not results.where(arm="refit")
    found = judged(results)
    for claim in ("refit-1024", "needle-refit"):
        assert found[claim].status is Status.INCONCLUSIVE
        assert "too few" in found[claim].reason
    assert found["needle-cliff"].status is Status.SUPPORTED


NEEDLE = {
    # margin, n: softmax, published, log n, SSMax 0.43
    (5.0, 64): (0.7020, 0.9977, 0.9663, 0.9918),
    (5.0, 256): (0.3679, 0.9985, 0.9886, 0.9983),
    (5.0, 1024): (0.1267, 0.1267, 0.9962, 0.9997),
    (8.0, 4096): (0.4213, 0.9985, None, None),
    (8.0, 16384): (0.1539, 0.1539, None, None),
    (12.0, 131072): (0.5539, 0.5597, None, None),
}


def test_needle_table() -> None:
    results = Results(TOY, [(t, study.run(t)) for t in [Trial(0, NeedleConfig(), {"part": "needle"})]])
    for (margin, n), masses in NEEDLE.items():
        for arm, expected in zip(("plain", "published", "log-n", "ssmax"), masses, strict=True):
            (row,) = results.where(arm=arm, margin=margin, n=n)
            if expected is not None:
                assert row["winner"] == pytest.approx(expected, abs=5.1e-5)
    for row in results.where(arm="plain"):
        logits = torch.zeros(int(row["n"]), dtype=torch.float64)  # type: ignore[arg-type]
        logits[0] = row["margin"]  # type: ignore[call-overload]
        p = logits.softmax(0)
        assert row["winner"] == pytest.approx(p[0].item(), rel=1e-12)
        assert row["entropy"] == pytest.approx(torch.special.entr(p).sum().item(), rel=1e-9)


def test_bounds_hold_at_toy_size(toy: Results) -> None:
    rows = {row["check"]: row for row in toy.where(part="bounds", seed=0) if "check" in row}
    assert rows.keys() == {"dispersion", "entropy", "monotone", "spectral"}
    assert all(row["exceptions"] == 0 for row in rows.values())
    # Two-level rows are tight.
    assert rows["dispersion"]["slack"] == pytest.approx(0, abs=1e-12)
    assert rows["spectral"]["slack"] > 1  # type: ignore[operator]
    assert len(toy.curve("heads", part="bounds", seed=0)) == 2 * (1 + 3) * 2 * 2


def test_row_checks_find_an_exception() -> None:
    (record,) = _sharpness_bounds._merged(
        [("spectral", torch.tensor([0.5, -0.1, math.nan])), ("spectral", torch.ones(1))]
    )
    assert (record["cases"], record["exceptions"]) == (4, 2)


def test_figures(toy: Results) -> None:
    from matplotlib.figure import Figure

    for results in (toy, Results(TOY, [])):
        for figure in study.figures:
            if figure.name.startswith("traces"):  # drawn from made-up results beside their own part
                continue
            axes = Figure().subplots()
            rows = figure.draw(results, axes)
            assert all(isinstance(row, dict) for row in rows)
            if results is toy:
                assert rows
                assert axes.get_ylabel()
                assert not axes.get_title()


# --------------------------------------------------------------------------------- claims, on made-up results


def judged(results: Results) -> dict[str, Any]:
    evidence: Sequence[Evidence] = [claim.test(results) for claim in study.claims]
    return {verdict.claim: verdict for verdict in judge(study.claims, evidence)}


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
    return Results(TOY, outcomes)


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
    found = judged(made_up(**changes))
    assert {claim: str(found[claim].status) for claim in expected} == expected


def bounds(exceptions: int, slope_error: float) -> Results:
    outcomes = []
    for seed in range(4):
        rows: list[Record] = [
            {"check": name, "cases": 100, "exceptions": exceptions * (seed == 2), "slack": 0.1}
            for name in ("dispersion", "entropy", "monotone", "spectral")
        ]
        rows += [
            {"style": style, "depth": depth, "slope": 1.0, "slope_error": slope_error + 0.001 * seed}
            for style in ("bert", "gpt")
            for depth in (1, 3)
        ]
        outcomes.append((Trial(seed, TOY.bounds, {"part": "bounds"}), Outcome(rows)))
    return Results(TOY, outcomes)


def test_claims_on_bounds() -> None:
    names = ("weights-bounded", "entropy-bounded", "spread-bounded", "entropy-monotone", "disperses-1", "disperses-3")
    for results, status in ((bounds(0, 0.01), "supported"), (bounds(1, 0.2), "contradicted")):
        found = judged(results)
        assert {str(found[name].status) for name in names} == {status}
        assert found["weights-bounded"].evidence.n == 400


def needle(mass: dict[tuple[str, int], float]) -> Results:
    rows = [{"arm": arm, "n": n, "margin": 5.0, "winner": value} for (arm, n), value in mass.items()]
    return Results(TOY, [(Trial(0, TOY.needle, {"part": "needle"}), Outcome(rows))])


def test_claims_on_needles() -> None:
    good = {("plain", 1024): 0.1, ("published", 1024): 0.1, ("refit", 1024): 0.95, ("published", 256): 0.995}
    bad = good | {("published", 1024): 0.1 + 1e-9, ("refit", 1024): 0.89, ("published", 256): 0.5}
    for mass, status in ((good, "supported"), (bad, "contradicted")):
        found = judged(needle(mass))
        assert {str(found[name].status) for name in ("needle-256", "needle-cliff", "needle-refit")} == {status}


def test_claims_about_what_was_not_run_are_inconclusive() -> None:
    for verdict in judged(Results(TOY, [])).values():
        assert verdict.status is Status.INCONCLUSIVE
        assert verdict.reason
