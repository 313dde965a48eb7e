"""RAT's core for one new token of every row: the decode step, which reads the past where it stands.

Where it is compiled nothing is done in place and no value is looked at, so that it is part of the graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from holdfast.nn.masking import all_finite
from holdfast.nn.rat.call import ChunkAnswer, ChunkCall, Past
from holdfast.nn.rat.windows import hidden_past, query_factor
from holdfast.nn.rotary import rotated, turns

PIECE = 1 << 19
"""Numbers of a past in half precision that are converted at once: as float32 they fill 2 MiB, which stay in a cache."""


def compute(call: ChunkCall) -> ChunkAnswer:
    """Output and chunk states."""
    past = call.past
    gate, value = (tensor[:, 0].to(call.dtype) for tensor in (call.gate, call.value))
    query, key = (_by_head(call, tensor[:, 0].to(call.dtype)) for tensor in (call.query, call.key))
    start_key, start_value = (None, None) if past is None else (past.running_key, past.running_value)
    running_key, running_value = _step(key, start_key, gate), _step(value, start_value, gate)
    output = running_value
    if past is not None and past.keys.shape[2]:
        output = _attended(call, past, query, running_key, running_value)
    return ChunkAnswer(output.to(call.value.dtype)[:, None], running_key[:, None], running_value[:, None])


def _by_head(call: ChunkCall, tensor: Float[Tensor, "batch groups dim"]) -> Float[Tensor, "batch heads dim"]:
    """Head h takes group h mod groups."""
    if call.repeats == 1:
        return tensor
    return tensor[:, None].expand(-1, call.repeats, -1, -1).flatten(1, 2)


def _step(
    x: Float[Tensor, "batch heads dim"],
    state: Float[Tensor, "batch heads dim"] | None,
    gate: Float[Tensor, "batch heads dim"],
) -> Float[Tensor, "batch heads dim"]:
    """The state after a token."""
    return torch.lerp(x, torch.zeros_like(x) if state is None else state.to(x.dtype), gate)


def _attended(
    call: ChunkCall,
    past: Past,
    query: Float[Tensor, "batch heads dim"],
    running_key: Float[Tensor, "batch heads dim"],
    running_value: Float[Tensor, "batch heads dim"],
) -> Float[Tensor, "batch heads dim"]:
    """Attention over the past and the running state."""
    position, hidden = call.first_chunk[:, None], hidden_past(call)
    factor = query_factor(call, position)
    query = query * (factor[:, :, None] if isinstance(factor, Tensor) else factor)
    own = (query * running_key).sum(-1)[:, :, None, None]
    if call.rope_theta is not None:
        query = rotated(query, turns(position, query.shape[-1], call.rope_theta, call.dtype))
    # On a processor a matrix times a column is faster than a row times a transposed matrix.
    logits = _product(query.unsqueeze(2), past.keys, lambda asked, keys: (keys @ asked.mT).mT)
    if hidden is not None:
        logits = logits.masked_fill(hidden[:, None, None], -math.inf)
    weights = torch.softmax(torch.cat([logits, own], -1), -1)
    closed = _weighted(weights[..., :-1], past.values, hidden)
    return torch.addcmul(closed, weights[..., -1:], running_value.unsqueeze(2)).squeeze(2)


def _weighted(
    weights: Float[Tensor, "batch heads 1 past"],
    values: Float[Tensor, "batch heads past dim"],
    hidden: Bool[Tensor, "batch past"] | None,
) -> Float[Tensor, "batch heads 1 dim"]:
    """The weighted sum of values, whatever stands where they are hidden."""
    if hidden is None or _may_look(values):
        total = _product(weights, values, torch.matmul)
        if hidden is None or all_finite(total):
            return total
    return weights @ values.to(weights.dtype).masked_fill(hidden[:, None, :, None], 0.0)


def _may_look(tensor: Tensor) -> bool:
    """Whether values may decide how to go on, which costs nothing on a processor."""
    if torch.compiler.is_compiling() or tensor.device.type != "cpu":
        return False
    try:
        bool(tensor[(0,) * tensor.ndim])
    except RuntimeError:  # a tensor without values
        return False
    return True


def _product(
    rows: Float[Tensor, "batch heads 1 width"],
    states: Float[Tensor, "batch heads past dim"],
    product: Callable[[Tensor, Tensor], Tensor],
) -> Float[Tensor, "batch heads 1 _"]:
    """Product of each head's row and states; those in half precision go through memory that stays in a cache."""
    if states.dtype == rows.dtype:
        return product(rows, states)
    if torch.compiler.is_compiling() or states.device.type != "cpu":
        return product(rows, states.to(rows.dtype))
    by_head, queries = states.flatten(0, 1), rows.flatten(0, 1)
    step = max(1, PIECE // by_head[0].numel())
    memory = queries.new_empty(min(step, len(by_head)), *by_head.shape[1:])
    parts = []
    for start in range(0, len(by_head), step):
        piece = by_head[start : start + step]
        parts.append(product(queries[start : start + step], memory[: len(piece)].copy_(piece)))
    return torch.cat(parts).view(*rows.shape[:3], -1)
