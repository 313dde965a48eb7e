"""Behaviour cloning of experts in classic control: one policy for several tasks, and whole episodes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from holdfast.studies.action.arms import backbone_of
from holdfast.studies.action.demonstrations import Demonstrations, demonstrated, rollouts, tasks_of
from holdfast.studies.action.training import Recipe, held_out_loss, seeded, train

if TYPE_CHECKING:
    from holdfast.lab import Record
    from holdfast.models.action.model import ActionModel


@dataclass(frozen=True, kw_only=True)
class Cloning:
    """How a policy is cloned, and tested.

    Arguments:
        size: of the backbone.
        context: timesteps of a window.
        bins: of a continuous action.
        conditioned: whether the policy reads returns-to-go and rewards.
        past_actions: whether it reads the actions that were taken.
        demonstrations: what it learns from.
        rollouts: episodes of each task in which it is tested.
        recipe: how it is trained.
    """

    size: str = "small"
    context: int = 10
    bins: int = 33
    conditioned: bool = True
    past_actions: bool = False
    demonstrations: Demonstrations = field(default_factory=Demonstrations)
    rollouts: int = 20
    recipe: Recipe = field(default_factory=lambda: Recipe(steps=800))

    @property
    def cost(self) -> float:
        """About the seconds that it takes on a CPU."""
        return 10.0 + self.recipe.steps * self.context / 400


def cloned(
    config: Cloning, arm: str, seed: int, *, shuffled: bool = False, trained: bool = True
) -> tuple[ActionModel, dict[str, float], list[Record]]:
    """A policy.

    Arguments:
        config: how.
        arm: its backbone.
        seed: of demonstrations, weights and windows.
        shuffled: whether the actions to be learned are dealt out at random.
        trained: whether it is trained at all.

    Returns:
        The policy, its cross-entropy on held-out windows by task in nats an action, and the learning curve.
    """
    from holdfast.models.action.config import ActionConfig
    from holdfast.models.action.discretise import Vocabulary
    from holdfast.models.action.trajectories import Sampling, TrajectorySource

    data = demonstrated(config.demonstrations, seed, shuffled=shuffled)
    sampling = Sampling(
        context=config.context, held_out=0.1, validation_windows=64, returns=config.conditioned, seed=seed
    )
    source = TrajectorySource(data, sampling)
    tokens = 1 + 2 * config.conditioned + config.past_actions
    shape = ActionConfig(
        backbone=backbone_of(arm, config.size, tokens * config.context),
        domains=tuple(part.domain for part in data),
        vocabulary=Vocabulary(discrete=3, bins=config.bins, dims=1),
        returns=config.conditioned,
        rewards=config.conditioned,
        past_actions=config.past_actions,
    )
    model = seeded(shape, seed)
    curve: list[Record] = []
    if trained:
        curve = train(model, config.recipe, lambda step: source.batch(step, config.recipe.batch), share=0.85)
    losses = held_out_loss(model, source.validation(config.recipe.batch))
    names = dict(zip((part.domain.name for part in data), config.demonstrations.tasks, strict=True))
    return model, {names[name]: loss for name, loss in losses.items()}, curve


def acted(model: ActionModel, config: Cloning, seed: int) -> list[Record]:
    """Whole episodes of each task: the mean `score` and `return`, by `task`."""
    records: list[Record] = []
    for name, task in zip(config.demonstrations.tasks, tasks_of(config.demonstrations), strict=True):
        evaluation = rollouts(model, task, seed, config.rollouts)
        records.append({"task": name, "score": evaluation.score, "return": evaluation.mean_return})
    return records
