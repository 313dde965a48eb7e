"""Part `grokking`: whether a network that has memorised can be made to generalise by a higher effective learning rate.

Networks learn addition modulo a number from half of all pairs, first at a learning rate that is too low to
generalise; then the rate is raised once, with the norms of all weights held ("projected") or free.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from holdfast.lab import (
    Claim,
    Evidence,
    Figure,
    Outcome,
    Part,
    Results,
    Trial,
    all_of,
    mean_of,
    paired_difference,
    progress,
)
from holdfast.lab.figures import GREY, SHARE, draw_over_seeds, legend
from holdfast.lab.results import Values
from holdfast.studies.plasticity.paper import OURS
from holdfast.studies.plasticity.shapes import Addition, MLPShape, TransformerShape

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
    from torch import nn

    from holdfast.lab import Record

GROKKED = 0.99


@dataclass(frozen=True, kw_only=True)
class Arm:
    """How a network is trained: AdamW on all pairs that it may learn from.

    Arguments:
        network: transformer or mlp.
        low: learning rate before the re-warm.
        peak: learning rate that it is raised to; 0: it never is.
        late: whether it is raised much later.
        projected: whether every matrix is held at its initial norm.
        scale_decay: weight decay of the norm layers' scales alone.
        weight_decay: of matrices.
        norm: whether the network has norm layers.
        beta2: of AdamW.
    """

    network: str = "transformer"
    low: float = 1e-4
    peak: float = 5e-3
    late: bool = False
    projected: bool = True
    scale_decay: float = 1.0
    weight_decay: float = 0.0
    norm: bool = True
    beta2: float = 0.999


MLP = Arm(network="mlp", scale_decay=0.0)

ARMS = {
    "rewarm": Arm(),
    "low": Arm(peak=0.0),
    "rewarm-less": Arm(peak=5e-4),
    "free": Arm(projected=False),
    "no-scale-decay": Arm(scale_decay=0.0),
    "late": Arm(low=2e-5, late=True),
    "high": Arm(low=2e-2, peak=0.0),
    "adamw": Arm(low=1e-2, peak=0.0, projected=False, scale_decay=0.0, weight_decay=1.0, norm=False, beta2=0.98),
    "mlp-rewarm": MLP,
    "mlp-low": replace(MLP, peak=0.0),
    "mlp-free": replace(MLP, projected=False),
}
"""The rates of `high` and `adamw` are the best of three on other seeds; nothing in them is changed during training."""

LABELS = {
    "rewarm": "projected, re-warmed",
    "low": "projected, low rate",
    "rewarm-less": "projected, re-warmed less",
    "free": "free norms, re-warmed",
    "no-scale-decay": "projected, re-warmed, no scale decay",
    "late": "projected, re-warmed late",
    "high": "projected, high rate from the start",
    "adamw": "AdamW, tuned",
    "mlp-rewarm": "projected, re-warmed",
    "mlp-low": "projected, low rate",
    "mlp-free": "free norms, re-warmed",
}


@dataclass(frozen=True, kw_only=True)
class Phases:
    """When the rate is raised, and how it falls again: linear warm-up, then a cosine back to the low rate.

    Arguments:
        before: steps at the low rate.
        late: steps at the low rate of arms that are re-warmed late.
        after: steps after the re-warm; arms at one rate have as many.
        warmup: steps in which the rate rises.
        cycle: steps from the re-warm to the end of the cosine.
        final: rate at its end.
    """

    before: int
    late: int
    after: int
    warmup: int
    cycle: int
    final: float = 1e-4


@dataclass(frozen=True, kw_only=True)
class GrokkingConfig:
    """Networks that learn addition.

    Arguments:
        arms: some of the arms.
        addition: what the transformer learns.
        transformer: its shape.
        phases: of its training.
        mlp_addition: what the network with one hidden layer learns.
        mlp: its shape.
        mlp_phases: of its training.
        evaluate_every: steps between two tests.
        change_every: steps between two measurements of how features have changed.
        probes: pairs that features are measured on.
    """

    arms: tuple[str, ...] = tuple(ARMS)
    addition: Addition = field(default_factory=Addition)
    transformer: TransformerShape = field(default_factory=TransformerShape)
    phases: Phases = field(default_factory=lambda: Phases(before=1000, late=3000, after=1200, warmup=100, cycle=2000))
    mlp_addition: Addition = field(default_factory=lambda: Addition(share=0.6))
    mlp: MLPShape = field(default_factory=MLPShape)
    mlp_phases: Phases = field(
        default_factory=lambda: Phases(before=1500, late=1500, after=3000, warmup=100, cycle=3000)
    )
    evaluate_every: int = 25
    change_every: int = 100
    probes: int = 256

    def steps(self, arm: Arm) -> tuple[int, int]:
        """Steps before the re-warm, and in all."""
        phases = self.phases if arm.network == "transformer" else self.mlp_phases
        before = phases.late if arm.late else phases.before
        constant = arm.peak == 0 and arm.low > 1e-3
        return before, phases.after if constant else before + phases.after


def trials(config: Any) -> Iterator[Trial[GrokkingConfig]]:
    """One trial a network.

    Arguments:
        config: the study's configuration.
    """
    settings: GrokkingConfig = config.grokking
    for seed in config.dear_range:
        for name in settings.arms:
            arm = ARMS[name]
            cost = settings.steps(arm)[1] * (0.006 if arm.network == "transformer" else 0.002)
            yield Trial(seed, settings, {"arm": name}, cost=cost)


def run(trial: Trial[GrokkingConfig]) -> Outcome:
    """Train one network. All arms of a seed have the same pairs, and all of one kind the same initial weights.

    Records: the `best` and `final` test accuracy, the final `train` accuracy, the `step` at which the test accuracy was
    .99 first (the last one where it never was), and `norm`, by which the sum of the matrices' norms has grown; where
    the rate was raised, test accuracy and change of activation patterns `before` and `after` it.
    Curves: `accuracy` (train and test by step); `change` (of features since the measurement before, by step).
    """
    from holdfast.optim import Rewarm
    from holdfast.probes.plasticity import activation_change_share, kernel_change
    from holdfast.studies.plasticity.addition import accuracy, learn, split
    from holdfast.studies.plasticity.measures import norms

    config, seed, arm = trial.config, trial.seeds[0], ARMS[str(trial.labels["arm"])]
    transformer = arm.network == "transformer"
    phases = config.phases if transformer else config.mlp_phases
    before, total = config.steps(arm)
    learnt, tests = split(config.addition if transformer else config.mlp_addition, seed)
    model = _model(config, arm, seed)
    optimizer = _optimizer(model, arm)
    probes = tests.inputs[: config.probes]
    start, features = norms(model), model.units(probes).detach()
    schedule: Rewarm | None = None
    points: list[Record] = []
    changes: list[Record] = []
    for step, _ in zip(range(1, total + 1), learn(model, optimizer, learnt), strict=False):
        if schedule is not None:
            schedule.step()
        if arm.peak and step == before:
            schedule = Rewarm(
                optimizer, peak=arm.peak, final=phases.final, low=arm.low, warmup=phases.warmup, period=phases.cycle
            )
        if step % config.evaluate_every == 0 or step == total:
            points.append({"step": step, "train": accuracy(model, learnt), "test": accuracy(model, tests)})
            progress.report(step / total, test=float(points[-1]["test"] or 0.0))
        if step % config.change_every == 0:
            now = model.units(probes).detach()
            switched = activation_change_share(features > 0, now > 0)
            changes.append({"step": step, "patterns": switched, "kernel": kernel_change(features, now)})
            features = now
    tested = [(int(point["step"] or 0), float(point["test"] or 0.0)) for point in points]
    record: dict[str, float] = {
        "best": max(test for _, test in tested),
        "final": tested[-1][1],
        "train": float(points[-1]["train"] or 0.0),
        "step": next((step for step, test in tested if test >= GROKKED), total),
        "norm": norms(model) / start,
    }
    if arm.peak:
        switched_at = {int(point["step"] or 0): float(point["patterns"] or 0.0) for point in changes}
        record |= {
            "low": next(test for step, test in reversed(tested) if step <= before),
            "before": switched_at[before],
            "after": switched_at[before + config.change_every],
        }
    return Outcome([record], {"accuracy": points, "change": changes})


def _model(config: GrokkingConfig, arm: Arm, seed: int) -> Any:
    from holdfast.studies.plasticity.addition import AdditionMLP, AdditionTransformer

    if arm.network == "mlp":
        return AdditionMLP(config.mlp_addition, config.mlp, seed)
    return AdditionTransformer(config.addition, replace(config.transformer, norm=arm.norm), seed)


def _optimizer(model: nn.Module, arm: Arm) -> torch.optim.Optimizer:
    import torch

    from holdfast.optim import Projector, scale_decay_groups

    matrices = [tensor for tensor in model.parameters() if tensor.ndim > 1]
    groups: list[Any] = [{"params": matrices, "weight_decay": arm.weight_decay}]
    if arm.norm:
        groups = scale_decay_groups(model, arm.scale_decay, weight_decay=arm.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=arm.low, betas=(0.9, arm.beta2), fused=True)
    if arm.projected:
        Projector(model, optimizer, include="all")
    return optimizer


def _values(results: Results, arm: str, metric: str = "best") -> Values:
    return results.by_seed(metric, part="grokking", arm=arm)


def _tests(results: Results, arm: str) -> int:
    config: GrokkingConfig = results.config.grokking
    return (config.addition if ARMS[arm].network == "transformer" else config.mlp_addition).tests


def _above(results: Results, arm: str, threshold: float) -> Evidence:
    return mean_of(_values(results, arm), threshold=threshold, cases=_tests(results, arm), name=LABELS[arm])


def _below(results: Results, arm: str, threshold: float) -> Evidence:
    return mean_of(
        _values(results, arm),
        threshold=threshold,
        alternative="less",
        cases=_tests(results, arm),
        name=LABELS[arm],
    )


def _apart(results: Results, high: str, low: str, threshold: float) -> Evidence:
    return paired_difference(
        _values(results, high), _values(results, low), threshold=threshold, names=(LABELS[high], LABELS[low])
    )


def _rewarmed(results: Results) -> Evidence:
    return _above(results, "rewarm", GROKKED)


def _late(results: Results) -> Evidence:
    return _above(results, "late", GROKKED)


def _low(results: Results) -> Evidence:
    return all_of([_below(results, "low", 0.6), _below(results, "rewarm-less", 0.6)])


def _free(results: Results) -> Evidence:
    return all_of([_below(results, "free", GROKKED), _apart(results, "rewarm", "free", 0.15)])


def _scale_decay(results: Results) -> Evidence:
    return _below(results, "no-scale-decay", 0.6)


def _features(results: Results) -> Evidence:
    after, before = (_values(results, "rewarm", metric) for metric in ("after", "before"))
    difference = Values.of(lambda late, early: late - 5 * early, after, before)
    return mean_of(difference, threshold=0.0, name="the change after less five times that before")


def _tuned(results: Results) -> Evidence:
    steps = (_values(results, arm, "step") for arm in ("high", "adamw"))
    return paired_difference(*steps, alternative="less", names=(LABELS["high"], LABELS["adamw"]))


def _mlp(results: Results) -> Evidence:
    return all_of([_above(results, "mlp-rewarm", 0.88), _apart(results, "mlp-rewarm", "mlp-free", 0.5)])


CLAIMS = (
    Claim(
        "grokking-rewarm",
        "A transformer with its norms held that has memorised at 1e-4 generalises (test accuracy of at least .99) "
        "within 1,200 steps after its learning rate is re-warmed to 5e-3.",
        _rewarmed,
        paper="re-warming to 1e-2 groks after any offset, to 1e-3 never (figure 3)",
        family="grokking",
        headline=True,
        plain="raising the learning rate again lets a network that only memorised generalise",
        figure="grokking",
        scale="laptop",
    ),
    Claim(
        "grokking-free",
        "With free norms the same re-warm does not reach .99, and stays at least .15 below.",
        _free,
        paper="free norms need a large weight decay (figure 2)",
        family="grokking",
        headline=True,
        plain="raising the learning rate again does not let a network generalise whose weights may grow",
        figure="grokking",
        scale="laptop",
    ),
    Claim(
        "grokking-scale-decay",
        "Without weight decay on the norm layers' scales the projected transformer stays below .6 after the re-warm.",
        _scale_decay,
        paper="projection breaks grokking with norm layers, scale decay restores it (figure 2)",
        family="grokking",
        headline=True,
        plain="raising the learning rate again fails without weight decay on the scales of norm layers",
        figure="grokking",
        scale="laptop",
    ),
    Claim(
        "grokking-low",
        "At a constant 1e-4, and after a re-warm to 5e-4, it stays below .6.",
        _low,
        paper="re-warming to 1e-3 does not grok (figure 3)",
        family="grokking",
        scale="laptop",
    ),
    Claim(
        "grokking-late",
        "A re-warm after 3,000 steps at 2e-5 does it, too, within 1,200 steps.",
        _late,
        paper="at any offset up to several 100,000 steps (figure 3)",
        family="grokking",
        scale="laptop",
    ),
    Claim(
        "grokking-features",
        "In the 100 steps after the re-warm more than five times as many activation patterns change as in the 100 "
        "before.",
        _features,
        paper="grokking follows a jump in the share of patterns that change (figure 3)",
        family="grokking",
        scale="laptop",
    ),
    Claim(
        "grokking-tuned",
        "Projected and with scale decay, the best of three constant rates groks in fewer steps than the best of three "
        "settings of AdamW without norm layers.",
        _tuned,
        paper=OURS,
        family="grokking",
        scale="laptop",
    ),
    Claim(
        "grokking-mlp",
        "A network with one hidden layer and held norms reaches .88 after the re-warm, at least .5 more than with free "
        "norms.",
        _mlp,
        paper="grokking is fast and consistent with held norms (figure 2)",
        family="grokking",
        scale="laptop",
    ),
)


def draw_grokking(results: Results, axes: Axes) -> list[Record]:
    """Test accuracy of the transformers by step, a line an arm."""
    rows: list[Record] = []
    for number, arm in enumerate(name for name, arm in ARMS.items() if arm.network == "transformer" and not arm.late):
        curve = results.curve("accuracy", part="grokking", arm=arm)
        steps = sorted({int(row["step"] or 0) for row in curve})
        values = {step: [float(row["test"] or 0.0) for row in curve if row["step"] == step] for step in steps}
        style: dict[str, Any] = {
            "linestyle": "--" if ARMS[arm].peak == 0 else "-",
            "linewidth": 1.4,
            "color": f"C{number}",
        }
        points = draw_over_seeds(axes, values, bounds=SHARE, label=LABELS[arm], **style)
        rows += [
            {"arm": arm, "step": x, "test accuracy": mean, "low": low, "high": high, "seeds": n}
            for x, mean, low, high, n in points
        ]
    if rows:
        config: GrokkingConfig = results.config.grokking
        axes.axhline(config.addition.commutativity_floor, color=GREY, linewidth=0.8, label="commutativity alone")
        axes.axvline(config.phases.before, color=GREY, linewidth=0.8, linestyle=":", label="re-warm")
    axes.set_xlabel("step")
    axes.set_ylabel("test accuracy")
    legend(axes, columns=2)
    return rows


def draw_change(results: Results, axes: Axes) -> list[Record]:
    """How fast features change around the re-warm: patterns (solid) and kernel (broken)."""
    rows: list[Record] = []
    for number, arm in enumerate(("rewarm", "free", "low")):
        curve = results.curve("change", part="grokking", arm=arm)
        steps = sorted({int(row["step"] or 0) for row in curve})
        for metric, line in (("patterns", "-"), ("kernel", "--")):
            values = {step: [float(row[metric] or 0.0) for row in curve if row["step"] == step] for step in steps}
            what = "ΔA, share of patterns" if metric == "patterns" else "ΔC, kernel"
            points = draw_over_seeds(
                axes, values, label=f"{LABELS[arm]}: {what}", color=f"C{number}", linestyle=line, linewidth=1.4
            )
            rows += [
                {"arm": arm, "metric": metric, "step": x, "change": mean, "low": low, "high": high, "seeds": n}
                for x, mean, low, high, n in points
            ]
    if rows:
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel(f"change in {results.config.grokking.change_every} steps")
    legend(axes, columns=2)
    return rows


part = Part(
    "grokking",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "grokking",
            "Test accuracy of transformers that learn addition, by step. They memorise at a low learning rate; the "
            "rate is raised at the dotted line. Grey: what knowing that addition commutes is worth. Means over seeds.",
            draw_grokking,
        ),
        Figure(
            "grokking-change",
            "How fast the features of these transformers change: activation patterns of the feed-forward units (ΔA) "
            "and their kernel (ΔC). Means over seeds.",
            draw_change,
        ),
    ),
)
