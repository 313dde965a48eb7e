from __future__ import annotations

import numpy as np
import pytest

from holdfast.models.action.domain import Continuous
from holdfast.rl.classic_control import TASKS, ControlTask
from holdfast.rl.collect import Bursts

pytest.importorskip("gymnasium")


@pytest.fixture(params=list(TASKS), ids=str)
def task(request) -> ControlTask:
    return TASKS[request.param]


class Expert:
    """A task's expert in each of several environments."""

    def __init__(self, task: ControlTask) -> None:
        self.task = task

    def reset(self) -> None:
        """It remembers nothing."""

    def act(self, observation, reward, done):
        return np.stack([self.task.expert(row) for row in observation])


class Uniform(Expert):
    """Random actions."""

    def reset(self) -> None:
        self.rng = np.random.default_rng(0)

    def act(self, observation, reward, done):
        space = self.task.action
        if isinstance(space, Continuous):
            return self.rng.uniform(space.low, space.high, (len(observation), space.dims))
        return self.rng.integers(space.n, size=len(observation))


def test_the_expert_scores_one_and_random_actions_zero(task):
    # Returns of experts spread by 0.1 of the scale at most, random ones by 0.27: these are six standard errors.
    expert = task.evaluate(Expert(task), 20, seed=5000)
    assert len(expert.returns) == 20
    assert expert.score == pytest.approx(1, abs=0.14)
    assert task.evaluate(Uniform(task), 10, seed=5000).score == pytest.approx(0, abs=0.52)


def test_the_task_is_as_gymnasium_has_it(task):
    environment = task.make()
    assert environment.observation_space.shape == (task.width,)
    if isinstance(task.action, Continuous):
        assert tuple(environment.action_space.low) == task.action.low
        assert tuple(environment.action_space.high) == task.action.high
    else:
        assert environment.action_space.n == task.action.n
        assert environment.action_space.start == 0


def test_masked_velocities_are_hidden_from_the_policy_and_not_from_the_expert(task):
    masked = task.without_velocities()
    whole, hidden = (one.trajectories(2, seed=9) for one in (task, masked))
    assert hidden.domain.name == f"{task.name}-masked"
    rest = [place for place in range(task.width) if place not in task.velocities]
    for seen, unseen in zip(whole.items, hidden.items, strict=True):
        np.testing.assert_array_equal(seen.actions, unseen.actions)
        np.testing.assert_array_equal(seen.observations[:, rest], unseen.observations[:, rest])
        assert not unseen.observations[:, list(task.velocities)].any()
        assert seen.observations[:, list(task.velocities)].any(axis=0).all()
    environment = masked.make_seen()
    first, _ = environment.reset(seed=9)
    np.testing.assert_array_equal(first.astype(np.float32), hidden.items[0].observations[0])


def test_disturbed_episodes_have_the_expert_as_label_and_clean_ones_the_target(task):
    data = task.trajectories(6, seed=3, bursts=Bursts(share=0.5, rate=0.2, longest=5))
    clean = [item for item in data.items if item.labels is None]
    assert 0 < len(clean) < 6
    assert data.domain.target_return == np.quantile([item.total_return for item in clean], 0.25)
    for item in data.items:
        wanted = np.stack([task.expert(state) for state in item.observations[:-1]])
        # What is kept is float32, where the sign of a sum near 0 may be another than in float64.
        same = np.isclose(item.learnt, wanted, atol=1e-3).mean()
        assert same > 0.99
        if item.labels is not None:
            assert 0.02 < np.mean(item.labels != item.actions) < 0.9
