"""Part `primacy`: what labels that were wrong at first cost a network that gets the right ones afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from holdfast.lab import Claim, Evidence, Figure, Outcome, Part, Results, Trial, equivalent, mean_of, paired_difference
from holdfast.lab.figures import GREY, SHARE, legend, seed_mean
from holdfast.lab.results import Values
from holdfast.studies.plasticity.shapes import Layers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record

NORMS = ("held", "free")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """How the learning rate runs through the two phases.

    Arguments:
        label: in figures.
        schedule: decay: one cosine over both phases; rewarm: a cosine for each; constant.
        high: whether the peak is the higher one.
        fresh: whether the first phase is left out.
        shrink: whether weights are shrunk and perturbed between the phases.
    """

    label: str
    schedule: str = "rewarm"
    high: bool = False
    fresh: bool = False
    shrink: bool = False


ARMS = {
    "fresh": Arm(label="fresh network", fresh=True),
    "decay": Arm(label="one decay", schedule="decay"),
    "constant": Arm(label="constant", schedule="constant"),
    "rewarm": Arm(label="re-warmed"),
    "fresh-high": Arm(label="fresh network, peak 1e-2", fresh=True, high=True),
    "rewarm-high": Arm(label="re-warmed, peak 1e-2", high=True),
    "shrink": Arm(label="shrink and perturb, re-warmed", shrink=True),
}


@dataclass(frozen=True, kw_only=True)
class PrimacyConfig:
    """Networks that first memorise random labels of images.

    Arguments:
        examples: digits that are learnt from; the others test.
        canvas: side of the images; digits lie anywhere in them.
        noise: standard deviation of the noise on pixels.
        first: steps with random labels, Adam.
        second: steps with true labels.
        batch: images a step.
        rate: peak of the learning rate.
        high_rate: that of arms with a higher one.
        final: lowest rate, as a share of the peak.
        layers: of the network, with LayerNorm.
    """

    examples: int = 800
    canvas: int = 10
    noise: float = 0.2
    first: int = 1000
    second: int = 800
    batch: int = 64
    rate: float = 3e-3
    high_rate: float = 1e-2
    final: float = 1 / 30
    layers: Layers = field(default_factory=lambda: Layers(depth=2))


def trials(config: Any) -> Iterator[Trial[PrimacyConfig]]:
    """One trial a network.

    Arguments:
        config: the study's configuration.
    """
    settings: PrimacyConfig = config.primacy
    for seed in config.seed_range:
        for arm in ARMS:
            for norms in NORMS:
                cost = (settings.first + settings.second) / 1500
                yield Trial(seed, settings, {"arm": arm, "norms": norms}, cost=cost)


def run(trial: Trial[PrimacyConfig]) -> Outcome:
    """Train one network through both phases. All arms of a seed have the same images, labels, batches and weights.

    Records: `accuracy` on test images at the end, `memorised` (accuracy on the random labels after the first phase;
    nothing where there was none) and the sum of the matrices' `norm`s.
    """
    import torch

    from holdfast.optim import Projector, Rewarm, shrink_and_perturb_
    from holdfast.studies.digits import CLASSES, Labelled, accuracy, batches_of, digits, learn
    from holdfast.studies.plasticity.digits import network, on_canvas, random_labels
    from holdfast.studies.plasticity.measures import norms
    from holdfast.studies.plasticity.streams import BATCHES, SPLIT

    config, seed, arm = trial.config, trial.seeds[0], ARMS[str(trial.labels["arm"])]
    data = on_canvas(digits(seed, SPLIT, extra="plasticity"), config.canvas, config.noise, seed)
    learnt = Labelled(data.images[: config.examples], data.labels[: config.examples])
    tests = Labelled(data.images[config.examples :], data.labels[config.examples :])
    phases = [
        (Labelled(learnt.images, random_labels(len(learnt.images), seed)), config.first),
        (learnt, config.second),
    ]
    inputs = data.images.shape[1]
    model = network(inputs, CLASSES, config.layers, norm=True, seed=seed)
    peak = config.high_rate if arm.high else config.rate
    optimizer = torch.optim.Adam(model.parameters(), lr=peak, fused=True)
    if trial.labels["norms"] == "held":
        Projector(model, optimizer)
    schedule: Rewarm | None = None
    memorised: float | None = None
    for number, (labelled, steps) in enumerate(phases):
        if arm.fresh and number == 0:
            continue
        if arm.shrink and number == 1:
            shrink_and_perturb_(model, network(inputs, CLASSES, config.layers, norm=True, seed=seed + (1 << 20)))
            optimizer.state.clear()
        if schedule is None and arm.schedule != "constant":
            period = config.first + config.second if arm.schedule == "decay" else steps
            schedule = Rewarm(optimizer, peak=peak, final=peak * config.final, period=period)
        elif arm.schedule == "rewarm" and schedule is not None:
            schedule = Rewarm(optimizer, peak=peak, final=peak * config.final, period=steps)
        batches = batches_of(len(labelled.images), steps, config.batch, seed, BATCHES, number)
        for _ in learn(model, optimizer, labelled, batches):
            if schedule is not None:
                schedule.step()
        memorised = accuracy(model, labelled) if number == 0 else memorised
    return Outcome([{"accuracy": accuracy(model, tests), "memorised": memorised, "norm": norms(model)}])


def _values(results: Results, arm: str, norms: str = "held") -> Values:
    return results.by_seed("accuracy", part="primacy", arm=arm, norms=norms)


def _decay(results: Results) -> Evidence:
    return paired_difference(
        _values(results, "fresh"), _values(results, "decay"), threshold=0.04, names=("fresh", "one decay")
    )


def _rewarm(results: Results) -> Evidence:
    recovered = Values.of(
        lambda fresh, decay, rewarm: rewarm - (fresh + decay) / 2,
        *(_values(results, arm) for arm in ("fresh", "decay", "rewarm")),
    )
    return mean_of(recovered, threshold=0.0, name="the accuracy above the middle of the gap")


def _norms(results: Results) -> Evidence:
    return equivalent(
        _values(results, "rewarm"), _values(results, "rewarm", "free"), margin=0.02, names=("held norms", "free norms")
    )


def _gap(results: Results, high: str) -> Values:
    return Values.of(
        lambda fresh, rewarm: fresh - rewarm, *(_values(results, arm + high) for arm in ("fresh", "rewarm"))
    )


def _peak(results: Results) -> Evidence:
    names = ("the gap at the higher peak", "that at the lower one")
    return paired_difference(_gap(results, "-high"), _gap(results, ""), alternative="less", names=names)


CLAIMS = (
    Claim(
        "primacy-rewarm",
        "Of what random labels at first cost a network with held norms whose learning rate decays once, re-warming the "
        "rate when the true labels come wins back more than half.",
        _rewarm,
        paper="re-warming closes the gap of a warm start (figure 4)",
        family="primacy",
        headline=True,
        plain="raising the learning rate again wins back most of what wrong first labels cost",
        figure="primacy",
        scale="laptop",
    ),
    Claim(
        "primacy-decay",
        "With one decay over both phases its test accuracy is at least .04 below that of a fresh network.",
        _decay,
        paper="one decay does worst in a warm start (figures 4 and 5)",
        family="primacy",
        scale="laptop",
    ),
    Claim(
        "primacy-norms",
        "Over so few steps it makes no difference whether norms are held: re-warmed, within .02.",
        _norms,
        paper="held norms are needed (figure 4)",
        family="primacy",
        scale="laptop",
    ),
    Claim(
        "primacy-peak",
        "A higher peak, in both phases, makes the gap to a fresh network at the same peak smaller.",
        _peak,
        paper="a peak of ten times the first one closes the gap best (figure 13)",
        family="primacy",
        scale="laptop",
    ),
)


def draw_primacy(results: Results, axes: Axes) -> list[Record]:
    """Test accuracy of each arm, with held and with free norms."""
    rows: list[Record] = []
    for number, norms in enumerate(NORMS):
        for place, (arm, settings) in enumerate(ARMS.items()):
            values = list(_values(results, arm, norms).values())
            if not values:
                continue
            mean = seed_mean(values, bounds=SHARE)
            height = place + 0.4 * number - 0.2
            label = f"norms {norms}" if not place else None
            ends = [[mean.mean - mean.low], [mean.high - mean.mean]]
            axes.plot(values, [height] * len(values), ".", color=GREY, markersize=3)
            axes.errorbar(mean.mean, height, xerr=ends, fmt="o", color=f"C{number}", markersize=5, label=label)
            rows.append(
                {
                    "arm": settings.label,
                    "norms": norms,
                    "accuracy": mean.mean,
                    "low": mean.low,
                    "high": mean.high,
                    "seeds": mean.seeds,
                }
            )
    axes.set_yticks(range(len(ARMS)), [arm.label for arm in ARMS.values()])
    axes.invert_yaxis()
    axes.set_ylabel("learning rate")
    axes.set_xlabel("test accuracy")
    legend(axes, columns=2)
    return rows


part = Part(
    "primacy",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "primacy",
            "Digits on a larger canvas with noise: test accuracy after random labels first and true ones then. Large "
            "dots are means over seeds with their 95 % intervals, small ones seeds.",
            draw_primacy,
        ),
    ),
    needs={"sklearn": "holdfast[plasticity]"},
)
