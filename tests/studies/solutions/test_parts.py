"""The parts of the study of solutions at toy size."""

from __future__ import annotations

import dataclasses
import math
import sys
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from holdfast.errors import ArgumentError, MissingExtraError
from holdfast.lab import Part, Trial
from holdfast.lab.trial import as_outcome
from holdfast.optim import PowerProp, SecondOrder
from holdfast.probes.solutions.demonstration import digit_pairs
from holdfast.studies.digits import CLASSES, Labelled, accuracy, batches_of, digits, learn
from holdfast.studies.solutions import glyphs, matched, pairs, pruning, vit
from holdfast.studies.solutions.forgetting import learn_in_turn, sweep
from holdfast.studies.solutions.glyph_images import FONTS, SIDE, templates
from holdfast.studies.solutions.glyph_images import glyphs as draw_glyphs
from holdfast.studies.solutions.optimizers import Arm, make
from holdfast.studies.solutions.study import study
from holdfast.studies.solutions.tasks import Split, centred, network
from holdfast.studies.solutions.tasks import pairs as pairs_of
from holdfast.studies.solutions.tasks import permuted as permutations_of
from holdfast.studies.solutions.vision_transformer import VisionTransformer
from tests.studies.solutions.toy import TOY
from tests.studies.tools import assert_drawn, assert_repeats, results_of


@pytest.mark.parametrize(
    ("part", "count"),
    [(pairs.part, 5), (matched.part, 12), (pruning.part, 7), (glyphs.part, 4), (vit.part, 2)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_part_runs(part: Part[Any], count: int) -> None:
    results = results_of(study, TOY, part.name)
    assert len(results.outcomes) == count
    for _, outcome in results.outcomes:
        for row in outcome.records:
            assert all(math.isfinite(value) for value in row.values() if isinstance(value, float)), row
    if part.name in ("pairs", "pruning", "glyphs"):  # others have nothing to draw where nothing was learnt
        assert_drawn(part.figures, results)
    assert_repeats(part, *results.outcomes[0])


def small_split(seed: int = 0) -> Split:
    return centred(digits(seed, extra="solutions"), 500)


def test_images_are_centred_by_what_is_learnt_from() -> None:
    split = small_split()
    assert (len(split.test.images), len(split.train.images)) == (500, 1297)
    torch.testing.assert_close(split.train.images.mean(0), torch.zeros(64), atol=1e-5, rtol=0)
    raw = digits(0, extra="solutions")
    torch.testing.assert_close(split.test.images, raw.images[:500] - raw.images[500:].mean(0))
    with pytest.raises(ArgumentError, match="tests"):
        centred(raw, 1797)


def test_pairs_deal_out_all_digits() -> None:
    split = small_split()
    tasks = pairs_of(split)
    assert [task.train.labels.unique().tolist() for task in tasks] == [[k, k + 1] for k in range(0, 10, 2)]
    assert sum(len(task.train.images) for task in tasks) == 1297
    assert sum(len(task.test.images) for task in tasks) == 500


def test_permutations_are_the_same_in_training_and_test() -> None:
    columns = torch.arange(64.0).expand(10, 64)
    data = Labelled(columns, torch.arange(10))
    tasks = permutations_of(Split(data, data), 3, seed=0)
    assert torch.equal(tasks[0].train.images, columns)
    for task in tasks[1:]:
        assert torch.equal(task.train.images, task.test.images)
        assert torch.equal(task.train.images[0].sort().values, columns[0])
        assert torch.equal(task.train.labels, data.labels)
    assert not torch.equal(tasks[1].train.images, tasks[2].train.images)
    assert not torch.equal(tasks[1].train.images, columns)


def test_biases_do_not_change_the_weights_of_a_seed() -> None:
    for standard in (False, True):
        plain, with_biases = (network((8, 6, 4), 3, bias=bias, standard=standard) for bias in (False, True))
        weights = [tensor for tensor in with_biases.parameters() if tensor.ndim > 1]
        assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), weights, strict=True))
        biases = torch.cat([tensor for tensor in with_biases.parameters() if tensor.ndim == 1])
        assert bool(biases.any()) == standard
        if standard:
            assert float(weights[0].detach().abs().max()) < 8**-0.5
    large = network((400, 300, 10), 0)
    assert float(large[0].weight.detach().std()) == pytest.approx((2 / 400) ** 0.5, rel=0.02)
    assert float(large[-1].weight.detach().std()) == pytest.approx(300**-0.5, rel=0.05)


@pytest.mark.parametrize("method", ["sgd", "adamw", "adagrad", "shampoo", "soap", "muon"])
def test_each_optimiser_has_all_parameters(method: str) -> None:
    model = network((64, 8, CLASSES), 0, bias=True)
    optimizer = make(Arm(label="", method=method, bias=True), model, 0.01)
    grouped = [id(tensor) for group in optimizer.param_groups for tensor in group["params"]]
    assert sorted(grouped) == sorted(id(tensor) for tensor in model.parameters())


@pytest.mark.parametrize("method", ["sgd", "shampoo"])
def test_slow_biases_are_a_hundred_times_as_slow(method: str) -> None:
    steps = []
    for rate in (1.0, 0.01):
        model = network((64, 8, CLASSES), 0, bias=True)
        optimizer = make(Arm(label="", method=method, bias=True, bias_rate=rate), model, 0.1)
        data = small_split().train
        functional.cross_entropy(model(data.images[:50]), data.labels[:50]).backward()
        optimizer.step()
        steps.append(model[-1].bias.detach().clone())
    torch.testing.assert_close(steps[0] / 100, steps[1])


def test_an_arm_that_is_reset_is_made_anew_at_each_task(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def counted(arm: Arm, model: nn.Module, rate: float) -> torch.optim.Optimizer:
        made.append(arm.label)
        return make(arm, model, rate)

    monkeypatch.setattr("holdfast.studies.solutions.forgetting.make", counted)
    for reset in (True, False):
        arm = Arm(label=str(reset), reset=reset)
        learn_in_turn(network((64, 4, 10), 0), arm, 0.1, pairs_of(small_split()), steps=1, batch=2, seed=0)
    assert (made.count("True"), made.count("False")) == (5, 1)


def test_resets_change_shampoo() -> None:
    """What is learnt after the first task differs, and nothing before it."""
    tasks, curves = pairs_of(small_split()), {}
    for reset in (True, False):
        arm = Arm(label="", method="shampoo", reset=reset)
        record, curves[reset] = learn_in_turn(network((64, 16, 10), 0), arm, 0.05, tasks, steps=30, batch=8, seed=0)
        assert 0 < float(record["cosine"] or 0.0) <= 1
        assert 1 <= float(record["rank"] or 0.0) <= 16
    assert curves[True][0]["after"] == curves[False][0]["after"]
    assert [row["end"] for row in curves[True]] != [row["end"] for row in curves[False]]


def test_direction_alone_differs_from_sgd() -> None:
    """The first step of the Shampoo arm is as long as that of SGD, matrix by matrix, and points elsewhere."""
    data, changes = small_split().train, {}
    for method in ("sgd", "shampoo"):
        model = network((64, 16, 16, CLASSES), 0)
        optimizer = make(Arm(label="", method=method), model, 0.05)
        assert isinstance(optimizer, SecondOrder) == (method == "shampoo")
        for places in batches_of(len(data.images), 12, 32, 0):  # the first preconditioners have come by then
            start = [tensor.detach().clone() for tensor in model.parameters()]
            functional.cross_entropy(model(data.images[places]), data.labels[places]).backward()
            gradients = [tensor.grad.norm() for tensor in model.parameters() if tensor.grad is not None]
            optimizer.step()
            optimizer.zero_grad()
        lengths = [float((tensor.detach() - old).norm()) for tensor, old in zip(model.parameters(), start, strict=True)]
        assert lengths == pytest.approx([0.05 * float(norm) for norm in gradients], rel=1e-3)
        changes[method] = model[0].weight.detach()
    assert not torch.allclose(changes["sgd"], changes["shampoo"], atol=1e-3)


def test_a_sweep_begins_anew_at_each_rate_and_extrapolates_nothing() -> None:
    tasks, arm = pairs_of(small_split()), Arm(label="")
    model = network((64, 8, 10), 0)
    settings: dict[str, Any] = {"steps": 20, "batch": 8, "seed": 0}
    record, curve = sweep(model, arm, (0.3, 0.01), tasks, level=1.0, **settings)
    assert (record["matched"], record["bracketed"]) == (None, 0)
    assert record["best"] == max(float(row["learn"] or 0.0) for row in curve)
    alone, _ = learn_in_turn(network((64, 8, 10), 0), arm, 0.01, tasks, **settings)
    assert (curve[1]["learn"], curve[1]["old"]) == (alone["learn"], alone["old"])
    level = sum(float(row["learn"] or 0.0) for row in curve) / 2
    record, _ = sweep(network((64, 8, 10), 0), arm, (0.3, 0.01), tasks, level=level, **settings)
    assert record["bracketed"] == 1
    assert record["matched"] == pytest.approx(sum(float(row["old"] or 0.0) for row in curve) / 2)


def test_a_penalty_is_added_to_the_gradients_of_matrices_alone() -> None:
    config = dataclasses.replace(TOY.pruning, rate=0.5)
    model = network((6, 4), 0, bias=True)
    weight, bias = model[0].weight, model[0].bias
    before = weight.detach().clone()
    optimizer = pruning.optimizer_of(pruning.Arm(label="", l1=0.1), model, config)
    weight.grad, bias.grad = torch.zeros_like(weight), torch.zeros_like(bias)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), before - 0.05 * before.sign())
    assert not bias.any()


def test_arms_of_pruning() -> None:
    for name, arm in pruning.ARMS.items():
        model = network((6, 5, 4), 0, bias=True)
        optimizer = pruning.optimizer_of(arm, model, TOY.pruning)
        assert isinstance(optimizer, PowerProp) == (arm.alpha > 1), name
        if isinstance(optimizer, PowerProp):
            assert optimizer.alpha == arm.alpha
    recipe = pruning.optimizer_of(pruning.ARMS["recipe"], network((6, 5, 4), 0, bias=True), TOY.pruning)
    assert {group["weight_decay"] for group in recipe.param_groups} == {0.4, 0.0}


def test_what_is_pruned_in_training_needs_no_pruning_after_it() -> None:
    outcome = as_outcome(pruning.run(Trial(0, TOY.pruning, {"arm": "gradual-0.05"})))
    row = outcome.records[0]
    assert row["kept-0.05"] == pytest.approx(row["dense"])
    assert "kept-0.1" not in row


def test_drawn_digits() -> None:
    drawn = templates()
    assert drawn.shape == (len(FONTS), CLASSES, SIDE, SIDE)
    assert float(drawn.max()) == 1.0
    assert all(10 < float(image.sum()) < 300 for image in drawn.flatten(0, 1))
    one, again, other = (draw_glyphs(300, 0.0, seed) for seed in (0, 0, 1))
    assert torch.equal(one.images, again.images)
    assert not torch.equal(one.labels, other.labels)
    assert one.labels.unique().tolist() == list(range(CLASSES))
    assert (one.images.sum(1) > 5).all(), "no digit has been moved out of its image"
    noisy = draw_glyphs(300, 0.3, 0)
    assert float((noisy.images - one.images).std()) == pytest.approx(0.3, rel=0.02)


def test_a_vision_transformer_learns() -> None:
    data = draw_glyphs(400, 0.0, 0)
    model = VisionTransformer(SIDE, 7, dim=32, depth=1, heads=2, seed=0)
    same = VisionTransformer(SIDE, 7, dim=32, depth=1, heads=2, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True))
    assert all(tensor.ndim == 2 for tensor in model.parameters())
    swapped = data.images[:4].view(4, SIDE, SIDE).roll(7, 2).flatten(1)
    assert not torch.allclose(model(data.images[:4]), model(swapped), atol=1e-3), "places count"
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in learn(model, optimizer, data, batches_of(400, 150, 64, 0)):
        pass
    assert accuracy(model, data) > 0.5
    with pytest.raises(ArgumentError, match="patch"):
        VisionTransformer(SIDE, 5, dim=8, depth=1, heads=2, seed=0)


def test_where_scikit_learn_is_missing_the_extra_of_the_study_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"holdfast\[solutions\]"):
        pairs.run(Trial(0, TOY.pairs, {"arm": "sgd"}))
    with pytest.raises(MissingExtraError, match=r"holdfast\[solutions\]"):
        digit_pairs()
