"""Sessions stepped together are sessions stepped alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.errors import ArgumentError, HoldfastError
from holdfast.models.action.model import ActionModel
from holdfast.models.action.state_tensors import state_tensors
from holdfast.rl.memory import Memory
from holdfast.rl.stepping import Policy, PolicyConfig
from holdfast.serving.stepper import PolicyStepper, Step
from tests.models.action.tiny import ARM, BACKBONES, GAME, MAZE, model

TOLERANCE = 1e-4
"""Of float32 states after some tens of tokens, in batches of another size."""


class Alone:
    """A session with a policy of its own."""

    def __init__(self, whole: ActionModel, domain: Any, target: float | None = None) -> None:
        config = PolicyConfig(domain=domain.name, slots=1, autoreset="same_step", target_return=target)
        self.domain, self.policy = domain, Policy(whole, config)

    def act(self, step: Step) -> Any:
        reward = np.array([step.reward or 0.0])
        taken = None if step.carried_out is None else step.carried_out[None]
        known = np.array([step.reward is not None])
        return self.policy.act(step.observation[None], reward, np.array([step.done]), known=known, taken=taken)[0]


def close(left: Memory, right: Memory) -> None:
    """Equal up to rounding."""
    tensors, numbers = state_tensors(left.state)
    others, _ = state_tensors(right.state)
    assert tensors.keys() == others.keys()
    assert "numbers" not in numbers
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, others[name], rtol=TOLERANCE, atol=TOLERANCE, msg=name)
    for name, array in left.episodes.arrays().items():
        np.testing.assert_allclose(array, right.episodes.arrays()[name], rtol=1e-9, atol=1e-9, err_msg=name)
    assert left.target == right.target


def step_of(rng: np.random.Generator, domain: Any, memory: Any, **changes: Any) -> Step:
    """A random step."""
    shape = domain.observation.shape
    seen = rng.integers(0, 256, shape, np.uint8) if len(shape) > 1 else rng.standard_normal(shape).astype(np.float32)
    reward = None if rng.random() < 0.2 else float(rng.standard_normal())
    given = {"observation": seen, "reward": reward, "done": bool(rng.random() < 0.1)} | changes
    return Step(domain=domain.name, memory=memory, **given)


@pytest.mark.parametrize("name", BACKBONES)
def test_sessions_that_come_and_go_are_each_as_if_alone(name: str) -> None:
    whole, rng = model(BACKBONES[name]), np.random.default_rng(0)
    stepper = PolicyStepper(whole)
    domains = (ARM, MAZE, ARM, GAME, ARM)
    targets = (None, 2.0, -7.0, None, 40.0)
    alone = [Alone(whole, domain, target) for domain, target in zip(domains, targets, strict=True)]
    memories = [stepper.begin(domain.name, target) for domain, target in zip(domains, targets, strict=True)]
    for _ in range(25):
        who = np.flatnonzero(rng.random(len(domains)) < 0.7)
        steps = [step_of(rng, domains[place], memories[place]) for place in who]
        for place, step, outcome in zip(who, steps, stepper.act(steps), strict=True):
            assert not isinstance(outcome, HoldfastError)
            action, memories[place] = outcome
            assert np.array_equal(action, alone[place].act(step))
    for memory, session in zip(memories, alone, strict=True):
        close(memory, session.policy.memory)


def test_the_action_that_was_carried_out_is_what_the_model_reads() -> None:
    whole, rng = model(BACKBONES["xlstm"], past_actions=True), np.random.default_rng(1)
    stepper, alone = PolicyStepper(whole), [Alone(whole, ARM), Alone(whole, ARM)]
    memories = [stepper.begin("arm", None) for _ in alone]
    for number in range(12):
        other = np.array([0.3, -1.5]) if number % 3 == 2 else None
        steps = [
            step_of(rng, ARM, memory, done=False, reward=0.5, carried_out=other if place else None)
            for place, memory in enumerate(memories)
        ]
        for place, outcome in enumerate(stepper.act(steps)):
            action, memories[place] = outcome
            assert np.array_equal(action, alone[place].act(steps[place]))
    for memory, session in zip(memories, alone, strict=True):
        close(memory, session.policy.memory)


@pytest.mark.parametrize("name", ["xlstm", "attention"])
def test_one_that_cannot_be_read_harms_no_other_and_changes_nothing(name: str) -> None:
    whole, rng = model(BACKBONES[name]), np.random.default_rng(2)
    stepper = PolicyStepper(whole)
    memories: list[Any] = [stepper.begin("arm", None) for _ in range(3)]
    for _ in range(3):
        steps = [step_of(rng, ARM, memory, done=False, reward=0.0) for memory in memories]
        memories = [outcome[1] for outcome in stepper.act(steps)]  # type: ignore[index]
    kept = [tensor.clone() for tensor in state_tensors(memories[1].state)[0].values()]
    steps = [step_of(rng, ARM, memory, done=False, reward=0.0) for memory in memories]
    bad = steps[1].observation.copy()
    bad[3] = np.nan
    first, second, third = stepper.act([steps[0], replace(steps[1], observation=bad), steps[2]])
    assert isinstance(second, HoldfastError)
    assert not isinstance(first, HoldfastError)
    assert not isinstance(third, HoldfastError)
    assert all(map(torch.equal, kept, state_tensors(memories[1].state)[0].values()))
    again = stepper.act(steps)
    assert np.array_equal(again[0][0], first[0])  # type: ignore[index]
    assert not isinstance(again[1], HoldfastError)


def test_bytes_and_floats_of_pictures_are_not_mixed() -> None:
    whole, rng = model(BACKBONES["xlstm"]), np.random.default_rng(3)
    stepper = PolicyStepper(whole)
    seen = rng.integers(0, 256, GAME.observation.shape, np.uint8)
    steps = [
        Step(domain="game", memory=stepper.begin("game", None), observation=picture, reward=None, done=False)
        for picture in (seen, seen.astype(np.float32) / 255)
    ]
    (_, bytes_), (_, floats) = stepper.act(steps)  # type: ignore[misc]
    close(bytes_, floats)


def test_a_target_is_needed_where_the_model_reads_one() -> None:
    free = replace(MAZE, name="free", target_return=None)
    stepper = PolicyStepper(model(BACKBONES["xlstm"], domains=(ARM, free)))
    with pytest.raises(ArgumentError, match="target_return: expected a number, since domain free has none"):
        stepper.begin("free", None)
    assert stepper.begin("free", 3.0).target == 3.0
    blind = PolicyStepper(model(BACKBONES["xlstm"], domains=(ARM, free), returns=False))
    assert blind.begin("free", None).slots == 1
