"""Attention without gradient, some queries at a time, in memory that is made once.

Between the pass for the entropy and the pass for the weights the logits of those few stay where they are; they are
overwritten by their weights and read as seldom as possible.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.nn.attention import plain
from holdfast.nn.attention.call import AttentionCall, Declined
from holdfast.nn.attention.tiles import Scratch, fill_logits, tiles
from holdfast.nn.masking import all_finite
from holdfast.nn.normalisers import FactorNormaliser

FEWEST = 1 << 12
"""From this many logits on a CPU is faster so than all at once, which spends its time on fresh memory."""


def refusal(call: AttentionCall) -> str | None:
    """Few logits, or a gradient."""
    many = call.on_cpu and call.table >= FEWEST
    if not many and call.table <= plain.MOST:
        return "few logits are faster all at once"
    return None if call.readable else "values may not be looked at"


def compute(call: AttentionCall) -> Float[Tensor, "batch heads queries value_dim"]:
    """Every tile.

    Errors:
        Declined: the factor has a gradient of its own, which no memory that is overwritten can give.
    """
    call = call.wide()
    assert call.value is not None
    output = call.query.new_zeros(*call.query.shape[:3], call.value.shape[-1])
    scratch = Scratch()
    for tile in tiles(call):
        if tile.call.keys:
            output[tile.sequences, tile.heads, tile.queries] = _compute(scratch, tile.call)
    return output


def _compute(scratch: Scratch, part: AttentionCall) -> Float[Tensor, "batch heads queries value_dim"]:
    """Output of a part."""
    normaliser = part.normaliser
    if part.sinks is not None or not isinstance(normaliser, FactorNormaliser):
        return plain.compute(part)
    assert part.value is not None
    z, weight = scratch.tables(part)
    visible = fill_logits(z, part).visible
    z.sub_(z.amax(-1, keepdim=True))
    entropy = z.new_zeros(*z.shape[:3], 1)
    if normaliser.needs_entropy:
        # The fused softmax is twice as fast as an exponential and a sum; its largest weight is one over that sum.
        torch.softmax(z, -1, out=weight)
        entropy = -weight.amax(-1, keepdim=True).log() - torch.linalg.vecdot(z, weight).unsqueeze(-1)
        if not all_finite(entropy):  # a product was NaN or infinite
            return plain.compute(part)
    factor = normaliser.factor(entropy, visible, part.rows.query.unsqueeze(1)).to(z.dtype)
    if factor.requires_grad:
        raise Declined
    if not normaliser.needs_entropy or bool((factor != 1).any()):
        # Not zero: a masked logit must stay far below, also where a row of one key has a factor of ln 1.
        torch.softmax(z.mul_(factor.clamp(min=1e-20)), -1, out=weight)
    batch, kv_heads, keys, value_dim = part.value.shape
    share = weight.view(batch, kv_heads, part.groups * part.queries, keys)
    output = plain.weighted_sum(share, part.value, readable=True)
    return output.view(*z.shape[:3], value_dim).masked_fill_(visible == 0, 0.0)
