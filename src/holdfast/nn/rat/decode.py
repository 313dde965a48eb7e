"""RAT's core for one new token of every row: the decode step, which reads the past where it stands.

Nothing is done in place, so that `torch.compile` takes it into a graph as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from holdfast.nn.masking import all_finite
from holdfast.nn.rat.call import ChunkAnswer, ChunkCall, Past
from holdfast.nn.rat.windows import hidden_past, query_factor
from holdfast.nn.rotary import rotated, turns

PIECE = 1 << 19
"""Numbers of a past in half precision that are converted at once: few enough for a processor's cache."""


def compute(call: ChunkCall) -> ChunkAnswer:
    """Output and chunk states."""
    past = call.past
    gate, value = (tensor[:, 0].to(call.dtype) for tensor in (call.gate, call.value))
    query, key = (tensor[:, 0].to(call.dtype).repeat(1, call.repeats, 1) for tensor in (call.query, call.key))
    nothing = torch.zeros_like(value)
    running_key = torch.lerp(key, nothing if past is None else past.running_key.to(call.dtype), gate)
    running_value = torch.lerp(value, nothing if past is None else past.running_value.to(call.dtype), gate)
    output = running_value
    if past is not None and past.keys.shape[2]:
        output = _attended(call, past, query, running_key, running_value)
    return ChunkAnswer(output.to(call.value.dtype)[:, None], running_key[:, None], running_value[:, None])


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
    asked = query.unsqueeze(2)
    logits = [asked @ past.keys[:, :, piece].to(call.dtype).mT for piece in _pieces(past.keys, call.dtype)]
    if hidden is not None:
        logits = [torch.cat(logits, -1).masked_fill(hidden[:, None, None], -math.inf)]
    weights = torch.softmax(torch.cat([*logits, own], -1), -1)
    closed = _weighted(weights[..., :-1], past.values, hidden)
    return (closed + weights[..., -1:] * running_value.unsqueeze(2)).squeeze(2)


def _weighted(
    weights: Float[Tensor, "batch heads 1 past"],
    values: Float[Tensor, "batch heads past dim"],
    hidden: Bool[Tensor, "batch past"] | None,
) -> Float[Tensor, "batch heads 1 dim"]:
    """The weighted sum of values, whatever stands where they are hidden."""
    looks = hidden is None or (values.device.type == "cpu" and not torch.compiler.is_compiling())
    total = torch.zeros((), dtype=weights.dtype, device=weights.device)
    for piece in _pieces(values, weights.dtype):
        part = values[:, :, piece].to(weights.dtype)
        if not looks and hidden is not None:
            part = part.masked_fill(hidden[:, None, piece, None], 0.0)
        total = total + weights[..., piece] @ part
    if hidden is None or not looks or _known_finite(total):
        return total
    return weights @ values.to(weights.dtype).masked_fill(hidden[:, None, :, None], 0.0)


def _known_finite(tensor: Tensor) -> bool:
    try:
        return all_finite(tensor)
    except RuntimeError:  # a tensor without values
        return False


def _pieces(states: Float[Tensor, "batch heads past dim"], dtype: torch.dtype) -> Iterator[slice]:
    """The past at once; a piece at a time where it is to be converted, lest a second one is made."""
    batch, heads, past, dim = states.shape
    step = past
    if states.dtype != dtype and states.device.type == "cpu" and not torch.compiler.is_compiling():
        step = max(1, PIECE // (batch * heads * dim))
    for start in range(0, past, step):
        yield slice(start, min(past, start + step))
