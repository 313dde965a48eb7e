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

from holdfast.nn.xlstm.call import Memory, MLSTMAnswer, MLSTMCall, Tokens, in_dtype
from holdfast.nn.xlstm.decay import faded, stabilised
from holdfast.nn.xlstm.parallel import read

LEAST = -1e30
"""Stands for the logarithm of nothing where differences are taken."""

MOST_CHUNKS = 64
"""Of one span, whose memories are all there at once."""


def refusal(call: MLSTMCall) -> str | None:
    """It takes every call."""
    return None


def compute(call: MLSTMCall) -> MLSTMAnswer:
    """Output and memory of a call of at least one token."""
    tokens, memory = call.tokens(), call.memory
    step = call.chunk_size * min(call.chunk_size, MOST_CHUNKS)
    outputs = []
    for start in range(0, call.time, step):
        output, memory = _span(call, tokens[start : start + step], memory)
        outputs.append(output)
    return MLSTMAnswer(in_dtype(torch.cat(outputs, 1), call.value.dtype), memory)


def _chunked(tokens: Tokens, size: int) -> Tokens:
    """Chunks as heads; tokens that the last one lacks take nothing in and forget nothing."""
    lacking = -tokens.value.shape[1] % size
    query, key, value = (
        pad(x, (0, 0, 0, lacking)).unflatten(1, (-1, size)).flatten(0, 1)
        for x in (tokens.query, tokens.key, tokens.value)
    )
    log_input, log_forget = (
        pad(x, (0, lacking), value=fill).unflatten(1, (-1, size)).flatten(0, 1)
        for x, fill in ((tokens.log_input, -math.inf), (tokens.log_forget, 0.0))
    )
    return Tokens(query, key, value, log_input, log_forget)


def _span(call: MLSTMCall, tokens: Tokens, before: Memory) -> tuple[Float[Tensor, "heads time value_dim"], Memory]:
    """Output of some tokens, and the memory behind them."""
    heads, time, _ = tokens.value.shape
    chunks = _chunked(tokens, call.chunk_size)
    left = faded(chunks.log_forget)
    # What each chunk leaves, in a unit of its own.
    log_taken = left[:, -1, 1:] + chunks.log_input
    own_unit = log_taken.detach().amax(-1).clamp(min=LEAST)
    taken = chunks.key * (log_taken - own_unit.unsqueeze(-1)).exp().unsqueeze(-1)
    cells, normalisers = torch.bmm(taken.mT, chunks.value), taken.sum(1)
    # The memories behind all chunks.
    cell, normaliser = before.cell.unsqueeze(1), before.normaliser.unsqueeze(1)
    unit = before.stabiliser.unsqueeze(1)
    log_input = torch.cat([unit, own_unit.view(heads, -1)], 1)
    weights, units = stabilised(faded(left[:, -1, 0].view(heads, -1)), log_input)
    cells = torch.cat([cell, cells.unflatten(0, (heads, -1))], 1)
    normalisers = torch.cat([normaliser, normalisers.unflatten(0, (heads, -1))], 1)
    cells = torch.bmm(weights, cells.flatten(2)).unflatten(2, cells.shape[2:])
    normalisers = torch.bmm(weights, normalisers)
    # Copies, so that nobody who keeps the last one holds them all.
    after = Memory(cell=cells[:, -1].clone(), normaliser=normalisers[:, -1].clone(), stabiliser=units[:, -1, 0].clone())
    # Each chunk reads the one that it begins with.
    cells, normalisers, units = (
        torch.cat([first, x[:, :-1]], 1).flatten(0, 1)
        for first, x in ((cell, cells), (normaliser, normalisers), (unit.unsqueeze(-1), units))
    )
    begins = Memory(cell=cells, normaliser=normalisers, stabiliser=units.squeeze(-1))
    weights, units = stabilised(left, torch.cat([units, chunks.log_input], -1))
    of_memory, of_tokens = weights.split([1, call.chunk_size], -1)
    output = read(call, chunks, begins, of_memory, of_tokens, units)
    return output.view(heads, -1, output.shape[-1])[:, :time], after
