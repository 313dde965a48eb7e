"""Part `control`: one policy for four tasks of classic control, two with continuous and two with discrete actions.

Policies of several backbones with the same number of parameters learn from the same disturbed experts, once with the
whole state in view and once without velocities, which they have to infer from what they saw before. Scores are 0 for
random actions and 1 for the expert. Two controls say what a score is worth: actions that were dealt out at random in
the demonstrations, and weights that were never trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from holdfast.errors import ArgumentError
from holdfast.lab import (
    Claim,
    Evidence,
    Figure,
    Outcome,
    Part,
    Results,
    Trial,
    equivalent,
    mean_of,
    paired_difference,
    progress,
)
from holdfast.lab.figures import GREY, draw_over_seeds, legend, seed_mean, size_axis
from holdfast.lab.results import Values
from holdfast.studies.action.arms import ARMS, COLOURS
from holdfast.studies.action.cloning import Cloning
from holdfast.studies.action.paper import OURS, SECOND_HAND

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record

CONTROLS = {"shuffled": "actions dealt at random", "untrained": "random weights"}
"""Controls, and how figures call them."""


@dataclass(frozen=True, kw_only=True)
class ControlConfig:
    """Policies for the tasks of classic control.

    Arguments:
        arms: some of the backbones, with the whole state in view.
        masked_arms: those that are also trained without velocities.
        contexts: timesteps of the windows that policies without velocities are trained on, ascending.
        cloning: tasks, policies and how they are trained.
    """

    arms: tuple[str, ...] = tuple(ARMS)
    masked_arms: tuple[str, ...] = ("xlstm10",)
    contexts: tuple[int, ...] = (1, 3, 10)
    cloning: Cloning = field(default_factory=Cloning)

    def __post_init__(self) -> None:
        if not set(self.arms) | set(self.masked_arms) <= set(ARMS):
            raise ArgumentError("arms", f"some of {', '.join(ARMS)}", repr((self.arms, self.masked_arms)))


def trials(config: Any) -> Iterator[Trial[Cloning]]:
    """One trial a policy.

    Arguments:
        config: the study's configuration.
    """
    settings: ControlConfig = config.control
    whole = settings.cloning
    hidden = replace(whole, demonstrations=replace(whole.demonstrations, masked=True))
    for seed in config.policy_range:
        for arm in settings.arms:
            yield Trial(
                seed, whole, {"arm": arm, "view": "whole", "control": ""}, cost=whole.cost, gpu=whole.recipe.gpu
            )
        for control in CONTROLS:
            labels = {"arm": "xlstm10", "view": "whole", "control": control}
            cost = whole.cost if control == "shuffled" else 10.0
            yield Trial(seed, whole, labels, cost=cost, gpu=whole.recipe.gpu)
        for arm in settings.masked_arms:
            for context in settings.contexts:
                shorter = replace(hidden, context=context)
                labels = {"arm": arm, "view": "masked", "control": ""}
                yield Trial(seed, shorter, {**labels, "context": context}, cost=shorter.cost, gpu=shorter.recipe.gpu)


def run(trial: Trial[Cloning]) -> Outcome:
    """Train one policy and let it act. Every arm of a seed sees the same demonstrations and environments.

    Records: `score` of whole episodes by `task`, with the mean `return`, and the `loss` on held-out windows in nats an
    action; for the `task` all the means over tasks, and the number of `parameters`.
    Curve: `control` (loss in nats an action, by step).
    """
    from holdfast.studies.action.cloning import acted, cloned

    control, arm, seed = str(trial.labels["control"]), str(trial.labels["arm"]), trial.seeds[0]
    model, losses, curve = cloned(
        trial.config, arm, seed, shuffled=control == "shuffled", trained=control != "untrained"
    )
    records: list[Record] = [{**row, "loss": losses[str(row["task"])]} for row in acted(model, trial.config, seed)]
    means = {name: sum(float(row[name] or 0.0) for row in records) / len(records) for name in ("score", "loss")}
    parameters = sum(tensor.numel() for tensor in model.parameters())
    progress.report(1.0)
    return Outcome([*records, {"task": "all", **means, "parameters": parameters}], {"control": curve})


def _values(results: Results, metric: str, arm: str, **labels: Any) -> Values:
    chosen = {"view": "whole", "control": "", "task": "all", **labels}
    return results.by_seed(metric, part="control", arm=arm, **chosen)


def _above(arm: str, threshold: float, results: Results) -> Evidence:
    return mean_of(_values(results, "score", arm), threshold=threshold, name=f"score of {ARMS[arm]}")


def _matches(results: Results) -> Evidence:
    scores = [_values(results, "score", arm) for arm in ("xlstm10", "transformer")]
    return paired_difference(*scores, threshold=-0.1, names=("xLSTM[1:0]", "the transformer"))


def _perplexity(results: Results) -> Evidence:
    losses = [_values(results, "loss", arm) for arm in ("xlstm10", "transformer")]
    return paired_difference(*losses, alternative="less", names=("xLSTM[1:0]", "the transformer"))


def _same(results: Results) -> Evidence:
    scores = [_values(results, "score", arm) for arm in ("xlstm11", "xlstm10")]
    return equivalent(*scores, margin=0.1, names=("xLSTM[1:1]", "xLSTM[1:0]"))


def _control(control: str, results: Results) -> Evidence:
    values = _values(results, "score", "xlstm10", control=control)
    return mean_of(values, threshold=0.2, alternative="less", name=f"score with {CONTROLS[control]}")


def _masked(results: Results, context: int) -> Values:
    return _values(results, "score", "xlstm10", view="masked", context=context)


def _remembers(results: Results) -> Evidence:
    contexts: tuple[int, ...] = results.config.control.contexts
    most, least = (_masked(results, contexts[place]) for place in (-1, 0))
    return paired_difference(most, least, threshold=0.1, names=("the longest context", "one timestep"))


def _masked_above(results: Results) -> Evidence:
    return mean_of(
        _masked(results, results.config.control.contexts[-1]), threshold=0.5, name="score without velocities"
    )


CLAIMS = (
    Claim(
        "control-score",
        "One policy of mLSTM blocks, about 60,000 parameters, does four tasks of classic control nearly as the experts "
        "that it learned from (mean score > .8).",
        partial(_above, "xlstm10", 0.8),
        paper=f"{OURS}, which has 432 tasks of other kinds",
        family="control",
        headline=True,
        plain="one small recurrent policy does four control tasks nearly as well as its teachers",
        figure="control-scores",
        scale="laptop",
    ),
    Claim(
        "control-match",
        "The score of that policy is not below that of a transformer with the same number of parameters "
        "by a tenth or more.",
        _matches,
        paper=f"xLSTM matches or beats it at all four sizes, by a gap that grows ({SECOND_HAND})",
        family="control",
        headline=True,
        plain="a small recurrent policy is about as good as a transformer of its size",
        figure="control-scores",
        scale="laptop",
    ),
    Claim(
        "control-perplexity",
        "On held-out demonstrations of the four control tasks the cross-entropy of xLSTM[1:0] is below "
        "that of the transformer.",
        _perplexity,
        paper=f"lower perplexity, by more than the scores show ({SECOND_HAND})",
        family="control",
        scale="laptop",
    ),
    Claim(
        "control-slstm",
        "With the whole state in view sLSTM blocks change the score by less than a tenth.",
        _same,
        paper=f"mLSTM alone suffices where little is hidden ({SECOND_HAND})",
        family="control",
        scale="laptop",
    ),
    Claim(
        "control-masked",
        "Without velocities a policy that was trained on long windows has a score that is higher by more than a tenth "
        "than one that was trained on single timesteps.",
        _remembers,
        paper=OURS,
        family="control-masked",
        scale="laptop",
    ),
    Claim(
        "control-masked-score",
        "Trained on long windows it still has more than half of the expert's score without velocities.",
        _masked_above,
        paper=OURS,
        family="control-masked",
        scale="laptop",
    ),
    Claim(
        "control-shuffled",
        "Control: learned from demonstrations whose actions were dealt out at random, the score is below .2.",
        partial(_control, "shuffled"),
        paper=OURS,
        family="control-controls",
        scale="laptop",
    ),
    Claim(
        "control-untrained",
        "Control: without any training the score is below .2.",
        partial(_control, "untrained"),
        paper=OURS,
        family="control-controls",
        scale="laptop",
    ),
)


def draw_scores(results: Results, axes: Axes) -> list[Record]:
    """Score of each task, a bar an arm, and the controls."""
    config: ControlConfig = results.config.control
    tasks = (*config.cloning.demonstrations.tasks, "all")
    bars = [(arm, "", COLOURS[arm], ARMS[arm]) for arm in config.arms]
    bars += [("xlstm10", control, GREY, label) for control, label in CONTROLS.items()]
    rows: list[Record] = []
    width = 0.8 / len(bars)
    for number, (arm, control, colour, label) in enumerate(bars):
        style: dict[str, Any] = {"color": colour, "alpha": 0.5 if control == "untrained" else 1.0}
        for place, task in enumerate(tasks):
            values = list(_values(results, "score", arm, control=control, task=task).values())
            if not values:
                continue
            mean = seed_mean(values)
            x = place + (number - (len(bars) - 1) / 2) * width
            axes.bar(x, mean.mean, width=0.9 * width, label=label if place == 0 else None, **style)
            axes.plot([x] * len(values), values, ".", color="0.2", markersize=2)
            rows.append(
                {
                    "arm": arm,
                    "control": control,
                    "task": task,
                    "score": mean.mean,
                    "low": mean.low,
                    "high": mean.high,
                    "seeds": mean.seeds,
                }
            )
    axes.axhline(0.0, color=GREY, linewidth=0.8)
    axes.axhline(1.0, color=GREY, linewidth=0.8, linestyle=":")
    axes.set_xticks(range(len(tasks)), tasks)
    axes.set_ylim(bottom=-0.6)
    axes.set_ylabel("score")
    legend(axes, columns=3)
    return rows


def draw_contexts(results: Results, axes: Axes) -> list[Record]:
    """Score without velocities by the windows of training."""
    config: ControlConfig = results.config.control
    rows: list[Record] = []
    for arm in config.masked_arms:
        values = {
            context: list(_values(results, "score", arm, view="masked", context=context).values())
            for context in config.contexts
        }
        style: dict[str, Any] = {"color": COLOURS[arm], "label": ARMS[arm]}
        points = draw_over_seeds(axes, values, dots=True, marker="o", markersize=4, **style)
        rows += [
            {"arm": arm, "context": x, "score": mean, "low": low, "high": high, "seeds": seeds}
            for x, mean, low, high, seeds in points
        ]
    size_axis(axes, config.contexts if rows else (), "timesteps of the windows of training")
    axes.set_ylabel("score without velocities")
    legend(axes)
    return rows


def draw_learning(results: Results, axes: Axes) -> list[Record]:
    """Training loss of each arm with the whole state in view, means over seeds."""
    rows: list[Record] = []
    for arm in results.config.control.arms:
        by_step: dict[int, list[float]] = {}
        for point in results.curve("control", part="control", arm=arm, view="whole", control=""):
            by_step.setdefault(int(point["step"] or 0), []).append(float(point["loss"] or 0.0))
        points = draw_over_seeds(axes, dict(sorted(by_step.items())), color=COLOURS[arm], label=ARMS[arm])
        rows += [{"arm": arm, "step": at, "loss": mean, "seeds": seeds} for at, mean, _, _, seeds in points]
    axes.set_xlabel("step")
    axes.set_ylabel("cross-entropy, nats an action")
    legend(axes)
    return rows


part = Part(
    "control",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "control-scores",
            "Scores of policies that do all four tasks: 0 is random actions, 1 is the expert (dotted). Bars are means "
            "over seeds, dots are seeds.",
            draw_scores,
        ),
        Figure(
            "control-contexts",
            "Mean score of the four tasks when velocities are hidden, by the windows that policies were trained on. "
            "Lines are means over seeds, dots are seeds.",
            draw_contexts,
        ),
        Figure("control-learning", "Training loss with the whole state in view; means over seeds.", draw_learning),
    ),
    needs={"gymnasium": "holdfast[rl]"},
)
