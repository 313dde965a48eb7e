"""Part `copycat`: whether policies act worse when they see their past actions, though they predict the expert better.

Clean experts of the two tasks with continuous actions mostly do what they did a timestep ago. A policy that sees its
last action can copy it, which lowers the loss on demonstrations and is of no use in its own episodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from holdfast.lab import Claim, Evidence, Figure, Outcome, Part, Results, Trial, paired_difference, progress
from holdfast.lab.figures import draw_over_seeds, legend, size_axis
from holdfast.lab.results import Values
from holdfast.studies.action.cloning import Cloning
from holdfast.studies.action.demonstrations import Demonstrations
from holdfast.studies.action.paper import SECOND_HAND
from holdfast.studies.action.training import Recipe

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record

SEEN = {"without": "without past actions", "with": "with past actions"}
"""Arms, and how figures call them."""


@dataclass(frozen=True, kw_only=True)
class CopycatConfig:
    """Policies with and without past actions in their context.

    Arguments:
        contexts: timesteps of the windows of training, ascending.
        cloning: tasks, policies and how they are trained.
    """

    contexts: tuple[int, ...] = (3, 10)
    cloning: Cloning = field(
        default_factory=lambda: Cloning(
            demonstrations=Demonstrations(tasks=("pendulum", "mountain-car"), disturbed=0.0, episodes=40),
            recipe=Recipe(steps=400),
        )
    )


def trials(config: Any) -> Iterator[Trial[Cloning]]:
    """One trial a policy.

    Arguments:
        config: the study's configuration.
    """
    settings: CopycatConfig = config.copycat
    for seed in config.policy_range:
        for context in settings.contexts:
            for seen in SEEN:
                cloning = replace(settings.cloning, context=context, past_actions=seen == "with")
                labels: dict[str, str | int] = {"actions": seen, "context": context}
                yield Trial(seed, cloning, labels, cost=cloning.cost, gpu=cloning.recipe.gpu)


def run(trial: Trial[Cloning]) -> Outcome:
    """Train one policy (xLSTM[1:0]) and let it act. Both arms see the same demonstrations and environments.

    Records: `score` and held-out `loss` in nats an action by `task`; for the `task` all their means over tasks.
    """
    from holdfast.studies.action.cloning import acted, cloned

    model, losses, _ = cloned(trial.config, "xlstm10", trial.seeds[0])
    rows = acted(model, trial.config, trial.seeds[0])
    records: list[Record] = [{**row, "loss": losses[str(row["task"])]} for row in rows]
    means = {name: sum(float(row[name] or 0.0) for row in records) / len(records) for name in ("score", "loss")}
    progress.report(1.0)
    return Outcome([*records, {"task": "all", **means}])


def _values(results: Results, metric: str, seen: str, context: int) -> Values:
    return results.by_seed(metric, part="copycat", actions=seen, context=context, task="all")


def _longest(results: Results) -> int:
    contexts: tuple[int, ...] = results.config.copycat.contexts
    return contexts[-1]


def _predicts_better(results: Results) -> Evidence:
    losses = [_values(results, "loss", seen, _longest(results)) for seen in ("with", "without")]
    return paired_difference(*losses, alternative="less", names=("with past actions", "without"))


def _acts_better(results: Results) -> Evidence:
    scores = [_values(results, "score", seen, _longest(results)) for seen in ("without", "with")]
    return paired_difference(*scores, names=("without past actions", "with"))


CLAIMS = (
    Claim(
        "copycat-loss",
        "On two tasks with continuous actions, a policy that sees its past actions predicts those of the expert better "
        "(lower cross-entropy on held-out demonstrations).",
        _predicts_better,
        paper=f"implied: consecutive continuous actions are much alike ({SECOND_HAND})",
        family="copycat",
        scale="laptop",
    ),
    Claim(
        "copycat-score",
        "In its own episodes a policy does better that does not see its past actions.",
        _acts_better,
        paper=f"much better without on continuous domains, for every backbone ({SECOND_HAND})",
        family="copycat",
        headline=True,
        plain="a policy acts better if it does not see its own past actions",
        figure="copycat-score",
        scale="laptop",
    ),
)


def draw_copycat(metric: str, results: Results, axes: Axes) -> list[Record]:
    """A metric by the windows of training, with and without past actions."""
    contexts: tuple[int, ...] = results.config.copycat.contexts
    rows: list[Record] = []
    for place, (seen, label) in enumerate(SEEN.items()):
        values = {context: list(_values(results, metric, seen, context).values()) for context in contexts}
        points = draw_over_seeds(axes, values, dots=True, marker="o", markersize=4, color=f"C{place}", label=label)
        rows += [
            {"past actions": seen, "context": x, metric: mean, "low": low, "high": high, "seeds": seeds}
            for x, mean, low, high, seeds in points
        ]
    size_axis(axes, contexts if rows else (), "timesteps of the windows of training")
    axes.set_ylabel({"score": "score", "loss": "cross-entropy, nats an action"}[metric])
    legend(axes)
    return rows


def _draw_score(results: Results, axes: Axes) -> list[Record]:
    return draw_copycat("score", results, axes)


def _draw_loss(results: Results, axes: Axes) -> list[Record]:
    return draw_copycat("loss", results, axes)


part = Part(
    "copycat",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "copycat-score",
            "Mean score of pendulum and mountain car of policies that were cloned from clean experts, with and without "
            "their past actions in the context. Lines are means over seeds, dots are seeds.",
            _draw_score,
        ),
        Figure("copycat-loss", "Their cross-entropy on held-out demonstrations.", _draw_loss),
    ),
    needs={"gymnasium": "holdfast[rl]"},
)
