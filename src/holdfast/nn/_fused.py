"""Attention by PyTorch's fused kernel on a CPU, also where the row's entropy decides: two calls of it.

The first call takes the keys for values. It gives each row's mean key and the logarithm of its sum, l = ln sum exp z;
since a logit is linear in the key, the entropy is H = l - <query, mean key>, the query scaled. The second call is
ordinary attention, of queries times the factor. No logit is ever stored.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.nn.normalisers import FactorNormaliser, Plain

PRECISION = 2e-5
"""Nats that rounding may cost the entropy, a difference of two larger numbers."""


def fused_attention(
    query: Float[Tensor, "batch heads queries dim"],
    key: Float[Tensor, "batch kv_heads keys dim"],
    value: Float[Tensor, "batch kv_heads keys value_dim"],
    *,
    causal: bool,
    scale: float,
    normaliser: FactorNormaliser,
) -> Float[Tensor, "batch heads queries value_dim"] | None:
    """Attention on a CPU without mask, window, softcap, sinks and gradient; the normaliser is a factor of the row.

    Returns:
        The output, in float32 or better; `None` where the kernel is of no use or not exact enough: a query that sees
        nothing, numbers that are not finite, huge logits.
    """
    queries, keys = query.shape[2], key.shape[2]
    if causal and queries > keys:
        return None
    width = max(query.shape[-1], value.shape[-1])
    # Not by the kernel, which hides a key before it scales: a scale below zero would bring it back.
    q, k, v = _wide(query, width) * scale, _wide(key, width), _wide(value, width)
    if normaliser.needs_entropy:
        # What all keys share adds the same to all logits of a row: it changes no weight, but costs the entropy digits.
        k = k - k.mean(2, keepdim=True)
    # The kernel multiplies hidden values by zero, and zero times NaN is NaN.
    if not all(bool(each.isfinite().all()) for each in (q, k, v)):
        return None
    if not isinstance(normaliser, Plain):
        entropy = q.new_zeros(*q.shape[:3], 1)
        if normaliser.needs_entropy:
            mean_key, total = _attend(q, k, k, causal)
            products = q * mean_key
            size = total.abs().amax() + products.abs().sum(-1).amax()
            # A sum that overflowed is not at most anything.
            if not bool(size * torch.finfo(q.dtype).eps <= PRECISION):
                return None
            entropy = (total - products.sum(-1)).clamp(min=0).unsqueeze(-1)
        position = torch.arange(keys - queries, keys).unsqueeze(1)
        visible = position + 1 if causal else torch.full_like(position, keys)
        q = q * normaliser.factor(entropy, visible, position).to(q.dtype)
    return _attend(q, k, v, causal)[0][..., : value.shape[-1]]


def _wide(tensor: Tensor, width: int) -> Tensor:
    """In float32 or better; the kernel wants keys as wide as values, and zeros change no product."""
    wide = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
    return wide if wide.shape[-1] == width else torch.nn.functional.pad(wide, (0, width - wide.shape[-1]))


def _attend(
    query: Float[Tensor, "batch heads queries dim"],
    key: Float[Tensor, "batch kv_heads keys dim"],
    value: Float[Tensor, "batch kv_heads keys dim"],
    causal: bool,
) -> tuple[Float[Tensor, "batch heads queries dim"], Float[Tensor, "batch heads queries"]]:
    """Output and logarithm of the sum; the queries stand at the end of the keys."""
    groups = query.shape[1] // key.shape[1]
    # One query of each group at a time: no key is repeated.
    each = [
        _kernel(rows, key, value, causal) for rows in query.view(query.shape[0], -1, groups, *query.shape[2:]).unbind(2)
    ]
    output, total = (torch.stack(parts, 2).flatten(1, 2) for parts in zip(*each, strict=True))
    return output, total


def _kernel(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """As many query heads as key heads."""
    kernel: Callable[..., tuple[Tensor, Tensor]] = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    before = key.shape[2] - query.shape[2]
    if not causal or query.shape[2] == 1:
        return kernel(query, key, value, scale=1.0)
    own = kernel(query, key[:, :, before:], value[:, :, before:], is_causal=True, scale=1.0)
    if before == 0:
        return own
    # The kernel is causal from the first key on: what every query sees is a call of its own, merged by the sums.
    past = kernel(query, key[:, :, :before], value[:, :, :before], scale=1.0)
    total = torch.logaddexp(past[1], own[1])
    shares = [(part[1] - total).exp().unsqueeze(-1) for part in (past, own)]
    return shares[0] * past[0] + shares[1] * own[0], total
