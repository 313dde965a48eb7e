"""What counts as masked, and how masks of both kinds are joined: the rules that every softmax here shares.

A mask is bool (True = visible) or additive, with -inf where it hides. A dtype's lowest value hides too, since much code
writes that in the place of -inf.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def hidden_keys(logits: Float[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
    """Which logits count as masked: -inf, or at most half the dtype's lowest value."""
    return logits <= torch.finfo(logits.dtype).min / 2


def hidden_by(mask: Tensor) -> Bool[Tensor, ...]:
    """What a mask of either kind hides."""
    return ~mask if mask.dtype == torch.bool else hidden_keys(mask)


def masked_bias(bias: Float[Tensor, ...], mask: Tensor | None) -> Float[Tensor, ...]:
    """An additive mask: a bias with what a mask adds, -inf where that hides.

    Arguments:
        bias: of the logits, for example learned for each distance.
        mask: bool or additive, broadcasts against the bias; `None` hides nothing.
    """
    if mask is None:
        return bias
    total = bias if mask.dtype == torch.bool else bias + mask
    return total.masked_fill(hidden_by(mask), -math.inf)


def all_finite(tensor: Float[Tensor, "*shape"]) -> bool:
    """Whether there is neither NaN nor infinity, which costs a sum: no sum with one of them is finite."""
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())
