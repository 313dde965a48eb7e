"""What a network's features look like, and how fast they change: definitions on tensors, one function each.

Peers give these names to different quantities, so that every docstring has the formula. All are computed in float64.
Where a number has no meaning it is NaN, and a layer that is dead has the value at the end of its scale.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from holdfast.errors import ArgumentError

DORMANT = 0.025
"""Scores up to this one are dormant, as at a high replay ratio; for a low one the authors of ReDo name 0.1."""

SPECTRUM_LEFT_OUT = 0.01
"""Share of the singular values' sum that `srank` leaves out."""


def feature_kernel(features: Float[Tensor, "examples features"]) -> Float[Tensor, "examples examples"]:
    """C = f fᵀ / ‖f‖², with the Frobenius norm, so that its trace is 1; NaN where all features are zero.

    Source: arXiv 2507.20057, equation 3.
    """
    f = features.double()
    return f @ f.mT / f.square().sum()


def kernel_change(
    before: Float[Tensor, "examples features"], after: Float[Tensor, "later_examples later_features"]
) -> float:
    """ΔC = ‖C(before) − C(after)‖, with the Frobenius norm; blind to a rotation of the features and to their scale.

    Arguments:
        before: features of some inputs.
        after: features of the same inputs, some steps later; the change is one over these steps, so name them with it.

    Returns:
        From 0 to √2; NaN for one example, whose kernel is always 1, and where either layer is dead.

    Source: arXiv 2507.20057, equation 3, which leaves the norm open.
    """
    if len(before) != len(after):
        raise ArgumentError("after", f"features of the same {len(before)} examples", f"{len(after)} examples")
    if len(before) < 2:
        return math.nan
    return float((feature_kernel(before) - feature_kernel(after)).norm())


def activation_change(before: Bool[Tensor, "*shape"], after: Bool[Tensor, "*later_shape"]) -> float:
    """ΔA = ‖A(before) − A(after)‖, with the Frobenius norm: the root of the number of units that went on or off.

    Arguments:
        before: which units are active, A = 1{f > 0}, for each input.
        after: the same, some steps later.

    Source: arXiv 2507.20057, equation 4.
    """
    return math.sqrt(float(_switched(before, after).sum()))


def activation_change_share(before: Bool[Tensor, "*shape"], after: Bool[Tensor, "*later_shape"]) -> float:
    """The share of activations that went on or off, ‖ΔA‖² / (n d), which the paper's figure 3 shows."""
    return float(_switched(before, after).double().mean())


def dormancy_scores(outputs: Float[Tensor, "examples positions units"]) -> Float[Tensor, " units"]:
    """Mean |h| of each unit over examples and positions, divided by the mean of that over units; 0 in a dead layer.

    Source: ReDo, arXiv 2302.12902, definition 3.1.
    """
    size = outputs.double().abs().mean((0, 1))
    mean = size.mean()
    return size if float(mean) == 0 else size / mean


def dormant_ratio(outputs: Float[Tensor, "examples positions units"], threshold: float = DORMANT) -> float:
    """The share of units whose dormancy score is at most a threshold: 1 in a dead layer, NaN in a broken one."""
    scores = dormancy_scores(outputs)
    return float((scores <= threshold).double().mean()) if bool(scores.isfinite().all()) else math.nan


def dead_ratio(active: Bool[Tensor, "examples positions units"]) -> float:
    """The share of units that are active for no example and at no position."""
    return float((~active.any(1).any(0)).double().mean())


def singular_values(features: Float[Tensor, "examples features"]) -> Float[Tensor, " rank"]:
    """Of a layer's features, largest first; NaN where a feature is not finite."""
    f = features.double()
    if not bool(f.isfinite().all()):
        return f.new_full((min(f.shape),), math.nan)
    values: Tensor = torch.linalg.svdvals(f)
    return values


def srank(features: Float[Tensor, "examples features"], delta: float = SPECTRUM_LEFT_OUT) -> float:
    """The least k with Σ_{i≤k} σ_i / Σ σ_i ≥ 1 − δ: 0 in a dead layer, NaN in a broken one.

    Source: arXiv 2010.14498, section 3.
    """
    return _srank(singular_values(features), delta)


def effective_rank(features: Float[Tensor, "examples features"]) -> float:
    """exp of the entropy of σ / Σ σ: 0 in a dead layer, NaN in a broken one.

    Source: Roy and Vetterli, "The effective rank", EUSIPCO 2007.
    """
    return _effective_rank(singular_values(features))


def stable_rank(features: Float[Tensor, "examples features"]) -> float:
    """‖f‖² / σ_1², with the Frobenius norm: 0 in a dead layer, NaN in a broken one."""
    return _stable_rank(singular_values(features))


def ranks(features: Float[Tensor, "examples features"]) -> tuple[float, float, float]:
    """`srank`, `effective_rank` and `stable_rank` from one decomposition."""
    values = singular_values(features)
    return _srank(values, SPECTRUM_LEFT_OUT), _effective_rank(values), _stable_rank(values)


def _srank(values: Float[Tensor, " rank"], delta: float) -> float:
    total = float(values.sum())
    if not total > 0:
        return total
    # The last sums differ from the total by rounding alone.
    enough = (1 - delta) * total * (1 - values.numel() * torch.finfo(values.dtype).eps)
    return float((values.cumsum(0) < enough).sum() + 1)


def _effective_rank(values: Float[Tensor, " rank"]) -> float:
    total = float(values.sum())
    if not total > 0:
        return total
    share = values / total
    return math.exp(float(-torch.special.xlogy(share, share).sum()))


def _stable_rank(values: Float[Tensor, " rank"]) -> float:
    largest = float(values[0])
    return float(values.div(largest).square().sum()) if largest > 0 else largest


def _switched(before: Bool[Tensor, "*shape"], after: Bool[Tensor, "*later_shape"]) -> Bool[Tensor, "*shape"]:
    if before.shape != after.shape:
        raise ArgumentError("after", f"activations of shape {tuple(before.shape)}", tuple(after.shape))
    return before ^ after
