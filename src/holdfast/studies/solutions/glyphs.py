"""Part `glyphs`: the same at ten times the size, for a GPU: what memory, resets and biases do, all combined.

Also permuted pixels, ten tasks long, at matched learning accuracy.
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
from holdfast.studies.solutions.rows import MARGIN, draw_row, not_learnt, unbracketed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record

BETAS = (0.9, 0.99, 0.999)
FACTORIAL = {
    **{
        f"sgd{end}": Arm(label=f"SGD{told}", bias=bias)
        for bias, end, told in ((False, "", ""), (True, "-bias", ", biases"))
    },
    **{
        f"shampoo-{beta:g}{again}{end}": Arm(
            label=f"Shampoo's direction, β₂ = {beta:g}{', reset' if again else ''}{', biases' if end else ''}",
            method="shampoo",
            beta=beta,
            reset=bool(again),
            bias=bool(end),
        )
        for end in ("", "-bias")
        for again in ("", "-reset")
        for beta in BETAS
    },
}
SWEEPS: dict[str, tuple[Arm, tuple[float, ...]]] = {
    "sgd": (Arm(label="SGD"), (0.003, 0.006, 0.0125, 0.025, 0.05, 0.1, 0.2)),
    "shampoo": (Arm(label="Shampoo's direction", method="shampoo"), (0.003, 0.006, 0.0125, 0.025, 0.05, 0.1, 0.2)),
    "adamw": (Arm(label="AdamW", method="adamw"), (3e-5, 6e-5, 1.25e-4, 2.5e-4, 5e-4, 1e-3, 2e-3)),
}


@dataclass(frozen=True, kw_only=True)
class GlyphsConfig:
    """Networks that learn drawn digits in turn.

    Arguments:
        arms: names of the factorial's; empty: the part is left out.
        sweeps: names of the optimisers that are swept over rates on permuted pixels.
        examples: images that are learnt from.
        tests: images that test.
        noise: standard deviation of the noise on pixels.
        rate: learning rate of the factorial.
        pair_steps: of each pair of classes.
        steps: of each permutation.
        tasks: number of permutations.
        level: learning accuracy at which sweeps are compared.
        batch: images a step.
        width: units of each of the two hidden layers.
        device: where.
    """

    arms: tuple[str, ...] = ()
    sweeps: tuple[str, ...] = tuple(SWEEPS)
    examples: int = 60_000
    tests: int = 10_000
    noise: float = 0.3
    rate: float = 0.05
    pair_steps: int = 300
    steps: int = 300
    tasks: int = 10
    level: float = 0.9
    batch: int = 64
    width: int = 256
    device: str = "cuda"


def trials(config: Any) -> Iterator[Trial[GlyphsConfig]]:
    """One trial a network of the factorial, a sweep, or a linear network.

    Arguments:
        config: the study's configuration.
    """
    settings: GlyphsConfig = config.glyphs
    if not settings.arms:
        return
    gpu = 0.125 if settings.device.startswith("cuda") else 0.0
    for seed in config.large_range:
        yield Trial(seed, settings, {"stream": "linear"}, cost=1.0, gpu=gpu)
        for arm in settings.arms:
            yield Trial(seed, settings, {"stream": "pairs", "arm": arm}, cost=5.0, gpu=gpu)
        for arm in settings.sweeps:
            yield Trial(seed, settings, {"stream": "permuted", "arm": arm}, cost=100.0, gpu=gpu)


def run(trial: Trial[GlyphsConfig]) -> Outcome:
    """Train one network, or sweep. All arms of a seed have the same images, weights and batches.

    Records: of pairs and permuted pixels see `forgetting`; of the linear network its `accuracy` on all classes.
    """
    import torch

    from holdfast.studies.digits import CLASSES, accuracy, batches_of, learn
    from holdfast.studies.solutions.forgetting import learn_in_turn, sweep
    from holdfast.studies.solutions.glyph_images import glyphs
    from holdfast.studies.solutions.streams import BATCHES
    from holdfast.studies.solutions.tasks import centred, network, on, pairs, permuted

    torch.set_float32_matmul_precision("highest")  # statistics of gradients do not bear less
    config, seed, stream = trial.config, trial.seeds[0], trial.labels["stream"]
    split = on(centred(glyphs(config.examples + config.tests, config.noise, seed), config.tests), config.device)
    inputs = split.train.images.shape[1]
    sizes = (inputs, config.width, config.width, CLASSES)
    if stream == "linear":
        model = network((inputs, CLASSES), seed, bias=True).to(config.device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        batches = batches_of(config.examples, 5 * config.steps, config.batch, seed, BATCHES).to(config.device)
        for _ in learn(model, optimizer, split.train, batches):
            pass
        return Outcome([{"accuracy": accuracy(model, split.test)}])
    name = str(trial.labels["arm"])
    if stream == "pairs":
        arm = FACTORIAL[name]
        model = network(sizes, seed, bias=arm.bias).to(config.device)
        record, curve = learn_in_turn(
            model, arm, config.rate, pairs(split), steps=config.pair_steps, batch=config.batch, seed=seed
        )
        return Outcome([record], {"tasks": curve})
    arm, rates = SWEEPS[name]
    model = network(sizes, seed).to(config.device)
    record, curve = sweep(
        model,
        arm,
        rates,
        permuted(split, config.tasks, seed),
        level=config.level,
        steps=config.steps,
        batch=config.batch,
        seed=seed,
    )
    return Outcome([record], {"rates": curve})


MISSING = "this scale has no glyphs; their arms are for a GPU:  --scale gpu"


def _values(results: Results, arm: str, metric: str = "old") -> Values:
    return results.by_seed(metric, part="glyphs", stream="pairs", arm=arm)


def _compared(results: Results, first: str, second: str, threshold: float, *, less: bool = False) -> Evidence:
    if not results.config.glyphs.arms:
        return unusable(MISSING)
    for arm in (first, second):
        reason = not_learnt(_values(results, arm, "learn"), FACTORIAL[arm].label)
        if reason:
            return unusable(reason)
    return paired_difference(
        *(_values(results, arm) for arm in (first, second)),
        threshold=threshold,
        alternative="less" if less else "greater",
        names=(FACTORIAL[first].label, FACTORIAL[second].label),
    )


def _hard(results: Results) -> Evidence:
    if not results.config.glyphs.arms:
        return unusable(MISSING)
    values = results.by_seed("accuracy", part="glyphs", stream="linear")
    return mean_of(values, threshold=0.95, alternative="less", bounds=(0, 1), name="the accuracy of a linear network")


def _shampoo(results: Results) -> Evidence:
    return _compared(results, "shampoo-0.999", "sgd", MARGIN)


def _memory(results: Results) -> Evidence:
    return _compared(results, "shampoo-0.999-reset", "shampoo-0.999", -MARGIN, less=True)


def _beta(results: Results) -> Evidence:
    return _compared(results, "shampoo-0.9", "shampoo-0.999", -MARGIN, less=True)


def _biases(results: Results) -> Evidence:
    return _compared(results, "shampoo-0.999-bias", "shampoo-0.999", -MARGIN, less=True)


def _permuted(results: Results, second: str) -> Evidence:
    config: GlyphsConfig = results.config.glyphs
    if not config.arms:
        return unusable(MISSING)
    for arm in ("shampoo", second):
        bracketed = results.by_seed("bracketed", part="glyphs", stream="permuted", arm=arm)
        if not all(bracketed.values()):
            return unusable(unbracketed(bracketed, SWEEPS[arm][0].label, config.level))
    values = (results.by_seed("matched", part="glyphs", stream="permuted", arm=arm) for arm in ("shampoo", second))
    return paired_difference(*values, threshold=MARGIN, names=("Shampoo's direction", SWEEPS[second][0].label))


def _permuted_sgd(results: Results) -> Evidence:
    return _permuted(results, "sgd")


def _permuted_adamw(results: Results) -> Evidence:
    return _permuted(results, "adamw")


CLAIMS = (
    Claim(
        "glyphs-hard",
        "Drawn digits are no toy: a linear network is right for less than .95 of them.",
        _hard,
        paper=OURS,
        family="glyphs-hard",
        scale="gpu",
    ),
    Claim(
        "glyphs-shampoo",
        "On pairs of drawn digits, without biases, Shampoo's direction keeps at least .05 more than SGD.",
        _shampoo,
        paper=SHAMPOO,
        family="glyphs",
        scale="gpu",
    ),
    Claim(
        "glyphs-memory",
        "Forgetting its statistics at each new pair costs it at least .05.",
        _memory,
        paper=OURS,
        family="glyphs",
        scale="gpu",
    ),
    Claim(
        "glyphs-beta",
        "A memory of β₂ = .9 costs it at least .05, too.",
        _beta,
        paper=OURS,
        family="glyphs",
        scale="gpu",
    ),
    Claim(
        "glyphs-biases",
        "Biases cost it at least .05, too.",
        _biases,
        paper=OURS,
        family="glyphs",
        scale="gpu",
    ),
    Claim(
        "glyphs-permuted",
        "Where both have learnt ten permutations to .90, Shampoo's direction keeps at least .05 more than SGD.",
        _permuted_sgd,
        paper=SHAMPOO,
        family="glyphs-permuted",
        scale="gpu",
    ),
    Claim(
        "glyphs-permuted-adamw",
        "There Shampoo's direction keeps at least .05 more than AdamW, too.",
        _permuted_adamw,
        paper=SHAMPOO,
        family="glyphs-permuted",
        scale="gpu",
    ),
)


def draw_factorial(results: Results, axes: Axes) -> list[Record]:
    """What each arm of the factorial keeps."""
    rows: list[Record] = []
    arms = [arm for arm in FACTORIAL if arm in results.config.glyphs.arms]
    for place, arm in enumerate(arms):
        values = list(_values(results, arm).values())
        if values:
            colour = "C1" if FACTORIAL[arm].bias else "C0"
            rows.append({"arm": FACTORIAL[arm].label, **draw_row(axes, place, values, "old", colour)})
    axes.set_yticks(range(len(arms)), [FACTORIAL[arm].label for arm in arms])
    axes.invert_yaxis()
    axes.set_ylabel("optimiser and network")
    axes.set_xlabel("accuracy on the first four pairs at the end")
    return rows


part = Part(
    "glyphs",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "glyphs",
            "Drawn digits in five pairs: accuracy on the first four after the fifth, for each memory of Shampoo, with "
            "resets and without, with biases and without. Large dots are means over seeds with their 95 % intervals.",
            draw_factorial,
        ),
    ),
    needs={"pytorch_optimizer": "holdfast[solutions]"},
)
