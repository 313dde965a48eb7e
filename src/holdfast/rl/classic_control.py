"""Four tasks of classic control with experts that need no training: two continuous and two discrete action spaces.

All are fully observed; with velocities masked, each of them needs memory. Gymnasium is imported when an environment is
made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Num

from holdfast.errors import require
from holdfast.models.action.domain import ActionSpace, Continuous, Discrete, Domain, Vector
from holdfast.models.action.trajectories import Trajectories
from holdfast.rl.collect import Bursts, Expert, collect
from holdfast.rl.evaluate import Acting, Evaluation, evaluate

if TYPE_CHECKING:
    import gymnasium


@dataclass(frozen=True, kw_only=True)
class ControlTask:
    """A task, its expert and the scores between which a policy's is told.

    Arguments:
        name: short, also of its domain.
        env_id: of Gymnasium.
        action: its actions.
        width: numbers of an observation.
        velocities: places of the velocities in an observation.
        expert: from the whole observation to an action.
        random_return: mean return of uniformly random actions.
        expert_return: mean return of the expert.
        reward_scale: about what returns are divided by to be of size one.
        masked: whether velocities are 0 in what a policy sees.
    """

    name: str
    env_id: str
    action: ActionSpace
    width: int
    velocities: tuple[int, ...]
    expert: Expert
    random_return: float
    expert_return: float
    reward_scale: float = 100.0
    masked: bool = False

    def without_velocities(self) -> ControlTask:
        """The same task, in which a policy sees no velocity and has to infer it from what it saw before."""
        return replace(self, name=f"{self.name}-masked", masked=True)

    @property
    def domain(self) -> Domain:
        """The task as a domain, without a target return: data give one."""
        return Domain(
            name=self.name,
            observation=Vector(self.width),
            action=self.action,
            reward_scale=self.reward_scale,
        )

    def observe(self, state: Float[np.ndarray, "*batch width"]) -> Float[np.ndarray, "*batch width"]:
        """What a policy sees of a state."""
        if not self.masked:
            return state
        seen = state.copy()
        seen[..., list(self.velocities)] = 0
        return seen

    def make(self) -> gymnasium.Env[Any, Any]:
        """The environment that the expert sees.

        Errors:
            MissingExtraError: gymnasium is not installed.
        """
        environment: gymnasium.Env[Any, Any] = require("gymnasium", "rl").make(self.env_id)
        return environment

    def make_seen(self) -> gymnasium.Env[Any, Any]:
        """The environment that a policy sees.

        Errors:
            MissingExtraError: gymnasium is not installed.
        """
        environment = self.make()
        if not self.masked:
            return environment
        wrappers = require("gymnasium.wrappers", "rl")
        seen: gymnasium.Env[Any, Any] = wrappers.TransformObservation(
            environment, self.observe, environment.observation_space
        )
        return seen

    def trajectories(self, episodes: int, *, seed: int, bursts: Bursts | None = None) -> Trajectories:
        """Episodes of the expert, with the lower quartile of its clean returns as the target.

        Arguments:
            episodes: how many; at least one of them has to be clean.
            seed: of the first episode; the next ones have the seeds after it.
            bursts: how the expert is disturbed; `None`: not at all.

        Errors:
            ArgumentError: no clean episode.
            MissingExtraError: gymnasium is not installed.
        """
        environment = self.make()
        try:
            items = collect(
                environment, self.expert, episodes, seed=seed, bursts=bursts, observe=self.observe, task=self.name
            )
        finally:
            environment.close()
        return Trajectories.of(self.domain, items).with_target()

    def evaluate(self, policy: Acting, episodes: int, *, seed: int, slots: int = 10) -> Evaluation:
        """Whole episodes of a policy, scored between random actions and the expert.

        Arguments:
            policy: acts in `slots` environments at once, which begin anew with the step after the last one.
            episodes: how many, a multiple of `slots`.
            seed: of the environments.
            slots: environments that run side by side.

        Errors:
            ArgumentError: the episodes do not divide among the slots.
            MissingExtraError: gymnasium is not installed.
        """
        environments = require("gymnasium.vector", "rl").SyncVectorEnv([self.make_seen] * slots)
        try:
            return evaluate(
                policy, environments, episodes, seed=seed,
                random_return=self.random_return, expert_return=self.expert_return,
            )  # fmt: skip
        finally:
            environments.close()


def pendulum_expert(observation: Num[np.ndarray, " 3"]) -> Float[np.ndarray, " 1"]:
    """Pump energy until the rod can reach the top, and hold it there.

    Its energy is w^2/6 + 5 (cos(angle) - 1), which is 0 at rest on top.
    """
    cosine, sine, velocity = map(float, observation)
    angle = math.atan2(sine, cosine)
    if abs(angle) < 0.35 and abs(velocity) < 2.5:
        torque = -(12 * angle + 3 * velocity)
    else:
        energy = velocity**2 / 6 + 5 * (cosine - 1)
        torque = 2.0 * math.copysign(1, velocity) * (1 if energy < 0 else -1)
    return np.array([min(max(torque, -2.0), 2.0)], np.float32)


def mountain_car_expert(observation: Num[np.ndarray, " 2"]) -> Float[np.ndarray, " 1"]:
    """Push the way the car goes."""
    return np.array([math.copysign(1, float(observation[1]))], np.float32)


def cart_pole_expert(observation: Num[np.ndarray, " 4"]) -> Num[np.ndarray, " 1"]:
    """Push under the side that the pole falls to, and a little to the middle of the track."""
    position, speed, angle, turn = map(float, observation)
    return np.array([int(0.2 * position + 0.6 * speed + 3.5 * angle + turn > 0)])


def acrobot_expert(observation: Num[np.ndarray, " 6"]) -> Num[np.ndarray, " 1"]:
    """Drive the second joint the way it turns. The ids 0, 1 and 2 are torques of -1, 0 and 1."""
    return np.array([int(np.sign(float(observation[5]))) + 1])


_ALL = (
    ControlTask(
        name="pendulum", env_id="Pendulum-v1", action=Continuous((-2.0,), (2.0,)), width=3, velocities=(2,),
        expert=pendulum_expert, random_return=-1228.1, expert_return=-149.5,
    ),
    ControlTask(
        name="mountain-car", env_id="MountainCarContinuous-v0", action=Continuous((-1.0,), (1.0,)), width=2,
        velocities=(1,), expert=mountain_car_expert, random_return=-33.2, expert_return=89.35,
    ),
    ControlTask(
        name="cart-pole", env_id="CartPole-v1", action=Discrete(2), width=4, velocities=(1, 3),
        expert=cart_pole_expert, random_return=22.4, expert_return=500.0,
    ),
    ControlTask(
        name="acrobot", env_id="Acrobot-v1", action=Discrete(3), width=6, velocities=(4, 5),
        expert=acrobot_expert, random_return=-498.9, expert_return=-88.4,
    ),
)  # fmt: skip

TASKS: Mapping[str, ControlTask] = MappingProxyType({task.name: task for task in _ALL})
"""The tasks by name. Scores are means over 2,000 episodes, reset with the seeds 0 to 1999; their standard errors are
6.6 and 2.0 (pendulum), 0.1 and 0.003 (mountain-car), 0.3 and 0 (cart-pole), 0.3 and 0.9 (acrobot)."""
