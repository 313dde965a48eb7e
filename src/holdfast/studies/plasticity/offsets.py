"""Part `offsets`: the paper's figure 3 at its own size: re-warming after ever more steps at a rate too low to grok.

Meant for a GPU, where one program trains all offsets and peaks. At scales without peaks the part has no trials.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

from holdfast.lab import Claim, Evidence, Figure, Outcome, Part, Results, Trial, all_of, mean_of, progress
from holdfast.lab.figures import SHARE, draw_over_seeds, legend
from holdfast.lab.results import Values
from holdfast.studies.plasticity.shapes import Addition, TransformerShape

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record

GROKKED = 0.99


@dataclass(frozen=True, kw_only=True)
class OffsetsConfig:
    """Transformers with held norms and scale decay that are re-warmed once.

    Arguments:
        peaks: learning rates that they are re-warmed to, ascending; none: the part is left out.
        offsets: steps before that, ascending.
        low: rate before it.
        final: rate at the end of the cosine.
        warmup: steps in which the rate rises.
        cycle: steps from the re-warm to the end of the cosine.
        scale_decay: weight decay of the norm layers' scales.
        addition: what is learnt.
        shape: of the networks.
        evaluate_every: steps between two tests.
        device: where.
    """

    peaks: tuple[float, ...] = ()
    offsets: tuple[int, ...] = (0, 1_000, 10_000, 100_000)
    low: float = 1e-5
    final: float = 1e-4
    warmup: int = 1_000
    cycle: int = 20_000
    scale_decay: float = 1.0
    addition: Addition = field(default_factory=lambda: Addition(modulus=113, share=0.3))
    shape: TransformerShape = field(default_factory=lambda: TransformerShape(dim=128, hidden=512, constants=3))
    evaluate_every: int = 100
    device: str = "cuda"


def trials(config: Any) -> Iterator[Trial[OffsetsConfig]]:
    """One trial a seed, with all offsets and peaks.

    Arguments:
        config: the study's configuration.
    """
    settings: OffsetsConfig = config.offsets
    if settings.peaks:
        for seed in config.dear_range:
            steps = settings.offsets[-1] + settings.cycle
            gpu = 1.0 if settings.device.startswith("cuda") else 0.0
            yield Trial(seed, settings, cost=steps / 100, gpu=gpu)


def run(trial: Trial[OffsetsConfig]) -> Outcome:
    """Train all networks of a seed, each until the end of the longest.

    Records: for each `offset` and `peak` the `best` test accuracy, the final `train` accuracy, and the steps from the
    re-warm until it grokked (`delay`; negative where it did so before, the last step where it never did).
    """
    from holdfast.optim.rewarming.cycle import Cycle
    from holdfast.studies.plasticity.batched import Cell, Cells, train_cells

    config = trial.config
    grid = list(product(config.offsets, config.peaks))
    cells = [
        Cell(
            config.low,
            scale_decay=config.scale_decay,
            cycle=Cycle(peak, config.final, config.warmup, config.cycle, config.low),
            offset=offset,
        )
        for offset, peak in grid
    ]
    networks = Cells(config.addition, config.shape, cells, trial.seeds[0], config.device)
    steps = config.offsets[-1] + config.cycle
    found = train_cells(networks, steps, config.evaluate_every, GROKKED, progress.report)
    return Outcome(
        [
            {"offset": offset, "peak": peak, "best": cell.best, "train": cell.train, "delay": cell.step - offset}
            for (offset, peak), cell in zip(grid, found, strict=True)
        ]
    )


def _values(results: Results, offset: int, peak: int) -> Values:
    config: OffsetsConfig = results.config.offsets
    peaks = config.peaks or (0.0,)
    return results.by_seed("best", part="offsets", offset=config.offsets[offset], peak=peaks[peak])


def _any(results: Results) -> Evidence:
    config: OffsetsConfig = results.config.offsets
    return all_of(
        [
            mean_of(
                _values(results, place, -1),
                threshold=GROKKED,
                cases=config.addition.tests,
                name=f"best accuracy after {offset} steps",
            )
            for place, offset in enumerate(config.offsets)
        ]
    )


def _never(results: Results) -> Evidence:
    config: OffsetsConfig = results.config.offsets
    return all_of(
        [
            mean_of(
                _values(results, place, 0),
                threshold=GROKKED,
                alternative="less",
                cases=config.addition.tests,
                name=f"best accuracy after {offset} steps",
            )
            for place, offset in enumerate(config.offsets)
        ]
    )


CLAIMS = (
    Claim(
        "offsets-any",
        "Re-warming to the higher peak groks (test accuracy of at least .99) after each of the offsets.",
        _any,
        paper="after any offset up to several 100,000 steps (figure 3)",
        family="offsets",
        scale="gpu",
    ),
    Claim(
        "offsets-never",
        "Re-warming to the lower peak groks after none of them.",
        _never,
        paper="re-warming to 1e-3 does not grok (figure 3)",
        family="offsets",
        scale="gpu",
    ),
)


def draw_offsets(results: Results, axes: Axes) -> list[Record]:
    """Best test accuracy by offset, a line a peak."""
    rows: list[Record] = []
    config: OffsetsConfig = results.config.offsets
    for number, peak in enumerate(config.peaks):
        values = {offset: list(_values(results, place, number).values()) for place, offset in enumerate(config.offsets)}
        points = draw_over_seeds(axes, values, bounds=SHARE, dots=True, marker="o", label=f"re-warmed to {peak:g}")
        rows += [
            {"peak": peak, "offset": x, "best": mean, "low": low, "high": high, "seeds": n}
            for x, mean, low, high, n in points
        ]
    axes.set_xscale("symlog", linthresh=1000)
    axes.set_xlabel("steps before the re-warm")
    axes.set_ylabel("best test accuracy")
    legend(axes)
    return rows


part = Part(
    "offsets",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "offsets",
            "Transformers of the published size that are re-warmed after some steps at a low learning rate: best test "
            "accuracy. Lines are means over seeds, dots are seeds.",
            draw_offsets,
        ),
    ),
)
