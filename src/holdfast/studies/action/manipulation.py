"""Part `manipulation`: past actions in or out of the context on Meta-World, with its scripted experts.

Meta-World needs an extra of its own, `metaworld`, whose simulator has to be of one version. Where it is not installed,
a scale that can do without it has no trials of this part, and its claims say what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from holdfast.errors import ArgumentError
from holdfast.lab import Claim, Evidence, Figure, Outcome, Part, Results, Trial, paired_difference, progress, unusable
from holdfast.lab.figures import legend, seed_mean
from holdfast.lab.results import Values
from holdfast.studies.action.arms import ARMS
from holdfast.studies.action.paper import SECOND_HAND
from holdfast.studies.action.streams import environment_seed
from holdfast.studies.action.training import Recipe

if TYPE_CHECKING:
    import gymnasium
    from matplotlib.axes import Axes

    from holdfast.lab import Record
    from holdfast.models.action.config import ActionConfig
    from holdfast.models.action.model import ActionModel
    from holdfast.models.action.trajectories import Trajectories

SEEN = {"without": "without past actions", "with": "with past actions"}
"""Arms, and how figures call them."""

MISSING = "Meta-World is not installed; in a new environment:  pip install 'holdfast[metaworld]'"


@dataclass(frozen=True, kw_only=True)
class ManipulationConfig:
    """Policies for tasks of Meta-World.

    Arguments:
        tasks: names such as reach-v3; all: every one that there is; none: the part is left out.
        required: whether the part has trials where Meta-World is not installed; they fail, and say so.
        arms: some of the backbones.
        size: of the backbones.
        steps: of an episode.
        episodes: of each task that a policy learns from.
        context: timesteps of a window.
        bins: of an action's dimension.
        rollouts: episodes of each task in which a policy is tested.
        recipe: how policies are trained.
    """

    tasks: tuple[str, ...] = ("reach-v3", "drawer-open-v3", "button-press-v3")
    required: bool = False
    arms: tuple[str, ...] = ("xlstm10",)
    size: str = "small"
    steps: int = 200
    episodes: int = 20
    context: int = 20
    bins: int = 64
    rollouts: int = 10
    recipe: Recipe = field(default_factory=lambda: Recipe(steps=1200, batch=16))

    def __post_init__(self) -> None:
        if not set(self.arms) <= set(ARMS):
            raise ArgumentError("arms", f"some of {', '.join(ARMS)}", repr(self.arms))


def trials(config: Any) -> Iterator[Trial[ManipulationConfig]]:
    """One trial a policy.

    Arguments:
        config: the study's configuration.
    """
    settings: ManipulationConfig = config.manipulation
    if not settings.tasks or not (settings.required or find_spec("metaworld")):
        return
    for seed in config.policy_range:
        for arm in settings.arms:
            for seen in SEEN:
                labels = {"arm": arm, "actions": seen}
                yield Trial(seed, settings, labels, cost=settings.recipe.steps / 3, gpu=settings.recipe.gpu)


def run(trial: Trial[ManipulationConfig]) -> Outcome:
    """Train one policy for all tasks and let it act. All arms see the same demonstrations and environments.

    Records: `success` and mean `return` by `task`; for the `task` all the mean success over tasks, and the `loss` on
    held-out demonstrations in nats a dimension.
    Curve: `manipulation` (loss in nats a dimension, by step).

    Errors:
        MissingExtraError: Meta-World is not installed, or with another simulator.
    """
    from holdfast.models.action.trajectories import Sampling, TrajectorySource
    from holdfast.studies.action.training import held_out_loss, seeded, train

    config, seed = trial.config, trial.seeds[0]
    tasks, data = _demonstrated(config, seed)
    sampling = Sampling(context=config.context, held_out=0.1, validation_windows=128, seed=seed)
    source = TrajectorySource([data], sampling)
    model = seeded(_shape(config, str(trial.labels["arm"]), trial.labels["actions"] == "with", data), seed)
    curve = train(model, config.recipe, lambda step: source.batch(step, config.recipe.batch), share=0.8)
    loss = held_out_loss(model, source.validation(config.recipe.batch))["meta-world"]
    records: list[Record] = []
    for task, target in tasks.items():
        records.append({"task": task, **_acted(model, config, task, target, seed)})
        progress.report(0.8 + 0.2 * len(records) / len(tasks))
    success = sum(float(row["success"] or 0.0) for row in records) / len(records)
    return Outcome([*records, {"task": "all", "success": success, "loss": loss}], {"manipulation": curve})


def _demonstrated(config: ManipulationConfig, seed: int) -> tuple[dict[str, float], Trajectories]:
    """Episodes of scripted experts as one domain, and the lower quartile of the returns of each task."""
    import numpy as np

    from holdfast.errors import require
    from holdfast.models.action.domain import Continuous, Domain, Vector
    from holdfast.models.action.trajectories import Trajectories
    from holdfast.rl.collect import collect
    from holdfast.rl.simulators import metaworld

    first = environment_seed(seed, test=False)
    names = config.tasks
    if names == ("all",):
        names = tuple(sorted(require("metaworld.policies", "metaworld").ENV_POLICY_MAP))
    items, targets = [], {}
    for name in names:
        environment, expert = metaworld(name, seed=first, steps=config.steps)
        episodes = collect(environment, expert, config.episodes, seed=first, task=name)
        environment.close()
        targets[name] = float(np.quantile([item.total_return for item in episodes], 0.25))
        items += episodes
    domain = Domain(
        name="meta-world",
        observation=Vector(39),
        action=Continuous((-1.0,) * 4, (1.0,) * 4),
        reward_scale=200.0,
    )
    return targets, Trajectories.of(domain, items)


def _shape(config: ManipulationConfig, arm: str, past_actions: bool, data: Trajectories) -> ActionConfig:
    from holdfast.models.action.config import ActionConfig
    from holdfast.models.action.discretise import Vocabulary
    from holdfast.studies.action.arms import backbone_of

    tokens = 3 + 4 * past_actions
    return ActionConfig(
        backbone=backbone_of(arm, config.size, tokens * config.context),
        domains=(data.domain,),
        vocabulary=Vocabulary(discrete=0, bins=config.bins, dims=4),
        past_actions=past_actions,
    )


def _acted(model: ActionModel, config: ManipulationConfig, task: str, target: float, seed: int) -> dict[str, float]:
    """Success and return in environments that no demonstration is of."""
    from holdfast.errors import require
    from holdfast.rl.evaluate import evaluate
    from holdfast.rl.stepping import Policy, PolicyConfig

    first = environment_seed(seed, test=True)
    slots = min(10, config.rollouts)
    makers = [partial(_made, task, first + number, config.steps) for number in range(slots)]
    environments = require("gymnasium.vector", "metaworld").SyncVectorEnv(makers)
    settings = PolicyConfig(domain="meta-world", slots=slots, autoreset="next_step", target_return=target)
    try:
        evaluation = evaluate(Policy(model, settings), environments, config.rollouts, seed=first)
    finally:
        environments.close()
    return {"success": evaluation.success_rate, "return": evaluation.mean_return}


def _made(task: str, seed: int, steps: int) -> gymnasium.Env[Any, Any]:
    from holdfast.rl.simulators import metaworld

    return metaworld(task, seed=seed, steps=steps)[0]


def _values(results: Results, metric: str, seen: str) -> Values:
    return results.by_seed(metric, part="manipulation", arm="xlstm10", actions=seen, task="all")


def _compared(results: Results, metric: str, threshold: float) -> Evidence:
    """A metric without past actions less that with them."""
    without, seen = (_values(results, metric, arm) for arm in SEEN)
    if not (without or seen or without.failed or seen.failed):
        return unusable(MISSING)
    return paired_difference(without, seen, threshold=threshold, names=("without past actions", "with"))


def _succeeds(results: Results) -> Evidence:
    return _compared(results, "success", 0.2)


def _costs(results: Results) -> Evidence:
    return _compared(results, "loss", 0.1)


CLAIMS = (
    Claim(
        "manipulation-success",
        "On tasks of Meta-World (reach, drawer-open and button-press; on a GPU more) leaving past actions out of the "
        "context raises the success of xLSTM[1:0] by more than .2.",
        _succeeds,
        paper=f"much better without on Meta-World ({SECOND_HAND})",
        family="manipulation",
        scale="laptop",
    ),
    Claim(
        "manipulation-loss",
        "Leaving past actions out raises the cross-entropy on held-out demonstrations by more than .1 "
        "nats a dimension: the loss says the opposite.",
        _costs,
        paper=f"implied: consecutive continuous actions are much alike ({SECOND_HAND})",
        family="manipulation",
        scale="laptop",
    ),
)


def draw_success(results: Results, axes: Axes) -> list[Record]:
    """Success of each task with and without past actions."""
    config: ManipulationConfig = results.config.manipulation
    tasks = sorted({str(row["task"]) for row in results.where(part="manipulation", arm="xlstm10")} - {"all"})
    rows: list[Record] = []
    for number, (seen, label) in enumerate(SEEN.items()):
        for place, task in enumerate((*tasks, "all") if tasks else ()):
            values = results.by_seed("success", part="manipulation", arm="xlstm10", actions=seen, task=task)
            if not values:
                continue
            mean = seed_mean(list(values.values()))
            x = place + 0.4 * number - 0.2
            axes.bar(x, mean.mean, width=0.36, color=f"C{number}", label=label if place == 0 else None)
            axes.plot([x] * len(values), list(values.values()), ".", color="0.2", markersize=3)
            rows.append(
                {
                    "past actions": seen,
                    "task": task,
                    "success": mean.mean,
                    "low": mean.low,
                    "high": mean.high,
                    "seeds": mean.seeds,
                    "episodes": config.rollouts,
                }
            )
    axes.set_xticks(range(len(tasks) + bool(tasks)), [*tasks, "all"] if tasks else [])
    axes.set_ylabel("share of episodes with success")
    legend(axes)
    return rows


part = Part(
    "manipulation",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "manipulation",
            "Success of policies on Meta-World with and without past actions in their context. Bars are means over "
            "seeds, dots are seeds.",
            draw_success,
        ),
    ),
    needs={"gymnasium": "holdfast[metaworld]", "metaworld": "holdfast[metaworld]"},
)
