"""Part `warm_start`: whether a network that has learnt a part of the digits first ends worse than one that had all.

On images of 8 × 8 and small networks there is no such gap to close. The part says so rather than leave it out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from holdfast.lab import Claim, Evidence, Figure, Outcome, Part, Results, Trial, paired_difference
from holdfast.lab.figures import SHARE, draw_over_seeds, legend
from holdfast.lab.results import Values
from holdfast.studies.plasticity.shapes import Layers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record

NORMS = ("held", "free")
SCHEDULES = {"rewarm": "re-warmed", "decay": "one decay"}


@dataclass(frozen=True, kw_only=True)
class WarmStartConfig:
    """Networks that learn a part of the digits, then all.

    Arguments:
        fractions: of the digits in the first phase, ascending; the last is all of them.
        tests: digits that are kept back.
        canvas: side of the images.
        noise: standard deviation of the noise on pixels.
        steps: of each phase, Adam.
        batch: images a step.
        rate: peak of the learning rate.
        final: lowest rate, as a share of the peak.
        layers: of the network, with LayerNorm.
    """

    fractions: tuple[float, ...] = (0.1, 0.5, 1.0)
    tests: int = 500
    canvas: int = 10
    noise: float = 0.2
    steps: int = 1000
    batch: int = 64
    rate: float = 3e-3
    final: float = 1 / 30
    layers: Layers = field(default_factory=lambda: Layers(depth=2))


def trials(config: Any) -> Iterator[Trial[WarmStartConfig]]:
    """One trial a network.

    Arguments:
        config: the study's configuration.
    """
    settings: WarmStartConfig = config.warm_start
    for seed in config.seed_range:
        for fraction in settings.fractions:
            for schedule in SCHEDULES:
                for norms in NORMS:
                    labels: dict[str, str | float] = {"fraction": fraction, "schedule": schedule, "norms": norms}
                    yield Trial(seed, settings, labels, cost=settings.steps / 750)


def run(trial: Trial[WarmStartConfig]) -> Outcome:
    """Train one network. All arms of a seed have the same images, initial weights and second phase.

    Records: `accuracy` on test images `after` the first phase and at the end.
    """
    import torch

    from holdfast.optim import Projector, Rewarm
    from holdfast.studies.digits import CLASSES, Labelled, accuracy, batches_of, digits, learn
    from holdfast.studies.plasticity.digits import network, on_canvas
    from holdfast.studies.plasticity.streams import BATCHES, SPLIT

    config, seed = trial.config, trial.seeds[0]
    data = on_canvas(digits(seed, SPLIT, extra="plasticity"), config.canvas, config.noise, seed)
    tests = Labelled(data.images[: config.tests], data.labels[: config.tests])
    learnt = Labelled(data.images[config.tests :], data.labels[config.tests :])
    some = int(float(trial.labels["fraction"] or 0.0) * len(learnt.images))
    model = network(data.images.shape[1], CLASSES, config.layers, norm=True, seed=seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.rate, fused=True)
    if trial.labels["norms"] == "held":
        Projector(model, optimizer)
    rewarm = trial.labels["schedule"] == "rewarm"
    schedule = Rewarm(
        optimizer,
        peak=config.rate,
        final=config.rate * config.final,
        period=config.steps * (1 if rewarm else 2),
        cyclic=rewarm,
    )
    record = {}
    for number, (metric, count) in enumerate((("after", some), ("accuracy", len(learnt.images)))):
        phase = Labelled(learnt.images[:count], learnt.labels[:count])
        for _ in learn(model, optimizer, phase, batches_of(count, config.steps, config.batch, seed, BATCHES, number)):
            schedule.step()
        record[metric] = accuracy(model, tests)
    return Outcome([record])


def _values(results: Results, place: int, schedule: str, norms: str) -> Values:
    fraction = results.config.warm_start.fractions[place]
    return results.by_seed("accuracy", part="warm_start", fraction=fraction, schedule=schedule, norms=norms)


def _compared(results: Results, schedule: str, norms: str, threshold: float) -> Evidence:
    """Accuracy after the least fraction of the digits less that after all."""
    values = (_values(results, place, schedule, norms) for place in (0, -1))
    alternative: Any = "less" if schedule == "decay" else "greater"
    names = ("warm-started on 10 %", "on all")
    return paired_difference(*values, threshold=threshold, alternative=alternative, names=names)


def _gap(results: Results) -> Evidence:
    return _compared(results, "decay", "free", -0.02)


def _closes(results: Results) -> Evidence:
    return _compared(results, "rewarm", "held", -0.02)


def _needs(results: Results) -> Evidence:
    values = (_values(results, 0, "rewarm", norms) for norms in NORMS)
    return paired_difference(*values, threshold=0.02, names=("held norms", "free norms"))


def _gains(results: Results) -> Evidence:
    values = (_values(results, 0, schedule, "held") for schedule in SCHEDULES)
    return paired_difference(*values, names=("re-warmed", "one decay"))


CLAIMS = (
    Claim(
        "warm-start-gap",
        "With one decay and free norms, a network that had 10 % of the digits first ends more than .02 below one that "
        "had all of them.",
        _gap,
        paper="a gap on CIFAR-10 (figure 4)",
        family="warm-start",
        scale="laptop",
    ),
    Claim(
        "warm-start-closes",
        "With held norms and a re-warmed rate it ends at most .02 below.",
        _closes,
        paper="the same accuracy whatever the first fraction (figure 4)",
        family="warm-start",
        scale="laptop",
    ),
    Claim(
        "warm-start-norms",
        "Re-warmed after 10 %, held norms gain more than .02 over free ones.",
        _needs,
        paper="cycling the rate with free norms does not close the gap (figure 4)",
        family="warm-start",
        scale="laptop",
    ),
    Claim(
        "warm-start-rewarm",
        "With held norms re-warming after 10 % is better than one decay.",
        _gains,
        paper="both ingredients are needed (figure 5)",
        family="warm-start",
        scale="laptop",
    ),
)


def draw_fractions(results: Results, axes: Axes) -> list[Record]:
    """Final accuracy by the fraction of the first phase."""
    rows: list[Record] = []
    for number, (schedule, label) in enumerate(SCHEDULES.items()):
        for norms in NORMS:
            values = {
                fraction: list(_values(results, place, schedule, norms).values())
                for place, fraction in enumerate(results.config.warm_start.fractions)
            }
            look: dict[str, Any] = {"color": f"C{number}", "linestyle": "-" if norms == "held" else "--", "marker": "o"}
            points = draw_over_seeds(
                axes, values, bounds=SHARE, dots=True, label=f"{label}, norms {norms}", markersize=4, **look
            )
            rows += [
                {
                    "schedule": schedule,
                    "norms": norms,
                    "fraction": x,
                    "accuracy": mean,
                    "low": low,
                    "high": high,
                    "seeds": n,
                }
                for x, mean, low, high, n in points
            ]
    axes.set_xlabel("fraction of the digits in the first phase")
    axes.set_ylabel("test accuracy at the end")
    legend(axes)
    return rows


part = Part(
    "warm_start",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "warm-start",
            "Test accuracy of networks that had a fraction of the digits first and all of them then. Lines are means "
            "over seeds, dots are seeds.",
            draw_fractions,
        ),
    ),
    needs={"sklearn": "holdfast[plasticity]"},
)
