"""The parts of the study of plasticity at toy size."""

from __future__ import annotations

import dataclasses
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure as Canvas

from holdfast.errors import ArgumentError
from holdfast.lab import Part, Trial
from holdfast.lab.trial import as_outcome
from holdfast.studies.digits import digits
from holdfast.studies.plasticity import (
    atari,
    cifar,
    clamp,
    dqn,
    fitted_q,
    grokking,
    offsets,
    primacy,
    shuffling,
    sweep,
    warm_start,
)
from holdfast.studies.plasticity.clamp import ClampConfig
from holdfast.studies.plasticity.digits import network
from holdfast.studies.plasticity.measures import norms
from holdfast.studies.plasticity.shapes import Addition, Layers
from holdfast.studies.plasticity.study import study
from tests.studies.plasticity.toy import TOY
from tests.studies.tools import assert_drawn, assert_repeats, results_of


@pytest.mark.parametrize(
    ("part", "count"),
    [
        (grokking.part, 11),
        (shuffling.part, 4),
        (primacy.part, 14),
        (warm_start.part, 12),
        (fitted_q.part, 6),
        (clamp.part, 9),
        (sweep.part, 3),
        (offsets.part, 1),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_part_runs_and_draws(part: Part[Any], count: int) -> None:
    results = results_of(study, TOY, part.name)
    assert len(results.outcomes) == count
    for _, outcome in results.outcomes:
        for row in outcome.records:
            assert all(math.isfinite(value) for value in row.values() if isinstance(value, float)), row
    assert_drawn(part.figures, results)
    assert_repeats(part, *results.outcomes[0])


def test_cifar(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("data_batch_1.bin", "data_batch_2.bin", "test_batch.bin"):
        records = rng.integers(0, 256, (12, cifar.RECORD), dtype=np.uint8)
        records[:, 0] %= cifar.CLASSES
        records.tofile(tmp_path / name)
    (images, labels), tests = cifar.images_of(str(tmp_path))
    assert images.shape == (24, 3, 32, 32)
    assert torch.equal(
        images[12:13].flatten(), torch.from_numpy(np.fromfile(tmp_path / "data_batch_2.bin", "u1"))[1:3073]
    )
    assert (labels.shape, tests[1].shape) == ((24,), (12,))
    config = dataclasses.replace(TOY, cifar=dataclasses.replace(TOY.cifar, folder=str(tmp_path)))
    results = results_of(study, config, "cifar")
    assert len(results.outcomes) == 12
    assert_drawn(cifar.part.figures, results)
    assert_repeats(cifar.part, *results.outcomes[0])
    assert len(results.outcomes[0][1].curves["epochs"]) == 2
    (tmp_path / "data_batch_1.bin").write_bytes(b"0" * 100)
    with pytest.raises(ArgumentError, match="data_batch_1"):
        cifar.images_of(str(tmp_path))
    with pytest.raises(ArgumentError, match="folder"):
        cifar.images_of(str(tmp_path / "elsewhere"))


def test_replay_puts_stacks_together() -> None:
    """Frames are their numbers; the second episode begins with the fifth frame."""
    replay = dqn.Replay(capacity=10, seed=0)
    for number in range(13):
        frame = np.full((84, 84), number, np.uint8)
        replay.add(frame, number, float(number), number == 4, 0 if number < 5 else 5)
    drawn = replay.sample(200)
    numbers = drawn.actions.tolist()
    assert set(numbers) == set(range(7, 12)), "what is overwritten or has no successor is not drawn"
    for before, after, number in zip(drawn.before, drawn.after, numbers, strict=True):
        assert before[:, 0, 0].tolist() == [max(5, number - back) for back in (3, 2, 1, 0)]
        assert after[:, 0, 0].tolist() == [max(5, number + 1 - back) for back in (3, 2, 1, 0)]
    young = dqn.Replay(capacity=10, seed=0)
    for number in range(4):
        young.add(np.full((84, 84), number, np.uint8), number, 0.0, number == 1, 0 if number < 2 else 2)
    batch = young.sample(100)
    assert set(batch.actions.tolist()) == {0, 1, 2}
    assert torch.equal(batch.ended, (batch.actions == 1).float())


@torch.no_grad()
def test_values_are_fitted_to_the_slow_network() -> None:
    network = dqn.q_network(3, seed=0)
    slow = dqn.q_network(3, seed=1)
    stacks = torch.randint(256, (2, 2, 4, 84, 84), dtype=torch.uint8)
    batch = dqn.Transitions(
        stacks[0], torch.tensor([2, 0]), torch.tensor([1.0, 0.5]), torch.tensor([0.0, 1.0]), stacks[1]
    )
    values = network(stacks[0] / 255)
    best = float(slow(stacks[1][:1] / 255).max())
    errors = [float(values[0, 2]) - (1 + 0.9 * best), float(values[1, 0]) - 0.5]
    huber = [0.5 * error**2 if abs(error) < 1 else abs(error) - 0.5 for error in errors]
    assert float(dqn.loss_of(network, slow, batch, 0.9, "cpu")) == pytest.approx(sum(huber) / 2, rel=1e-4)


@pytest.mark.skipif(find_spec("ale_py") is None, reason="ale-py is not installed")
def test_atari() -> None:
    results = results_of(study, TOY, "atari")
    assert len(results.outcomes) == len(atari.ARMS)
    assert_repeats(atari.part, *results.outcomes[2])
    for figure in atari.part.figures:
        figure.draw(results, Canvas().subplots())


def test_the_cyclic_rate_of_agents() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = atari._schedule(optimizer, TOY.atari, "stopped")
    rates = []
    for _ in range(12):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    peaks = [step for step, rate in enumerate(rates) if rate == pytest.approx(TOY.atari.high)]
    assert peaks == [0, 4], "two cycles of 16 frames, which are 4 actions"
    assert rates[8:] == pytest.approx([TOY.atari.low] * 4)
    for arm in ("high", "low"):
        assert atari._schedule(optimizer, TOY.atari, arm) is None
        assert optimizer.param_groups[0]["lr"] == getattr(TOY.atari, arm)


def test_norms_are_held_where_an_arm_says_so() -> None:
    for arm, settings in grokking.ARMS.items():
        outcome = as_outcome(grokking.run(Trial(0, TOY.grokking, {"arm": arm})))
        held = outcome.records[0]["norm"] == pytest.approx(1.0, rel=1e-5)
        assert held == settings.projected, arm
        assert [row["step"] for row in outcome.curves["accuracy"]][-1] == TOY.grokking.steps(settings)[1]
    images = digits(0, extra="plasticity").images[:20]
    for arm, settings_of in shuffling.ARMS.items():
        model = network(64, 10, TOY.shuffling.layers, norm=settings_of.norm, seed=0)
        start = norms(model)
        shuffling.memorise(model, images, TOY.shuffling, settings_of, 0)
        held = norms(model) == pytest.approx(start, rel=1e-5)
        assert held == (settings_of.projected or settings_of.fresh), arm


def test_the_re_warm_raises_the_rate() -> None:
    """Features that hardly move at the low rate do so after the re-warm, and not where there is none."""
    config = dataclasses.replace(TOY.grokking, addition=Addition(modulus=7), probes=20, change_every=4)
    rows = {}
    for arm in ("rewarm", "low"):
        outcome = as_outcome(grokking.run(Trial(0, config, {"arm": arm})))
        rows[arm] = [float(row["kernel"] or 0.0) for row in outcome.curves["change"]]
    assert rows["rewarm"][0] == rows["low"][0]
    assert rows["rewarm"][1] > 5 * rows["low"][1]


def test_arms_of_a_seed_see_the_same_tasks() -> None:
    """At a rate of about 0 all networks with one kind of norm stay what they were: the same accuracy, task by task."""
    config = dataclasses.replace(TOY.shuffling, rate=1e-12)
    images, curves = digits(3, extra="plasticity").images[:300], {}
    for arm in ("layernorm", "projected"):
        model = network(64, 10, config.layers, norm=True, seed=3)
        rows, _, _ = shuffling.memorise(model, images, config, shuffling.ARMS[arm], 3)
        curves[arm] = [row["end"] for row in rows]
    assert curves["layernorm"] == curves["projected"]
    assert len(set(curves["projected"])) > 1, "labels differ from task to task"


def test_a_task_is_learnt_and_found_out() -> None:
    config = dataclasses.replace(
        TOY.shuffling, tasks=2, steps=120, examples=24, batch=16, rate=1e-2, layers=Layers(width=32, depth=2)
    )
    outcome = as_outcome(shuffling.run(Trial(0, config, {"arm": "detected"})))
    row = outcome.records[0]
    assert float(row["first"] or 0.0) > 0.9
    assert (row["found"], row["changes"], row["false"]) == (1, 1, 0)


def test_primacy_has_a_phase_of_random_labels() -> None:
    config = dataclasses.replace(TOY.primacy, first=60, second=0, rate=1e-2, batch=20, layers=Layers(width=32, depth=1))
    row = as_outcome(primacy.run(Trial(0, config, {"arm": "constant", "norms": "held"}))).records[0]
    assert float(row["memorised"] or 0.0) > 0.8
    assert float(row["accuracy"] or 0.0) < 0.3
    fresh = as_outcome(primacy.run(Trial(0, TOY.primacy, {"arm": "fresh", "norms": "held"}))).records[0]
    assert fresh["memorised"] is None


def test_a_goal_is_learnt() -> None:
    config = dataclasses.replace(
        TOY.fitted_q, side=4, goals=2, steps=150, copy_every=10, rate=1e-2, layers=Layers(width=32, depth=2)
    )
    row = as_outcome(fitted_q.run(Trial(0, config, {"arm": "projected"}))).records[0]
    assert float(row["last_end"] or 0.0) > 0.9
    assert float(row["last"] or 0.0) < float(row["last_end"] or 0.0)


def test_rates_in_other_proportions_than_norms() -> None:
    with pytest.raises(ArgumentError, match="proportions"):
        ClampConfig(norms=(1.0, 2.0), rates=(1e-3, 3e-3))
    with pytest.raises(ArgumentError, match="arms"):
        dataclasses.replace(TOY.shuffling, arms=("norm",))
