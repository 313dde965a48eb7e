"""Part `pairs`: what is left of the first digits in a network that learns two classes at a time, by its optimiser.

The first thing that the part shows is when nothing is: with biases, without the memory of the preconditioner, in a long
training, against an optimiser whose steps shrink (part `matched`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast.lab import Claim, Evidence, Figure, Outcome, Part, Results, Trial, mean_of, paired_difference
from holdfast.lab.figures import GREY, SHARE, draw_over_seeds, legend
from holdfast.lab.results import Values
from holdfast.lab.verdict import exact, unusable
from holdfast.studies.solutions.optimizers import Arm
from holdfast.studies.solutions.paper import COSINES, OURS, RANK, SHAMPOO
from holdfast.studies.solutions.rows import MARGIN, draw_row, not_learnt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record

ARMS = {
    "sgd": Arm(label="SGD"),
    "shampoo": Arm(label="Shampoo's direction", method="shampoo"),
    "shampoo-reset": Arm(label="Shampoo's direction, reset at each task", method="shampoo", reset=True),
    "shampoo-0.9": Arm(label="Shampoo's direction, β₂ = .9", method="shampoo", beta=0.9),
    "shampoo-0.99": Arm(label="Shampoo's direction, β₂ = .99", method="shampoo", beta=0.99),
    "sgd-bias": Arm(label="SGD, biases", bias=True),
    "shampoo-bias": Arm(label="Shampoo's direction, biases", method="shampoo", bias=True),
    "sgd-slow": Arm(label="SGD, biases at 1/100 of the rate", bias=True, bias_rate=0.01),
    "shampoo-slow": Arm(
        label="Shampoo's direction, biases at 1/100 of the rate", method="shampoo", bias=True, bias_rate=0.01
    ),
    "sgd-torch": Arm(label="SGD, torch's layers", bias=True, standard=True),
    "shampoo-torch": Arm(label="Shampoo's direction, torch's layers", method="shampoo", bias=True, standard=True),
    "sgd-long": Arm(label="SGD, ten times as long", length=10),
    "shampoo-long": Arm(label="Shampoo's direction, ten times as long", method="shampoo", length=10),
}

CONDITIONS = {
    "no biases": ("sgd", "shampoo"),
    "1. biases": ("sgd-bias", "shampoo-bias", "sgd-slow", "shampoo-slow", "sgd-torch", "shampoo-torch"),
    "2. a shorter memory": ("shampoo-reset", "shampoo-0.9", "shampoo-0.99"),
    "3. a longer training": ("sgd-long", "shampoo-long"),
}
"""The arms by what is tested with them."""


@dataclass(frozen=True, kw_only=True)
class PairsConfig:
    """Networks that learn the digits in five pairs of classes.

    Arguments:
        arms: names of those that are trained.
        rate: learning rate of all.
        steps: of each pair.
        batch: images a step.
        width: units of each of the two hidden layers.
        tests: digits that are kept back.
    """

    arms: tuple[str, ...] = tuple(ARMS)
    rate: float = 0.05
    steps: int = 100
    batch: int = 32
    width: int = 64
    tests: int = 540


def trials(config: Any) -> Iterator[Trial[PairsConfig]]:
    """One trial a network.

    Arguments:
        config: the study's configuration.
    """
    settings: PairsConfig = config.pairs
    for seed in config.seed_range:
        for arm in settings.arms:
            cost = settings.steps / 100 * ARMS[arm].length * (5 if ARMS[arm].method == "shampoo" else 1) / 5
            yield Trial(seed, settings, {"arm": arm}, cost=cost)


def run(trial: Trial[PairsConfig]) -> Outcome:
    """Train one network. All arms of a seed have the same images, weights and batches.

    Records: see `forgetting.learn_in_turn`. Curve: `tasks`.
    """
    from holdfast.studies.digits import CLASSES, digits
    from holdfast.studies.solutions.forgetting import learn_in_turn
    from holdfast.studies.solutions.streams import SPLIT
    from holdfast.studies.solutions.tasks import centred, network, pairs

    config, seed, arm = trial.config, trial.seeds[0], ARMS[str(trial.labels["arm"])]
    split = centred(digits(seed, SPLIT, extra="solutions"), config.tests)
    sizes = (split.train.images.shape[1], config.width, config.width, CLASSES)
    model = network(sizes, seed, bias=arm.bias, standard=arm.standard)
    record, curve = learn_in_turn(
        model, arm, config.rate, pairs(split), steps=config.steps, batch=config.batch, seed=seed
    )
    return Outcome([record], {"tasks": curve})


def _values(results: Results, arm: str, metric: str = "old") -> Values:
    return results.by_seed(metric, part="pairs", arm=arm)


def _kept(results: Results, first: str, second: str, threshold: float, alternative: Any = "greater") -> Evidence:
    """Retention of two arms that have both learnt; otherwise it means nothing."""
    for arm in (first, second):
        reason = not_learnt(_values(results, arm, "learn"), ARMS[arm].label)
        if reason:
            return unusable(reason)
    values = (_values(results, arm) for arm in (first, second))
    return paired_difference(
        *values, threshold=threshold, alternative=alternative, names=(ARMS[first].label, ARMS[second].label)
    )


def _shampoo(results: Results) -> Evidence:
    return _kept(results, "shampoo", "sgd", 0.3)


def _learns(results: Results) -> Evidence:
    values = (_values(results, arm, "learn") for arm in ("shampoo", "sgd"))
    return paired_difference(*values, threshold=-0.01, names=("Shampoo's direction", "SGD"))


def _every(results: Results) -> Evidence:
    gains = Values.of(
        lambda shampoo, sgd, cosine, other: min(shampoo - sgd, other - cosine),
        *(_values(results, arm, metric) for metric in ("old", "cosine") for arm in ("shampoo", "sgd")),
    )
    if not gains:
        return unusable(gains.missing or "no results")
    worst = min(gains.values())
    test = "the smaller of both differences, at its smallest over seeds"
    return exact(holds=worst > 0, effect=worst, n=len(gains), test=test, failed=gains.failed)


def _cosine(results: Results) -> Evidence:
    values = (_values(results, arm, "cosine") for arm in ("shampoo", "sgd"))
    names = ("Shampoo's direction", "SGD")
    return paired_difference(*values, threshold=-0.05, alternative="less", names=names)


def _rank(results: Results) -> Evidence:
    values = (_values(results, arm, "rank") for arm in ("shampoo", "sgd"))
    return paired_difference(*values, alternative="less", names=("Shampoo's direction", "SGD"))


def _changes(results: Results) -> Evidence:
    values = (_values(results, arm, "stable_rank") for arm in ("shampoo", "sgd"))
    return paired_difference(*values, threshold=1.0, names=("Shampoo's direction", "SGD"))


def _biases(results: Results) -> Evidence:
    return _kept(results, "shampoo-bias", "shampoo", -MARGIN, "less")


def _torch(results: Results) -> Evidence:
    for arm in ("sgd-torch", "shampoo-torch"):
        reason = not_learnt(_values(results, arm, "learn"), ARMS[arm].label)
        if reason:
            return unusable(reason)
    best = Values.of(max, *(_values(results, arm) for arm in ("sgd-torch", "shampoo-torch")))
    return mean_of(best, threshold=0.05, alternative="less", bounds=(0, 1), name="what the better one keeps")


def _slow(results: Results) -> Evidence:
    return _kept(results, "shampoo-slow", "sgd-slow", 0.3)


def _memory(results: Results) -> Evidence:
    return _kept(results, "shampoo-reset", "sgd", 0.15, "less")


def _beta(results: Results) -> Evidence:
    return _kept(results, "shampoo-0.9", "shampoo", -MARGIN, "less")


def _longer(results: Results) -> Evidence:
    return _kept(results, "shampoo-long", "shampoo", -MARGIN, "less")


def _long(results: Results) -> Evidence:
    return _kept(results, "shampoo-long", "sgd-long", MARGIN)


CLAIMS = (
    Claim(
        "pairs-shampoo",
        "Without biases, and with steps as long as SGD's, Shampoo's direction alone keeps at least .30 more of the "
        "first four pairs of digits.",
        _shampoo,
        paper=SHAMPOO,
        family="pairs",
        headline=True,
        plain="a network without biases forgets far less with Shampoo than with SGD",
        figure="pairs-conditions",
        scale="laptop",
    ),
    Claim(
        "pairs-learn",
        "Without biases Shampoo's direction learns each pair as well as SGD, within .01.",
        _learns,
        paper=OURS,
        family="pairs",
        scale="laptop",
    ),
    Claim(
        "pairs-cosine",
        "Without biases its class means in the last hidden layer have cosines that are lower by at least .05.",
        _cosine,
        paper=COSINES,
        family="pairs",
        scale="laptop",
    ),
    Claim(
        "pairs-every-seed",
        "In every seed it keeps more and has the lower cosine.",
        _every,
        paper=OURS,
        family="pairs-every-seed",
        scale="laptop",
    ),
    Claim(
        "pairs-biases",
        "First condition: with biases that learn at the same rate Shampoo's direction keeps at least .05 less.",
        _biases,
        paper=OURS,
        family="conditions",
        scale="laptop",
    ),
    Claim(
        "pairs-torch",
        "In layers as torch makes them, with biases and its initial weights, neither Shampoo's direction "
        "nor SGD keeps .05.",
        _torch,
        paper=OURS,
        family="conditions",
        headline=True,
        plain="in PyTorch's usual layers a network forgets nearly all, with Shampoo as with SGD",
        figure="pairs-conditions",
        scale="laptop",
    ),
    Claim(
        "pairs-slow-biases",
        "Biases at a hundredth of the rate bring the gap of .30 back.",
        _slow,
        paper=OURS,
        family="conditions",
        scale="laptop",
    ),
    Claim(
        "pairs-memory",
        "Second condition: Shampoo that forgets its statistics at each new pair keeps at most .15 more than SGD.",
        _memory,
        paper=OURS,
        family="conditions",
        headline=True,
        plain="Shampoo that is reset at each task forgets nearly as much as SGD",
        figure="pairs-conditions",
        scale="laptop",
    ),
    Claim(
        "pairs-beta",
        "A shorter memory, β₂ = .9 for .999, keeps at least .05 less.",
        _beta,
        paper=OURS,
        family="conditions",
        scale="laptop",
    ),
    Claim(
        "pairs-length",
        "Third condition: ten times as many steps a pair cost Shampoo's direction at least .05 of what it keeps.",
        _longer,
        paper=OURS,
        family="conditions",
        scale="laptop",
    ),
    Claim(
        "pairs-long",
        "After ten times as many steps it still keeps at least .05 more than SGD.",
        _long,
        paper=OURS,
        family="conditions",
        scale="laptop",
    ),
    Claim(
        "pairs-rank",
        "The last hidden layer of Shampoo's direction has a lower effective rank than that of SGD.",
        _rank,
        paper=RANK,
        family="pairs-ranks",
        scale="laptop",
    ),
    Claim(
        "pairs-changes",
        "What it changed in the weights has a stable rank that is higher by at least 1.",
        _changes,
        paper=OURS,
        family="pairs-ranks",
        scale="laptop",
    ),
)


def draw_tasks(results: Results, axes: Axes) -> list[Record]:
    """Accuracy on each pair at the end."""
    rows: list[Record] = []
    for arm in ("shampoo", "sgd", "shampoo-reset", "shampoo-bias", "shampoo-torch", "sgd-torch"):
        if arm not in results.config.pairs.arms:
            continue
        values: dict[int, list[float]] = {}
        for row in results.curve("tasks", part="pairs", arm=arm):
            values.setdefault(int(row["task"] or 0), []).append(float(row["end"] or 0.0))
        points = draw_over_seeds(axes, values, bounds=SHARE, dots=True, label=ARMS[arm].label, marker="o", markersize=4)
        rows += [
            {"arm": arm, "pair": x, "accuracy": mean, "low": low, "high": high} for x, mean, low, high, _ in points
        ]
    axes.set_xlabel("pair of classes, in the order of learning")
    axes.set_xticks(range(1, 6), [f"{first}, {first + 1}" for first in range(0, 10, 2)])
    axes.set_ylabel("test accuracy at the end")
    legend(axes, columns=2)
    return rows


def draw_conditions(results: Results, axes: Axes) -> list[Record]:
    """What each arm keeps."""
    rows: list[Record] = []
    drawn: list[str] = []
    for told, group in CONDITIONS.items():
        arms = [arm for arm in group if arm in results.config.pairs.arms and _values(results, arm)]
        if not arms:
            continue
        if drawn:
            axes.axhline(len(drawn) - 0.4, color=GREY, linewidth=0.6)
        axes.text(1.0, len(drawn), told, color=GREY, fontsize="small", ha="right", va="center")
        for arm in arms:
            values, learnt = (list(_values(results, arm, metric).values()) for metric in ("old", "learn"))
            row = draw_row(axes, len(drawn), values, "old", "C0" if ARMS[arm].method == "shampoo" else "C1")
            rows.append({"arm": ARMS[arm].label, **row, "learn": sum(learnt) / len(learnt)})
            drawn.append(arm)
    axes.set_yticks(range(len(drawn)), [ARMS[arm].label for arm in drawn])
    axes.set_xlim(-0.02, 1.02)
    axes.invert_yaxis()
    axes.set_ylabel("optimiser and network")
    axes.set_xlabel("accuracy on the first four pairs at the end")
    return rows


part = Part(
    "pairs",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "pairs-conditions",
            "When Shampoo's direction keeps what was learnt, and when it does not: accuracy on the first four pairs of "
            "digits after the fifth. Large dots are means over seeds with their 95 % intervals, small ones seeds.",
            draw_conditions,
        ),
        Figure(
            "pairs-tasks",
            "Accuracy on each pair of digits after the last one. Lines are means over seeds, dots are seeds.",
            draw_tasks,
        ),
    ),
    needs={"pytorch_optimizer": "holdfast[solutions]", "sklearn": "holdfast[solutions]"},
)
