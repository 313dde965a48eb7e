"""Attention some queries of one head at a time, in operations with gradients: a backward pass computes chunks again."""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from holdfast.nn.attention import plain
from holdfast.nn.attention.call import AttentionCall
from holdfast.nn.attention.visibility import chunks, cut, heads


def refusal(call: AttentionCall) -> str | None:
    """None: it takes whatever the formula takes."""
    return None


def compute(call: AttentionCall) -> Float[Tensor, "batch heads queries value_dim"]:
    """The plain form of every chunk."""
    assert call.value is not None
    run = partial(checkpoint, plain.compute, use_reentrant=False) if call.needs_gradient else plain.compute
    outputs = []
    for head in heads(call):
        for start, stop in chunks(head, head.keys):
            part = cut(head, start, stop)
            if part.keys:
                outputs.append(run(part).to(call.query.dtype))
            else:
                outputs.append(call.query.new_zeros(1, 1, part.queries, call.value.shape[-1]))
    return torch.cat(outputs, dim=2).view(*call.query.shape[:3], -1)
