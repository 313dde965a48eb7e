"""Small trajectories that tests make."""

from __future__ import annotations

from typing import Any

import numpy as np

from holdfast.models.action.domain import Continuous, Discrete, Domain, Image, Vector
from holdfast.models.action.trajectories import Trajectory

ARM = Domain(name="arm", observation=Vector(3), action=Continuous((-2.0, 0.0), (2.0, 1.0)), reward_scale=7.0)
GRID = Domain(name="grid", observation=Vector(2), action=Discrete(4), target_return=3.0)
GAME = Domain(name="game", observation=Image(1, 8, 6), action=Discrete(3))


def episode(domain: Domain, steps: int, seed: int = 0, *, last: bool = True, **fields: Any) -> Trajectory:
    """A random trajectory that fits a domain; rewards and actions are float32, as files keep them."""
    rng = np.random.default_rng(seed)
    shape = (steps + last, *domain.observation.shape)
    if isinstance(domain.observation, Image):
        observations = rng.integers(256, size=shape, dtype=np.uint8)
    else:
        observations = rng.normal(size=shape).astype(np.float32)
    if isinstance(domain.action, Continuous):
        actions = rng.uniform(domain.action.low, domain.action.high, (steps, domain.action.dims)).astype(np.float32)
    else:
        actions = rng.integers(domain.action.n, size=steps)
    given = {"rewards": rng.normal(size=steps).astype(np.float32), "terminated": True, **fields}
    return Trajectory(observations=observations, actions=actions, **given)


def assert_same(one: Trajectory, other: Trajectory, *, last: bool = True) -> None:
    """Equal in all that a file keeps; `last=False`: less the observation after the last action."""
    steps = len(one)
    np.testing.assert_array_equal(one.observations if last else one.observations[:steps], other.observations)
    np.testing.assert_array_equal(one.actions.reshape(steps, -1), other.actions.reshape(steps, -1))
    for name in ("rewards", "labels"):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert (mine is None) == (theirs is None), name
        if mine is not None:
            np.testing.assert_array_equal(mine.reshape(steps, -1), theirs.reshape(steps, -1))
    for name in ("terminated", "truncated", "task", "remaining"):
        assert getattr(one, name) == getattr(other, name), name
