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
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from holdfast.nn.attention.call import AttentionCall, Declined
from holdfast.nn.attention.visibility import block, cut, hidden, one_sequence
from holdfast.nn.normalisers import FactorNormaliser, Plain

FEWEST = 64
"""From this many queries on it is used; for fewer, its preparations cost more."""

PRECISION = 1e-5
"""Nats. The entropy is a difference of larger numbers; the machine's precision times their size may be this much. What
rounding costs the entropy is up to ten times that."""

ROWS = 256
"""Queries at a time where more than causality hides keys: few, so that the keys none of them sees can be skipped."""

LOGITS = 1 << 22
"""Places in a mask that are worked on at once, 16 MiB in float32."""

SHORT = 1 << 16
"""Up to this many pairs of a query and a key, sequences with masks of their own are taken together all the same."""


def refusal(call: AttentionCall) -> str | None:
    """What the kernel has no argument for, and where it does not pay or values may not be looked at."""
    if call.queries < FEWEST:
        return f"fewer than {FEWEST} queries"
    if call.softcap is not None or call.sinks is not None:
        return "the kernel takes no softcap and no sinks"
    if call.mask is not None and call.mask.is_floating_point():
        return "only masks that hide"
    if not isinstance(call.normaliser, FactorNormaliser):
        return "the normaliser is no factor of the row"
    return None if call.on_cpu and call.readable else "only on a CPU, where values may be looked at"


def compute(call: AttentionCall) -> Float[Tensor, "batch heads queries value_dim"]:
    """The output, in float32 or better, of finite numbers.

    Errors:
        Declined: that is not so, or logits are so large that the entropy would lose its digits.
    """
    assert call.value is not None
    value_dim = call.value.shape[-1]
    call = _prepared(call)
    queries, keys = call.queries, call.keys
    if call.mask is None and call.window is None and (queries <= keys or not call.causal):
        position = call.rows.query.unsqueeze(1)
        visible = position + 1 if call.causal else torch.full_like(position, keys)
        return _two_passes(call, None, visible)[..., :value_dim].contiguous()
    output = call.query.new_zeros(*call.query.shape[:3], value_dim)
    mask = call.mask
    # Sequences with a mask of their own see spans of their own, which is worth some calls where they are long.
    alike = mask is None or mask.shape[0] == 1 or queries * keys <= SHORT
    step = ROWS if call.window is None else max(ROWS // 4, min(ROWS, call.window))
    if mask is not None:
        step = max(1, min(step, LOGITS // (keys * mask.shape[1] * (mask.shape[0] if alike else 1))))
    for batch in [None] if alike else range(len(output)):
        sequence = call if batch is None else one_sequence(call, batch)
        outputs = output if batch is None else output[batch : batch + 1]
        for start in range(0, queries, step):
            stop = min(queries, start + step)
            _fill(outputs[:, :, start:stop], cut(sequence, start, stop))
    return output


def _prepared(call: AttentionCall) -> AttentionCall:
    """Scaled queries, centred keys, and all of one width, in float32 or better."""
    wide = call.wide()
    assert wide.value is not None
    width = max(wide.query.shape[-1], wide.value.shape[-1])
    # Not by the kernel, which hides a key before it scales: a scale below zero would bring it back.
    query, key = wide.query * wide.scale, wide.key
    if type(wide.normaliser) is not Plain:
        # What all keys share adds the same to all logits of a row: it changes no weight, but costs digits.
        key = key - key.mean(2, keepdim=True)
    # The kernel wants keys as wide as values, and zeros change no product.
    query, key, value = (
        torch.nn.functional.pad(tensor, (0, width - tensor.shape[-1])) if tensor.shape[-1] < width else tensor
        for tensor in (query, key, wide.value)
    )
    # The kernel multiplies hidden values by zero, and zero times NaN is NaN.
    if not all(bool(tensor.isfinite().all()) for tensor in (query, key, value)):
        raise Declined
    return replace(wide, query=query, key=key, value=value, scale=1.0)


def _fill(output: Float[Tensor, "batch heads queries value_dim"], part: AttentionCall) -> None:
    """Write the output of some queries of which each sees keys of its own, over the keys that any of them sees."""
    unseen = hidden(part)
    assert unseen is not None
    seen = (~unseen).expand(*unseen.shape[:2], part.queries, part.keys)
    somewhere = seen.flatten(0, -2).any(0).nonzero()
    if len(somewhere) == 0:
        return
    first, last = int(somewhere[0]), int(somewhere[-1]) + 1
    seen = seen[..., first:last]
    visible = seen.sum(-1, keepdim=True)
    # A row that sees nothing sees all here, so that its numbers are finite in any case; it is cleared below.
    bias = output.new_zeros(seen.shape).masked_fill_(~seen & (visible > 0), -math.inf)
    outputs = _two_passes(block(part, 0, part.queries, first, last), bias, visible)
    output.copy_(outputs[..., : output.shape[-1]].masked_fill(visible == 0, 0.0))


def _two_passes(
    call: AttentionCall,
    bias: Float[Tensor, "#batch #heads queries keys"] | None,
    visible: Int[Tensor, "*#batch queries 1"],
) -> Float[Tensor, "batch heads queries dim"]:
    """Every row by its factor; one pass is enough where the factor needs no entropy."""
    assert isinstance(call.normaliser, FactorNormaliser)
    assert call.value is not None
    query, key, normaliser = call.query, call.key, call.normaliser
    causal = call.causal and bias is None
    if type(normaliser) is not Plain:
        entropy = query.new_zeros(*query.shape[:3], 1)
        if normaliser.needs_entropy:
            mean_key, total = _attend(query, key, key, bias, causal)
            products = query * mean_key
            if bool(products.abs().sum(-1).amax() * torch.finfo(query.dtype).eps > PRECISION):
                raise Declined
            entropy = (total - products.sum(-1)).clamp(min=0).unsqueeze(-1)
        query = query * normaliser.factor(entropy, visible, call.rows.query.unsqueeze(1)).to(query.dtype)
    output, _ = _attend(query, key, call.value, bias, causal)
    if not bool(output.isfinite().all()):  # a sum of large numbers overflowed on the way
        raise Declined
    return output


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

    by_group = [
        _kernel(of_group(query, group), key, value, None if bias is None else of_group(bias, group), causal)
        for group in range(groups)
    ]
    output, total = (torch.stack(parts, 2).flatten(1, 2) for parts in zip(*by_group, strict=True))
    return output, total


def _kernel(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, causal: bool) -> tuple[Tensor, Tensor]:
    """As many query heads as key heads."""
    # It takes the last dimension to be dense, and would read on elsewhere.
    query, key, value = (dense if dense.stride(-1) == 1 else dense.contiguous() for dense in (query, key, value))
    kernel: Callable[..., tuple[Tensor, Tensor]] = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    before = key.shape[2] - query.shape[2]
    if not causal or query.shape[2] == 1:
        return kernel(query, key, value, attn_mask=bias, scale=1.0)
    last = kernel(query, key[:, :, before:], value[:, :, before:], is_causal=True, scale=1.0)
    if before == 0:
        return last
    # The kernel is causal from the first key on: what every query sees is a call of its own, merged by the sums.
    past = kernel(query, key[:, :, :before], value[:, :, :before], scale=1.0)
    total = torch.logaddexp(past[1], last[1])
    shares = [(part[1] - total).exp().unsqueeze(-1) for part in (past, last)]
    return shares[0] * past[0] + shares[1] * last[0], total
