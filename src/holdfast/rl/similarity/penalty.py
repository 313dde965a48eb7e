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

ROUNDING = 2.0**-24
"""Of one entry of a similarity in float32."""


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
    return penalty_product(q, q, sigma, form=form, reduction=reduction, mask=mask)


def penalty_product(
    q: Float[Tensor, "batch n"],
    p: Float[Tensor, "batch n"],
    sigma: Float[Tensor, "rows columns"],
    *,
    form: Form,
    reduction: Reduction,
    mask: Bool[Tensor, "batch n"] | None,
) -> Float[Tensor, ""]:
    """The symmetric bilinear form whose square is the penalty: 2 B(q, p) is the penalty's derivative at q along p.

    With the residual r(q) = q - Σq it is the mean over states of r(q)ᵀr(p); for the pairwise form that of
    ½ Σ_ij Σ_ij (q_i - q_j)(p_i - p_j).

    Arguments:
        q: Q values.
        p: others, such as a change of them; the same for the penalty itself.
        sigma: as in `masp_penalty`, and so are the others.
        form: likewise.
        reduction: likewise.
        mask: likewise.
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
        states = _States(sigma.to(dtype), mask)
        first = states.centred(q.to(dtype))
        second = first if p is q else states.centred(p.to(dtype))
        if form == "residual":
            residual = states.residual(*first)
            terms = residual * (residual if p is q else states.residual(*second))
        else:
            terms = states.pairs(first[0], second[0])
        total = terms.sum(1)
        if reduction == "mean":
            total = total / states.actions[:, 0]
        return total.mean()


class _States:
    """What the states of a batch have in common: similarities of legal actions, rows rescaled to their sums."""

    def __init__(self, sigma: Float[Tensor, "n n"], mask: Bool[Tensor, "batch n"] | None) -> None:
        self.sigma, self.mask = sigma, mask
        self.rows = sigma.sum(1)
        # A sum that is 1 up to rounding is 1, or large state values would be penalised; its gradient is as it was.
        missing = 1.0 - self.rows
        self.missing = missing - missing.detach() * (missing.detach().abs() <= len(sigma) * ROUNDING)
        if mask is None:
            self.actions = torch.full((1, 1), float(len(sigma)), dtype=sigma.dtype, device=sigma.device)
            self.mass, self.scale = self.rows, None
            return
        legal = mask.to(sigma.dtype)
        self.actions = legal.sum(1, keepdim=True).clamp(min=1.0)
        self.mass = legal @ sigma.T
        self.kept = mask & (self.mass > 0)
        self.scale = torch.where(self.kept, self.rows / self.mass.where(self.kept, 1.0), 0.0)

    def centred(self, q: Float[Tensor, "batch n"]) -> tuple[Float[Tensor, "batch n"], Float[Tensor, "batch 1"]]:
        """Values about their mean: what is added to all of them must not cost the digits of their differences."""
        if self.mask is None:
            mean = q.mean(1, keepdim=True)
            return q - mean, mean
        q = q.masked_fill(~self.mask, 0.0)
        mean = q.sum(1, keepdim=True) / self.actions
        return (q - mean).masked_fill(~self.mask, 0.0), mean

    def residual(self, centred: Float[Tensor, "batch n"], mean: Float[Tensor, "batch 1"]) -> Float[Tensor, "batch n"]:
        """q - Σq."""
        residual = centred - self._scaled(centred @ self.sigma.T) + mean * self.missing
        return residual if self.mask is None else residual.masked_fill(~self.kept, 0.0)

    def pairs(self, q: Float[Tensor, "batch n"], p: Float[Tensor, "batch n"]) -> Float[Tensor, "batch n"]:
        """½ Σ_j Σ_ij (q_i - q_j)(p_i - p_j) of each action i."""
        product = q * p
        whole = product * self.mass - q * (p @ self.sigma.T) - p * (q @ self.sigma.T) + product @ self.sigma.T
        return 0.5 * self._scaled(whole)

    def _scaled(self, smoothed: Float[Tensor, "batch n"]) -> Float[Tensor, "batch n"]:
        return smoothed if self.scale is None else self.scale * smoothed


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
