"""Part `pruning`: how few of its weights a network needs, by the optimiser that it was trained with.

Weights are pruned once, by magnitude, layer by layer; the head keeps twice the fraction. ℓ1 is tuned for each fraction
by the accuracy of the tests themselves, which can only help it. Gradual pruning goes on training while it prunes, to
one fraction a network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from holdfast.lab import Claim, Evidence, Figure, Outcome, Part, Results, Trial, mean_of, paired_difference
from holdfast.lab.figures import draw_over_seeds, legend
from holdfast.lab.results import Values
from holdfast.lab.verdict import exact, unusable
from holdfast.studies.solutions.paper import OURS, POWER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import nn
    from torch.optim import Optimizer

    from holdfast.lab import Record

FRACTIONS = (0.1, 0.05, 0.03, 0.02, 0.01)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """How a network is trained.

    Arguments:
        label: in figures.
        adam: whether with AdamW, at its rate; otherwise SGD.
        alpha: α of power-propagation; 1 is none.
        decay: of the roots, with AdamW.
        l1: strength of the penalty on weights.
        gradual: fraction to which weights are pruned while training goes on; 0: none are.
    """

    label: str
    adam: bool = False
    alpha: float = 1.0
    decay: float = 0.0
    l1: float = 0.0
    gradual: float = 0.0


L1 = {
    **{
        f"l1-{strength:g}": Arm(label=f"SGD, ℓ1 {strength:g}", l1=strength)
        for strength in (3e-4, 1e-3, 2e-3, 4e-3, 8e-3)
    },
    **{f"adam-l1-{s:g}": Arm(label=f"Adam, ℓ1 {s:g}", l1=s, adam=True) for s in (5e-4, 1e-3, 2e-3, 4e-3, 8e-3)},
}
GRADUAL = {
    f"gradual-{fraction:g}": Arm(label=f"SGD, pruned to {fraction:.0%} in training", gradual=fraction)
    for fraction in FRACTIONS
}
ARMS = {
    "sgd": Arm(label="SGD"),
    "power-2": Arm(label="power-propagation, α = 2", alpha=2),
    "power-3": Arm(label="power-propagation, α = 3", alpha=3),
    "power-4": Arm(label="power-propagation, α = 4", alpha=4),
    "adamw": Arm(label="AdamW", adam=True),
    "recipe": Arm(label="AdamW on roots, α = 4, decay .4", adam=True, alpha=4, decay=0.4),
    "recipe-strong": Arm(label="AdamW on roots, α = 4, decay 1", adam=True, alpha=4, decay=1.0),
    **L1,
    **GRADUAL,
}
STYLES = {
    "sgd": ("C1", "-"),
    "power-2": ("C2", ":"),
    "power-3": ("C2", "-"),
    "power-4": ("C2", "--"),
    "adamw": ("C4", "-"),
    "recipe": ("C0", "-"),
    "recipe-strong": ("C0", "--"),
}
"""Colour and line of each arm that is drawn by itself; a colour is a kind of training."""


@dataclass(frozen=True, kw_only=True)
class PruningConfig:
    """Networks that learn digits and are pruned.

    Arguments:
        arms: names of those that are trained.
        steps: of each.
        batch: images a step.
        hidden: units of the hidden layers.
        rate: learning rate of SGD.
        adam_rate: that of AdamW.
        tests: digits that are kept back.
    """

    arms: tuple[str, ...] = tuple(ARMS)
    steps: int = 3000
    batch: int = 60
    hidden: tuple[int, ...] = (300, 100)
    rate: float = 0.1
    adam_rate: float = 1e-3
    tests: int = 540


def trials(config: Any) -> Iterator[Trial[PruningConfig]]:
    """One trial a network.

    Arguments:
        config: the study's configuration.
    """
    settings: PruningConfig = config.pruning
    for seed in config.seed_range:
        for arm in settings.arms:
            yield Trial(seed, settings, {"arm": arm}, cost=settings.steps / 1000)


def optimizer_of(arm: Arm, model: nn.Module, config: PruningConfig) -> Optimizer:
    """What trains a network of an arm.

    Arguments:
        arm: how.
        model: what.
        config: rates and steps.
    """
    import torch

    from holdfast.optim import GradualPruning, PowerProp, power_adamw

    if arm.adam and arm.alpha > 1:
        return power_adamw(model, lr=config.adam_rate, alpha=arm.alpha, decay=arm.decay)
    optimizer: Optimizer
    if arm.adam and arm.l1:  # decay beside the penalty would be a second one
        optimizer = torch.optim.Adam(model.parameters(), lr=config.adam_rate)
    elif arm.adam:
        optimizer = torch.optim.AdamW(model.parameters(), lr=config.adam_rate)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=config.rate)
    if arm.alpha > 1:
        optimizer = PowerProp(model, optimizer, alpha=arm.alpha)
    if arm.l1:
        matrices = [tensor for tensor in model.parameters() if tensor.ndim > 1]

        @torch.no_grad()
        def penalise(*_: Any) -> None:
            for tensor in matrices:
                assert tensor.grad is not None
                tensor.grad.add_(tensor.sign(), alpha=arm.l1)

        optimizer.register_step_pre_hook(penalise)
    if arm.gradual:
        begin, end = config.steps // 6, config.steps * 2 // 3
        every = max(1, config.steps // 30)
        GradualPruning(model, optimizer, kept=arm.gradual, begin=begin, end=end, every=every)
    return optimizer


def run(trial: Trial[PruningConfig]) -> Outcome:
    """Train one network and prune it. All arms of a seed have the same images, weights and batches.

    Records: test accuracy with all weights, `dense`, and with fractions of them, `kept-0.1` and so on. A network that
    was pruned in training has that of its own fraction alone. Hoyer's sparsity of the weights, `hoyer`, a mean.

    Source: the setting of arXiv 2110.00296, on smaller images.
    """
    from holdfast.lab import progress
    from holdfast.probes.solutions.metrics import hoyer
    from holdfast.probes.solutions.pruning import pruning_curve
    from holdfast.studies.digits import CLASSES, accuracy, batches_of, digits, learn
    from holdfast.studies.solutions.streams import BATCHES, SPLIT
    from holdfast.studies.solutions.tasks import centred, network

    config, seed, arm = trial.config, trial.seeds[0], ARMS[str(trial.labels["arm"])]
    split = centred(digits(seed, SPLIT, extra="solutions"), config.tests)
    model = network((split.train.images.shape[1], *config.hidden, CLASSES), seed, bias=True)
    optimizer = optimizer_of(arm, model, config)
    batches = batches_of(len(split.train.images), config.steps, config.batch, seed, BATCHES)
    for step, _ in enumerate(learn(model, optimizer, split.train, batches)):
        if step % 500 == 0:
            progress.report(step / config.steps)
    weights = {name: tensor.detach() for name, tensor in model.named_parameters() if tensor.ndim > 1}
    fractions = (arm.gradual,) if arm.gradual else FRACTIONS
    curve = pruning_curve(model, split.test.images, split.test.labels, weights, list(weights)[-1], fractions)
    record: Record = {
        "dense": accuracy(model, split.test),
        "hoyer": sum(hoyer(tensor) for tensor in weights.values()) / len(weights),
        **{f"kept-{kept.fraction:g}": kept.accuracy for kept in curve},
    }
    return Outcome([record])


def _values(results: Results, arm: str, fraction: float) -> Values:
    metric = "dense" if fraction == 1 else f"kept-{fraction:g}"
    return results.by_seed(metric, part="pruning", arm=arm)


def tuned(results: Results, fraction: float) -> tuple[str, Values]:
    """The arm with an ℓ1 penalty that has the best mean at a fraction, with its accuracy."""
    found = {arm: _values(results, arm, fraction) for arm in L1 if arm in results.config.pruning.arms}
    known = {arm: sum(values.values()) / len(values) for arm, values in found.items() if values}
    if not known:
        return "", Values(missing="no network with an ℓ1 penalty has finished")
    best = max(known, key=lambda arm: known[arm])
    return best, found[best]


def _plain(results: Results) -> Evidence:
    return mean_of(_values(results, "sgd", 0.1), threshold=0.85, alternative="less", bounds=(0, 1), name="accuracy")


def _power(results: Results) -> Evidence:
    return mean_of(_values(results, "power-3", 0.1), threshold=0.86, bounds=(0, 1), name="accuracy")


def _gain(results: Results) -> Evidence:
    values = (_values(results, arm, 0.1) for arm in ("power-3", "sgd"))
    return paired_difference(*values, threshold=0.04, names=("power-propagation", "SGD"))


def _every(results: Results) -> Evidence:
    gains = Values.of(lambda power, plain: power - plain, *(_values(results, arm, 0.1) for arm in ("power-3", "sgd")))
    if not gains:
        return unusable(gains.missing or "no results")
    worst = min(gains.values())
    return exact(holds=worst >= 0.04, effect=worst, n=len(gains), test="the smallest gain", failed=gains.failed)


def _recipe(results: Results) -> Evidence:
    values = (_values(results, "recipe", fraction) for fraction in (0.05, 1.0))
    return paired_difference(*values, threshold=-0.02, names=("with 5 % of the weights", "with all"))


def _dense(results: Results) -> Evidence:
    values = (_values(results, arm, 1.0) for arm in ("recipe", "adamw"))
    return paired_difference(*values, threshold=-0.02, names=("the recipe", "AdamW"))


def _without_decay(results: Results) -> Evidence:
    values = (_values(results, "power-3", 0.1), tuned(results, 0.1)[1])
    return paired_difference(*values, alternative="less", names=("power-propagation", "tuned ℓ1"))


def _against_l1(fraction: float, results: Results) -> Evidence:
    values = (_values(results, "recipe", fraction), tuned(results, fraction)[1])
    return paired_difference(*values, names=("the recipe", "tuned ℓ1"))


def _against_gradual(fraction: float, results: Results) -> Evidence:
    values = (_values(results, arm, fraction) for arm in ("recipe", f"gradual-{fraction:g}"))
    return paired_difference(*values, names=("the recipe", "gradual pruning"))


CLAIMS = (
    Claim(
        "pruning-power",
        "Trained by SGD with power-propagation (α = 3), a network that keeps 10 % of its weights is right for more "
        "than .86 of the digits.",
        _power,
        paper=POWER,
        family="power",
        headline=True,
        plain="a network trained with power-propagation is still right with a tenth of its weights",
        figure="pruning",
        scale="laptop",
    ),
    Claim(
        "pruning-plain",
        "Trained by SGD alone, for less than .85.",
        _plain,
        paper=OURS,
        family="power",
        scale="laptop",
    ),
    Claim(
        "pruning-gain",
        "At 10 % power-propagation gains at least .04.",
        _gain,
        paper=POWER,
        family="power",
        scale="laptop",
    ),
    Claim(
        "pruning-every-seed",
        "In every seed it gains at least .04.",
        _every,
        paper=OURS,
        family="pruning-every-seed",
        scale="laptop",
    ),
    Claim(
        "pruning-without-decay",
        "That is less than a tuned ℓ1 penalty gives at 10 %.",
        _without_decay,
        paper=OURS,
        family="power",
        scale="laptop",
    ),
    Claim(
        "pruning-recipe",
        "AdamW on the roots (α = 4, decay .4) loses less than .02 when it keeps 5 % of the weights.",
        _recipe,
        paper=OURS,
        family="recipe",
        headline=True,
        plain="a network trained by AdamW on the roots of its weights is nearly as good with a twentieth of them",
        figure="pruning",
        scale="laptop",
    ),
    Claim(
        "pruning-dense",
        "With all weights it is at most .02 below AdamW.",
        _dense,
        paper=OURS,
        family="recipe",
        scale="laptop",
    ),
    *(
        Claim(
            f"pruning-l1-{fraction:g}",
            f"With {fraction:.0%} of the weights it is better than the best of ten ℓ1 penalties.",
            partial(_against_l1, fraction),
            paper=OURS,
            family="l1",
            scale="laptop",
        )
        for fraction in FRACTIONS
    ),
    *(
        Claim(
            f"pruning-gradual-{fraction:g}",
            f"With {fraction:.0%} of the weights, pruned once, it is better than SGD that prunes gradually and goes on "
            "training.",
            partial(_against_gradual, fraction),
            paper=OURS,
            family="gradual",
            scale="laptop",
        )
        for fraction in FRACTIONS
    ),
)


def draw_kept(results: Results, axes: Axes) -> list[Record]:
    """Accuracy by the fraction of weights that is kept."""
    rows: list[Record] = []
    fractions = sorted((*FRACTIONS, 1.0))
    curves = {
        ARMS[arm].label: (style, {fraction: list(_values(results, arm, fraction).values()) for fraction in fractions})
        for arm, style in STYLES.items()
        if arm in results.config.pruning.arms
    }
    best = {fraction: list(tuned(results, fraction)[1].values()) for fraction in fractions[:-1]}
    curves["the best of ten ℓ1 penalties"] = (("C6", "--"), best)
    gradual = {f: list(_values(results, f"gradual-{f:g}", f).values()) for f in fractions[:-1]}
    curves["SGD, pruned in training"] = (("C6", ":"), gradual)
    for label, ((colour, line), values) in curves.items():
        points = draw_over_seeds(axes, values, label=label, marker="o", markersize=3, color=colour, linestyle=line)
        means = {point.x: point.mean for point in points}
        if points:
            shares: Record = {f"{fraction:.0%}": means.get(fraction) for fraction in reversed(fractions)}
            rows.append({"training": label, **shares, "seeds": points[0].seeds})
    axes.set_xscale("log")
    axes.set_xticks(fractions, [f"{fraction:.0%}" for fraction in fractions])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("weights that are kept")
    axes.set_ylabel("test accuracy")
    legend(axes, columns=2)
    return rows


part = Part(
    "pruning",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "pruning",
            "Accuracy after pruning once by magnitude, and of networks that were pruned in training. Of ten ℓ1 "
            "penalties each fraction shows the best. Lines are means over seeds.",
            draw_kept,
        ),
    ),
    needs={"sklearn": "holdfast[solutions]"},
)
