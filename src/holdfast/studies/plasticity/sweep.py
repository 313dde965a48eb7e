"""Part `sweep`: the paper's figure 2 at its own size: which learning rates and weight decays grok, norms held or free.

Meant for a GPU, where one program trains a whole grid. At scales with an empty grid the part has no trials.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

from holdfast.lab import Claim, Evidence, Figure, Outcome, Part, Results, Trial, paired_difference, progress
from holdfast.lab.figures import SHARE, draw_over_seeds, legend
from holdfast.lab.results import Values
from holdfast.studies.plasticity.shapes import Addition, TransformerShape

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record

GROKKED = 0.99

NETWORKS = {"bare": (False, 0.0), "norm": (True, 0.0), "scale-decay": (True, 1.0)}
"""Whether there are norm layers, and the weight decay of their scales."""


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """A grid of transformers that learn addition.

    Arguments:
        rates: constant learning rates; none: the part is left out.
        decays: weight decays of matrices.
        addition: what is learnt.
        shape: of the networks.
        steps: AdamW, on all pairs.
        evaluate_every: steps between two tests.
        device: where.
    """

    rates: tuple[float, ...] = ()
    decays: tuple[float, ...] = (0.0, 1e-2, 1e-1, 1.0)
    addition: Addition = field(default_factory=lambda: Addition(modulus=113, share=0.3))
    shape: TransformerShape = field(default_factory=lambda: TransformerShape(dim=128, hidden=512, constants=3))
    steps: int = 20_000
    evaluate_every: int = 100
    device: str = "cuda"


def trials(config: Any) -> Iterator[Trial[SweepConfig]]:
    """One trial a kind of network, with all cells of the grid.

    Arguments:
        config: the study's configuration.
    """
    settings: SweepConfig = config.sweep
    if not settings.rates:
        return
    for seed in config.dear_range:
        for network in NETWORKS:
            gpu = 1.0 if settings.device.startswith("cuda") else 0.0
            yield Trial(seed, settings, {"network": network}, cost=settings.steps / 50, gpu=gpu)


def run(trial: Trial[SweepConfig]) -> Outcome:
    """Train the grid. All cells of a seed have the same pairs, and all of one network the same initial weights.

    Records: for each `rate`, `decay` and `norms` (held or free) the `best` test accuracy, the final `train` accuracy
    and the `step` at which it grokked (the last one where it never did); for the `norms` all cells together, at a
    `rate` of 0, the share of cells that `grokked`.
    """
    from dataclasses import replace

    from holdfast.studies.plasticity.batched import Cell, Cells, train_cells

    config = trial.config
    norm, scale_decay = NETWORKS[str(trial.labels["network"])]
    grid = list(product(config.rates, config.decays, ("held", "free")))
    cells = [Cell(rate, decay, scale_decay, norms == "held") for rate, decay, norms in grid]
    networks = Cells(config.addition, replace(config.shape, norm=norm), cells, trial.seeds[0], config.device)
    found = train_cells(networks, config.steps, config.evaluate_every, GROKKED, progress.report)
    records: list[Record] = [
        {"rate": rate, "decay": decay, "norms": norms, "best": cell.best, "train": cell.train, "step": cell.step}
        for (rate, decay, norms), cell in zip(grid, found, strict=True)
    ]
    for norms in ("held", "free"):
        best = [float(row["best"] or 0.0) for row in records if row["norms"] == norms]
        share = sum(value >= GROKKED for value in best) / len(best)
        records.append({"rate": 0.0, "decay": 0.0, "norms": norms, "grokked": share})
    return Outcome(records)


def _share(results: Results, network: str, norms: str) -> Values:
    return results.by_seed("grokked", part="sweep", network=network, norms=norms, rate=0.0)


def _held(results: Results) -> Evidence:
    shares = (_share(results, "bare", norms) for norms in ("held", "free"))
    return paired_difference(*shares, bounds=(0, 1), names=("held norms", "free norms"))


def _restored(results: Results) -> Evidence:
    shares = (_share(results, network, "held") for network in ("scale-decay", "norm"))
    return paired_difference(*shares, bounds=(0, 1), names=("with scale decay", "without"))


CLAIMS = (
    Claim(
        "sweep-held",
        "Without norm layers more cells of a grid of learning rates and weight decays grok with held norms than with "
        "free ones.",
        _held,
        paper="held norms grok fast over the whole sweep (figure 2, left)",
        family="sweep",
        scale="gpu",
    ),
    Claim(
        "sweep-scale-decay",
        "With norm layers and held norms more of them grok with weight decay on the norm layers' scales than without.",
        _restored,
        paper="scale decay restores grokking (figure 2, right)",
        family="sweep",
        scale="gpu",
    ),
)


def draw_sweep(results: Results, axes: Axes) -> list[Record]:
    """Best test accuracy by learning rate, a line a network, means over weight decays."""
    rows: list[Record] = []
    for number, network in enumerate(NETWORKS):
        for norms in ("held", "free"):
            here = [row for row in results.where(part="sweep", network=network, norms=norms) if row["rate"] != 0.0]
            values: dict[float, list[float]] = {}
            for rate, seed in sorted({(float(row["rate"] or 0.0), int(row["seed"] or 0)) for row in here}):
                best = [float(row["best"] or 0.0) for row in here if row["rate"] == rate and row["seed"] == seed]
                values.setdefault(rate, []).append(sum(best) / len(best))
            line = "-" if norms == "held" else "--"
            label = f"{network}, {norms} norms"
            points = draw_over_seeds(
                axes, values, bounds=SHARE, label=label, color=f"C{number}", linestyle=line, marker="o"
            )
            rows += [
                {"network": network, "norms": norms, "rate": x, "best": mean, "low": low, "high": high, "seeds": n}
                for x, mean, low, high, n in points
            ]
    if rows:
        axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("best test accuracy, mean over weight decays")
    legend(axes)
    return rows


part = Part(
    "sweep",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "sweep",
            "Transformers of the published size that learn addition at constant learning rates: best test accuracy, "
            "with norms held or free. Means over weight decays and seeds.",
            draw_sweep,
        ),
    ),
)
