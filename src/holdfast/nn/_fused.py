"""Attention by PyTorch's fused kernel on a CPU, also where the row's entropy decides: it goes over all keys twice.

The first time the keys stand for values. That gives each row's mean key and the logarithm of its sum, l = ln sum exp z;
since a logit is linear in the key, the entropy is H = l - <query, mean key>, the query scaled. The second time is
ordinary attention, of queries times the factor. No logit is ever stored.

The kernel is the operator behind `scaled_dot_product_attention`, which does not hand the logarithm on. It looks at no
argument: what it cannot do is kept from it here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from holdfast.nn._visibility import Options, cut_mask, full_mask, hidden_and_added
from holdfast.nn.normalisers import FactorNormaliser, Plain, Rows

PRECISION = 1e-5
"""Nats. The entropy is a difference of larger numbers; the machine's precision times their size may be this much. What
rounding costs the entropy is up to ten times that."""

ROWS = 256
"""Queries at a time where more than causality hides keys: few, so that the keys none of them sees can be skipped."""

LOGITS = 1 << 22
"""Places in a mask that are worked on at once, 16 MiB in float32."""

SHORT = 1 << 16
"""Up to this many pairs of a query and a key, sequences with masks of their own are taken together all the same."""


def fused_attention(
    query: Float[Tensor, "batch heads queries dim"],
    key: Float[Tensor, "batch kv_heads keys dim"],
    value: Float[Tensor, "batch kv_heads keys value_dim"],
    *,
    mask: Bool[Tensor, ...] | None,
    normaliser: FactorNormaliser,
    options: Options,
) -> Float[Tensor, "batch heads queries value_dim"] | None:
    """Attention on a CPU without additive mask, softcap, sinks and gradient; the normaliser is a factor of the row.

    Returns:
        The output, in float32 or better, of finite numbers; `None` where that is not so, and where logits are huge.
    """
    queries, keys = options.queries, options.keys
    width = max(query.shape[-1], value.shape[-1])
    # Not by the kernel, which hides a key before it scales: a scale below zero would bring it back.
    q, k, v = _wide(query, width) * options.scale, _wide(key, width), _wide(value, width)
    if not isinstance(normaliser, Plain):
        # What all keys share adds the same to all logits of a row: it changes no weight, but costs digits.
        k = k - k.mean(2, keepdim=True)
    # The kernel multiplies hidden values by zero, and zero times NaN is NaN.
    if not all(bool(each.isfinite().all()) for each in (q, k, v)):
        return None
    position = torch.arange(options.offset, keys, device=q.device).unsqueeze(1)
    if mask is None and options.window is None and (queries <= keys or not options.causal):
        visible = position + 1 if options.causal else torch.full_like(position, keys)
        return _finite(_two_passes(q, k, v, None, options.causal, visible, position, normaliser), value.shape[-1])
    output = q.new_zeros(*q.shape[:3], value.shape[-1])
    full = None if mask is None else full_mask(mask)
    # Sequences with a mask of their own see spans of their own, which is worth some calls where they are long.
    alike = full is None or full.shape[0] == 1 or queries * keys <= SHORT
    step = ROWS if options.window is None else max(ROWS // 4, min(ROWS, options.window))
    if full is not None:
        step = max(1, min(step, LOGITS // (keys * full.shape[1] * (full.shape[0] if alike else 1))))
    for batch in [slice(None)] if alike else [slice(b, b + 1) for b in range(len(q))]:
        own = full if full is None or alike else full[batch]
        for start in range(0, queries, step):
            stop = min(queries, start + step)
            low, high = options.span(start, stop)
            rows = Rows(position[start:stop, 0], torch.arange(low, high, device=q.device))
            part = None if own is None else cut_mask(own, start, stop, low, high)
            seen = _seen(part, rows, options)
            somewhere = seen.flatten(0, -2).any(0).nonzero()
            if len(somewhere) == 0:
                continue
            first, last = int(somewhere[0]), int(somewhere[-1]) + 1
            seen = seen[..., first:last]
            visible = seen.sum(-1, keepdim=True)
            # A row that sees nothing sees all here, so that its numbers are finite in any case; it is cleared below.
            bias = q.new_zeros(seen.shape).masked_fill_(~seen & (visible > 0), -math.inf)
            k_part, v_part = (each[batch, :, low + first : low + last] for each in (k, v))
            found = _finite(
                _two_passes(
                    q[batch, :, start:stop], k_part, v_part, bias, False, visible, position[start:stop], normaliser
                ),
                value.shape[-1],
            )
            if found is None:
                return None
            output[batch, :, start:stop] = found.masked_fill(visible == 0, 0.0)
    return output


def _seen(mask: Bool[Tensor, ...] | None, rows: Rows, options: Options) -> Bool[Tensor, "#batch #heads query key"]:
    """Which keys each of the rows sees."""
    hidden, _ = hidden_and_added(mask, rows, options)
    seen = rows.key.new_ones(1, 1, dtype=torch.bool) if hidden is None else ~hidden
    seen = seen.expand(*seen.shape[:-2], len(rows.query), len(rows.key))
    return full_mask(seen)


def _wide(tensor: Tensor, width: int) -> Tensor:
    """In float32 or better; the kernel wants keys as wide as values, and zeros change no product."""
    wide = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
    return wide if wide.shape[-1] == width else torch.nn.functional.pad(wide, (0, width - wide.shape[-1]))


def _finite(output: Tensor | None, width: int) -> Tensor | None:
    """The output without the padding; `None` if a sum of large numbers overflowed on the way."""
    return None if output is None or not bool(output.isfinite().all()) else output[..., :width].contiguous()


def _two_passes(
    query: Float[Tensor, "batch heads queries dim"],
    key: Float[Tensor, "batch kv_heads keys dim"],
    value: Float[Tensor, "batch kv_heads keys dim"],
    bias: Float[Tensor, "#batch #heads queries keys"] | None,
    causal: bool,
    visible: Int[Tensor, "*#batch queries 1"],
    position: Int[Tensor, "queries 1"],
    normaliser: FactorNormaliser,
) -> Float[Tensor, "batch heads queries dim"] | None:
    """Every row by its factor; one pass is enough where the factor needs no entropy."""
    if not isinstance(normaliser, Plain):
        entropy = query.new_zeros(*query.shape[:3], 1)
        if normaliser.needs_entropy:
            mean_key, total = _attend(query, key, key, bias, causal)
            products = query * mean_key
            if bool(products.abs().sum(-1).amax() * torch.finfo(query.dtype).eps > PRECISION):
                return None
            entropy = (total - products.sum(-1)).clamp(min=0).unsqueeze(-1)
        query = query * normaliser.factor(entropy, visible, position).to(query.dtype)
    return _attend(query, key, value, bias, causal)[0]


def _attend(
    query: Float[Tensor, "batch heads queries dim"],
    key: Float[Tensor, "batch kv_heads keys dim"],
    value: Float[Tensor, "batch kv_heads keys dim"],
    bias: Float[Tensor, "#batch #heads queries keys"] | None,
    causal: bool,
) -> tuple[Float[Tensor, "batch heads queries dim"], Float[Tensor, "batch heads queries"]]:
    """Output and logarithm of the sum; the queries stand at the end of the keys."""
    groups = query.shape[1] // key.shape[1]

    def of_group(tensor: Tensor, group: int) -> Tensor:
        # One query head of each key head at a time: no key is repeated.
        return tensor if tensor.shape[1] == 1 < groups else tensor[:, group::groups]

    each = [
        _kernel(of_group(query, group), key, value, None if bias is None else of_group(bias, group), causal)
        for group in range(groups)
    ]
    output, total = (torch.stack(parts, 2).flatten(1, 2) for parts in zip(*each, strict=True))
    return output, total


def _kernel(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, causal: bool) -> tuple[Tensor, Tensor]:
    """As many query heads as key heads."""
    # It takes the last dimension to be dense, and would read on elsewhere.
    query, key, value = (each if each.stride(-1) == 1 else each.contiguous() for each in (query, key, value))
    kernel: Callable[..., tuple[Tensor, Tensor]] = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    before = key.shape[2] - query.shape[2]
    if not causal or query.shape[2] == 1:
        return kernel(query, key, value, attn_mask=bias, scale=1.0)
    own = kernel(query, key[:, :, before:], value[:, :, before:], is_causal=True, scale=1.0)
    if before == 0:
        return own
    # The kernel is causal from the first key on: what every query sees is a call of its own, merged by the sums.
    past = kernel(query, key[:, :, :before], value[:, :, :before], scale=1.0)
    total = torch.logaddexp(past[1], own[1])
    shares = [(part[1] - total).exp().unsqueeze(-1) for part in (past, own)]
    return shares[0] * past[0] + shares[1] * own[0], total
