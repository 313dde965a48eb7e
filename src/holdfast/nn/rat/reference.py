"""RAT's core as its formulas stand, with all logits in memory: the reference of every other backend.

inside a chunk      k_t = g_t k_{t-1} + (1 - g_t) k_t,  v_t likewise; a chunk starts from zero
across chunks       a query sees the last state of every chunk before its own, and the running state at its own token

Source: arXiv 2507.04416, section 3.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from holdfast.nn.attention.plain import weighted_sum
from holdfast.nn.normalisers import Plain, Rows
from holdfast.nn.rat.call import ChunkAnswer, ChunkCall, Past
from holdfast.nn.rotary import rotated, turns


def refusal(call: ChunkCall) -> str | None:
    """It takes every call."""
    return None


def compute(call: ChunkCall) -> ChunkAnswer:
    """Output and chunk states, in float32 or better until the output is rounded."""
    if call.past is not None and type(call.normaliser) is not Plain and _ragged(call.past):
        # A normaliser takes one position for all rows, which count as many states as there are slots.
        answers = [compute(_row(call, row)) for row in range(len(call.past.count))]
        parts = ([getattr(answer, name) for answer in answers] for name in ("output", "key_ends", "value_ends"))
        return ChunkAnswer(*(torch.cat(part) for part in parts))
    past = call.past
    gate = _chunked(call, call.gate.to(call.dtype), fill=1.0)
    key, value = (_chunked(call, _by_head(call, tensor)) for tensor in (call.key, call.value))
    running_key = _recurrence(gate, key, None if past is None else past.running_key)
    running_value = _recurrence(gate, value, None if past is None else past.running_value)
    query = _chunked(call, _by_head(call, call.query))
    own = running_key
    if call.rope_theta is not None:
        index = call.first_chunk[:, None] + torch.arange(call.chunks, device=gate.device)
        turn = turns(index[:, :, None, None], call.value.shape[-1], call.rope_theta, call.dtype)
        query, own = rotated(query, turn), rotated(running_key, turn)
    weights, of_own = _weights(call, query, own)
    closed = _with_past(running_value, None if past is None else past.values)
    output = weighted_sum(weights.flatten(2, 3), closed, readable=False).unflatten(2, weights.shape[2:4])
    output = output.permute(0, 2, 3, 1, 4) + of_own.permute(0, 2, 3, 1).unsqueeze(-1) * running_value
    return ChunkAnswer(
        output.flatten(1, 2)[:, : call.time].to(call.value.dtype), running_key[:, :, -1], running_value[:, :, -1]
    )


def _ragged(past: Past) -> bool:
    """Whether there may be slots that are no row's."""
    return len(past.count) > 1 or int(past.count[0]) < past.keys.shape[2]


def _row(call: ChunkCall, row: int) -> ChunkCall:
    """One row of a call that continues, without what is no key of that row."""
    assert call.past is not None
    here, count = slice(row, row + 1), int(call.past.count[row])
    past = Past(
        keys=call.past.keys[here, :, :count],
        values=call.past.values[here, :, :count],
        count=call.past.count[here],
        running_key=call.past.running_key[here],
        running_value=call.past.running_value[here],
    )
    tensors = {name: getattr(call, name)[here] for name in ("query", "key", "value", "gate")}
    return replace(call, past=past, **tensors)


def _by_head(call: ChunkCall, tensor: Tensor) -> Float[Tensor, "batch time heads dim"]:
    """A tensor of groups as the heads see it, in float32 or better: head h sees group h mod groups."""
    heads = call.value.shape[2]
    return tensor.to(call.dtype).repeat(1, 1, heads // tensor.shape[2], 1)


def _chunked(call: ChunkCall, tensor: Tensor, fill: float = 0.0) -> Float[Tensor, "batch chunks chunk heads dim"]:
    """Time as chunks of positions; `fill` stands for tokens that the last chunk lacks."""
    lacking = call.chunks * call.chunk_size - call.time
    whole: Tensor = pad(tensor, (0, 0, 0, 0, 0, lacking), value=fill).unflatten(1, (call.chunks, call.chunk_size))
    return whole


def _recurrence(gate: Tensor, x: Tensor, start: Tensor | None) -> Float[Tensor, "batch chunks chunk heads dim"]:
    """The running state at every token; the first chunk begins with `start`, the others with zero."""
    state = torch.zeros_like(x[:, :, 0])
    if start is not None:
        state = torch.cat([start.to(x.dtype).unsqueeze(1), state[:, 1:]], 1)
    states = []
    for place in range(x.shape[2]):
        state = gate[:, :, place] * state + (1 - gate[:, :, place]) * x[:, :, place]
        states.append(state)
    return torch.stack(states, 2)


def _with_past(states: Tensor, past: Tensor | None) -> Float[Tensor, "batch heads keys dim"]:
    """The end states of all chunks: those before the call, then its own."""
    ends = states[:, :, -1].transpose(1, 2)
    return ends if past is None else torch.cat([past.to(ends.dtype), ends], 2)


def _weights(
    call: ChunkCall, query: Tensor, own: Tensor
) -> tuple[Float[Tensor, "batch heads chunks chunk keys"], Float[Tensor, "batch heads chunks chunk"]]:
    """Of the closed chunks, those before the call first, and of the running state at the query's own token."""
    keys = _with_past(own, None if call.past is None else call.past.keys)
    before = keys.shape[2] - call.chunks
    column = torch.arange(keys.shape[2], device=query.device)
    chunk = torch.arange(call.chunks, device=query.device) + before
    unseen = (column >= chunk[:, None])[None]
    if call.past is not None:
        unseen = unseen | ((column < before) & (column >= call.past.count[:, None]))[:, None]
    logits = torch.einsum("bclhd,bhjd->bhclj", query, keys).masked_fill(unseen[:, None, :, None], -math.inf)
    # The query's chunk is not closed, so that the column where it will stand is free for its running state.
    itself = (query * own).sum(-1).permute(0, 3, 1, 2).unsqueeze(-1)
    stands = (column == chunk[:, None])[:, None]
    logits = torch.where(stands, itself, logits) * call.scale
    rows = Rows(chunk.repeat_interleave(call.chunk_size), column)
    weights = call.normaliser.weights(logits.flatten(2, 3), rows).unflatten(2, (call.chunks, call.chunk_size))
    return weights.masked_fill(stands, 0.0), torch.where(stands, weights, 0.0).sum(-1)
