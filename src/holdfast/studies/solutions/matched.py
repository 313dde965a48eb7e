"""Part `matched`: what optimisers keep of earlier tasks where all have learnt equally well.

At any one learning rate a slow optimiser forgets less, since it has learnt less. So each is swept over rates, and what
it keeps is read off at one learning accuracy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast.lab import Claim, Evidence, Figure, Outcome, Part, Results, Trial, mean_of, paired_difference
from holdfast.lab.results import Values
from holdfast.lab.verdict import unusable
from holdfast.studies.solutions.optimizers import Arm
from holdfast.studies.solutions.paper import OURS, SHAMPOO
from holdfast.studies.solutions.rows import MARGIN, draw_row, unbracketed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record

RATES = (0.0125, 0.025, 0.05, 0.1, 0.2)

SWEEPS: dict[str, tuple[Arm, tuple[float, ...]]] = {
    "sgd": (Arm(label="SGD"), RATES),
    "shampoo": (Arm(label="Shampoo's direction", method="shampoo"), RATES),
    "adamw": (Arm(label="AdamW", method="adamw"), (2.5e-4, 5e-4, 1e-3, 2e-3)),
    "adagrad": (Arm(label="AdaGrad", method="adagrad"), (4e-3, 8e-3, 1.6e-2, 3.2e-2)),
    "muon": (Arm(label="Muon", method="muon"), (2.5e-3, 5e-3, 1e-2, 2e-2)),
    "soap": (Arm(label="SOAP, short memory", method="soap"), (1e-3, 2e-3, 4e-3, 8e-3)),
}

STREAMS = {"pairs": "pairs of classes", "permuted": "permuted pixels"}


@dataclass(frozen=True, kw_only=True)
class MatchedConfig:
    """Networks without biases that learn tasks of digits in turn, at several learning rates.

    Arguments:
        arms: names of optimisers.
        streams: `pairs` of classes, or all with `permuted` pixels.
        levels: learning accuracy at which they are compared, for each stream.
        steps: of each task, for each stream.
        tasks: number of permutations.
        batch: images a step.
        width: units of each of the two hidden layers.
        tests: digits that are kept back.
    """

    arms: tuple[str, ...] = tuple(SWEEPS)
    streams: tuple[str, ...] = tuple(STREAMS)
    levels: tuple[float, ...] = (0.95, 0.9)
    steps: tuple[int, ...] = (100, 150)
    tasks: int = 5
    batch: int = 32
    width: int = 32
    tests: int = 540


def trials(config: Any) -> Iterator[Trial[MatchedConfig]]:
    """One trial a sweep.

    Arguments:
        config: the study's configuration.
    """
    settings: MatchedConfig = config.matched
    for seed in config.seed_range:
        for stream, steps in zip(settings.streams, settings.steps, strict=True):
            for arm in settings.arms:
                method, rates = SWEEPS[arm]
                heavy = method.method in ("shampoo", "soap", "muon")
                cost = steps / 100 * len(rates) * (1.0 if heavy else 0.2)
                yield Trial(seed, settings, {"stream": stream, "arm": arm}, cost=cost)


def run(trial: Trial[MatchedConfig]) -> Outcome:
    """Train a network at each rate. All arms of a seed have the same images, weights and batches.

    Records and curve: see `forgetting.sweep`.
    """
    from holdfast.studies.digits import CLASSES, digits
    from holdfast.studies.solutions.forgetting import sweep
    from holdfast.studies.solutions.streams import SPLIT
    from holdfast.studies.solutions.tasks import centred, network, pairs, permuted

    config, seed, stream = trial.config, trial.seeds[0], str(trial.labels["stream"])
    arm, rates = SWEEPS[str(trial.labels["arm"])]
    place = config.streams.index(stream)
    split = centred(digits(seed, SPLIT, extra="solutions"), config.tests)
    tasks = pairs(split) if stream == "pairs" else permuted(split, config.tasks, seed)
    sizes = (split.train.images.shape[1], config.width, config.width, CLASSES)
    model = network(sizes, seed)
    level, steps = config.levels[place], config.steps[place]
    record, curve = sweep(model, arm, rates, tasks, level=level, steps=steps, batch=config.batch, seed=seed)
    return Outcome([record], {"rates": curve})


def _values(results: Results, arm: str, stream: str) -> Values:
    return results.by_seed("matched", part="matched", arm=arm, stream=stream)


def _unmatched(results: Results, stream: str, *arms: str) -> Evidence | None:
    """Why arms are not compared, where one has not come to the level of the others."""
    config: MatchedConfig = results.config.matched
    for arm in arms:
        bracketed = results.by_seed("bracketed", part="matched", arm=arm, stream=stream)
        if not all(bracketed.values()):
            level = config.levels[config.streams.index(stream)]
            return unusable(unbracketed(bracketed, SWEEPS[arm][0].label, level))
    return None


def _gap(results: Results, stream: str, first: str, second: str, threshold: float, *, less: bool = False) -> Evidence:
    values = (_values(results, arm, stream) for arm in (first, second))
    test = paired_difference(
        *values,
        threshold=threshold,
        alternative="less" if less else "greater",
        names=(SWEEPS[first][0].label, SWEEPS[second][0].label),
    )
    return _unmatched(results, stream, first, second) or test


def _permuted(results: Results) -> Evidence:
    return _gap(results, "permuted", "shampoo", "sgd", MARGIN)


def _pairs(results: Results) -> Evidence:
    return _gap(results, "pairs", "shampoo", "sgd", 0.3)


def _adamw(results: Results) -> Evidence:
    return _gap(results, "pairs", "shampoo", "adamw", 0.0)


def _adamw_permuted(results: Results) -> Evidence:
    return _gap(results, "permuted", "shampoo", "adamw", 0.0)


def _comparator(results: Results) -> Evidence:
    half = Values.of(
        lambda shampoo, sgd, adagrad: (shampoo - adagrad) - (shampoo - sgd) / 2,
        *(_values(results, arm, "pairs") for arm in ("shampoo", "sgd", "adagrad")),
    )
    test = mean_of(half, threshold=0.0, alternative="less", name="the gap to AdaGrad less half of that to SGD")
    return _unmatched(results, "pairs", "shampoo", "sgd", "adagrad") or test


def _adagrad_permuted(results: Results) -> Evidence:
    return _gap(results, "permuted", "shampoo", "adagrad", 0.0)


def _muon(results: Results) -> Evidence:
    return _gap(results, "pairs", "muon", "sgd", MARGIN, less=True)


def _soap(results: Results) -> Evidence:
    return _gap(results, "pairs", "soap", "sgd", MARGIN, less=True)


def _muon_permuted(results: Results) -> Evidence:
    return _gap(results, "permuted", "muon", "sgd", MARGIN, less=True)


def _soap_permuted(results: Results) -> Evidence:
    return _gap(results, "permuted", "soap", "sgd", MARGIN, less=True)


CLAIMS = (
    Claim(
        "matched-permuted",
        "Where both have learnt permuted digits to .90, Shampoo's direction keeps at least .05 more than SGD.",
        _permuted,
        paper=SHAMPOO,
        family="matched",
        headline=True,
        plain="where both have learnt equally well, Shampoo forgets less of scrambled digits than SGD",
        figure="matched-permuted",
        scale="laptop",
    ),
    Claim(
        "matched-pairs",
        "Where both have learnt pairs of digits to .95, it keeps at least .30 more.",
        _pairs,
        paper=SHAMPOO,
        family="matched",
        scale="laptop",
    ),
    Claim(
        "matched-adamw",
        "On pairs Shampoo's direction keeps more than AdamW.",
        _adamw,
        paper=SHAMPOO,
        family="matched",
        scale="laptop",
    ),
    Claim(
        "matched-adamw-permuted",
        "On permuted digits Shampoo's direction keeps more than AdamW.",
        _adamw_permuted,
        paper=SHAMPOO,
        family="matched",
        scale="laptop",
    ),
    Claim(
        "matched-comparator",
        "Fourth condition: on pairs the gap to AdaGrad, whose steps shrink, is less than half of that to SGD.",
        _comparator,
        paper=OURS,
        family="comparator",
        scale="laptop",
    ),
    Claim(
        "matched-adagrad-permuted",
        "On permuted digits Shampoo's direction keeps more than AdaGrad.",
        _adagrad_permuted,
        paper=SHAMPOO,
        family="comparator",
        scale="laptop",
    ),
    Claim(
        "matched-muon",
        "Muon, a geometry without memory, keeps no more than .05 above SGD on pairs.",
        _muon,
        paper=OURS,
        family="memoryless",
        scale="laptop",
    ),
    Claim(
        "matched-soap",
        "SOAP with a short memory (β = .95) keeps no more than .05 above SGD on pairs.",
        _soap,
        paper=OURS,
        family="memoryless",
        scale="laptop",
    ),
    Claim(
        "matched-muon-permuted",
        "Muon keeps no more than .05 above SGD on permuted digits.",
        _muon_permuted,
        paper=OURS,
        family="memoryless",
        scale="laptop",
    ),
    Claim(
        "matched-soap-permuted",
        "SOAP with a short memory keeps no more than .05 above SGD on permuted digits.",
        _soap_permuted,
        paper=OURS,
        family="memoryless",
        scale="laptop",
    ),
)


def _draw(stream: str, results: Results, axes: Axes) -> list[Record]:
    config: MatchedConfig = results.config.matched
    rows: list[Record] = []
    for place, (arm, (settings, _)) in enumerate(SWEEPS.items()):
        values = list(_values(results, arm, stream).values())
        if values:
            rows.append({"optimiser": settings.label, **draw_row(axes, place, values, "old")})
    level = config.levels[config.streams.index(stream)] if stream in config.streams else float("nan")
    axes.set_yticks(range(len(SWEEPS)), [settings.label for settings, _ in SWEEPS.values()])
    axes.invert_yaxis()
    axes.set_ylabel("optimiser")
    axes.set_xlabel(f"accuracy on all but the last task, where learning accuracy is {level:g}")
    return rows


def draw_pairs(results: Results, axes: Axes) -> list[Record]:
    """What each optimiser keeps of pairs."""
    return _draw("pairs", results, axes)


def draw_permuted(results: Results, axes: Axes) -> list[Record]:
    """What each optimiser keeps of permuted digits."""
    return _draw("permuted", results, axes)


CAPTION = "Large dots are means over seeds with their 95 % intervals, small ones seeds."

part = Part(
    "matched",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "matched-permuted",
            f"What optimisers keep of permuted digits where they have learnt each task equally well. {CAPTION}",
            draw_permuted,
        ),
        Figure(
            "matched-pairs",
            f"What optimisers keep of pairs of digits where they have learnt each pair equally well. {CAPTION}",
            draw_pairs,
        ),
    ),
    needs={"pytorch_optimizer": "holdfast[solutions]", "sklearn": "holdfast[solutions]"},
)
