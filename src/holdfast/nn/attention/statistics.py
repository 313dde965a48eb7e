"""Statistics of attention rows, streamed over blocks of keys: what each of two blocks tells merges exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from holdfast.nn.attention import plain
from holdfast.nn.attention.call import AttentionCall, full_precision
from holdfast.nn.attention.tiles import MASKED, Scratch, Seen, Tile, fill_logits, tiles
from holdfast.nn.attention.visibility import block as block_of
from holdfast.nn.attention.visibility import chunks, span
from holdfast.nn.masking import all_finite, hidden_keys

KEYS = 4096
"""Keys at a time, unless asked for others."""

FEWEST = 1 << 13
"""From this many logits on memory that is overwritten pays, on a CPU."""


@dataclass(frozen=True)
class RowStatistics:
    """What one pass over a row's logits tells, in pieces that can be merged.

    Arguments:
        top: largest visible logit, m; -inf without any.
        total: s = sum of exp(z - m).
        moment: t = sum of (z - m) exp(z - m), on shifted logits, which large offsets do not hurt.
        least: smallest visible logit; inf without any.
        visible: number of visible keys.

    Source: the streaming form of the entropy, H = ln s - t / s.
    """

    top: Float[Tensor, "batch heads queries"]
    total: Float[Tensor, "batch heads queries"]
    moment: Float[Tensor, "batch heads queries"]
    least: Float[Tensor, "batch heads queries"]
    visible: Int[Tensor, "batch heads queries"]

    @classmethod
    def of(cls, logits: Float[Tensor, "batch heads queries keys"]) -> RowStatistics:
        """Statistics of a block of logits, -inf where masked; a block may be empty or wholly masked."""
        hidden = hidden_keys(logits)
        z = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if z.shape[-1] == 0:
            zero = z.sum(-1)
            return cls(zero - math.inf, zero, zero, zero + math.inf, zero.long())
        top = z.masked_fill(hidden, -math.inf).amax(-1)
        finite = top.masked_fill(top == -math.inf, 0.0)
        shifted = (z - finite.unsqueeze(-1)).masked_fill(hidden, 0.0)
        weight = shifted.exp().masked_fill(hidden, 0.0)
        return cls(
            top,
            weight.sum(-1),
            (shifted * weight).sum(-1),
            z.masked_fill(hidden, math.inf).amin(-1),
            (~hidden).sum(-1),
        )

    def merge(self, other: RowStatistics) -> RowStatistics:
        """Statistics of both blocks together; in any order, and exact."""
        top = torch.maximum(self.top, other.top)
        total, moment = torch.zeros_like(top), torch.zeros_like(top)
        for part in (self, other):
            # A block without a visible key has a top of -inf: it weighs nothing, and must not give inf x 0.
            fall = torch.where(part.top == -math.inf, 0.0, part.top - top)
            factor = torch.where(part.top == -math.inf, 0.0, fall.exp())
            total = total + factor * part.total
            moment = moment + factor * (part.moment + fall * part.total)
        return RowStatistics(top, total, moment, torch.minimum(self.least, other.least), self.visible + other.visible)

    @property
    def entropy(self) -> Float[Tensor, "batch heads queries"]:
        """Shannon entropy in nats; 0 for a row without a visible key."""
        total = self.total.masked_fill(self.visible == 0, 1.0)
        return total.log() - self.moment / total

    @property
    def logsumexp(self) -> Float[Tensor, "batch heads queries"]:
        """Logarithm of the sum of exp(z); -inf for a row without a visible key."""
        return self.top + self.total.log()

    @property
    def largest(self) -> Float[Tensor, "batch heads queries"]:
        """Largest weight; 0 for a row without a visible key."""
        return torch.where(self.visible == 0, 0.0, 1 / self.total)

    @property
    def spread(self) -> Float[Tensor, "batch heads queries"]:
        """Largest minus smallest visible logit, in nats; 0 for a row without a visible key."""
        return torch.where(self.visible == 0, 0.0, self.top - self.least)


def attention_statistics(
    query: Float[Tensor, "batch heads queries dim"],
    key: Float[Tensor, "batch kv_heads keys dim"],
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    softcap: float | None = None,
    window: int | None = None,
    sinks: Float[Tensor, " heads"] | None = None,
    block: int = KEYS,
) -> RowStatistics:
    """Statistics of every attention row, streamed over blocks of keys; what no query sees is not computed.

    Arguments:
        query: as in `adaptive_attention`, like the other arguments it shares with it.
        key: likewise.
        mask: likewise.
        causal: likewise.
        scale: likewise.
        softcap: likewise.
        window: likewise.
        sinks: likewise; a sink counts as a visible key.
        block: keys at a time. Queries are taken a few at a time too, so that memory does not grow with both.

    Returns:
        The statistics, in float32 or better.

    Errors:
        ArgumentError: shapes, dtypes or options that do not fit.
    """
    call = AttentionCall.of(
        query, key, mask=mask, causal=causal, scale=scale, softcap=softcap, window=window, sinks=sinks
    )
    with full_precision(query.device):
        if torch.compiler.is_exporting():  # one graph stands for all lengths, which loops over blocks would fix
            z = plain.logits(call.without_groups())
            if sinks is not None:
                z = torch.cat([z, sinks.to(z.dtype)[:, None, None].expand(*z.shape[:-1], 1)], -1)
            return RowStatistics.of(z)
        return row_statistics(call, block)


def row_statistics(call: AttentionCall, size: int = KEYS) -> RowStatistics:
    """Statistics of every row of a call, over so many keys at a time."""
    if not (call.on_cpu and call.table >= FEWEST and call.readable):
        return _differentiable(call, size)
    call = call.wide()
    shape = call.query.shape[:3]
    top, total, moment, least = call.query.new_empty(4, *shape)
    visible = torch.zeros(shape, dtype=torch.long, device=call.query.device)
    whole = RowStatistics(top.fill_(-math.inf), total.zero_(), moment.zero_(), least.fill_(math.inf), visible)
    scratch = Scratch()
    for tile in tiles(call, size):
        rows = _of_tile(scratch, tile, size)
        for field in fields(rows):
            getattr(whole, field.name)[tile.sequences, tile.heads, tile.queries] = getattr(rows, field.name)
    return whole if call.sinks is None else whole.merge(_of_sinks(call))


def _of_tile(scratch: Scratch, tile: Tile, size: int) -> RowStatistics:
    """Statistics of some queries of some heads, over so many keys at a time."""
    if tile.call.keys <= size:
        return _of_block(scratch, tile.call, tile.seen)
    starts = range(0, tile.call.keys, size)
    parts = [block_of(tile.call, 0, tile.call.queries, start, min(tile.call.keys, start + size)) for start in starts]
    rows = _of_block(scratch, parts[0], Seen.of(parts[0]))
    for part in parts[1:]:
        rows = rows.merge(_of_block(scratch, part, Seen.of(part)))
    return rows


def _of_block(scratch: Scratch, part: AttentionCall, seen: Seen) -> RowStatistics:
    """Statistics of some queries of some heads over some keys, in memory that is overwritten."""
    z, weight = scratch.tables(part)
    seen = fill_logits(z, part, seen)
    least, top = seen.least(z), z.amax(-1)
    torch.softmax(z.sub_(top.unsqueeze(-1)), -1, out=weight)
    # The largest weight is one over the sum; that costs less than exponentials and a sum.
    total = 1 / weight.amax(-1)
    moment = total * torch.linalg.vecdot(z, weight)
    if not (all_finite(moment) and bool((least > MASKED / 2).all())):
        return RowStatistics.of(plain.logits(part))  # by the letter where products are huge or NaN
    visible = seen.visible.squeeze(-1).expand(top.shape)
    empty = visible == 0
    if bool(empty.any()):
        top, total, moment = (
            tensor.masked_fill(empty, fill) for tensor, fill in ((top, -math.inf), (total, 0.0), (moment, 0.0))
        )
    return RowStatistics(top, total, moment, least, visible)


def _of_sinks(call: AttentionCall) -> RowStatistics:
    """Statistics of the column that sinks are."""
    assert call.sinks is not None
    return RowStatistics.of(call.sinks[:, None, None].expand(*call.query.shape[:3], 1))


def _differentiable(call: AttentionCall, size: int) -> RowStatistics:
    """The same in operations that differentiate, trace and transform."""
    batch, heads = call.query.shape[:2]
    parts = []
    for first, last in chunks(call, batch * heads * min(size, call.keys)):
        total = RowStatistics.of(call.query.new_zeros(batch, heads, last - first, 0))
        low, high = span(call, first, last)
        for start in range(low // size * size, high, size):
            stop = min(call.keys, start + size)
            total = total.merge(RowStatistics.of(plain.logits(block_of(call, first, last, start, stop))))
        if call.sinks is not None:
            total = total.merge(_of_sinks(block_of(call, first, last, 0, 0)))
        parts.append(total)
    return RowStatistics(*(torch.cat([getattr(part, field.name) for part in parts], -1) for field in fields(parts[0])))
