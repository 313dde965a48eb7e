"""Numbers about rows of attention logits that the probes of functions and of whole models both report."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.errors import ArgumentError
from holdfast.nn.normalisers import Normaliser


def mean(values: Tensor) -> float:
    """Mean of a vector as a float; NaN for an empty one."""
    return values.double().mean().item() if values.numel() else math.nan


def median(values: Tensor) -> float:
    """Median of a vector as a float, the lower one of two; NaN for an empty one. Infinite values may stand in it."""
    return values.double().median().item() if values.numel() else math.nan


def fitted_slope(points: Sequence[tuple[int | float, float]]) -> float:
    """Least-squares slope of y against ln n for points (n, y); NaN with fewer than two different n."""
    known = [(math.log(n), y) for n, y in points if not math.isnan(y)]
    x, y = np.array(known).reshape(-1, 2).T
    return float(np.polyfit(x, y, 1)[0]) if len(set(x)) > 1 else math.nan


def critical_beta(logits: Float[Tensor, "*rows n"]) -> Float[Tensor, "*rows"]:
    """Inverse temperature from which on the largest logit of each row stands out.

    With the gaps D_1 <= D_2 <= ... to the largest logit it is max_i ln(i + 1) / D_i, which grows with the number of
    competitors within each gap. Below it no key holds two thirds of the weight; from it on the largest weight is at
    least 1 / (1 + 1/2 + ... + 1/n).

    Arguments:
        logits: -inf where masked.

    Returns:
        One number a row: 0 with one visible key, inf where the largest logit ties, NaN without a visible key.

    Source: the gap-counting scale of arXiv 2605.12697.
    """
    ordered = logits.sort(dim=-1, descending=True).values
    if ordered.shape[-1] == 1:
        return torch.where(ordered[..., 0] == -math.inf, math.nan, 0.0)
    gaps = ordered[..., :1] - ordered[..., 1:]
    rank = torch.arange(2, ordered.shape[-1] + 1, device=logits.device, dtype=gaps.dtype)
    return (rank.log() / gaps).amax(-1)


def onset(points: Sequence[tuple[int | float, float]], weight: float, largest: int = 3) -> float:
    """Predicted size at which the mean largest weight p falls below a weight: a prediction, not a bound.

    Between measured sizes, and beyond them by the trend of the largest ones, ln(1/p - 1) is taken to be linear in ln n.
    That is what both a winner by a fixed margin (1/p - 1 = (n - 1) e^-margin) and a crowded top (p = s / n) tend to.

    Arguments:
        points: sizes, ascending, with the mean largest weight at each.
        weight: above 0 and below 1.
        largest: how many of the largest sizes make the trend.

    Returns:
        A size; inf where the largest weight does not fall, NaN where it cannot be told, which includes a head that is
        below the weight at all sizes.
    """
    known = [(n, p) for n, p in points if not math.isnan(p)]
    if len(known) < 2:
        return math.nan
    if known[-1][1] < weight:
        crossing = [pair for pair in itertools.pairwise(known) if pair[0][1] >= weight > pair[1][1]]
        return _crossing(crossing[-1], weight) if crossing else math.nan
    trend = known[-largest:]
    if trend[-1][1] >= trend[0][1]:
        return math.inf
    size = _crossing(trend, weight)
    return size if math.isnan(size) else max(float(known[-1][0]), size)


def _crossing(points: Sequence[tuple[int | float, float]], weight: float) -> float:
    """Size at which the line through ln(1/p - 1) against ln n reaches a weight."""
    # A weight of exactly 1 is a rounded one, and says nothing about how fast it falls; the last word has its neighbour.
    used = [(n, math.log(max(1 / p - 1, 1e-16))) for n, p in points if p < 1 or len(points) == 2]
    if len(used) < 2:
        return math.nan
    slope = fitted_slope(used)
    if slope <= 0:
        return math.inf
    x0, y0 = (sum(column) / len(used) for column in zip(*((math.log(n), y) for n, y in used), strict=True))
    x = x0 + (math.log(1 / weight - 1) - y0) / slope
    return math.exp(x) if x < 700 else math.inf


def checked_normalisers(normalisers: Mapping[str, Normaliser] | None) -> dict[str, Normaliser]:
    """The normalisers to compare, none for `None`.

    Errors:
        ArgumentError: a value is no normaliser.
    """
    compared = dict(normalisers or {})
    for name, normaliser in compared.items():
        if not isinstance(normaliser, Normaliser):
            raise ArgumentError("normalisers", "a Normaliser of holdfast.nn under each name", f"{name}: {normaliser!r}")
    return compared


def check_heads(name: str, normaliser: Normaliser, heads: int) -> None:
    """Refuse a normaliser with one number a head for another number of heads."""
    if normaliser.heads not in (None, heads):
        raise ArgumentError(f"normalisers[{name!r}]", f"one for any number of heads, or for {heads}", normaliser)
