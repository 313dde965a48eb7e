"""Logits of some queries at a time, in memory that is made once and overwritten: so they stay in a processor's cache.

No pass over them costs much there. A product of queries and keys, the largest logit, a softmax and the entropy take
three quarters of the time of PyTorch's fused attention, which multiplies twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from holdfast.nn.attention.call import AttentionCall
from holdfast.nn.attention.visibility import block, cut, hidden, some_heads
from holdfast.nn.masking import hidden_keys

TILE = 1 << 19
"""Logits that are worked on at once, 2 MiB in float32; a row is never cut for it."""

ROWS = 64
"""Rows of a key head for which a product is fast; more of them only where fewer would leave the tile half empty."""

MASKED = -1e30
"""Stands for a masked logit where -inf would meet a factor of zero; its exponential is zero all the same."""


@dataclass(frozen=True)
class Tile:
    """A part of a call.

    Arguments:
        sequences: which of the call's.
        heads: likewise, query heads.
        queries: likewise.
        call: the part, with the keys that its queries may see, and no others where it is known which.
    """

    sequences: slice
    heads: slice
    queries: slice
    call: AttentionCall


def tiles(call: AttentionCall) -> Iterator[Tile]:
    """Cut a call into parts of about `TILE` logits: few queries, and as many key heads as there is room for."""
    batch, kv_heads = call.key.shape[:2]
    of_query = call.groups * call.keys
    rows = max(1, min(call.queries, max(TILE // of_query, 1), max(ROWS // call.groups, 1)))
    at_once = max(1, TILE // (rows * of_query))
    if at_once == 1:
        rows = max(rows, min(call.queries, TILE // of_query))
    sequences_at_once, heads_at_once = max(1, at_once // kv_heads), min(at_once, kv_heads)
    for first in range(0, batch, sequences_at_once):
        sequences = slice(first, min(batch, first + sequences_at_once))
        for head in range(0, kv_heads, heads_at_once):
            last = min(kv_heads, head + heads_at_once)
            heads = slice(head * call.groups, last * call.groups)
            part = some_heads(call, sequences, heads)
            for start in range(0, call.queries, rows):
                queries = slice(start, min(call.queries, start + rows))
                yield Tile(sequences, heads, queries, cut(part, queries.start, queries.stop))


class Scratch:
    """Two tables of logits, which grow to the largest tile and are used again and again."""

    def __init__(self) -> None:
        self._memory: Tensor | None = None

    def tables(self, part: AttentionCall) -> tuple[Tensor, Tensor]:
        """Two tables (batch, heads, queries, keys) for a part of a call, with what was there before."""
        size = part.table
        if self._memory is None or self._memory.shape[1] < size:
            self._memory = part.query.new_empty(2, size, dtype=part.dtype)
        logits, weights = (memory[:size].view(*part.query.shape[:3], part.keys) for memory in self._memory)
        return logits, weights


@dataclass(frozen=True)
class Filled:
    """What is known of the logits of a part once they are written.

    Arguments:
        visible: how many keys each query sees.
        column: the first column in which any of them is hidden.
        hidden: which are, from that column on; `None` where none is.
    """

    visible: Int[Tensor, "#batch #heads queries 1"]
    column: int
    hidden: Bool[Tensor, "#batch #heads #queries #columns"] | None

    def least(self, logits: Float[Tensor, "batch heads queries keys"]) -> Float[Tensor, "batch heads queries"]:
        """Smallest visible logit of each row; inf without any."""
        if self.hidden is None:
            return logits.amin(-1)
        least = logits[..., self.column :].masked_fill(self.hidden, torch.inf).amin(-1)
        return least if self.column == 0 else torch.minimum(least, logits[..., : self.column].amin(-1))


def fill_logits(z: Float[Tensor, "batch heads queries keys"], part: AttentionCall) -> Filled:
    """Write the logits of a part into a table, `MASKED` where hidden.

    Arguments:
        z: memory to write to.
        part: in the dtype that is computed in.
    """
    batch, kv_heads, keys, dim = part.key.shape
    query = (part.query * part.scale).reshape(batch * kv_heads, part.groups * part.queries, dim)
    key = part.key.reshape(batch * kv_heads, keys, dim)
    torch.bmm(query, key.mT, out=z.view(batch * kv_heads, part.groups * part.queries, keys))
    if part.softcap is not None:
        z.div_(part.softcap).tanh_().mul_(part.softcap)
    if part.causal and part.mask is None and part.window is None:
        # Only the last columns are hidden from anybody.
        column = keys - min(part.queries, keys)
        unseen = hidden(block(part, 0, part.queries, column, keys))
        if unseen is not None:
            z[..., column:].masked_fill_(unseen, MASKED)
        visible = (part.rows.query - part.first_key + 1).clamp(min=0, max=keys).view(1, 1, -1, 1)
        return Filled(visible, column, unseen)
    if part.mask is not None and part.mask.is_floating_point():
        z.add_(part.mask.to(z.dtype))
    unseen = hidden(part)
    if unseen is None:
        return Filled(torch.full((1, 1, part.queries, 1), keys, device=z.device), 0, None)
    if part.mask is not None and part.mask.is_floating_point():
        unseen = unseen | hidden_keys(z)
    z.masked_fill_(unseen, MASKED)
    visible = (~unseen).expand(*unseen.shape[:2], part.queries, keys).sum(-1, keepdim=True)
    return Filled(visible, 0, unseen)
