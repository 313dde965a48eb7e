"""What kind of solution a network is: definitions on tensors, one function each, all computed in float64.

Ranks are those of `holdfast.probes.plasticity.metrics`. Where a number has no meaning it is NaN.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import one_hot

from holdfast.errors import ArgumentError

NEAR_ZERO = 1e-3
"""Share of a tensor's root mean square below which a weight is near zero."""

RIDGE = 1e-3
"""Of the ridge probe, as a share of the mean eigenvalue of the features' covariance."""


def participation_ratio(features: Float[Tensor, "examples features"]) -> float:
    """(Σ σ²)² / Σ σ⁴ of the singular values σ: between 1 and the rank; 0 where all features are zero.

    Computed as ‖f‖⁴ / ‖f fᵀ‖², with Frobenius norms, which needs no decomposition.
    """
    f = features.double()
    if not bool(f.isfinite().all()):
        return math.nan
    largest = float(f.abs().max()) if f.numel() else 0.0
    if largest == 0:
        return 0.0
    f = f / largest  # fourth powers of small numbers would vanish
    gram = f.mT @ f if f.shape[0] > f.shape[1] else f @ f.mT
    return float(f.square().sum().square() / gram.square().sum())


def delta_participation(delta: Float[Tensor, "*shape"]) -> float:
    """(Σ d²)² / (n Σ d⁴) of a change of n weights: 1 where all change alike, 1/n where one does; NaN for no change."""
    d = delta.double().flatten()
    largest = float(d.abs().max()) if d.numel() else 0.0
    if not (largest > 0 and math.isfinite(largest)):
        return math.nan
    d = d / largest
    return float(d.square().sum().square() / (d.numel() * d.pow(4).sum()))


def hoyer(weights: Float[Tensor, "*shape"]) -> float:
    """(√n − ‖w‖₁ / ‖w‖₂) / (√n − 1): 0 where all are of one size, 1 where one alone is not zero; NaN for zeros."""
    w = weights.double().flatten()
    norm, root = float(w.norm()), math.sqrt(w.numel())
    if w.numel() < 2 or not norm > 0:
        return math.nan
    return (root - float(w.abs().sum()) / norm) / (root - 1)


def near_zero(weights: Float[Tensor, "*shape"]) -> float:
    """The share of weights with |w| < 10⁻³ of their root mean square; 1 where all are zero."""
    w = weights.double()
    size = float(w.square().mean().sqrt())
    if not math.isfinite(size):
        return math.nan
    return 1.0 if size == 0 else float((w.abs() < NEAR_ZERO * size).double().mean())


def class_means(
    features: Float[Tensor, "examples features"], targets: Int64[Tensor, " examples"]
) -> tuple[Float[Tensor, "present features"], Int64[Tensor, " present"]]:
    """Means of the features of each class that is there, not centred, and which classes these are."""
    present, place = targets.unique(return_inverse=True)
    sums = torch.zeros(len(present), features.shape[1], dtype=torch.float64)
    sums.index_add_(0, place, features.double())
    return sums / place.bincount(minlength=len(present))[:, None], present


def class_cosines(means: Float[Tensor, "present features"]) -> Float[Tensor, "present present"]:
    """Cosines between class means, NaN for a class whose mean is zero."""
    unit = means / means.norm(dim=1, keepdim=True)
    cosines: Tensor = unit @ unit.mT
    return cosines


def mean_off_diagonal(cosines: Float[Tensor, "present present"]) -> float:
    """Mean over pairs of different classes that have a cosine; NaN where there is none."""
    return float(cosines[~torch.eye(len(cosines), dtype=torch.bool)].nanmean())


def treves_rolls(features: Float[Tensor, "examples features"]) -> tuple[float, float]:
    """1 − (E h)² / E h², lifetime (E over examples, mean over units) and population (the other way round).

    From 0, where all are alike, to nearly 1, where one alone is active. Units and examples that are all zero do not
    count. The definition is for firing rates: NaN where a feature is negative.
    """
    h = features.double()
    if not bool((h >= 0).all()):
        return math.nan, math.nan
    lifetime, population = (float((1 - h.mean(d).square() / h.square().mean(d)).nanmean()) for d in (0, 1))
    return lifetime, population


def column_drift(
    before: Float[Tensor, "classes features"], after: Float[Tensor, "classes features"]
) -> tuple[float, float, float]:
    """How far the column sums of a softmax head have moved.

    The gradient of softmax cross-entropy has columns that sum to zero, so that 1ᵀW is conserved by each optimiser that
    keeps the vector of ones in the left null space of its updates; decoupled decay shrinks it in proportion.

    Returns:
        ρ = ‖1ᵀΔW‖ / (√K ‖ΔW‖), from 0 to 1, where K is the number of classes; the factor c by which 1ᵀW has shrunk, as
        fitted by least squares; and ‖1ᵀW − c 1ᵀW₀‖ / (√K ‖ΔW‖), what is left of ρ. NaN where nothing has changed, and
        of the last two where 1ᵀW₀ is zero or has one feature, which any change is proportional to.
    """
    if before.shape != after.shape:
        raise ArgumentError("after", f"a head of shape {tuple(before.shape)}", tuple(after.shape))
    first, last = before.double(), after.double()
    scale = math.sqrt(len(first)) * float((last - first).norm())
    if not scale > 0:
        return math.nan, math.nan, math.nan
    start, end = first.sum(0), last.sum(0)
    drift = float((last - first).sum(0).norm()) / scale
    size = float(start.square().sum())
    if size == 0 or len(start) < 2:
        return drift, math.nan, math.nan
    factor = float(start @ end) / size
    return drift, factor, float((end - factor * start).norm()) / scale


def nc0(head: Float[Tensor, "classes features"]) -> float:
    """‖Wᵀ1‖² / K of a head of K classes: zero is necessary for neural collapse (arXiv 2602.16642)."""
    return float(head.double().sum(0).square().sum()) / len(head)


def unit_overlap(first: Float[Tensor, " units"], second: Float[Tensor, " units"]) -> float:
    """Σ min(a, b) of two distributions of squared change over units: 1 where the same units learn, 0 where others do.

    Arguments:
        first: squared change of each unit's weights, by one task.
        second: by another.
    """
    a, b = first.double(), second.double()
    if not (float(a.sum()) > 0 and float(b.sum()) > 0):
        return math.nan
    return float(torch.minimum(a / a.sum(), b / b.sum()).sum())


def ridge_probe(
    features: Float[Tensor, "examples features"],
    targets: Int64[Tensor, " examples"],
    unseen: Float[Tensor, "others features"],
    classes: int,
) -> Int64[Tensor, " others"]:
    """Classes that a linear probe gives to features that it has not seen.

    Ridge regression of one-hot targets on centred features, with a penalty of 10⁻³ of the covariance's mean eigenvalue.

    Arguments:
        features: that it learns from.
        targets: their classes.
        unseen: other features.
        classes: that there are.
    """
    x, mean = features.double(), features.double().mean(0)
    y = one_hot(targets, classes).double()
    x, offset = x - mean, y.mean(0)
    gram = x.mT @ x
    penalty = RIDGE * float(gram.diagonal().mean())
    if not penalty > 0:
        return offset.argmax().expand(len(unseen))
    weights = torch.linalg.solve(gram + penalty * torch.eye(len(gram), dtype=torch.float64), x.mT @ (y - y.mean(0)))
    scores: Tensor = (unseen.double() - mean) @ weights + offset
    return scores.argmax(1)
