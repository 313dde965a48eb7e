"""Part `control`: the same network learns to average, a task that sharpness cannot help."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.lab import Claim, Evidence, Figure, Outcome, Part, Results, Trial, paired_difference
from holdfast.lab.figures import legend
from holdfast.studies.sharpness.lines import SHOWN, draw_by_size
from holdfast.studies.sharpness.sizes import powers
from holdfast.studies.sharpness.training import TrainConfig, train_and_test, trials_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record
    from holdfast.studies.sharpness.study import SharpnessConfig


@dataclass(frozen=True, kw_only=True)
class ControlConfig(TrainConfig):
    """The share of each class among all items, scored by naming the most frequent class."""

    sizes: tuple[int, ...] = powers(4, 10)


def trials(config: SharpnessConfig) -> Iterator[Trial[ControlConfig]]:
    """One trial a seed, or one for all seeds where they are stacked."""
    return trials_of(config.control, config.seed_range)


def run(trial: Trial[ControlConfig]) -> Outcome:
    """Train, refit and test; see `train_and_test` for the records."""
    from holdfast.studies.sharpness.item_sets import CLASS_SHARES

    return train_and_test(trial.config, trial.seeds, CLASS_SHARES)


def _gains_little(n: int) -> Claim:
    """The claim that the published law gains less than 0.01 over softmax on the same weights."""

    def test(results: Results) -> Evidence:
        published, plain = (results.by_seed("accuracy", part="control", arm=arm, n=n) for arm in ("published", "plain"))
        names = (f"published at n = {n}", f"plain at n = {n}")
        cases = results.config.control.sets_of(n)
        return paired_difference(published, plain, threshold=0.01, alternative="less", cases=cases, names=names)

    return Claim(
        f"control-{n}",
        f"Where the answer is an average, the published law raises the accuracy by less than 0.01 at n = {n}.",
        test,
        paper="no such experiment",
        family="control",
    )


def draw_control(results: Results, axes: Axes) -> list[Record]:
    """Accuracy of the arms by size."""
    rows = draw_by_size(results, axes, "accuracy", SHOWN, "control")
    axes.set_ylabel("accuracy, most frequent class")
    axes.set_ylim(0, 1.02)
    legend(axes)
    return rows


part = Part(
    "control",
    trials,
    run,
    claims=(_gains_little(64), _gains_little(256)),
    figures=(
        Figure(
            "control",
            "The negative control: naming the most frequent class needs all items alike, and sharper attention does "
            "not help. Lines are means over seeds, bands their 95 % intervals.",
            draw_control,
        ),
    ),
)
