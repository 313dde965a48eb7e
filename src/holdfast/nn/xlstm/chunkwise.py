"""The mLSTM chunk by chunk: parallel inside chunks, and across them the same decay with chunks in the place of tokens.

A chunk as a whole forgets by the product of its forget gates and takes in what its last row of weights leaves of its
tokens. So the memories before all chunks are one product of weights and chunks, and no loop runs over chunks; one runs
over spans of them, whose weights would be quadratic.

Source: arXiv 2405.04517, section 2.3, and arXiv 2503.14376, section 2, in the form that holds at any gate value.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from holdfast.nn.xlstm.call import Memory, MLSTMAnswer, MLSTMCall, Tokens
from holdfast.nn.xlstm.decay import LEAST, faded, stabilised
from holdfast.nn.xlstm.parallel import read

MOST_CHUNKS = 64
"""Of one span, whose memories are all there at once."""


def refusal(call: MLSTMCall) -> str | None:
    """It takes every call."""
    return None


def compute(call: MLSTMCall) -> MLSTMAnswer:
    """Output and memory of a call of at least one token."""
    tokens, memory, size = call.by_head(), call.memory, call.chunk_size
    step = size * min(size, MOST_CHUNKS)
    outputs = []
    for start in range(0, call.time, step):
        span = _chunked(tokens, slice(start, min(start + step, call.time)), size)
        output, memory = _span(span, memory, call.eps)
        outputs.append(output.flatten(2, 3))
    output = torch.cat(outputs, 2)[:, :, : call.time]
    return MLSTMAnswer(output.transpose(1, 2).to(call.value.dtype), memory)


def _chunked(tokens: Tokens, places: slice, size: int) -> Tokens:
    """Some tokens as chunks; those that the last one lacks take nothing in and forget nothing."""
    lacking = -(places.stop - places.start) % size
    query, key, value = (
        pad(x[:, :, places], (0, 0, 0, lacking)).unflatten(2, (-1, size))
        for x in (tokens.query, tokens.key, tokens.value)
    )
    log_input, log_forget = (
        pad(x[:, :, places], (0, lacking), value=fill).unflatten(2, (-1, size))
        for x, fill in ((tokens.log_input, -math.inf), (tokens.log_forget, 0.0))
    )
    return Tokens(query, key, value, log_input, log_forget)


def _span(
    tokens: Tokens, before: Memory, eps: float
) -> tuple[Float[Tensor, "batch heads chunks size value_dim"], Memory]:
    """Output and memory of some chunks."""
    left = faded(tokens.log_forget)
    # What each chunk leaves, in a unit of its own.
    log_taken = left[..., -1, 1:] + tokens.log_input
    chunk_unit = log_taken.detach().amax(-1).clamp(min=LEAST)
    taken = tokens.key * (log_taken - chunk_unit.unsqueeze(-1)).exp().unsqueeze(-1)
    cells, normalisers = taken.mT @ tokens.value, taken.sum(-2)
    # The memories behind all chunks.
    log_input = torch.cat([before.stabiliser.detach().unsqueeze(-1), chunk_unit], -1)
    weights, unit = stabilised(faded(left[..., -1, 0]), log_input)
    cells = torch.cat([before.cell.unsqueeze(2), cells], 2)
    normalisers = torch.cat([before.normaliser.unsqueeze(2), normalisers], 2)
    behind = (weights @ cells.flatten(3)).unflatten(3, cells.shape[3:])
    normaliser_behind = weights @ normalisers
    memory = Memory(cell=behind[:, :, -1], normaliser=normaliser_behind[:, :, -1], stabiliser=unit[:, :, -1])
    # Each chunk reads the one that it begins with.
    cells = torch.cat([cells[:, :, :1], behind[:, :, :-1]], 2)
    normalisers = torch.cat([normalisers[:, :, :1], normaliser_behind[:, :, :-1]], 2)
    units = torch.cat([log_input[:, :, :1], unit[:, :, :-1]], 2)
    weights, unit = stabilised(left, torch.cat([units.unsqueeze(-1), tokens.log_input], -1))
    return read(tokens, cells, normalisers, weights, unit, eps), memory
