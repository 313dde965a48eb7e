"""One logit a fixed margin above the rest: its weight under each law of temperature, in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass

from holdfast.lab import Outcome
from holdfast.lab.seeds import NEEDLES, generator_for
from holdfast.lab.trial import Record
from holdfast.studies.sharpness.retrieval import SSMAX, law_rows, powers


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


def run_needle(config: NeedleConfig, seed: int) -> Outcome:
    """Weight on the winner, in closed form, of each law of temperature.

    Records: for every `arm`, `margin` and `n` the `winner` mass, `beta` and the `entropy` before, in nats.
    One record says whether the `fit` was accepted. Curve: `law` (beta by entropy).
    """
    import torch

    from holdfast.nn import AdaptiveTemperature, FitError, fit_temperature

    generator = generator_for(seed, NEEDLES)
    low, high = config.fit_margins
    fit_logits = {}
    for n in config.fit_sizes:
        logits = config.fit_noise * torch.randn(config.fit_rows, n, generator=generator, dtype=torch.float64)
        margin = low + (high - low) * torch.rand(config.fit_rows, generator=generator, dtype=torch.float64)
        logits[:, 0] += margin
        fit_logits[n] = logits
    laws = {"published": AdaptiveTemperature.published()}
    records: list[Record] = []
    curve: list[Record] = []
    try:
        laws["refit"] = fit_temperature(fit_logits, reference=min(config.fit_sizes))
    except FitError as error:
        records.append({"fit": "refused", "reason": str(error)})
    else:
        records.append({"fit": "accepted", "law": laws["refit"].to_json()})
        curve = law_rows("refit", laws["refit"])
    for margin_ in config.margins:
        for n in config.sizes:
            entropy = _two_level_entropy(margin_, n)
            betas = {"plain": 1.0, "log-n": _log_n(n, config.train_items), "ssmax": SSMAX * math.log(n)}
            for name, law in laws.items():
                betas[name] = law.beta(torch.tensor(entropy, dtype=torch.float64)).item()
            records += [
                {
                    "arm": arm,
                    "margin": margin_,
                    "n": n,
                    "winner": _winner(beta * margin_, n),
                    "beta": beta,
                    "entropy": entropy,
                }
                for arm, beta in betas.items()
            ]
    return Outcome(records, {"law": curve})


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
