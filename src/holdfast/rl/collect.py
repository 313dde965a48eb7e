"""Trajectories from any Gymnasium environment: an expert acts, and is disturbed so that its data leave its own path.

A policy that learns from an expert alone has never seen how to come back. So bursts of random actions move through the
states, and what the expert would have done in each of them is what is learnt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Num

from holdfast.errors import ArgumentError, count_of, require
from holdfast.models.action.trajectories.trajectory import Trajectory, channels_first

if TYPE_CHECKING:
    import gymnasium

Expert = Callable[[Num[np.ndarray, "*shape"]], Num[np.ndarray, "*dims"]]
"""What an expert does in a state: a vector, or an id."""

View = Callable[[Num[np.ndarray, "*shape"]], Num[np.ndarray, "*seen"]]
"""What is seen of a state."""


@dataclass(frozen=True, kw_only=True)
class Bursts:
    """Random actions that take over from the expert now and then.

    Arguments:
        share: of the episodes that are disturbed at all; the others are clean.
        rate: chance, at each step at which the expert acts, that a burst begins.
        longest: steps of a burst, at most; its length is drawn from 1 to this.

    Errors:
        ArgumentError: a number out of its range.
    """

    share: float = 0.5
    rate: float = 0.05
    longest: int = 10

    def __post_init__(self) -> None:
        for name in ("share", "rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ArgumentError(name, "a number from 0 to 1", getattr(self, name))
        count_of("longest", self.longest, least=1)


def collect(
    environment: gymnasium.Env[Any, Any],
    expert: Expert,
    episodes: int,
    *,
    seed: int,
    bursts: Bursts | None = None,
    observe: View | None = None,
    task: str = "",
) -> list[Trajectory]:
    """Episodes of an expert, from begin to end.

    Arguments:
        environment: with vectors or pictures as observations, and vectors or ids as actions.
        expert: from the environment's observation to its action; vectors are moved to the bounds.
        episodes: how many.
        seed: of the environment (episode i is reset with seed + i) and of the bursts.
        bursts: how the expert is disturbed; `None`: not at all.
        observe: what is kept of an observation; `None`: all of it.
        task: name that is kept with each trajectory.

    Returns:
        Trajectories with the observation after the last action. Those that were disturbed have labels. Vectors are
        float32, pictures have their channels first.

    Errors:
        ArgumentError: actions that are neither a vector nor an id from 0 on.
    """
    count_of("episodes", episodes, least=1)
    discrete = _is_discrete(environment)
    return [
        _episode(environment, expert, seed + number, bursts, observe or _all, task, discrete)
        for number in range(episodes)
    ]


def random_expert(environment: gymnasium.Env[Any, Any], seed: int) -> Expert:
    """Uniformly random actions: the floor that scores are told from, and data where there is no expert."""
    space = environment.action_space
    space.seed(seed)
    return lambda observation: np.asarray(space.sample())


def _episode(
    environment: gymnasium.Env[Any, Any],
    expert: Expert,
    seed: int,
    bursts: Bursts | None,
    observe: View,
    task: str,
    discrete: bool,
) -> Trajectory:
    rng = np.random.default_rng([seed, 0])
    disturbed = bursts is not None and rng.random() < bursts.share
    space: Any = environment.action_space
    state, _ = environment.reset(seed=seed)
    observations, actions, labels, rewards = [_kept(observe, state)], [], [], []
    left, terminated, truncated = 0, False, False
    while not (terminated or truncated):
        label = _action(expert(state), space, discrete)
        if left == 0 and disturbed and bursts is not None and rng.random() < bursts.rate:
            left = int(rng.integers(1, bursts.longest, endpoint=True))
        taken = label
        if left:
            left -= 1
            taken = _random(space, rng, discrete)
        state, reward, terminated, truncated, _ = environment.step(int(taken[0]) if discrete else taken)
        observations.append(_kept(observe, state))
        actions.append(taken)
        labels.append(label)
        rewards.append(float(reward))
    taken_actions, expert_actions = np.stack(actions), np.stack(labels)
    return Trajectory(
        observations=np.stack(observations),
        actions=taken_actions,
        rewards=np.array(rewards, np.float32),
        terminated=bool(terminated),
        truncated=bool(truncated) and not terminated,
        task=task,
        labels=None if np.array_equal(taken_actions, expert_actions) else expert_actions,
    )


def _is_discrete(environment: gymnasium.Env[Any, Any]) -> bool:
    spaces = require("gymnasium.spaces", "rl")
    space: Any = environment.action_space
    if isinstance(space, spaces.Discrete) and space.start == 0:
        return True
    if isinstance(space, spaces.Box) and len(space.shape) == 1 and space.is_bounded():
        return False
    raise ArgumentError("environment", "actions that are bounded vectors, or ids from 0 on", repr(space))


def _action(chosen: Any, space: Any, discrete: bool) -> Num[np.ndarray, " dims"]:
    """What the expert chose, as the environment takes it."""
    if discrete:
        return np.atleast_1d(np.asarray(chosen, np.int64))
    action = np.asarray(chosen, np.float64)
    if not np.isfinite(action).all():
        raise ArgumentError("expert", "finite actions", repr(chosen))
    return np.asarray(np.clip(action, space.low, space.high), space.dtype)


def _random(space: Any, rng: np.random.Generator, discrete: bool) -> Num[np.ndarray, " dims"]:
    if discrete:
        return rng.integers(space.n, size=1)
    return np.asarray(rng.uniform(space.low, space.high), space.dtype)


def _kept(observe: View, state: Any) -> Num[np.ndarray, "*shape"]:
    """What is kept of an observation, which the environment may overwrite."""
    seen = np.array(observe(np.asarray(state)))
    if seen.ndim == 3 and seen.dtype == np.uint8:
        return np.asarray(channels_first(seen[None])[0])
    return seen.astype(np.float32)


def _all(state: Num[np.ndarray, "*shape"]) -> Num[np.ndarray, "*shape"]:
    return state
