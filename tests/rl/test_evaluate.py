from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.models.action.config import ActionConfig
from holdfast.models.action.domain import Discrete, Domain, Vector
from holdfast.models.action.model import ActionModel
from holdfast.nn import BackboneConfig
from holdfast.rl.evaluate import Evaluation, evaluate
from holdfast.rl.stepping import Policy, PolicyConfig

gymnasium = pytest.importorskip("gymnasium")
from gymnasium.vector import AutoresetMode, SyncVectorEnv  # noqa: E402

LENGTHS = ((1, 4, 2), (5, 1, 1), (2, 2, 3))
"""Steps of the episodes of each environment, again and again."""


class Counting(gymnasium.Env):
    """Shows (which environment, which episode, which step); gives the number of the step, and success at times."""

    observation_space = gymnasium.spaces.Box(-1, 100, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, number: int) -> None:
        self.number, self.episode = number, -1
        self.actions: list[int] = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.step_number = self.episode + 1, 0
        return self.seen(), {}

    def seen(self):
        return np.array([self.number, self.episode, self.step_number], np.float32)

    def step(self, action):
        self.step_number += 1
        self.actions.append(action)
        lengths = LENGTHS[self.number]
        ended = self.step_number == lengths[self.episode % len(lengths)]
        success = self.episode % 2 == 1 and self.step_number == 1
        return self.seen(), float(self.step_number), ended, False, {"success": success}


class Recording:
    """Answers with the parity of the step it sees, and keeps what it was shown."""

    def __init__(self) -> None:
        self.shown: list[tuple] = []
        self.resets = 0

    def reset(self) -> None:
        self.resets += 1

    def act(self, observation, reward, done):
        self.shown.append((observation.copy(), reward, done))
        return observation[:, 2:].astype(int) % 2


@pytest.fixture(params=list(AutoresetMode), ids=lambda mode: mode.value)
def environments(request):
    made = SyncVectorEnv([lambda n=n: Counting(n) for n in range(3)], autoreset_mode=request.param)
    yield made
    made.close()


def test_each_slot_has_its_share_however_environments_begin_anew(environments):
    policy = Recording()
    result = evaluate(policy, environments, 9, seed=0, random_return=-1.0, expert_return=3.0)
    assert result.lengths == tuple(length for slot in LENGTHS for length in slot)
    assert result.returns == tuple(length * (length + 1) / 2 for length in result.lengths)
    assert result.successes == (False, True, False) * 3
    assert result.success_rate == pytest.approx(1 / 3)
    assert result.scores == tuple((value + 1) / 4 for value in result.returns)
    assert policy.resets == 1


def test_the_policy_sees_what_the_environments_gave(environments):
    policy = Recording()
    evaluate(policy, environments, 9, seed=0)
    first, *later = policy.shown
    assert first[1] is None
    assert first[2] is None
    assert not first[0][:, 2].any()
    next_step = environments.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    before = first[0]
    for observation, reward, done in later:
        for slot in range(3):
            length = LENGTHS[slot][int(before[slot, 1]) % 3]
            idle = next_step and before[slot, 2] == length
            step = 0 if idle else before[slot, 2] + 1
            assert reward[slot] == step
            assert done[slot] == (step == length)
            shown = 0 if done[slot] and not next_step else step
            assert observation[slot, 2] == shown
            assert observation[slot, 1] == before[slot, 1] + (idle or (done[slot] and not next_step))
        before = observation
    for environment in environments.envs:  # the action that was chosen for a step is the one that was taken in it
        actions = [step % 2 for _ in range(20) for length in LENGTHS[environment.number] for step in range(length)]
        assert environment.actions == actions[: len(environment.actions)]


def test_an_action_model_acts_alike_however_environments_begin_anew():
    domain = Domain(name="counting", observation=Vector(3), action=Discrete(2), target_return=3.0)
    torch.manual_seed(0)
    model = ActionModel(ActionConfig(backbone=BackboneConfig(mixers=("rat",), dim=16, heads=2), domains=(domain,)))
    torch.nn.init.normal_(model.head.linear.weight)
    done = []
    for mode in AutoresetMode:
        environments = SyncVectorEnv([lambda n=n: Counting(n) for n in range(3)], autoreset_mode=mode)
        policy = Policy(model, PolicyConfig(domain="counting", slots=3, autoreset=mode))
        assert evaluate(policy, environments, 9, seed=0).lengths == tuple(np.ravel(LENGTHS))
        done.append([environment.actions[:7] for environment in environments.envs])
    assert done[0] == done[1] == done[2]
    assert {action for actions in done[0] for action in actions} == {0, 1}


@pytest.mark.parametrize(
    ("mode", "understood"), [(AutoresetMode.NEXT_STEP, "same_step"), (AutoresetMode.DISABLED, "next_step")]
)
def test_a_policy_for_other_environments_is_refused(mode, understood):
    policy = Recording()
    policy.config = SimpleNamespace(autoreset=understood)
    environments = SyncVectorEnv([lambda: Counting(0)], autoreset_mode=mode)
    with pytest.raises(ArgumentError, match=f"for these environments, got '{understood}'"):
        evaluate(policy, environments, 1, seed=0)
    policy.config = SimpleNamespace(autoreset={"same_step": "next_step", "next_step": "same_step"}[understood])
    assert evaluate(policy, environments, 1, seed=0).lengths == (1,)


class Wrong(Recording):
    def act(self, observation, reward, done):
        return np.zeros(2, int)


@pytest.mark.parametrize(
    ("policy", "settings", "message"),
    [
        (Recording(), {"episodes": 4}, "episodes: expected a multiple of the 3 environments, got 4"),
        (Recording(), {"random_return": 1.0, "expert_return": 1.0}, "expert_return: expected another one"),
        (Wrong(), {}, r"policy: expected actions of shape \(3,\), got shape \(2,\)"),
    ],
)
def test_what_gives_no_score_is_refused(policy, settings, message):
    environments = SyncVectorEnv([lambda n=n: Counting(n) for n in range(3)])
    with pytest.raises(ArgumentError, match=message):
        evaluate(policy, environments, **{"episodes": 3, "seed": 0, **settings})


def test_environments_that_do_not_say_how_they_begin_anew_are_refused():
    environments = SyncVectorEnv([lambda: Counting(0)])
    environments.metadata = {}
    with pytest.raises(ArgumentError, match="environments: expected an autoreset_mode"):
        evaluate(Recording(), environments, 1, seed=0)


def test_the_interval_is_students():
    result = Evaluation((1.0, 2.0, 3.0, 6.0), (1,) * 4, random_return=0.0, expert_return=2.0)
    assert result.mean_return == 3
    assert result.score == 1.5
    half = 3.182446305 * np.std([0.5, 1, 1.5, 3], ddof=1) / 2  # the 97.5 % quantile with 3 degrees of freedom
    assert result.score_interval == pytest.approx((1.5 - half, 1.5 + half), rel=1e-6)
    assert math.isnan(result.success_rate)


@pytest.mark.parametrize("returns", [(5.0,), (5.0, 5.0, 5.0)])
def test_returns_without_spread_give_no_interval(returns):
    result = Evaluation(returns, (1,) * len(returns), random_return=0.0, expert_return=10.0)
    assert result.score == 0.5
    assert all(map(math.isnan, result.score_interval))


def test_without_a_scale_there_is_no_score():
    assert math.isnan(Evaluation((1.0, 2.0), (1, 1)).score)
