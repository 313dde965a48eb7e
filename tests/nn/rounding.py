"""How far rounding may take a result from the exact one: from the dtype and the sums on the way, on any machine.

The rounding errors of a sum are independent, so that they grow as the root of its length; which order a processor adds
in decides only which errors they are. Eight standard deviations are allowed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

STEEPEST = 8.0
"""Bound on a law and on its slope, by which an error of the entropy is an error of the temperature."""


def rounding(
    dtype: torch.dtype, terms: int, *, dim: int = 1, logit: float = 0.0, size: float = 1.0
) -> dict[str, float]:
    """Tolerances for `torch.testing.assert_close`.

    Arguments:
        dtype: what is computed in.
        terms: length of the sum.
        dim: length of the products that logits are.
        logit: bound on what exponentials are taken of, whose errors are relative ones of the weights.
        size: of the terms, for a result that may cancel.
    """
    relative = 8 * torch.finfo(dtype).eps * (math.sqrt(terms) + math.sqrt(dim) * logit)
    return {"atol": relative * size, "rtol": relative}


def attention_rounding(
    query: Tensor, key: Tensor, *, scale: float | None = None, size: float = 4.0
) -> dict[str, float]:
    """Tolerances for the output of an attention, values being of `size` at most; one that is rounded once at the end.

    Arguments:
        query: (batch, heads, queries, dim); its dtype is that of the output.
        key: likewise.
        scale: of the products; 1 / sqrt(dim) unless given.
        size: of the values.
    """
    dim = query.shape[-1]
    longest = [tensor.detach().double().nan_to_num(0.0, 0.0, 0.0).norm(dim=-1).max().item() for tensor in (query, key)]
    logit = STEEPEST * abs(dim**-0.5 if scale is None else scale) * math.prod(longest)
    wide = torch.promote_types(query.dtype, torch.float32)
    exact = rounding(wide, key.shape[2], dim=dim, logit=logit, size=size)
    return exact if query.dtype == wide else combined(exact, rounded_to(query.dtype, size))


def rounded_to(dtype: torch.dtype, size: float = 1.0) -> Tolerances:
    """Tolerances for a result that is written down in a dtype: one step of it."""
    eps = torch.finfo(dtype).eps
    return {"atol": eps * size, "rtol": eps}


def combined(*tolerances: Tolerances) -> Tolerances:
    """One after the other."""
    return {name: sum(tolerance[name] for tolerance in tolerances) for name in ("atol", "rtol")}
