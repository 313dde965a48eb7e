"""Part `trained-with`: the network of `retrieve`, trained anew with alternatives, as their authors mean them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast.errors import ArgumentError
from holdfast.lab import Claim, Evidence, Figure, Outcome, Part, Results, Trial, paired_difference
from holdfast.lab.figures import SHARE, legend, seed_mean
from holdfast.studies.sharpness.arms import ARMS, normalisers, weights
from holdfast.studies.sharpness.training import TrainConfig, evaluate, train, trials_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record
    from holdfast.studies.sharpness.arms import Normalisers
    from holdfast.studies.sharpness.study import SharpnessConfig

COMPARED = 1024
"""Size at which all normalisers are compared."""


@dataclass(frozen=True, kw_only=True)
class TrainedWithConfig(TrainConfig):
    """Max retrieval by networks that are trained with another normaliser from the start.

    Arguments:
        arms: which: some of those in `retrieve`, without the refit.
    """

    arms: tuple[str, ...] = ("published", "ssmax", "entmax", "scale-invariant")

    def __post_init__(self) -> None:
        known = [arm for arm in ARMS if arm != "refit"]
        unknown = [arm for arm in self.arms if arm not in known]
        if unknown:
            raise ArgumentError("arms", f"some of {', '.join(known)}", ", ".join(unknown))


def trials(config: SharpnessConfig) -> Iterator[Trial[TrainedWithConfig]]:
    """One trial an arm and seed; one an arm where seeds are stacked."""
    for arm in config.trained_with.arms:
        yield from trials_of(config.trained_with, config.seed_range, {"arm": arm})


def run(trial: Trial[TrainedWithConfig]) -> Outcome:
    """Train with one normaliser and test with it; weights at the start and all sets are those of `retrieve`.

    Records: `accuracy`, `entropy` and `max_weight` by size and seed. Curve: `training`.
    """
    import torch

    from holdfast.studies.sharpness.item_sets import MAX_RETRIEVAL

    config, seeds, arm = trial.config, trial.seeds, str(trial.labels["arm"])

    def alone(n: int) -> Normalisers:
        return {arm: normalisers(n, config.max_items)[arm]}

    net, training = train(
        config, seeds, MAX_RETRIEVAL, lambda logits: weights(logits, alone(logits.shape[-1])).squeeze(0)
    )
    with torch.no_grad():
        records = evaluate(net, config, seeds, MAX_RETRIEVAL, alone)
    return Outcome(records, {"training": training})


def _beats_softmax(arm: str, name: str, paper: str, scale: str) -> Claim:
    """The claim that networks trained with an arm are more accurate than those of `retrieve`, trained with softmax."""

    def test(results: Results) -> Evidence:
        return paired_difference(
            results.by_seed("accuracy", part="trained-with", arm=arm, n=COMPARED),
            results.by_seed("accuracy", part="retrieve", arm="plain", n=COMPARED),
            cases=results.config.retrieve.sets_of(COMPARED),
            names=(f"trained with {arm}", "trained with softmax"),
        )

    return Claim(
        f"trained-{arm}",
        f"A network trained with {name} is more accurate at n = {COMPARED} than one trained with softmax from the same "
        "start on the same sets (difference > 0).",
        test,
        paper=paper,
        family="alternatives",
        scale=scale,
    )


CLAIMS = (
    _beats_softmax(
        "published",
        "the published law, gradient through it included,",
        "done for CLRS-Text only: mostly better",
        "quick",
    ),
    _beats_softmax("ssmax", "scalable softmax", "not tried; proposed in arXiv 2501.19399", "laptop"),
    _beats_softmax("entmax", "1.5-entmax", "not tried; proposed for lengths in arXiv 2506.16640", "quick"),
    _beats_softmax("scale-invariant", "scale-invariant attention", "not tried; proposed in arXiv 2505.17083", "laptop"),
)


def draw_remedies(results: Results, axes: Axes) -> list[Record]:
    """Two dots an arm at `COMPARED` items: switched on after training, and trained with."""
    ways = (("retrieve", "switched on", "C0", "o"), ("trained-with", "trained with", "C1", "D"))
    rows: list[dict[str, Any]] = []
    for arm in ARMS:
        row: dict[str, Any] = {"arm": arm}
        for part_name, label, _, _ in ways:
            for n in (16, 256, COMPARED, 4096):
                values = list(results.by_seed("accuracy", part=part_name, arm=arm, n=n).values())
                row[f"{label}, n = {n}"] = seed_mean(values).mean if values else None
        if any(value is not None for name, value in row.items() if name != "arm"):
            rows.append(row)
    rows.sort(key=lambda row: row[f"switched on, n = {COMPARED}"] or 0.0)
    for part_name, label, colour, marker in ways:
        dots: list[tuple[float, int]] = []
        for height, row in enumerate(rows):
            values = list(results.by_seed("accuracy", part=part_name, arm=row["arm"], n=COMPARED).values())
            if values:
                point = seed_mean(values, bounds=SHARE)
                axes.plot([point.low, point.high], [height, height], color=colour, linewidth=1.6, alpha=0.5)
                dots.append((point.mean, height))
        if dots:
            axes.plot(*zip(*dots, strict=True), marker, color=colour, markersize=5, linestyle="none", label=label)
    axes.set_yticks(range(len(rows)), [str(row["arm"]) for row in rows])
    axes.set_xlabel(f"accuracy at n = {COMPARED}")
    axes.set_ylabel("normaliser")
    legend(axes)
    return list(reversed(rows))


part = Part(
    "trained-with",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "remedies",
            "Max retrieval: all normalisers at 1024 items, switched on in the network trained with softmax, and some "
            "with networks trained with them. Dots are means over seeds, lines their 95 % intervals.",
            draw_remedies,
        ),
    ),
)
