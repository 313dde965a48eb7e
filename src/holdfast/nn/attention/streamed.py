"""Attention without gradient, some queries at a time, in memory that is made once.

Between the pass for the entropy and the pass for the weights the logits of those few stay where they are; they are
overwritten by their weights and read as seldom as possible.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from holdfast.nn.attention import plain
from holdfast.nn.attention.call import AttentionCall, Declined
from holdfast.nn.attention.tiles import Scratch, Tile, fill_logits, tiles
from holdfast.nn.masking import all_finite
from holdfast.nn.normalisers import FactorNormaliser

FEWEST = 1 << 14
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
        Declined: the factor has a gradient of its own, which memory that is overwritten cannot give.
    """
    call = call.wide()
    assert call.value is not None
    output = call.query.new_zeros(*call.query.shape[:3], call.value.shape[-1])
    scratch = Scratch()
    for tile in tiles(call):
        answer = _answer(scratch, tile)
        output[tile.sequences, tile.heads, tile.queries] = plain.compute(tile.call) if answer is None else answer.output
    return output


@dataclass(frozen=True)
class Answer:
    """What a pass over the logits of some rows tells.

    Arguments:
        output: of the attention.
        total: logarithm of the sum of the exponentials of the logits times their factor.
        entropy: in nats, before the factor; 0 where the factor does not need it.
        visible: number of visible keys.
    """

    output: Float[Tensor, "batch heads queries value_dim"]
    total: Float[Tensor, "batch heads queries"]
    entropy: Float[Tensor, "batch heads queries 1"]
    visible: Int[Tensor, "batch heads queries 1"]


def answer(call: AttentionCall) -> Answer:
    """The output with what a backward pass needs, where the normaliser is a factor; rows that see nothing have zeros.

    Errors:
        Declined: logits are not finite, or there are sinks.
    """
    call = call.wide()
    assert call.value is not None
    shape = call.query.shape[:3]
    total, entropy = call.query.new_zeros(2, *shape)
    whole = Answer(
        call.query.new_zeros(*shape, call.value.shape[-1]),
        total,
        entropy.unsqueeze(-1),
        torch.zeros(*shape, 1, dtype=torch.long, device=call.query.device),
    )
    scratch = Scratch()
    for tile in tiles(call):
        part = _answer(scratch, tile)
        if part is None:
            raise Declined
        for field in fields(part):
            getattr(whole, field.name)[tile.sequences, tile.heads, tile.queries] = getattr(part, field.name)
    return whole


def _answer(scratch: Scratch, tile: Tile) -> Answer | None:
    """Of a tile; `None` where only the formula itself will do."""
    part, normaliser = tile.call, tile.call.normaliser
    if part.sinks is not None or not isinstance(normaliser, FactorNormaliser):
        return None
    assert part.value is not None
    z, weight = scratch.tables(part)
    visible = fill_logits(z, part, tile.seen).visible
    top = z.amax(-1, keepdim=True)
    z.sub_(top)
    entropy, largest = torch.zeros_like(top), top
    if normaliser.needs_entropy:
        # The fused softmax is twice as fast as an exponential and a sum; its largest weight is one over that sum.
        torch.softmax(z, -1, out=weight)
        largest = weight.amax(-1, keepdim=True)
        entropy = (-largest.log() - torch.linalg.vecdot(z, weight).unsqueeze(-1)).clamp(min=0)
        if not all_finite(entropy):  # a product was NaN or infinite
            return None
    factor = normaliser.factor(entropy, visible, part.rows.query.unsqueeze(1)).to(z.dtype)
    if factor.requires_grad:
        raise Declined
    if not normaliser.needs_entropy or bool((factor != 1).any()):
        # Not zero: a masked logit must stay far below, also where a row of one key has a factor of ln 1.
        factor = factor.clamp(min=1e-20)
        torch.softmax(z.mul_(factor), -1, out=weight)
        largest = weight.amax(-1, keepdim=True)
    batch, kv_heads, keys, value_dim = part.value.shape
    share = weight.view(batch, kv_heads, part.groups * part.queries, keys)
    output = plain.weighted_sum(share, part.value, readable=True).view(*z.shape[:3], value_dim)
    empty = visible == 0
    return Answer(
        output.masked_fill_(empty, 0.0),
        (factor * top - largest.log()).squeeze(-1).masked_fill_(empty.squeeze(-1), 0.0),
        entropy.masked_fill_(empty, 0.0),
        visible.expand(top.shape),
    )
