"""The penalty that lets similar actions share credit: how far Q values are from their averages over similar actions.

    residual   ‖q - Σq‖²                      as published; with M = I - Σ it is qᵀMᵀMq, with gradient 2MᵀMq
    pairwise   ½ Σ_ij Σ_ij (q_i - q_j)²       the Laplacian form; the same where Σ is a projection

Source: arXiv 2506.13690; the pairwise form is ours, to compare with.
"""

from __future__ import annotations

import warnings
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from holdfast.errors import ArgumentError

Form = Literal["residual", "pairwise"]
Reduction = Literal["sum", "mean"]


class SimilarityWarning(UserWarning):
    """Credit is shared, but perhaps not as meant."""


def masp_penalty(
    q: Float[Tensor, "batch n"],
    sigma: Float[Tensor, "rows columns"],
    *,
    form: Form = "residual",
    reduction: Reduction = "sum",
    mask: Bool[Tensor, "batch n"] | None = None,
) -> Float[Tensor, ""]:
    """Mean over states of the penalty of their Q values. The caller multiplies it by η and adds it to its loss.

    Values of less than 32 bits are computed with in float32, autocast or not. Where each row of Σ sums to 1, a constant
    that is added to a state's values changes nothing, so that the penalty leaves state values alone.

    Arguments:
        q: Q values of all actions, expectations and not logits, with their gradient.
        sigma: similarity of n actions; its gradient is kept where it has one.
        form: of the penalty.
        reduction: over the actions of a state: their sum, as published, or their mean, for which η is n times larger.
        mask: legal actions; `None`: all. What q holds elsewhere is not read, not even if it is infinite. Rows of Σ are
            rescaled to the sum that they have over all actions; an action that is similar to none that is legal is
            free.

    Returns:
        A scalar.

    Errors:
        ArgumentError: Σ is not square, or of another number of actions.
    """
    n = q.shape[1]
    if sigma.shape != (n, n):
        raise ArgumentError("sigma", f"shape ({n}, {n}), since q has {n} actions", f"shape {tuple(sigma.shape)}")
    if form not in ("residual", "pairwise"):
        raise ArgumentError("form", "residual or pairwise", form)
    if reduction not in ("sum", "mean"):
        raise ArgumentError("reduction", "sum or mean", reduction)
    with torch.autocast(q.device.type, enabled=False):
        dtype = torch.promote_types(q.dtype, torch.float32)
        values, weights = q.to(dtype), sigma.to(dtype)
        legal = torch.ones_like(values) if mask is None else mask.to(dtype)
        if mask is not None:
            values = values.masked_fill(~mask, 0.0)
        legal_actions = legal.sum(1, keepdim=True).clamp(min=1.0)
        # About the mean of the state: what is added to all values must not cost the digits of their differences.
        mean = values.sum(1, keepdim=True) / legal_actions
        centred = (values - mean) * legal
        mass, rows = legal @ weights.T, weights.sum(1)
        scale = torch.where(mass > 0, rows / mass.where(mass > 0, 1.0), 0.0) if mask is not None else 1.0
        smoothed = scale * (centred @ weights.T)
        if form == "residual":
            residual = centred - smoothed + mean * (1.0 - rows)
            total = _kept(residual.square(), legal, mass, mask)
        else:
            total = 0.5 * (scale * mass * centred.square() - 2 * centred * smoothed)
            total = _kept(total + 0.5 * scale * (centred.square() @ weights.T), legal, mass, mask)
        if reduction == "mean":
            total = total / legal_actions
        return total.sum() / q.shape[0]


def _kept(
    terms: Float[Tensor, "batch n"],
    legal: Float[Tensor, "batch n"],
    mass: Float[Tensor, "batch n"],
    mask: Bool[Tensor, "batch n"] | None,
) -> Float[Tensor, "batch n"]:
    """The terms of legal actions that are similar to a legal one."""
    return terms if mask is None else terms * legal * (mass > 0)


def check_strength(eta: float, *, lr: float = 0.0, sigma: Float[Tensor, "n n"] | None = None) -> float:
    """The strength η of a penalty, or an error; a warning where plain descent on Q values would diverge.

    Arguments:
        eta: what the caller multiplies the penalty by; 0: none.
        lr: step size α of that descent.
        sigma: the similarity; `None`: any that is symmetric and doubly stochastic. Descent converges for
            α η ‖I - Σ‖² < 1, for which α η < 1/4 is enough in that case.

    Errors:
        ArgumentError: it is negative or no finite number.
    """
    if not 0 <= eta < float("inf"):
        raise ArgumentError("eta", "0 or a positive finite number", eta)
    norm = 2.0
    if sigma is not None:
        with torch.no_grad():
            identity = torch.eye(len(sigma), dtype=torch.float64, device=sigma.device)
            norm = float(torch.linalg.matrix_norm(identity - sigma.double(), 2))
    if lr * eta * norm**2 >= 1:
        words = (
            f"lr * eta = {lr * eta:g}: the penalty's own steps diverge on a table of Q values from {1 / norm**2:g} on"
        )
        warnings.warn(words, SimilarityWarning, stacklevel=2)
    return eta
