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
from holdfast.nn.attention.visibility import block, cut, hidden, narrowed, some_heads
from holdfast.nn.masking import hidden_keys

TILE = 1 << 19
"""Logits that each thread works on at once, 2 MiB in float32; a row is never cut for it."""

ROWS = 128
"""Rows of a key head for which a product is fast; more of them only where few heads leave room."""

MASKED = -1e30
"""Stands for a masked logit where -inf would meet a factor of zero; its exponential is zero all the same."""


@dataclass(frozen=True)
class Seen:
    """Which keys of a part its queries see.

    Arguments:
        visible: how many each query sees.
        column: the first column in which any key is hidden.
        hidden: which are, from that column on; `None` where none is.
    """

    visible: Int[Tensor, "#batch #heads #queries 1"]
    column: int
    hidden: Bool[Tensor, "#batch #heads #queries columns"] | None

    @classmethod
    def of(cls, part: AttentionCall) -> Seen:
        """By causality, window and mask."""
        if part.causal and part.mask is None and part.window is None:
            # Only the last columns are hidden from anybody.
            column = part.keys - min(part.queries, part.keys)
            visible = (part.rows.query - part.first_key + 1).clamp(min=0, max=part.keys).view(1, 1, -1, 1)
            return cls(visible, column, hidden(block(part, 0, part.queries, column, part.keys)))
        unseen = hidden(part)
        if unseen is None:
            return cls(torch.full((1, 1, 1, 1), part.keys, device=part.query.device), 0, None)
        unseen = unseen.expand(*unseen.shape[:3], part.keys)
        return cls((~unseen).sum(-1, keepdim=True), 0, unseen)

    def least(self, logits: Float[Tensor, "batch heads queries keys"]) -> Float[Tensor, "batch heads queries"]:
        """Smallest visible logit of each row; inf without any."""
        if self.hidden is None:
            return logits.amin(-1)
        least = logits[..., self.column :].masked_fill(self.hidden, torch.inf).amin(-1)
        return least if self.column == 0 else torch.minimum(least, logits[..., : self.column].amin(-1))


@dataclass(frozen=True)
class Tile:
    """A part of a call.

    Arguments:
        sequences: which of the call's.
        heads: likewise, query heads.
        queries: likewise.
        call: the part, with the keys between the first and the last that any of its queries sees.
        seen: which keys its queries see.
    """

    sequences: slice
    heads: slice
    queries: slice
    call: AttentionCall
    seen: Seen


def tiles(call: AttentionCall, keys: int | None = None) -> Iterator[Tile]:
    """Cut a call into parts of about `TILE` logits: few queries, and as many key heads as there is room for.

    Queries that see nothing may be in none of them.

    Arguments:
        call: the whole.
        keys: how many keys of a part are worked on at once; all by default.
    """
    batch, kv_heads = call.key.shape[:2]
    of_query = call.groups * min(call.keys, keys or call.keys)
    room = max(1, TILE * torch.get_num_threads() // of_query)
    rows = max(1, min(call.queries, room, ROWS // call.groups))
    at_once = max(1, room // rows)
    if at_once > batch * kv_heads:  # few heads: more queries, but not so many that causality hides much of a tile
        rows = min(call.queries, rows * min(at_once // (batch * kv_heads), 2))
    sequences_at_once, heads_at_once = max(1, at_once // kv_heads), min(at_once, kv_heads)
    for first in range(0, batch, sequences_at_once):
        sequences = slice(first, min(batch, first + sequences_at_once))
        every_head = some_heads(call, sequences, slice(0, call.query.shape[1]))
        for start in range(0, call.queries, rows):
            queries = slice(start, min(call.queries, start + rows))
            narrow = narrowed(cut(every_head, queries.start, queries.stop))
            if narrow.keys == 0:
                continue
            # Most masks are the same for all heads.
            seen = Seen.of(narrow) if narrow.mask is None or narrow.mask.shape[1] == 1 else None
            for head in range(0, kv_heads, heads_at_once):
                heads = slice(head * call.groups, min(kv_heads, head + heads_at_once) * call.groups)
                part = some_heads(narrow, slice(None), heads)
                yield Tile(sequences, heads, queries, part, Seen.of(part) if seen is None else seen)


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


def fill_logits(z: Float[Tensor, "batch heads queries keys"], part: AttentionCall, seen: Seen) -> Seen:
    """Write the logits of a part into a table, `MASKED` where hidden.

    Arguments:
        z: memory to write to.
        part: in the dtype that is computed in.
        seen: which keys are seen, as far as mask and positions tell.

    Returns:
        Which are seen, without those that an additive mask lowers as far as to hide them.
    """
    batch, kv_heads, keys, dim = part.key.shape
    query = (part.query * part.scale).reshape(batch * kv_heads, part.groups * part.queries, dim)
    key = part.key.reshape(batch * kv_heads, keys, dim)
    torch.bmm(query, key.mT, out=z.view(batch * kv_heads, part.groups * part.queries, keys))
    if part.softcap is not None:
        z.div_(part.softcap).tanh_().mul_(part.softcap)
    if part.mask is not None and part.mask.is_floating_point():
        z.add_(part.mask.to(z.dtype))
        unseen = hidden_keys(z) if seen.hidden is None else hidden_keys(z) | seen.hidden
        seen = Seen((~unseen).sum(-1, keepdim=True), 0, unseen)
    if seen.hidden is not None:
        z[..., seen.column :].masked_fill_(seen.hidden, MASKED)
    return seen
