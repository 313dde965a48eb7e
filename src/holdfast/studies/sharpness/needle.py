"""Part `needle`: one logit a fixed margin above the rest, its weight under each law in closed form; no training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.lab import Claim, Evidence, Figure, Outcome, Part, Results, Trial, exact, unusable
from holdfast.lab.figures import legend, size_axis
from holdfast.lab.seeds import generator_for
from holdfast.studies.sharpness.arms import SSMAX, law_rows
from holdfast.studies.sharpness.lines import COLOURS
from holdfast.studies.sharpness.sizes import powers
from holdfast.studies.sharpness.streams import NEEDLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

    from holdfast.lab import Record
    from holdfast.studies.sharpness.study import SharpnessConfig


@dataclass(frozen=True, kw_only=True)
class NeedleConfig:
    """Two-level logits: one stands `margin` above the others.

    Arguments:
        margins: in nats.
        sizes: number of items.
        train_items: size up to which log-n scaling leaves the logits alone.
        fit_sizes: sizes of the rows that a law is fitted to.
        fit_rows: rows for each of these sizes.
        fit_margins: least and greatest margin of these rows; margins are uniform between them.
        fit_noise: standard deviation of the normal noise on the logits of these rows.
    """

    margins: tuple[float, ...] = (5.0, 8.0, 12.0)
    sizes: tuple[int, ...] = powers(4, 17)
    train_items: int = 16
    fit_sizes: tuple[int, ...] = powers(4, 11)
    fit_rows: int = 256
    fit_margins: tuple[float, float] = (4.0, 12.0)
    fit_noise: float = 0.1


def trials(config: SharpnessConfig) -> Iterator[Trial[NeedleConfig]]:
    """One trial."""
    yield Trial(config.first_seed, config.needle, cost=100.0)


def run(trial: Trial[NeedleConfig]) -> Outcome:
    """Weight on the winner, in closed form, of each law of temperature.

    Records: for every `arm`, `margin` and `n` the `winner` mass, `beta` and the `entropy` before, in nats.
    One record says whether the `fit` was accepted. Curve: `law` (beta by entropy).
    """
    import torch

    from holdfast.nn import AdaptiveTemperature, FitError, fit_temperature

    config = trial.config
    laws = {"published": AdaptiveTemperature.published()}
    records: list[Record] = []
    curve: list[Record] = []
    try:
        laws["refit"] = fit_temperature(_noisy_needles(config, trial.seeds[0]), reference=min(config.fit_sizes))
    except FitError as error:
        records.append({"fit": "refused", "reason": str(error)})
    else:
        records.append({"fit": "accepted", "law": laws["refit"].to_json()})
        curve = law_rows("refit", laws["refit"])
    for margin in config.margins:
        for n in config.sizes:
            entropy = _two_level_entropy(margin, n)
            betas = {"plain": 1.0, "log-n": _log_n(n, config.train_items), "ssmax": SSMAX * math.log(n)}
            for name, law in laws.items():
                betas[name] = law.beta(torch.tensor(entropy, dtype=torch.float64)).item()
            for arm, beta in betas.items():
                winner = _winner(beta * margin, n)
                records.append(
                    {"arm": arm, "margin": margin, "n": n, "winner": winner, "beta": beta, "entropy": entropy}
                )
    return Outcome(records, {"law": curve})


def _noisy_needles(config: NeedleConfig, seed: int) -> dict[int, Tensor]:
    """Rows of logits that a law is fitted to, by their size."""
    import torch

    generator = generator_for(seed, NEEDLES)
    low, high = config.fit_margins
    rows = {}
    for n in config.fit_sizes:
        logits = config.fit_noise * torch.randn(config.fit_rows, n, generator=generator, dtype=torch.float64)
        logits[:, 0] += low + (high - low) * torch.rand(config.fit_rows, generator=generator, dtype=torch.float64)
        rows[n] = logits
    return rows


def _winner(margin: float, n: int) -> float:
    """Softmax weight of one logit that stands `margin` above n - 1 equal ones."""
    return 1 / (1 + (n - 1) * math.exp(-margin))


def _two_level_entropy(margin: float, n: int) -> float:
    """Entropy in nats of that softmax."""
    p = _winner(margin, n)
    rest = p * math.exp(-margin)
    return -p * math.log(p) - (n - 1) * rest * math.log(rest)


def _log_n(n: int, train_items: int) -> float:
    """Factor on the logits that keeps the mass of a winner by a fixed margin, from the training size on."""
    return max(1.0, math.log(n) / math.log(train_items))


def _mass(results: Results, arm: str, n: int) -> float | None:
    """The winner's mass at margin 5, or `None` where there is no such row."""
    rows = results.where(part="needle", arm=arm, n=n, margin=5.0)
    return float(rows[0]["winner"] or 0.0) if rows else None


def _mass_is(arm: str, n: int, holds: Callable[[float], bool]) -> Callable[[Results], Evidence]:
    """Test for the winner's mass at margin 5."""

    def judge(results: Results) -> Evidence:
        mass = _mass(results, arm, n)
        if mass is None:
            refused = results.where(part="needle", fit="refused")
            return unusable(str(refused[0]["reason"]) if refused else f"no row for {arm} at n = {n} and margin 5")
        return exact(holds=holds(mass), effect=mass, n=1, test="closed form: weight of the winner")

    return judge


def _cliff(results: Results) -> Evidence:
    published, plain = (_mass(results, arm, 1024) for arm in ("published", "plain"))
    if published is None or plain is None:
        return unusable("no row for n = 1024 and margin 5")
    gain = published - plain
    return exact(holds=abs(gain) <= 1e-12, effect=gain, n=1, test="closed form: published minus plain")


CLAIMS = (
    Claim(
        "needle-256",
        "The published law gives a winner by 5 nats at least 0.99 of the weight among 256 items (softmax: 0.37).",
        _mass_is("published", 256, lambda mass: mass >= 0.99),
        paper="no such figure",
        family="exact",
    ),
    Claim(
        "needle-cliff",
        "Among 1024 items the published law leaves a winner by 5 nats as softmax does, to 1e-12: it has "
        "stopped acting.",
        _cliff,
        paper="not mentioned; follows from the published coefficients",
        family="exact",
        headline=True,
        plain="adaptive temperature, as published, no longer acts on a clear winner among 1024 items",
        figure="needle",
    ),
    Claim(
        "needle-refit",
        "A law refitted to such rows, held constant beyond the entropies it has seen, gives a winner by 5"
        " nats at least 0.9 among 1024 items.",
        _mass_is("refit", 1024, lambda mass: mass >= 0.9),
        paper="not tried",
        family="exact",
    ),
)


def draw_needle(results: Results, axes: Axes) -> list[Record]:
    """The winner's weight at margin 5 by size, a line a law."""
    rows: list[Record] = []
    for arm in ("plain", "published", "refit", "log-n", "ssmax"):
        of_arm = sorted(results.where(part="needle", arm=arm, margin=5.0), key=lambda row: int(row["n"] or 0))
        if of_arm:
            axes.plot(
                [int(row["n"] or 0) for row in of_arm],
                [float(row["winner"] or 0.0) for row in of_arm],
                color=COLOURS[arm],
                marker="o",
                markersize=3,
                linewidth=1.5,
                label=f"SSMax {SSMAX}" if arm == "ssmax" else arm,
            )
        rows += [{"arm": arm, "n": row["n"], "winner": row["winner"], "beta": row["beta"]} for row in of_arm]
    size_axis(axes, [int(n) for n in results.levels("n", part="needle")], "items n")
    axes.set_ylabel("weight of the winner")
    axes.set_ylim(0, 1.02)
    legend(axes)
    return rows


part = Part(
    "needle",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "needle",
            "One logit stands 5 nats above the rest: its weight under each law of temperature. The published law falls "
            "back to softmax where entropy passes 5.94 nats.",
            draw_needle,
        ),
    ),
)
