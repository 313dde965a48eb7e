"""The mLSTM for all tokens at once, against a memory: quadratic in their number, and read and written once.

With D_tj the weight of token j at token t and d_t that of the memory (see `decay`), in the unit m_t:

    S = (Q K^T) * D        h = (d * Q C + S V) / (max(|d * Q n + S 1|, exp(-m)) + eps)

The last row of D and d is what the memory becomes. A step of a few tokens is the same thing as a long sequence.

Source: arXiv 2405.04517, appendix on the parallel form; the memory is one more column of it.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.nn.xlstm.call import Memory, MLSTMAnswer, MLSTMCall, Tokens, in_dtype
from holdfast.nn.xlstm.decay import faded, stabilised


def refusal(call: MLSTMCall) -> str | None:
    """It takes every call."""
    return None


def compute(call: MLSTMCall) -> MLSTMAnswer:
    """Output and memory of a call of at least one token."""
    tokens, before = call.tokens(), call.memory
    log_input = torch.cat([before.stabiliser.unsqueeze(-1), tokens.log_input], -1)
    weights, unit = stabilised(faded(tokens.log_forget), log_input)
    of_memory, of_tokens = weights.split([1, call.time], -1)
    output = read(call, tokens, before, of_memory, of_tokens, unit)
    forget, taken = of_memory[:, -1:], tokens.key * of_tokens[:, -1:].mT
    cell = before.cell.mul_(forget) if call.in_place else before.cell * forget
    memory = Memory(
        cell=cell.baddbmm_(taken.mT, tokens.value),
        normaliser=torch.addcmul(taken.sum(1), before.normaliser, forget.squeeze(-1)),
        stabiliser=unit[:, -1, 0].clone(),
    )
    return MLSTMAnswer(in_dtype(output, call.value.dtype), memory)


def read(
    call: MLSTMCall,
    tokens: Tokens,
    memory: Memory,
    of_memory: Float[Tensor, "heads time 1"],
    of_tokens: Float[Tensor, "heads time tokens"],
    unit: Float[Tensor, "heads time 1"],
) -> Float[Tensor, "heads time value_dim"]:
    """The output at each token.

    Arguments:
        call: what scale and eps are of.
        tokens: those that are read, and that the weights are of.
        memory: before them.
        of_memory: its weight at each token.
        of_tokens: theirs.
        unit: logarithm of the unit of both.
    """
    scores = torch.bmm(tokens.query, tokens.key.mT) * of_tokens
    query = tokens.query * of_memory
    denominator = torch.baddbmm(scores.sum(-1, keepdim=True), query, memory.normaliser.unsqueeze(-1))
    # The scale stands here once instead of at every query: numerator and denominator share it.
    least = (-math.log(call.scale) - unit).exp()
    denominator = torch.maximum(denominator.abs(), least) + call.eps / call.scale
    return torch.baddbmm(torch.bmm(query, memory.cell), scores, tokens.value) / denominator
