"""Training on traces at toy size; scores, claims and figures on answers and results made by hand."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from matplotlib.figure import Figure

from holdfast.errors import ArgumentError
from holdfast.lab import Claim, Outcome, Results, Trial, progress
from holdfast.lab.seeds import rng_for
from holdfast.lab.verdict import judge
from holdfast.models.decoder import Decoder, DecoderConfig
from holdfast.studies.sharpness.clrs_text import Vocabulary, sample_example
from holdfast.studies.sharpness.traces import models
from holdfast.studies.sharpness.traces.claims import beats_plain, gains_less_on_long_traces, inactive_on_long_traces
from holdfast.studies.sharpness.traces.figures import draw_inactive, draw_traces
from holdfast.studies.sharpness.traces.models import ARMS
from holdfast.studies.sharpness.traces.part import TracesConfig, part

TOY = TracesConfig(
    device="cpu",
    algorithms=("minimum", "insertion_sort"),
    train_sizes=(3, 4),
    test_sizes=(4, 6, 40),
    test_tokens=110,
    test_examples=2,
    entropy_examples=2,
    steps=28,
    batch_size=8,
    learning_rate=3e-3,
    warmup=5,
    curve_every=9,
    width=32,
    layers=2,
    heads=2,
)


def measured(config: TracesConfig, seed: int):
    """Records and curves of one trial."""
    outcome = part.run(Trial(seed, config))
    return outcome.records, outcome.curves


@pytest.fixture(scope="module")
def outcome():
    told: list[tuple[float, dict[str, float]]] = []
    progress.listen(lambda fraction, metrics: told.append((fraction, dict(metrics))))
    records, curves = measured(TOY, 3)
    progress.listen(None)
    return records, curves, told


def test_every_arm_is_tested_at_every_size_that_fits(outcome):
    records, _, _ = outcome
    found = {(record["arm"], record["algorithm"], record["n"]) for record in records}
    assert found == {(arm, name, n) for arm in ARMS for name in TOY.algorithms for n in (4, 6)}
    assert len(found) == len(records)
    for record in records:
        assert record["train_size"] == 4
        assert 0 < record["tokens"] <= 110
        for name in ("accuracy", "trace_accuracy", "prefix", "inactive_share"):
            assert 0 <= record[name] <= 1
        assert 0 < record["entropy"] < math.log(record["tokens"])
        assert record["inactive_share"] == 0, "a text of 110 tokens has no row beyond ln 110"


def test_the_loss_falls_in_every_arm(outcome):
    _, curves, _ = outcome
    losses = defaultdict(list)
    for point in curves["traces"]:
        losses[point["arm"]].append(point["loss"])
    assert set(losses) == set(ARMS) - {"adaptive-inference"}
    for loss in losses.values():
        assert len(loss) == 4
        assert loss[-1] < 0.85 * loss[0]
    assert len({loss[-1] for loss in losses.values()}) == len(losses)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_in_half_precision_measures_much_the_same(outcome):
    records, curves = measured(dataclasses.replace(TOY, device="cuda"), 3)
    for record, expected in zip(records, outcome[0], strict=True):
        assert record["entropy"] == pytest.approx(expected["entropy"], abs=0.2)
    for point, expected in zip(curves["traces"], outcome[1]["traces"], strict=True):
        assert point["loss"] == pytest.approx(expected["loss"], abs=0.1)


def test_adaptive_inference_has_the_plain_weights(outcome):
    records, _, _ = outcome
    entropy = {(r["arm"], r["algorithm"], r["n"]): r["entropy"] for r in records}
    for name in TOY.algorithms:
        for n in (4, 6):
            assert entropy["adaptive-inference", name, n] < entropy["plain", name, n]


def test_progress_grows_to_one(outcome):
    told = outcome[2]
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1)
    assert any("loss" in metrics for _, metrics in told)


def test_the_same_seed_gives_the_same_result_and_an_arm_needs_no_other(monkeypatch):
    short = dataclasses.replace(TOY, steps=3, test_sizes=(4,), arms=("adaptive-inference",), warmup=0)
    first, curves = measured(short, 1)
    monkeypatch.setattr(models, "CELLS", 1)
    again, curves_again = measured(dataclasses.replace(short, arms=("adaptive-inference", "plain")), 1)
    assert again[: len(first)] == [pytest.approx(record) for record in first], "also where entropies are read in parts"
    assert curves_again == curves
    assert {point["arm"] for point in curves["traces"]} == {"plain"}
    assert measured(short, 2)[1] != curves


def test_all_arms_start_from_the_same_weights_and_read_the_same_texts(monkeypatch):
    started = []

    def train(model, texts, config, tell):
        started.append(([parameter.clone() for parameter in model.parameters()], texts, model.normaliser))
        return []

    monkeypatch.setattr(models, "train", train)
    measured(dataclasses.replace(TOY, steps=2, test_sizes=(4,)), 1)
    assert len({repr(normaliser) for _, _, normaliser in started}) == len(ARMS) - 1
    for weights, texts, _ in started[1:]:
        assert texts is started[0][1]
        assert all(map(torch.equal, weights, started[0][0]))


@pytest.mark.parametrize(
    ("change", "accuracy", "trace_accuracy"),
    [
        (lambda answer: answer, 1, 1),
        (lambda answer: answer + answer, 1, 1),
        (lambda answer: answer[:-1], 0, 1),
        (lambda answer: [*answer[:-2], answer[0], answer[-1]], 0, 1),
        (lambda answer: [answer[2], *answer[1:]], 1, 0),
        (lambda answer: answer[:1], 0, 0),
    ],
    ids=["right", "goes on after the end", "does not end", "wrong at the end", "wrong in the trace", "too short"],
)
def test_scores(change, accuracy, trace_accuracy):
    vocabulary = Vocabulary()
    rng = rng_for(5, models.TEST, 0, 6)
    answers = [vocabulary.encode(sample_example("minimum", 6, rng).answer) for _ in range(TOY.test_examples)]
    written = [change(answer) for answer in answers]
    longest = max(map(len, written))
    padded = torch.tensor([row + [vocabulary.pad] * (longest - len(row)) for row in written])
    tiny = Decoder(DecoderConfig(vocabulary=len(vocabulary), width=4, layers=1, heads=1))
    model = SimpleNamespace(generate=lambda prompts, **_: padded, head_entropies=tiny.head_entropies)
    found = models.scores(model, "minimum", 6, TOY, 5, vocabulary)
    assert (found["accuracy"], found["trace_accuracy"]) == (accuracy, trace_accuracy)
    assert (found["prefix"] == 1) == (accuracy == trace_accuracy == 1)


def test_bad_settings():
    with pytest.raises(ArgumentError, match="arms"):
        TracesConfig(arms=("softest",))
    with pytest.raises(ArgumentError, match="steps"):
        TracesConfig(steps=0)
    with pytest.raises(ArgumentError, match="test_sizes"):
        TracesConfig(test_sizes=(1, 4))
    with pytest.raises(ArgumentError, match="train_tokens"):
        measured(TracesConfig(device="cpu", train_tokens=10, steps=1), 0)


def made(gain=0.0, long_gain=0.0, share=0.0, long_share=0.0, seeds=5, sizes=(8, 16, 32)) -> Results:
    """Results in which the adaptive arm differs from plain by the given amounts beyond the training sizes."""
    outcomes = []
    for seed in range(seeds):
        rows = []
        for arm in ("plain", "adaptive"):
            for task, largest in (("minimum", 16), ("insertion_sort", 16), ("bubble_sort", 8)):
                for n in sizes[: 2 if task == "bubble_sort" else 3]:
                    long = task == "bubble_sort"
                    change = (long_gain if long else gain) + 0.001 * (seed - 2) * (1 + long)
                    changed = arm == "adaptive" and n > largest
                    rows.append(
                        {
                            "arm": arm,
                            "algorithm": task,
                            "n": n,
                            "train_size": largest,
                            "accuracy": 0.5 + 0.01 * seed + change * changed,
                            "inactive_share": (long_share if long else share) + 0.001 * seed * (1 + long),
                            "entropy": math.log(n) - 1,
                            "tokens": n * n,
                        }
                    )
        outcomes.append((Trial(seed, TOY, {"part": "traces"}), Outcome(rows)))
    return Results(TOY, outcomes)


def verdict(test, results) -> str:
    (found,) = judge([Claim("claim", "Text.", test)], [test(results)])
    return str(found.status)


@pytest.mark.parametrize(
    ("test", "changes", "expected"),
    [
        (beats_plain, {"gain": 0.1, "long_gain": 0.1}, "supported"),
        (beats_plain, {"gain": -0.1, "long_gain": -0.1}, "contradicted"),
        (beats_plain, {}, "inconclusive"),
        (gains_less_on_long_traces, {"gain": 0.1, "long_gain": 0.02}, "supported"),
        (gains_less_on_long_traces, {"gain": 0.02, "long_gain": 0.1}, "contradicted"),
        (gains_less_on_long_traces, {"gain": 0.1, "long_gain": 0.1}, "inconclusive"),
        (inactive_on_long_traces, {"share": 0.1, "long_share": 0.3}, "supported"),
        (inactive_on_long_traces, {"share": 0.3, "long_share": 0.1}, "contradicted"),
    ],
)
def test_claims(test, changes, expected):
    assert verdict(test, made(**changes)) == expected


def test_effects_weigh_tasks_alike_and_leave_the_training_sizes_out():
    results = made(gain=0.3, long_gain=0.0)
    assert beats_plain(results).effect == pytest.approx(0.2)
    assert gains_less_on_long_traces(results).effect == pytest.approx(-0.3)
    assert inactive_on_long_traces(made(share=0.1, long_share=0.3)).effect == pytest.approx(0.202)


@pytest.mark.parametrize("test", [beats_plain, gains_less_on_long_traces, inactive_on_long_traces])
@pytest.mark.parametrize("results", [Results(TOY, []), made(sizes=(4, 6, 8)), made(seeds=2)])
def test_what_was_not_run_is_inconclusive_with_a_reason(test, results):
    evidence = test(results)
    assert evidence.p_value is None
    assert evidence.reason


def test_another_arm_can_be_asked_about():
    evidence = beats_plain(made(), "adaptive-inference")
    assert evidence.p_value is None
    assert "adaptive-inference" in evidence.reason


def test_figure_of_accuracy():
    axes = Figure().subplots()
    rows = draw_traces(made(gain=0.3, long_gain=-0.3), axes)
    found = {(row["arm"], row["n"]): row["accuracy"] for row in rows}
    assert set(found) == {(arm, n) for arm in ("plain", "adaptive") for n in (8, 16, 32)}
    assert found["adaptive", 32] - found["plain", 32] == pytest.approx(0.3)
    assert found["adaptive", 16] == pytest.approx(found["plain", 16]), "bubble sort, not tested at 32, is left out"
    assert [line.get_label() for line in axes.lines] == ["plain", "adaptive", "trained up to 16"]
    assert "2 tasks" in axes.get_ylabel()


def test_figure_of_inactive_rows():
    axes = Figure().subplots()
    rows = draw_inactive(made(share=0.1, long_share=0.3), axes)
    found = {(row["algorithm"], row["n"]): row for row in rows}
    assert len(found) == len(rows) == 8
    assert found["bubble_sort", 16]["inactive_share"] == pytest.approx(0.304)
    assert found["minimum", 16]["inactive_share"] == pytest.approx(0.102)
    assert found["minimum", 32]["tokens"] == 1024
    assert {line.get_label() for line in axes.lines} == {"minimum", "insertion_sort", "bubble_sort"}


def test_figures_of_nothing():
    for draw in (draw_traces, draw_inactive):
        assert draw(Results(TOY, []), Figure().subplots()) == []


def test_figures_of_a_real_run(outcome):
    records, curves, _ = outcome
    results = Results(TOY, [(Trial(3, TOY, {"part": "traces"}), Outcome(records, curves))])
    assert len(draw_traces(results, Figure().subplots())) == 2 * len(ARMS)
    figure = Figure()
    assert len(draw_inactive(results, figure.subplots())) == 4
    figure.canvas.draw()
    assert beats_plain(results).n == 1
