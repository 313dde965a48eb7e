"""Attention as its formula stands, with all logits in memory: the reference of every other way.

z = softcap(scale q . k) + mask,  -inf where hidden
output = normaliser(z) v
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.nn.attention.call import AttentionCall
from holdfast.nn.attention.visibility import hidden, hides
from holdfast.nn.masking import all_finite
from holdfast.nn.normalisers import Rows

MOST = 1 << 24
"""Up to this many logits, 64 MiB in float32, all heads are done at once."""


def refusal(call: AttentionCall) -> str | None:
    """Too many logits."""
    return None if call.table <= MOST else f"{call.table} logits are more than {MOST}"


def compute(call: AttentionCall) -> Float[Tensor, "batch heads queries value_dim"]:
    """The weighted sum of the values, in float32 or better."""
    assert call.value is not None
    share = weights(call)
    batch, kv_heads, keys, value_dim = call.value.shape
    # No value head is repeated for the queries that share it.
    share = share.reshape(batch, kv_heads, call.groups * call.queries, keys)
    value = call.value.to(share.dtype)
    readable = call.on_cpu and call.readable
    output = weighted_sum(share, value, readable=readable) if hides(call) else share @ value
    return output.reshape(*call.query.shape[:3], value_dim)


def weights(call: AttentionCall) -> Float[Tensor, "batch heads queries keys"]:
    """What the normaliser makes of the logits; the sink's share is left out, so that rows may sum to less than one."""
    z, rows = logits(call), call.rows
    if call.sinks is not None:
        # A column more, which stands nowhere.
        sinks = call.sinks.to(z.dtype)[:, None, None].expand(*z.shape[:-1], 1)
        z, rows = torch.cat([z, sinks], -1), Rows(rows.query, torch.cat([rows.key, rows.key.new_zeros(1)]), sink=True)
    return call.normaliser.weights(z, rows)[..., : call.keys]


def logits(call: AttentionCall) -> Float[Tensor, "batch heads queries keys"]:
    """All logits, -inf where hidden, whatever was there; in float32 or better, without sinks."""
    call = call.wide()
    batch, kv_heads, keys, dim = call.key.shape
    query = call.query.reshape(batch, kv_heads, call.groups * call.queries, dim)
    z = (query @ call.key.mT).view(*call.query.shape[:3], keys) * call.scale
    if call.softcap is not None:
        z = call.softcap * torch.tanh(z / call.softcap)
    if call.mask is not None and call.mask.is_floating_point():
        z = z + call.mask.to(z.dtype)
    unseen = hidden(call)
    return z if unseen is None else z.masked_fill(unseen, -math.inf)


def weighted_sum(
    share: Float[Tensor, "*batch query key"], value: Float[Tensor, "*batch key value_dim"], *, readable: bool
) -> Float[Tensor, "*batch query value_dim"]:
    """Weighted sum of values, where NaN and infinity count only if they have weight, and 0 x NaN is 0.

    A row that gives weight to one is NaN.

    Arguments:
        share: the weights.
        value: the values.
        readable: whether to look first if there are any; otherwise `vmap` and `compile` can follow.
    """
    if readable:
        output = share @ value
        if all_finite(output) or all_finite(value):
            return output
    # One more column carries how much weight goes to what is not finite, for one product costs less than two.
    broken = (~(value @ value.new_full((value.shape[-1], 1), 1e-30)).isfinite()).to(value.dtype)
    output = share @ torch.cat([value.nan_to_num(0.0, 0.0, 0.0), broken], dim=-1)
    return output[..., :-1].masked_fill(output[..., -1:] > 0, math.nan)
