"""What policies learn from and are tested on: tasks of classic control, and experts that are disturbed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from holdfast.errors import ArgumentError
from holdfast.lab.seeds import rng_for
from holdfast.studies.action.streams import SHUFFLE, environment_seed

if TYPE_CHECKING:
    from holdfast.models.action.model import ActionModel
    from holdfast.models.action.trajectories import Trajectories
    from holdfast.rl.classic_control import ControlTask
    from holdfast.rl.evaluate import Evaluation

TASKS = ("pendulum", "mountain-car", "cart-pole", "acrobot")
"""The first two have continuous actions."""


@dataclass(frozen=True, kw_only=True)
class Demonstrations:
    """Episodes of experts.

    Arguments:
        tasks: of classic control.
        masked: whether a policy sees no velocities.
        episodes: of each task.
        disturbed: share of episodes in which bursts of random actions move the expert off its path; what is learned
            there is what the expert would have done.
    """

    tasks: tuple[str, ...] = TASKS
    masked: bool = False
    episodes: int = 100
    disturbed: float = 0.8

    def __post_init__(self) -> None:
        if not self.tasks or not set(self.tasks) <= set(TASKS):
            raise ArgumentError("tasks", f"some of {', '.join(TASKS)}", repr(self.tasks))


def tasks_of(shown: Demonstrations) -> list[ControlTask]:
    """The tasks as a policy sees them."""
    from holdfast.rl.classic_control import TASKS as CLASSIC

    return [CLASSIC[name].without_velocities() if shown.masked else CLASSIC[name] for name in shown.tasks]


def demonstrated(shown: Demonstrations, seed: int, *, shuffled: bool = False) -> list[Trajectories]:
    """The demonstrations of a seed, with the lower quartile of clean returns as the target of each task.

    Arguments:
        shown: which.
        seed: of the study.
        shuffled: whether the actions to be learned are dealt out at random among all states of a task.
    """
    from holdfast.rl.collect import Bursts

    bursts = Bursts(share=shown.disturbed, rate=0.05, longest=10) if shown.disturbed else None
    first = environment_seed(seed, test=False)
    data = [task.trajectories(shown.episodes, seed=first, bursts=bursts) for task in tasks_of(shown)]
    return [_shuffled(part, seed, number) for number, part in enumerate(data)] if shuffled else data


def _shuffled(data: Trajectories, seed: int, number: int) -> Trajectories:
    import numpy as np

    actions = np.concatenate([item.learnt for item in data.items])
    ends = np.cumsum([len(item) for item in data.items])[:-1]
    dealt = np.split(rng_for(seed, SHUFFLE, number).permutation(actions), ends)
    items = tuple(replace(item, labels=labels) for item, labels in zip(data.items, dealt, strict=True))
    return replace(data, items=items)


def rollouts(model: ActionModel, task: ControlTask, seed: int, episodes: int) -> Evaluation:
    """Whole episodes of a policy, all side by side, in environments that it has not seen."""
    from holdfast.rl.stepping import Policy, PolicyConfig

    policy = Policy(model, PolicyConfig(domain=task.name, slots=episodes, autoreset="next_step"))
    return task.evaluate(policy, episodes, seed=environment_seed(seed, test=True), slots=episodes)
