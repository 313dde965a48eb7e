"""How far rounding may take a result from the exact one: from the dtype and the sums on the way, on any machine."""

from __future__ import annotations

import torch


def rounding(dtype: torch.dtype, *terms: int, logit: float = 0.0, size: float = 1.0) -> dict[str, float]:
    """Tolerances for `torch.testing.assert_close`.

    A sum of n terms in any order is within n eps of the sum of their absolute values. An error of a logit, or of the
    product of a temperature with one, is a relative error of its weight.

    Arguments:
        dtype: what the sums are computed in: float32 or better.
        terms: lengths of the sums, one after the other.
        logit: bound on |beta z| of the logits z that exponentials are taken of; 0 without any.
        size: bound on the terms of the last sum, for a result that may cancel.
    """
    relative = torch.finfo(dtype).eps * (sum(terms) + 8) * (1 + logit)
    return {"atol": relative * size, "rtol": relative}


def rounded_to(dtype: torch.dtype, size: float = 1.0) -> dict[str, float]:
    """Tolerances for a result that is written down in a dtype of 16 bits: one step of it."""
    eps = torch.finfo(dtype).eps
    return {"atol": eps * size, "rtol": eps}
