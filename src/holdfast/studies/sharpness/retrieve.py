"""Part `retrieve`: one attention head learns to find the largest of at most 16 items, and is asked about thousands.

Its weights stay the same; only the normaliser (the *arm*) changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast.lab import Claim, Evidence, Figure, Outcome, Part, Results, Trial, equivalent, paired_difference, unusable
from holdfast.lab.figures import GREY, legend, seed_mean, size_axis
from holdfast.lab.results import Values
from holdfast.studies.sharpness.arms import law_rows
from holdfast.studies.sharpness.lines import COLOURS, SHOWN, draw_by_size
from holdfast.studies.sharpness.training import TrainConfig, train_and_test, trials_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record
    from holdfast.studies.sharpness.study import SharpnessConfig

PAPER_ACCURACY = {
    "plain": {16: 98.6, 64: 94.3, 256: 81.3, 512: 70.1, 1024: 53.8, 2048: 35.7, 4096: 22.6, 16384: 12.4},
    "published": {16: 98.6, 64: 94.5, 256: 82.1, 512: 72.5, 1024: 57.7, 2048: 39.4, 4096: 24.9, 16384: 14.0},
}
"""Accuracy in per cent, from the paper's table of max-retrieval results."""


@dataclass(frozen=True, kw_only=True)
class RetrieveConfig(TrainConfig):
    """Max retrieval: the class of the item with the largest priority."""


def trials(config: SharpnessConfig) -> Iterator[Trial[RetrieveConfig]]:
    """One trial a seed, or one for all seeds where they are stacked."""
    return trials_of(config.retrieve, config.seed_range)


def run(trial: Trial[RetrieveConfig]) -> Outcome:
    """Train, refit and test; see `train_and_test` for the records."""
    from holdfast.studies.sharpness.item_sets import MAX_RETRIEVAL

    return train_and_test(trial.config, trial.seeds, MAX_RETRIEVAL)


def _gain(treatment: str, control: str, n: int, *, less: bool = False) -> Callable[[Results], Evidence]:
    """Test for the difference in accuracy of two arms at one size, paired over seeds."""

    def test(results: Results) -> Evidence:
        refused = results.where(part="retrieve", fit="refused")
        if refused and "refit" in (treatment, control):
            return unusable(f"no law for seed {refused[0]['seed']}: {refused[0]['reason']}")
        return paired_difference(
            *(results.by_seed("accuracy", part="retrieve", arm=arm, n=n) for arm in (treatment, control)),
            alternative="less" if less else "greater",
            cases=results.config.retrieve.sets_of(n),
            names=(f"{treatment} at n = {n}", f"{control} at n = {n}"),
        )

    return test


def _same_in_distribution(results: Results) -> Evidence:
    return equivalent(
        results.by_seed("accuracy", part="retrieve", arm="published", n=16),
        results.by_seed("accuracy", part="retrieve", arm="plain", n=16),
        margin=0.01,
        cases=results.config.retrieve.sets_of(16),
        names=("published at n = 16", "plain at n = 16"),
    )


def _slope(results: Results) -> Evidence:
    small, large = (results.by_seed("entropy", part="retrieve", arm="plain", n=n) for n in (1024, 4096))
    slope = Values.of(lambda low, high: (high - low) / math.log(4), small, large)
    return equivalent(slope, dict.fromkeys(slope, 1.0), margin=0.1, names=("the slope from n = 1024 to 4096", "one"))


CLAIMS = (
    *(
        Claim(
            f"rises-{n}",
            f"The published law raises the accuracy of a trained network at n = {n} (difference > 0).",
            _gain("published", "plain", n),
            paper=f"{plain:.1f} % to {published:.1f} %, +{(published - plain) / 100:.3f} (max-retrieval table)",
            family="published law",
            headline=n == 1024,
            plain=f"adaptive temperature makes a trained network more accurate on {n} items",
            figure="gain",
        )
        for n, plain, published in (
            (n, PAPER_ACCURACY["plain"][n], PAPER_ACCURACY["published"][n]) for n in (256, 512, 1024)
        )
    ),
    Claim(
        "same-16",
        "At n = 16, the largest size trained on, the published law changes the accuracy by less than 0.01.",
        _same_in_distribution,
        paper="98.6 % both, p = 0.4 (max-retrieval table)",
        family="published law",
    ),
    *(
        Claim(
            f"refit-{n}",
            f"A law refitted to the network without labels beats the published one at n = {n} (difference > 0).",
            _gain("refit", "published", n),
            paper="not tried: one polynomial is used for all",
            family="refit law",
            headline=n == 1024,
            plain=f"adaptive temperature that is refitted to the network makes it more accurate still on {n} items",
            figure="gain",
        )
        for n in (1024, 4096)
    ),
    Claim(
        "hard-1024",
        "Hard attention, switched on in the trained network, is less accurate than softmax at n = 1024.",
        _gain("hard", "plain", 1024, less=True),
        paper="zero temperature escapes dispersion but is reported as not viable",
        family="hard attention",
        headline=True,
        plain="attention to the one best item alone is less accurate than softmax on 1024 items",
        figure="accuracy",
    ),
    Claim(
        "refit-log-n",
        "The refitted law beats log-n scaling, switched on in the same network, at n = 1024 (difference > 0).",
        _gain("refit", "log-n", 1024),
        paper="not tried",
        family="alternatives",
    ),
    Claim(
        "disperses-trained",
        "In the trained network entropy grows with ln n at a slope within 0.1 of one from n = 1024 to 4096.",
        _slope,
        paper="attention must disperse in the limit (theorem 2.2)",
        family="dispersion",
        headline=True,
        plain="the attention of a trained network spreads thin as its input grows",
        figure="entropy",
    ),
)


def draw_accuracy(results: Results, axes: Axes) -> list[Record]:
    """Accuracy of the arms by size, beside the paper's."""
    rows = draw_by_size(results, axes, "accuracy", SHOWN, "retrieve", band=False)
    for arm, style in (("plain", "--"), ("published", ":")):
        label = f"{arm}, in the paper"
        curve = {n: value / 100 for n, value in PAPER_ACCURACY[arm].items()}
        axes.plot(list(curve), list(curve.values()), style, color=GREY, label=label)
        rows += [{"arm": label, "n": n, "accuracy": value} for n, value in curve.items()]
    axes.set_ylabel("accuracy")
    axes.set_ylim(0, 1.02)
    legend(axes)
    return rows


def draw_gain(results: Results, axes: Axes) -> list[Record]:
    """What the laws gain over softmax by size, beside the paper's figure."""
    rows = draw_by_size(results, axes, "accuracy", ("published", "refit"), "retrieve", minus="plain")
    label = "published, in the paper"
    gain = {n: (PAPER_ACCURACY["published"][n] - value) / 100 for n, value in PAPER_ACCURACY["plain"].items()}
    axes.plot(list(gain), list(gain.values()), ":", color=GREY, label=label)
    axes.axhline(0, color=GREY, linewidth=0.8)
    rows += [{"arm": label, "n": n, "accuracy": value} for n, value in gain.items()]
    axes.set_ylabel("accuracy minus that of plain softmax")
    legend(axes)
    return rows


def draw_entropy(results: Results, axes: Axes) -> list[Record]:
    """Entropy of the weights by size, beside its greatest value."""
    rows = draw_by_size(results, axes, "entropy", [arm for arm in SHOWN if arm != "hard"], "retrieve")
    sizes = results.levels("n", part="retrieve")
    axes.plot(sizes, [math.log(n) for n in sizes], ":", color=GREY, label="ln n: all weights equal")
    axes.axhline(5.9445, color=GREY, linewidth=0.8, linestyle="--", label="the published law stops here")
    axes.set_ylabel("entropy of the weights (nats)")
    legend(axes)
    return rows


def draw_split(results: Results, axes: Axes) -> list[Record]:
    """The plain arm's error by size and by cause."""
    causes = ("ordering_error", "dispersion_error")
    rows: list[dict[str, Any]] = []
    for n in results.levels("n", part="retrieve", arm="plain"):
        errors = {cause: results.by_seed(cause, part="retrieve", arm="plain", n=n) for cause in causes}
        rows.append({"n": n} | {cause: seed_mean(list(values.values())).mean for cause, values in errors.items()})
    sizes = [row["n"] for row in rows]
    if rows:
        axes.stackplot(
            sizes,
            [[row[cause] for row in rows] for cause in causes],
            labels=("ordering: argmax attention errs too", "dispersion: argmax attention is right"),
            colors=(COLOURS["hard"], COLOURS["plain"]),
            alpha=0.75,
        )
    legend(axes)
    size_axis(axes, sizes, "items n")
    axes.set_ylabel("error of plain softmax")
    axes.set_ylim(0, 1)
    return list(rows)


def draw_laws(results: Results, axes: Axes) -> list[Record]:
    """Inverse temperature by entropy: the published law, those refitted here, and the one refitted to needles."""
    from holdfast.nn import AdaptiveTemperature

    curves = [("published", "published", law_rows("published", AdaptiveTemperature.published()))]
    for part_name, label, colour in (
        ("retrieve", "refit, one line a seed", "refit"),
        ("needle", "refit to needles", "log-n"),
    ):
        seeds = results.levels("seed", part=part_name)
        curves += [(label, colour, results.curve("law", part=part_name, seed=seed)) for seed in seeds]
    rows: list[Record] = []
    for label, colour, curve in curves:
        _, labels = axes.get_legend_handles_labels()
        axes.plot(
            [float(row["entropy"] or 0.0) for row in curve],
            [float(row["beta"] or 0.0) for row in curve],
            color=COLOURS[colour],
            linewidth=2.0 if label == "published" else 1.0,
            label=None if label in labels else label,
        )
        rows += [{**row, "arm": label} for row in curve]
    axes.set_yscale("log", base=2)
    axes.set_xlabel("entropy of softmax (nats)")
    axes.set_ylabel("inverse temperature β")
    legend(axes)
    return rows


part = Part(
    "retrieve",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "accuracy",
            "Max retrieval: one set of weights, five ways to turn logits into attention. Trained on 5 to 16 items. "
            "Lines are means over seeds; grey lines are the paper's figures.",
            draw_accuracy,
        ),
        Figure(
            "gain",
            "Max retrieval: what the published and the refitted law gain over plain softmax on the same weights and "
            "sets. Lines are means over seeds, bands their 95 % intervals.",
            draw_gain,
        ),
        Figure(
            "entropy",
            "Max retrieval: the entropy of attention grows with the number of items. Above the dashed line the "
            "published law changes nothing.",
            draw_entropy,
        ),
        Figure(
            "error-split",
            "Max retrieval, plain softmax: the part of the error that no temperature can mend (attention's largest "
            "logit leads to a wrong answer), and the part due to dispersion.",
            draw_split,
        ),
        Figure(
            "laws",
            "Inverse temperature as a function of entropy: the published polynomial, and laws refitted without labels.",
            draw_laws,
        ),
    ),
)
