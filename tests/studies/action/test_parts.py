"""The parts of the study of action that train policies or time steps, at toy size."""

from __future__ import annotations

import dataclasses
import math
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.errors import ArgumentError, MissingExtraError
from holdfast.lab import Outcome, Part, Results, Trial
from holdfast.lab.trial import as_outcome
from holdfast.models.action.config import ActionConfig
from holdfast.models.action.discretise import Vocabulary
from holdfast.models.action.model import ActionModel, build_backbone
from holdfast.rl.classic_control import TASKS as CLASSIC
from holdfast.studies.action import conditioning, control, copycat, dark_room, latency, manipulation
from holdfast.studies.action.arms import ARMS, PUBLISHED, backbone_of
from holdfast.studies.action.demonstrations import TASKS, Demonstrations, demonstrated, tasks_of
from holdfast.studies.action.streams import environment_seed
from holdfast.studies.action.study import study
from holdfast.studies.action.training import Recipe, seeded, train
from tests.studies.action.toy import CLONING, TOY
from tests.studies.tools import assert_drawn, assert_repeats, results_of

DOMAINS = tuple(CLASSIC[name].domain for name in TASKS)


@pytest.mark.parametrize("size", ["small", *PUBLISHED])
def test_backbones_have_the_same_number_of_parameters_within_5_percent(size: str) -> None:
    with torch.device("meta"):
        counts = {}
        for arm in ARMS:
            backbone = build_backbone(backbone_of(arm, size, 30))
            counts[arm] = sum(tensor.numel() for tensor in backbone.parameters())
    for count in counts.values():
        assert count == pytest.approx(counts["xlstm10"], rel=0.05)


def test_policies_have_the_same_number_of_parameters_within_5_percent() -> None:
    config = study.scales["laptop"].control.cloning
    counts = []
    for arm in ARMS:
        backbone = backbone_of(arm, config.size, 3 * config.context)
        model = ActionModel(ActionConfig(backbone=backbone, domains=DOMAINS, vocabulary=Vocabulary(3, config.bins, 1)))
        counts.append(sum(tensor.numel() for tensor in model.parameters()))
    assert max(counts) <= 1.05 * counts[0]
    assert min(counts) >= 0.95 * counts[0]


def test_backbones_that_there_are_not() -> None:
    with pytest.raises(ArgumentError, match="arm"):
        backbone_of("lstm", "small", 30)
    with pytest.raises(ArgumentError, match="size"):
        backbone_of("xlstm10", "7B", 30)


SHOWN = Demonstrations(tasks=("cart-pole", "mountain-car"), episodes=6, disturbed=0.5)


def test_shuffled_actions_are_the_same_in_another_order() -> None:
    clean, shuffled = demonstrated(SHOWN, 3), demonstrated(SHOWN, 3, shuffled=True)
    for true, dealt in zip(clean, shuffled, strict=True):
        assert dealt.domain == true.domain, "the target is that of the clean episodes"
        for before, after in zip(true.items, dealt.items, strict=True):
            np.testing.assert_array_equal(before.observations, after.observations)
            np.testing.assert_array_equal(before.actions, after.actions)
        before, after = (np.concatenate([item.learnt for item in part.items])[:, 0] for part in (true, dealt))
        np.testing.assert_array_equal(np.sort(before), np.sort(after))
    discrete = clean[0], shuffled[0]
    before, after = (np.concatenate([item.learnt for item in part.items]) for part in discrete)
    assert 0.3 < (before == after).mean() < 0.7, "the two actions of cart-pole are about as frequent as each other"


def test_masked_demonstrations_show_no_velocity() -> None:
    shown = dataclasses.replace(SHOWN, masked=True)
    for task, data in zip(tasks_of(shown), demonstrated(shown, 0), strict=True):
        for item in data.items:
            assert not item.observations[:, list(task.velocities)].any()
            assert item.observations.any()


def test_no_environment_is_used_twice() -> None:
    firsts = sorted(environment_seed(seed, test=test) for seed in range(4) for test in (False, True))
    most = max(Demonstrations().episodes, CLONING.rollouts, 2_000)
    assert firsts[0] >= 2_000, "seeds below are those that scores were scaled with"
    assert min(np.diff(firsts)) >= most


def test_training_lowers_the_loss_and_goes_by_the_seed() -> None:
    data = demonstrated(Demonstrations(tasks=("mountain-car",), episodes=4, disturbed=0.0), 0)
    from holdfast.models.action.trajectories import Sampling, TrajectorySource

    source = TrajectorySource(data, Sampling(context=4))
    config = ActionConfig(backbone=backbone_of("xlstm10", "tiny", 12), domains=(data[0].domain,))
    recipe = Recipe(steps=30, batch=8, warmup=5, curve_every=10, learning_rate=1e-2)
    curves = [train(seeded(config, seed), recipe, lambda step: source.batch(step, 8)) for seed in (0, 0, 1)]
    assert curves[0] == curves[1] != curves[2]
    assert [point["step"] for point in curves[0]] == [10, 20, 30]
    assert float(curves[0][-1]["loss"] or 9) < 0.5 * float(curves[0][0]["loss"] or 0)


@pytest.fixture(scope="module")
def of_control() -> Results:
    return results_of(study, TOY, "control")


def check(part: Part[Any], results: Results, count: int) -> None:
    """A part has its trials, finite numbers, figures, and the same numbers when a trial is repeated."""
    mine = [(trial, outcome) for trial, outcome in results.outcomes if trial.labels["part"] == part.name]
    assert len(mine) == count
    for _, outcome in mine:
        for row in outcome.records:
            assert all(math.isfinite(value) for value in row.values() if isinstance(value, float)), row
    assert_drawn(part.figures, results)
    if part is not latency.part:  # whose times are never twice the same
        assert_repeats(part, *mine[0])


@pytest.mark.parametrize(
    ("part", "count"),
    [(copycat.part, 2), (dark_room.part, 1), (latency.part, 2)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_part_runs_and_draws(part: Part[Any], count: int) -> None:
    check(part, results_of(study, TOY, part.name), count)


def test_control_runs_and_draws(of_control: Results) -> None:
    check(control.part, of_control, 5)
    untrained = of_control.curve("control", part="control", control="untrained")
    assert not untrained
    for arm in TOY.control.arms:
        curve = of_control.curve("control", part="control", arm=arm, view="whole", control="")
        assert [point["step"] for point in curve] == [2, 4]


def test_conditioning_is_compared_with_control(of_control: Results) -> None:
    results = results_of(study, TOY, "conditioning")
    check(conditioning.part, Results(TOY, [*results.outcomes, *of_control.outcomes]), 2)


def test_one_policy_acts_in_discrete_and_continuous_tasks() -> None:
    both = dataclasses.replace(CLONING.demonstrations, tasks=("pendulum", "acrobot"))
    config = dataclasses.replace(CLONING, demonstrations=both)
    rows = as_outcome(control.run(Trial(0, config, {"arm": "xlstm10", "control": "untrained"}))).records
    assert [row["task"] for row in rows] == ["pendulum", "acrobot", "all"]
    losses = [float(row["loss"] or 0.0) for row in rows]
    assert losses[2] == pytest.approx((losses[0] + losses[1]) / 2)
    assert losses[1] == pytest.approx(math.log(3), abs=0.7), "untrained, every action is about as likely"


def test_what_xlstm_keeps_is_as_the_formula_says() -> None:
    """Of a layer: a square of the head's width, a vector and a number for each head, and three convolution inputs."""
    config = TOY.latency
    trial = next(iter(latency.trials(TOY)))
    sizes = {(row["arm"], row["context"]): row["bytes"] for row in as_outcome(latency.run(trial)).records}
    inner, layers = 64, 2 * config.layers  # twice the width, up to a multiple of 64
    head = inner // config.heads
    floats = layers * (config.heads * (head**2 + head + 1) + 3 * inner)
    assert {sizes["xlstm10", context] for context in config.contexts} == {4 * floats}
    for context in config.contexts:
        room = latency.TOKENS * (context + 1)
        assert sizes["cache", context] == 4 * 2 * config.dim * config.layers * room


def test_what_has_no_room_is_left_out() -> None:
    config = dataclasses.replace(TOY.latency, memory=4 * 2 * 16 * 3 * 51)
    outcome = as_outcome(latency.run(Trial(0, config, {"batch": 1})))
    assert {row["context"] for row in outcome.records if row["arm"] == "cache"} == {2, 50}
    assert {row["context"] for row in outcome.records if row["arm"] == "xlstm10"} == {2, 50, 60}


@pytest.mark.parametrize(
    ("cache", "crossing"),
    [((1.0, 2.0, 8.0), 100.0), ((0.5, 1.0, 2.0), 1000.0), ((3.0, 4.0, 5.0), 10.0), ((0.1, 0.2, 0.3), 1000.0)],
)
def test_where_lines_cross(cache: tuple[float, ...], crossing: float) -> None:
    """Of 2 milliseconds, at 10, 100 and 1,000 timesteps."""
    config = dataclasses.replace(TOY, latency=dataclasses.replace(TOY.latency, contexts=(10, 100, 1000), batches=(1,)))
    trial = dataclasses.replace(next(iter(latency.trials(config))), labels={"part": "latency", "batch": 1})
    rows = [
        {"arm": arm, "context": context, "ms": ms}
        for arm, times in (("cache", cache), ("xlstm10", (2.0, 2.0, 2.0)))
        for context, ms in zip((10, 100, 1000), times, strict=True)
    ]
    assert latency.crossovers(Results(config, [(trial, Outcome(rows))]), 1) == {0: pytest.approx(crossing)}


def test_slope() -> None:
    assert conditioning.slope([1.0, 2.0, 4.0], [3.0, 5.0, 9.0]) == pytest.approx(2.0)
    assert conditioning.slope([1.0, 2.0, 3.0], [3.0, 1.0, 3.0]) == pytest.approx(0.0)


SMALL = dataclasses.replace(
    study.scales["laptop"].manipulation,
    tasks=("reach-v3",),
    required=True,
    size="tiny",
    steps=5,
    episodes=3,
    context=2,
    rollouts=2,
    recipe=Recipe(steps=2, batch=2),
)


@pytest.mark.skipif(find_spec("metaworld") is not None, reason="Meta-World is installed")
def test_a_scale_that_needs_meta_world_says_so() -> None:
    with pytest.raises(MissingExtraError, match="metaworld"):
        manipulation.run(Trial(0, SMALL, {"arm": "xlstm10", "actions": "with"}))


@pytest.mark.skipif(find_spec("metaworld") is None, reason="Meta-World is not installed")
def test_manipulation() -> None:
    config = dataclasses.replace(TOY, manipulation=SMALL)
    results = results_of(study, config, "manipulation")
    assert len(results.outcomes) == 2
    assert_drawn(manipulation.part.figures, results)
    assert {row["task"] for row in results.records} == {"reach-v3", "all"}
