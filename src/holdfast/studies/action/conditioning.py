"""Part `conditioning`: policies that read neither returns-to-go nor rewards, beside those of part `control` that do.

What is asked is whether backbones rank alike: whether a comparison of them hangs on how policies are conditioned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from holdfast.lab import Claim, Evidence, Figure, Outcome, Part, Results, Trial, equivalent, mean_of, progress
from holdfast.lab.figures import GREY, legend
from holdfast.lab.results import Values
from holdfast.studies.action.arms import ARMS, COLOURS
from holdfast.studies.action.cloning import Cloning
from holdfast.studies.action.paper import OURS, SECOND_HAND

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record


@dataclass(frozen=True, kw_only=True)
class ConditioningConfig:
    """Policies that imitate all demonstrations alike.

    Arguments:
        arms: some of the backbones that part `control` has.
        cloning: as in part `control`.
    """

    arms: tuple[str, ...] = tuple(ARMS)
    cloning: Cloning = field(default_factory=Cloning)


def trials(config: Any) -> Iterator[Trial[Cloning]]:
    """One trial a policy.

    Arguments:
        config: the study's configuration.
    """
    settings: ConditioningConfig = config.conditioning
    cloning = replace(settings.cloning, conditioned=False)
    for seed in config.policy_range:
        for arm in settings.arms:
            yield Trial(seed, cloning, {"arm": arm}, cost=cloning.cost / 2, gpu=cloning.recipe.gpu)


def run(trial: Trial[Cloning]) -> Outcome:
    """Train one policy and let it act, on the same demonstrations and in the same environments as in part `control`.

    Records: `score` and held-out `loss` in nats an action by `task`; for the `task` all their means over tasks.
    """
    from holdfast.studies.action.cloning import acted, cloned

    model, losses, _ = cloned(trial.config, str(trial.labels["arm"]), trial.seeds[0])
    rows = acted(model, trial.config, trial.seeds[0])
    records: list[Record] = [{**row, "loss": losses[str(row["task"])]} for row in rows]
    means = {name: sum(float(row[name] or 0.0) for row in records) / len(records) for name in ("score", "loss")}
    progress.report(1.0)
    return Outcome([*records, {"task": "all", **means}])


def _both(results: Results, metric: str, arm: str) -> tuple[Values, Values]:
    """A metric with and without returns-to-go and rewards."""
    labels = {"arm": arm, "task": "all"}
    return (
        results.by_seed(metric, part="control", view="whole", control="", **labels),
        results.by_seed(metric, part="conditioning", **labels),
    )


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Of the line through points with least squares."""
    middle, height = sum(x) / len(x), sum(y) / len(y)
    spread = sum((value - middle) ** 2 for value in x)
    return sum((one - middle) * (other - height) for one, other in zip(x, y, strict=True)) / spread


def _ranked_alike(results: Results) -> Evidence:
    arms: tuple[str, ...] = results.config.conditioning.arms
    tables = [_both(results, "loss", arm) for arm in arms]
    values = Values.of(
        lambda *losses: slope(losses[: len(arms)], losses[len(arms) :]),
        *(table[0] for table in tables),
        *(table[1] for table in tables),
    )
    return mean_of(values, threshold=0.0, name="slope of the losses without on those with")


def _as_good(results: Results) -> Evidence:
    conditioned, plain = _both(results, "score", "xlstm10")
    return equivalent(plain, conditioned, margin=0.1, names=("without", "with returns-to-go and rewards"))


CLAIMS = (
    Claim(
        "conditioning-ranking",
        "Backbones with less cross-entropy on held-out demonstrations also have less of it without returns-to-go and "
        "rewards (slope over backbones above 0).",
        _ranked_alike,
        paper=f"the ranking is unchanged ({SECOND_HAND})",
        family="conditioning",
        scale="laptop",
    ),
    Claim(
        "conditioning-score",
        "Demonstrations of experts need neither: without them the score of xLSTM[1:0] changes by less than a tenth.",
        _as_good,
        paper=OURS,
        family="conditioning",
        scale="laptop",
    ),
)


def draw_conditioning(results: Results, axes: Axes) -> list[Record]:
    """Held-out cross-entropy with and without, a point a seed."""
    rows: list[Record] = []
    for arm in results.config.conditioning.arms:
        conditioned, plain = _both(results, "loss", arm)
        shared = sorted(set(conditioned) & set(plain))
        rows += [
            {"arm": arm, "seed": seed, "loss with": conditioned[seed], "loss without": plain[seed]} for seed in shared
        ]
        if shared:
            points = [conditioned[seed] for seed in shared], [plain[seed] for seed in shared]
            axes.plot(*points, "o", color=COLOURS[arm], label=ARMS[arm], markersize=5)
    if rows:
        ends = [float(row[name] or 0.0) for row in rows for name in ("loss with", "loss without")]
        axes.plot([min(ends), max(ends)], [min(ends), max(ends)], color=GREY, linestyle="--", linewidth=0.8)
    axes.set_xlabel("cross-entropy with returns-to-go and rewards")
    axes.set_ylabel("cross-entropy without")
    legend(axes)
    return rows


part = Part(
    "conditioning",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "conditioning",
            "Held-out cross-entropy of policies with and without returns-to-go and rewards in their context, nats an "
            "action; a point a seed. On the broken line they make no difference.",
            draw_conditioning,
        ),
    ),
    needs={"gymnasium": "holdfast[rl]"},
)
