"""Which keys a query sees, and the parts of a call that follow from it.

A part is a call too: some queries, the keys that they may see, and the positions of both. So whatever computes a call
computes a part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor

from holdfast.nn.attention.call import AttentionCall
from holdfast.nn.masking import hidden_by

CHUNK = 1 << 22
"""Logits that are worked on at once, 16 MiB in float32: enough rows for a fast product, few enough for the cache."""


def span(call: AttentionCall, start: int, stop: int) -> tuple[int, int]:
    """Keys outside of which no query from `start` up to `stop` sees anything, by causality and window."""
    low, high = 0, call.keys
    first, last = (call.first_query - call.first_key + place for place in (start, stop))
    if call.causal:
        high = max(0, min(high, last))
    if call.window is not None:
        low = max(0, first - call.window + 1)
        high = high if call.causal else min(high, max(0, last + call.window - 1))
    return min(low, high), high


def hides(call: AttentionCall) -> bool:
    """Whether a key may be hidden from a query."""
    ahead = call.causal and bool(call.first_query + 1 < call.first_key + call.keys)
    return ahead or call.mask is not None or call.window is not None


def hidden(call: AttentionCall) -> Bool[Tensor, "#batch #heads #queries #keys"] | None:
    """Which keys are hidden from which query; `None` where none is."""
    if not hides(call):
        return None
    table: Tensor | None = None
    if call.causal or call.window is not None:
        rows = call.rows
        ahead = rows.key - rows.query[:, None]
        if call.causal:
            table = ahead > 0
        if call.window is not None:
            far = ahead.abs() >= call.window
            table = far if table is None else table | far
        table = None if table is None else table[None, None]
    if call.mask is None:
        return table
    return hidden_by(call.mask) if table is None else table | hidden_by(call.mask)


def chunks(call: AttentionCall, logits: int) -> Iterator[tuple[int, int]]:
    """Queries that are worked on at once, where each of them has so many logits."""
    step = max(1, CHUNK // logits)
    for start in range(0, call.queries, step):
        yield start, min(call.queries, start + step)


def block(call: AttentionCall, start: int, stop: int, low: int, high: int) -> AttentionCall:
    """The queries from `start` up to `stop` and the keys from `low` up to `high`."""
    mask = call.mask
    if mask is not None:  # a dimension of size one stands for all
        mask = mask if mask.shape[2] == 1 else mask[:, :, start:stop]
        mask = mask if mask.shape[3] == 1 else mask[..., low:high]
    return replace(
        call,
        query=call.query[:, :, start:stop],
        key=call.key[:, :, low:high],
        value=None if call.value is None else call.value[:, :, low:high],
        mask=mask,
        first_query=call.first_query + start,
        first_key=call.first_key + low,
    )


def cut(call: AttentionCall, start: int, stop: int) -> AttentionCall:
    """The queries from `start` up to `stop` and the keys that they may see."""
    return block(call, start, stop, *span(call, start, stop))


def narrowed(call: AttentionCall) -> AttentionCall:
    """The same without the keys at both ends that a mask hides from all its queries; it looks at the mask."""
    if call.mask is None or call.mask.dtype != torch.bool or call.mask.shape[3] == 1:
        return call
    somewhere = call.mask.flatten(0, -2).any(0).nonzero()
    if len(somewhere) == 0:
        return block(call, 0, call.queries, 0, 0)
    return block(call, 0, call.queries, int(somewhere[0]), int(somewhere[-1]) + 1)


def some_heads(call: AttentionCall, sequences: slice, heads: slice) -> AttentionCall:
    """Some query heads of some sequences: all that share a key head, or a single one."""
    groups = call.groups
    of_key = slice(heads.start // groups, -(-heads.stop // groups))
    mask = call.mask
    if mask is not None:  # a dimension of size one stands for all
        mask = mask if mask.shape[0] == 1 else mask[sequences]
        mask = mask if mask.shape[1] == 1 else mask[:, heads]
    return replace(
        call,
        query=call.query[sequences, heads],
        key=call.key[sequences, of_key],
        value=None if call.value is None else call.value[sequences, of_key],
        mask=mask,
        sinks=None if call.sinks is None else call.sinks[heads],
        normaliser=call.normaliser.of_heads(heads),
    )


def heads(call: AttentionCall) -> Iterator[AttentionCall]:
    """Every head of every sequence, one after the other."""
    for batch in range(call.query.shape[0]):
        for head in range(call.query.shape[1]):
            yield some_heads(call, slice(batch, batch + 1), slice(head, head + 1))
