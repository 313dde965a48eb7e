"""Part `clamp`: whether the norm of the weights decides when a network generalises, or the effective learning rate.

A network with one hidden layer learns addition with the norms of all matrices clamped at a multiple of their initial
ones, at several learning rates. Cells of the grid whose rate and norm have the same ratio have the same effective
learning rate; all of a seed have the same pairs and, up to the multiple, the same initial weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from holdfast.errors import ArgumentError
from holdfast.lab import (
    Claim,
    Evidence,
    Figure,
    Outcome,
    Part,
    Results,
    Trial,
    all_of,
    equivalent,
    paired_difference,
    progress,
)
from holdfast.lab.figures import SHARE, draw_over_seeds, legend
from holdfast.lab.results import Values
from holdfast.studies.plasticity.paper import OURS
from holdfast.studies.plasticity.shapes import Addition, MLPShape

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record

GROKKED = 0.9


@dataclass(frozen=True, kw_only=True)
class ClampConfig:
    """A grid of clamped norms and learning rates.

    Arguments:
        norms: multiples of the initial norms, ascending, each a constant factor above the one before.
        rates: learning rates, ascending by the same factor.
        addition: what is learnt.
        shape: of the network.
        steps: Adam, at a constant rate.
        evaluate_every: steps between two tests.
    """

    norms: tuple[float, ...] = (0.5, 1.0, 2.0)
    rates: tuple[float, ...] = (2.5e-3, 5e-3, 1e-2)
    addition: Addition = field(default_factory=lambda: Addition(share=0.6))
    shape: MLPShape = field(default_factory=MLPShape)
    steps: int = 2000
    evaluate_every: int = 50

    def __post_init__(self) -> None:
        ratios = [rate / norm for rate, norm in zip(self.rates, self.norms, strict=False)]
        if len(self.norms) != len(self.rates) or max(ratios) > 1.001 * min(ratios):
            raise ArgumentError("rates", f"in the proportions of the norms {self.norms}", repr(self.rates))


def trials(config: Any) -> Iterator[Trial[ClampConfig]]:
    """One trial a cell of the grid.

    Arguments:
        config: the study's configuration.
    """
    settings: ClampConfig = config.clamp
    for seed in config.dear_range:
        for norm in settings.norms:
            for rate in settings.rates:
                yield Trial(seed, settings, {"norm": norm, "rate": rate}, cost=0.002 * settings.steps)


def run(trial: Trial[ClampConfig]) -> Outcome:
    """Train one network.

    Records: test accuracy on `average` over the run and `final`, final `train` accuracy, and the `step` at which the
    test accuracy was .9 first (the last one where it never was).
    """
    import torch

    from holdfast.optim import Projector
    from holdfast.studies.plasticity.addition import AdditionMLP, accuracy, learn, split

    config, seed = trial.config, trial.seeds[0]
    learnt, tests = split(config.addition, seed)
    model = AdditionMLP(config.addition, config.shape, seed)
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.ndim > 1:
                tensor.mul_(float(trial.labels["norm"] or 0.0))
    optimizer = torch.optim.Adam(model.parameters(), lr=float(trial.labels["rate"] or 0.0), fused=True)
    Projector(model, optimizer, include="all")
    tested: list[tuple[int, float]] = []
    for step, _ in zip(range(1, config.steps + 1), learn(model, optimizer, learnt), strict=False):
        if step % config.evaluate_every == 0:
            tested.append((step, accuracy(model, tests)))
            progress.report(step / config.steps, test=tested[-1][1])
    return Outcome(
        [
            {
                "average": sum(test for _, test in tested) / len(tested),
                "final": tested[-1][1],
                "train": accuracy(model, learnt),
                "step": next((step for step, test in tested if test >= GROKKED), config.steps),
            }
        ]
    )


def _values(results: Results, norm: int, rate: int) -> Values:
    """Of a cell, by the places of its norm and its rate."""
    config: ClampConfig = results.config.clamp
    return results.by_seed("average", part="clamp", norm=config.norms[norm], rate=config.rates[rate])


def _rate(results: Results) -> Evidence:
    return all_of(
        [
            paired_difference(_values(results, norm, -1), _values(results, norm, 0), names=("high rate", "low rate"))
            for norm in range(len(results.config.clamp.norms))
        ]
    )


def _ratio(results: Results) -> Evidence:
    """The cells on the diagonal, each with that of the initial norms."""
    count = len(results.config.clamp.norms)
    middle = count // 2
    return all_of(
        [
            equivalent(
                _values(results, place, place),
                _values(results, middle, middle),
                margin=0.05,
                names=(f"norms × {results.config.clamp.norms[place]:g}", "initial norms"),
            )
            for place in range(count)
            if place != middle
        ]
    )


CLAIMS = (
    Claim(
        "clamp-rate",
        "At each of three clamped norms a learning rate four times as high generalises sooner: higher test accuracy on "
        "average over the run.",
        _rate,
        paper="the effective learning rate decides (section 4)",
        family="clamp",
        scale="laptop",
    ),
    Claim(
        "clamp-ratio",
        "At the same effective learning rate the norm does not matter: with norms twice and half the initial ones the "
        "average test accuracy is the same within .05.",
        _ratio,
        paper=f"the effective learning rate decides (section 4); the test is {OURS}",
        family="clamp",
        scale="laptop",
    ),
)


def draw_grid(results: Results, axes: Axes) -> list[Record]:
    """Average test accuracy by effective learning rate, a line a norm."""
    rows: list[Record] = []
    config: ClampConfig = results.config.clamp
    for number, norm in enumerate(config.norms):
        values = {
            rate / norm: list(_values(results, number, place).values()) for place, rate in enumerate(config.rates)
        }
        points = draw_over_seeds(
            axes, values, bounds=SHARE, dots=True, marker="o", markersize=4, label=f"norms × {norm:g}"
        )
        rows += [
            {"norm": norm, "rate / norm": x, "accuracy": mean, "low": low, "high": high, "seeds": n}
            for x, mean, low, high, n in points
        ]
    if rows:
        ratios = sorted({float(row["rate / norm"] or 0.0) for row in rows})
        axes.set_xscale("log")
        axes.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
        axes.set_xticks([], minor=True)
    axes.set_xlabel("learning rate / multiple of the initial norm")
    axes.set_ylabel("test accuracy, average over the run")
    legend(axes)
    return rows


part = Part(
    "clamp",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "clamp",
            "Test accuracy of networks that learn addition, on average over the run, by their effective learning rate. "
            "Were that all that matters, the lines would be one. Lines are means over seeds, dots are seeds.",
            draw_grid,
        ),
    ),
)
