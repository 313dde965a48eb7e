"""Part `vit`: a small vision transformer that learns drawn digits in pairs, for a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast.lab import Claim, Evidence, Figure, Outcome, Part, Results, Trial, paired_difference
from holdfast.lab.results import Values
from holdfast.lab.verdict import unusable
from holdfast.studies.solutions.optimizers import Arm
from holdfast.studies.solutions.paper import OURS, SHAMPOO
from holdfast.studies.solutions.rows import MARGIN, draw_row, unbracketed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record

SWEEPS: dict[str, tuple[Arm, tuple[float, ...]]] = {
    "sgd": (Arm(label="SGD"), (0.0125, 0.025, 0.05, 0.1, 0.2)),
    "shampoo": (Arm(label="Shampoo's direction, length of SGD", method="shampoo"), (0.0125, 0.025, 0.05, 0.1, 0.2)),
    "adamw": (Arm(label="AdamW", method="adamw"), (5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3)),
    "muon": (Arm(label="Muon", method="muon"), (1e-3, 2.5e-3, 5e-3, 1e-2, 2e-2)),
    "soap": (Arm(label="SOAP, short memory", method="soap"), (1e-4, 3e-4, 1e-3, 3e-3, 6e-3)),
}


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """Vision transformers without biases that learn drawn digits in pairs.

    Arguments:
        arms: names of optimisers; empty: the part is left out.
        examples: images that are learnt from.
        tests: images that test.
        noise: standard deviation of the noise on pixels.
        steps: of each pair.
        batch: images a step.
        level: learning accuracy at which they are compared.
        patch: side of a patch.
        dim: width of the residual stream.
        depth: number of blocks.
        heads: of each attention.
        device: where.
    """

    arms: tuple[str, ...] = ()
    examples: int = 60_000
    tests: int = 10_000
    noise: float = 0.3
    steps: int = 300
    batch: int = 64
    level: float = 0.95
    patch: int = 7
    dim: int = 64
    depth: int = 3
    heads: int = 4
    device: str = "cuda"


def trials(config: Any) -> Iterator[Trial[ViTConfig]]:
    """One trial a sweep.

    Arguments:
        config: the study's configuration.
    """
    settings: ViTConfig = config.vit
    gpu = 0.125 if settings.device.startswith("cuda") else 0.0
    for seed in config.large_range:
        for arm in settings.arms:
            yield Trial(seed, settings, {"arm": arm}, cost=50.0, gpu=gpu)


def run(trial: Trial[ViTConfig]) -> Outcome:
    """Train a network at each rate. All arms of a seed have the same images, weights and batches.

    Records and curve: see `forgetting.sweep`.
    """
    import torch

    from holdfast.studies.solutions.forgetting import sweep
    from holdfast.studies.solutions.glyph_images import SIDE, glyphs
    from holdfast.studies.solutions.tasks import centred, on, pairs
    from holdfast.studies.solutions.vision_transformer import VisionTransformer

    torch.set_float32_matmul_precision("highest")
    config, seed = trial.config, trial.seeds[0]
    arm, rates = SWEEPS[str(trial.labels["arm"])]
    split = on(centred(glyphs(config.examples + config.tests, config.noise, seed), config.tests), config.device)
    model = VisionTransformer(SIDE, config.patch, dim=config.dim, depth=config.depth, heads=config.heads, seed=seed).to(
        config.device
    )
    tasks = pairs(split)
    record, curve = sweep(
        model, arm, rates, tasks, level=config.level, steps=config.steps, batch=config.batch, seed=seed
    )
    return Outcome([record], {"rates": curve})


def _compared(results: Results, first: str, second: str, threshold: float, *, less: bool = False) -> Evidence:
    config: ViTConfig = results.config.vit
    if not config.arms:
        return unusable("this scale has no vision transformers; they are for a GPU:  --scale gpu")
    for arm in (first, second):
        bracketed = results.by_seed("bracketed", part="vit", arm=arm)
        if not all(bracketed.values()):
            return unusable(unbracketed(bracketed, SWEEPS[arm][0].label, config.level))
    return paired_difference(
        *(_values(results, arm) for arm in (first, second)),
        threshold=threshold,
        alternative="less" if less else "greater",
        names=(SWEEPS[first][0].label, SWEEPS[second][0].label),
    )


def _values(results: Results, arm: str) -> Values:
    return results.by_seed("matched", part="vit", arm=arm)


def _shampoo(results: Results) -> Evidence:
    return _compared(results, "shampoo", "sgd", MARGIN)


def _adamw(results: Results) -> Evidence:
    return _compared(results, "shampoo", "adamw", MARGIN)


def _muon(results: Results) -> Evidence:
    return _compared(results, "muon", "sgd", MARGIN, less=True)


def _soap(results: Results) -> Evidence:
    return _compared(results, "soap", "sgd", MARGIN, less=True)


CLAIMS = (
    Claim(
        "vit-shampoo",
        "A vision transformer that has learnt pairs to .95 keeps at least .05 more with Shampoo's direction than with "
        "SGD.",
        _shampoo,
        paper=SHAMPOO,
        family="vit",
        scale="gpu",
    ),
    Claim(
        "vit-adamw",
        "It keeps at least .05 more with Shampoo's direction than with AdamW, too.",
        _adamw,
        paper=SHAMPOO,
        family="vit",
        scale="gpu",
    ),
    Claim(
        "vit-muon",
        "With Muon it keeps no more than .05 above SGD.",
        _muon,
        paper=OURS,
        family="vit",
        scale="gpu",
    ),
    Claim(
        "vit-soap",
        "With SOAP and a short memory it keeps no more than .05 above SGD.",
        _soap,
        paper=OURS,
        family="vit",
        scale="gpu",
    ),
)


def draw_arms(results: Results, axes: Axes) -> list[Record]:
    """What each optimiser keeps."""
    rows: list[Record] = []
    for place, (arm, (settings, _)) in enumerate(SWEEPS.items()):
        values = list(_values(results, arm).values())
        if values:
            rows.append({"optimiser": settings.label, **draw_row(axes, place, values, "old")})
    axes.set_yticks(range(len(SWEEPS)), [settings.label for settings, _ in SWEEPS.values()])
    axes.invert_yaxis()
    axes.set_ylabel("optimiser")
    axes.set_xlabel(f"accuracy on the first four pairs, where learning accuracy is {results.config.vit.level:g}")
    return rows


part = Part(
    "vit",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "vit",
            "Vision transformers that learn drawn digits in five pairs: accuracy on the first four after the fifth, "
            "where all have learnt equally well. Large dots are means over seeds with their 95 % intervals.",
            draw_arms,
        ),
    ),
    needs={"pytorch_optimizer": "holdfast[solutions]"},
)
