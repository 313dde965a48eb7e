"""The mLSTM for all tokens at once, against a memory: quadratic in their number, and read and written once.

With D_tj the weight of token j at token t and d_t that of the memory (see `decay`), in the unit m_t:

    S = (Q K^T) * D        h = (d * Q C + S V) / (max(|d * Q n + S 1|, exp(-m)) + eps)

The last row of D and d is what the memory becomes. A step of a few tokens is the same thing as a long sequence.

Source: arXiv 2405.04517, appendix on the parallel form; the memory is one more column of it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.nn.xlstm.call import Memory, MLSTMAnswer, MLSTMCall, Tokens
from holdfast.nn.xlstm.decay import bounded_inverse, faded, stabilised


def refusal(call: MLSTMCall) -> str | None:
    """It takes every call."""
    return None


def compute(call: MLSTMCall) -> MLSTMAnswer:
    """Output and memory of a call of at least one token."""
    tokens, before = call.by_head(), call.memory
    log_input = torch.cat([before.stabiliser.detach().unsqueeze(-1), tokens.log_input], -1)
    weights, unit = stabilised(faded(tokens.log_forget), log_input)
    output = read(tokens, before.cell, before.normaliser, weights, unit, call.eps)
    forget, taken = weights[..., -1, :1], tokens.key * weights[..., -1, 1:, None]
    memory = Memory(
        cell=before.cell * forget.unsqueeze(-1) + taken.mT @ tokens.value,
        normaliser=before.normaliser * forget + taken.sum(-2),
        stabiliser=unit[..., -1],
    )
    return MLSTMAnswer(output.transpose(1, 2).to(call.value.dtype), memory)


def read(
    tokens: Tokens,
    cell: Float[Tensor, "*batch dim value_dim"],
    normaliser: Float[Tensor, "*batch dim"],
    weights: Float[Tensor, "*batch time columns"],
    unit: Float[Tensor, "*batch time"],
    eps: float,
) -> Float[Tensor, "*batch time value_dim"]:
    """The output at each token.

    Arguments:
        tokens: those that the weights are of.
        cell: of the memory before them.
        normaliser: likewise.
        weights: see `stabilised`.
        unit: likewise.
        eps: see `MLSTMCall`.
    """
    scores = (tokens.query @ tokens.key.mT) * weights[..., 1:]
    query = tokens.query * weights[..., :1]
    denominator = (query @ normaliser.unsqueeze(-1)).squeeze(-1) + scores.sum(-1)
    denominator = torch.maximum(denominator.abs(), bounded_inverse(unit)) + eps
    return (query @ cell + scores @ tokens.value) / denominator.unsqueeze(-1)
