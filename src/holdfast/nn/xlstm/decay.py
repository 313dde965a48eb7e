"""How much of each token an mLSTM still holds at each later one, at any value of the gates.

The logarithm of what is left of token j at token t is a sum of the forget gates' logarithms over j < l <= t. As the
difference of two running sums it cancels: behind a gate that is all but closed the rounding error is that of the sum
up to there, and in float32 a pre-activation of -1e5 leaves nothing right. So each column sums its own terms only.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def faded(log_forget: Float[Tensor, "*batch time"]) -> Float[Tensor, "*batch time columns"]:
    """Logarithm of what is left at each token of what came before the first, and of each token.

    Arguments:
        log_forget: logarithm of the forget gates.

    Returns:
        Column 0 is that of what came before, column j + 1 that of token j; 0 where it is not there yet.
    """
    time = log_forget.shape[-1]
    return log_forget.unsqueeze(-1).expand(*log_forget.shape, time + 1).tril().cumsum(-2)


def stabilised(
    left: Float[Tensor, "*batch time columns"], log_input: Float[Tensor, "*batch columns"]
) -> tuple[Float[Tensor, "*batch time columns"], Float[Tensor, "*batch time 1"]]:
    """The weights of what came before and of all tokens at each token, the largest of them 1.

    Arguments:
        left: see `faded`.
        log_input: logarithm of the weight that each column had at first: the stabiliser of what came before, and the
            input gates.

    Returns:
        The weights, and the logarithm of their unit, which is no function to be differentiated: it cancels.
    """
    logs = left + log_input.unsqueeze(-2)
    if left.shape[-2] > 1:
        later = torch.ones(left.shape[-2:], dtype=torch.bool, device=left.device).triu(2)
        logs = logs.masked_fill(later, -math.inf)
    unit = logs.detach().amax(-1, keepdim=True)
    return (logs - unit).exp(), unit
