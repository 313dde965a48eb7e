"""Part `parity`: whether a layer can keep track of a state, here of whether the ones of a string are odd in number.

Networks of two blocks tell it after every bit. They are trained on strings of up to 32 bits and tested on longer ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from holdfast.errors import ArgumentError
from holdfast.lab import Claim, Evidence, Figure, Outcome, Part, Results, Trial, mean_of, progress
from holdfast.lab.figures import GREY, SHARE, draw_over_seeds, legend, size_axis
from holdfast.lab.results import Values
from holdfast.lab.seeds import generator_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor, nn

    from holdfast.lab import Record

ARMS = {"slstm": "sLSTM", "both": "mLSTM, then sLSTM", "mlstm": "mLSTM", "unmixed": "sLSTM without recurrent weights"}
"""Arms, and how figures call them. In `unmixed` the gates of a block do not see its last output."""

TRAIN, TEST = range(2)
"""Purposes of random numbers."""


@dataclass(frozen=True, kw_only=True)
class ParityConfig:
    """Networks that tell the parity of strings of bits.

    Arguments:
        arms: some of the arms.
        shortest: least number of bits in training.
        longest: greatest one; every step has strings of one length in between.
        lengths: of the strings that are tested, ascending.
        tests: strings of each of these lengths, drawn anew for every seed.
        dim: width of the networks.
        layers: number of blocks, two or more.
        heads: of every block.
        steps: optimiser steps (AdamW).
        batch: strings a step.
        learning_rate: greatest learning rate; it rises linearly, then falls along a cosine to zero.
        warmup: steps in which it rises.
        curve_every: steps between two points of the learning curve.
    """

    arms: tuple[str, ...] = tuple(ARMS)
    shortest: int = 3
    longest: int = 32
    lengths: tuple[int, ...] = (4, 8, 16, 32, 64, 128, 256)
    tests: int = 512
    dim: int = 32
    layers: int = 2
    heads: int = 1
    steps: int = 700
    batch: int = 64
    learning_rate: float = 1e-2
    warmup: int = 50
    curve_every: int = 50

    def __post_init__(self) -> None:
        if not set(self.arms) <= set(ARMS):
            raise ArgumentError("arms", f"some of {', '.join(ARMS)}", repr(self.arms))


class HasParity(Protocol):
    """A study's configuration with the settings of this part."""

    @property
    def parity(self) -> ParityConfig:
        """The settings."""
        ...

    @property
    def long_range(self) -> range:
        """The seeds."""
        ...


def trials(config: HasParity) -> Iterator[Trial[ParityConfig]]:
    """One trial a network."""
    settings = config.parity
    for seed in config.long_range:
        for arm in settings.arms:
            yield Trial(seed, settings, {"arm": arm}, cost=settings.steps * settings.layers / 100)


def run(trial: Trial[ParityConfig]) -> Outcome:
    """Train and test one network. Every arm of a seed sees the same strings.

    Records: `accuracy`, by `length`: the share of strings whose parity is told rightly after the last bit.
    Curve: `parity` (loss in nats a bit, by step, mean since the point before).
    """
    import torch

    config, seed, arm = trial.config, trial.seeds[0], str(trial.labels["arm"])
    net = _network(config, arm, seed)
    optimizer = torch.optim.AdamW(net.parameters(), betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    curve: list[Record] = []
    losses: list[float] = []
    for step in range(config.steps):
        bits = _strings(config, seed, step)
        logits = _logits(net, bits)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), (bits.cumsum(1) % 2).flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = _rate(config, step)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % config.curve_every == 0 or step + 1 == config.steps:
            curve.append({"step": step + 1, "loss": sum(losses) / len(losses)})
            progress.report(0.95 * (step + 1) / config.steps, loss=sum(losses) / len(losses))
            losses.clear()
    records: list[Record] = [
        {"length": length, "accuracy": _accuracy(net, config, seed, length)} for length in config.lengths
    ]
    return Outcome(records, {"parity": curve})


def _network(config: ParityConfig, arm: str, seed: int) -> nn.ModuleDict:
    """An embedding of bits, blocks, and a linear layer to even and odd."""
    import torch
    from torch import nn

    from holdfast.nn import SLSTM, XLSTM, XLSTMConfig

    at = {"mlstm": (), "both": range(1, config.layers, 2)}.get(arm, range(config.layers))
    shape = XLSTMConfig(dim=config.dim, layers=config.layers, heads=config.heads, slstm_at=tuple(at))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = {"embedding": nn.Embedding(2, config.dim), "head": nn.Linear(config.dim, 2), "blocks": XLSTM(shape)}
    if arm == "unmixed":
        for module in net["blocks"].modules():
            if isinstance(module, SLSTM):
                module.recurrent.requires_grad_(False)  # it begins at zero
    return nn.ModuleDict(net)


def _logits(net: nn.ModuleDict, bits: Tensor) -> Tensor:
    """Logits of even and odd after every bit."""
    mixed, _ = net["blocks"](net["embedding"](bits))
    logits: Tensor = net["head"](mixed)
    return logits


def _strings(config: ParityConfig, seed: int, step: int) -> Tensor:
    """What a step of training reads."""
    import torch

    generator = generator_for(seed, TRAIN, step)
    length = int(torch.randint(config.shortest, config.longest + 1, (), generator=generator))
    return torch.randint(0, 2, (config.batch, length), generator=generator)


def _rate(config: ParityConfig, step: int) -> float:
    """Learning rate of a step."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.learning_rate * (0.5 + 0.5 * math.cos(math.pi * done))


def _accuracy(net: nn.ModuleDict, config: ParityConfig, seed: int, length: int) -> float:
    """The share of fresh strings whose parity is told rightly."""
    import torch

    bits = torch.randint(0, 2, (config.tests, length), generator=generator_for(seed, TEST, length))
    with torch.no_grad():
        guesses = _logits(net, bits)[:, -1].argmax(-1)
    return (guesses == bits.sum(1) % 2).double().mean().item()


def _values(results: Results, arm: str, length: int) -> Values:
    return results.by_seed("accuracy", part="parity", arm=arm, length=length)


def _above(arm: str, length: int, results: Results) -> Evidence:
    """The accuracy is above .95."""
    cases = results.config.parity.tests
    return mean_of(_values(results, arm, length), threshold=0.95, cases=cases, name=f"{arm} at {length} bits")


def _below(arm: str, length: int, results: Results) -> Evidence:
    """The accuracy is below .6; guessing is right half of the time."""
    values, cases = _values(results, arm, length), results.config.parity.tests
    return mean_of(values, threshold=0.6, alternative="less", cases=cases, name=f"{arm} at {length} bits")


CITED = "state tracking needs sLSTM (arXiv 2405.04517, formal languages); no figure in this paper"


def _claim(name: str, statement: str, test: Any) -> Claim:
    return Claim(name, statement, test, paper=CITED, family="parity", scale="laptop")


CLAIMS = (
    _claim(
        "parity-slstm",
        "Networks of sLSTM blocks tell the parity of 32 bits, the most that they were trained on (accuracy > .95).",
        partial(_above, "slstm", 32),
    ),
    _claim(
        "parity-slstm-longer",
        "Networks with sLSTM tell the parity of strings eight times as long, too (accuracy > .95 at 256 bits).",
        partial(_above, "slstm", 256),
    ),
    _claim(
        "parity-both",
        "One sLSTM block behind one mLSTM block is enough at 32 bits (accuracy > .95).",
        partial(_above, "both", 32),
    ),
    _claim(
        "parity-mlstm",
        "Networks of mLSTM blocks alone do not tell it of 64 bits (accuracy < .6, where guessing has .5).",
        partial(_below, "mlstm", 64),
    ),
    _claim(
        "parity-unmixed",
        "Nor do networks of sLSTM blocks whose gates do not see the last output (accuracy < .6 at 64 bits).",
        partial(_below, "unmixed", 64),
    ),
)


def draw_parity(results: Results, axes: Axes) -> list[Record]:
    """Accuracy by number of bits, a line an arm."""
    config: ParityConfig = results.config.parity
    rows: list[Record] = []
    for place, arm in enumerate(config.arms):
        values = {length: list(_values(results, arm, length).values()) for length in config.lengths}
        style: dict[str, Any] = {
            "marker": "o",
            "markersize": 4,
            "linewidth": 1.6,
            "color": f"C{place}",
            "label": ARMS[arm],
        }
        points = draw_over_seeds(axes, values, bounds=SHARE, dots=True, **style)
        rows += [
            {"arm": arm, "length": x, "accuracy": mean, "low": low, "high": high, "seeds": seeds}
            for x, mean, low, high, seeds in points
        ]
    if rows:
        axes.axhline(0.5, color=GREY, linewidth=0.8, linestyle=":")
        axes.axvline(config.longest, color=GREY, linewidth=0.8, linestyle="--")
    size_axis(axes, config.lengths if rows else (), "bits in a string")
    axes.set_ylabel("strings told rightly")
    axes.set_ylim(0.4, 1.03)
    legend(axes)
    return rows


part = Part(
    "parity",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "parity",
            "Whether the ones of a string are odd in number: layers whose gates see their last output can tell, and "
            "go on beyond the longest strings of training (broken line). Lines are means over seeds, dots are seeds; "
            "dotted: guessing.",
            draw_parity,
        ),
    ),
)
