"""Attention without gradient, some queries of one head at a time, in memory that is made once.

Between the pass for the entropy and the pass for the weights the logits of those few stay where they are; they are
overwritten by their weights and read as seldom as possible.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.nn.attention import plain
from holdfast.nn.attention.call import AttentionCall
from holdfast.nn.attention.visibility import block, chunks, cut, heads, hidden
from holdfast.nn.masking import hidden_keys
from holdfast.nn.normalisers import FactorNormaliser

FEWEST = 1 << 16
"""From this many logits a head a CPU is faster so than all at once, which spends most of its time on fresh memory."""

MASKED = -1e30
"""Stands for a masked logit where -inf would meet a factor of zero; its exponential is zero all the same."""


def refusal(call: AttentionCall) -> str | None:
    """Few logits, or a gradient."""
    many = call.on_cpu and call.queries * call.keys >= FEWEST
    if not many and call.table <= plain.MOST:
        return "few logits are faster all at once"
    return None if call.readable else "values may not be looked at"


def compute(call: AttentionCall) -> Float[Tensor, "batch heads queries value_dim"]:
    """Every head, every chunk of its queries."""
    call = call.wide()
    assert call.value is not None
    output = call.query.new_zeros(*call.query.shape[:3], call.value.shape[-1])
    first, last = next(chunks(call, call.keys))
    logits, weights = call.query.new_empty(2, (last - first) * call.keys)
    for head, head_output in zip(heads(call), output.flatten(0, 1), strict=True):
        for start, stop in chunks(head, head.keys):
            part = cut(head, start, stop)
            if part.keys == 0:
                continue
            if part.sinks is not None or not isinstance(part.normaliser, FactorNormaliser):
                head_output[start:stop] = plain.compute(part)[0, 0]
            else:
                size = part.queries * part.keys
                z, weight = (memory[:size].view(part.queries, part.keys) for memory in (logits, weights))
                head_output[start:stop] = _compute_in(z, weight, part, part.normaliser)
    return output


def _compute_in(
    z: Float[Tensor, "queries keys"],
    weight: Float[Tensor, "queries keys"],
    part: AttentionCall,
    normaliser: FactorNormaliser,
) -> Float[Tensor, "queries value_dim"]:
    """Output of a part of one head; `z` and `weight` are memory to work in."""
    assert part.value is not None
    value = part.value[0, 0]
    visible = _fill_logits(z, part)
    position = part.rows.query.unsqueeze(1)
    z.sub_(z.amax(1, keepdim=True))
    entropy = torch.zeros_like(z[:, :1])
    if normaliser.needs_entropy:
        # The fused softmax is twice as fast as an exponential and a sum; its largest weight is one over that sum.
        torch.softmax(z, 1, out=weight)
        entropy = -weight.amax(1, keepdim=True).log() - torch.linalg.vecdot(z, weight).unsqueeze(1)
    factor = normaliser.factor(entropy, visible, position).to(z.dtype)
    if not normaliser.needs_entropy or bool((factor != 1).any()):
        # Not zero: a masked logit must stay far below, also where a row of one key has a factor of ln 1.
        torch.softmax(z.mul_(factor.clamp(min=1e-20)), 1, out=weight)
    return plain.weighted_sum(weight, value, readable=True).masked_fill_(visible == 0, 0.0)


def _fill_logits(z: Float[Tensor, "queries keys"], part: AttentionCall) -> Tensor:
    """Write the logits of a part of one head, and count the keys that each query sees."""
    torch.mm(part.query[0, 0] * part.scale, part.key[0, 0].mT, out=z)
    if part.softcap is not None:
        z.div_(part.softcap).tanh_().mul_(part.softcap)
    if part.causal and part.mask is None and part.window is None:
        # Only the last columns are hidden from anybody.
        edge = min(z.shape)
        tail = hidden(block(part, 0, part.queries, part.keys - edge, part.keys))
        if tail is not None:
            z[:, -edge:].masked_fill_(tail[0, 0], MASKED)
        return (part.rows.query - part.first_key + 1).clamp(min=0).unsqueeze(1)
    if part.mask is not None and part.mask.is_floating_point():
        z.add_(part.mask[0, 0].to(z.dtype))
    unseen = hidden(part)
    if unseen is None:
        return torch.full((len(z), 1), z.shape[1], device=z.device)
    unseen = unseen[0, 0] | hidden_keys(z)
    z.masked_fill_(unseen, MASKED)
    return (~unseen).sum(1, keepdim=True)
