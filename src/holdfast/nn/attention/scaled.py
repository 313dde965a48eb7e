"""Attention on CUDA by `scaled_dot_product_attention` and its gradient: a row's factor multiplies its query.

A factor that needs no entropy costs a product. The entropy costs one pass without gradient: of logits z = q . k with
weights p it is H = ln sum exp(z) - q . sum p k, and an attention with keys in the place of values gives both sums, by
the operator of PyTorch's memory-efficient kernel, which hands out the logarithm. That pass is in float32 whatever the
inputs, for the difference would lose what half precision rounds off.

Nothing here waits for the accelerator, so that no value decides anything.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from holdfast.nn.attention import plain
from holdfast.nn.attention.call import DTYPES, AttentionCall, Declined
from holdfast.nn.normalisers import FactorNormaliser, Plain

FORWARD = "_scaled_dot_product_efficient_attention"

FEW = 16
"""For fewer queries the pass for the entropy, which splits no keys, would leave most of the accelerator idle."""


def refusal(call: AttentionCall) -> str | None:
    """Another device, or a call that PyTorch's attention has no argument for."""
    if call.query.device.type != "cuda" or torch.version.hip is not None:
        return "only on CUDA"
    return unfit(call)


def unfit(call: AttentionCall) -> str | None:
    """Why PyTorch's attention cannot compute a call, wherever its tensors are."""
    if call.transformed:
        return "the call is traced or transformed"
    if call.query.dtype not in DTYPES[:3]:
        return f"the kernels take no {call.query.dtype}"
    if any(option is not None for option in (call.mask, call.window, call.softcap, call.sinks)):
        return "only causality may hide keys, and there is no softcap and no sink"
    if call.causal and call.queries not in (1, call.keys):
        return "causal calls have as many queries as keys"
    if not isinstance(call.normaliser, FactorNormaliser):
        return "the normaliser is no factor of the row"
    if call.normaliser.needs_entropy:
        if call.needs_gradient and not call.normaliser.detach:
            return "the factor has a gradient"
        if call.queries < FEW and call.table <= plain.MOST:
            return "few logits are faster all at once"
        if not hasattr(torch.ops.aten, FORWARD):
            return "this PyTorch has no such kernel"
    return None


def compute(call: AttentionCall) -> Float[Tensor, "batch heads queries value_dim"]:
    """The output, in the dtype of the query.

    A query times its factor is rounded to that dtype. NaN or infinity in a hidden value may reach rows that do not see
    it, since a weight of 0 does not undo it. There is no second derivative.

    Errors:
        Declined: PyTorch would compute this one with all scores in memory.
    """
    assert call.value is not None
    shape = call.query.shape
    causal = call.causal and call.queries > 1
    if causal and not any(fused_kernels(call.query, call.key, call.value, causal)):
        call = call.without_groups()  # some kernels take no groups
    key, value = call.key, call.value
    assert value is not None
    if not any(fused_kernels(_folded(call.query, key, causal), key, value, causal)):
        raise Declined
    query, scale = call.query, call.scale
    if type(call.normaliser) is not Plain or not scale > 0:
        query, scale = _scaled(call, causal), 1.0
    output = scaled_dot_product_attention(
        _folded(query, key, causal), key, value, is_causal=causal, scale=scale, enable_gqa=causal and call.groups > 1
    )
    return output.reshape(*shape[:3], value.shape[-1])


def fused_kernels(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> tuple[bool, bool]:
    """Whether PyTorch's flash kernel takes these, and whether its memory-efficient one does; it looks at no value."""
    parameters = torch.backends.cuda.SDPAParams(query, key, value, None, 0.0, causal, query.shape[1] != key.shape[1])
    return (
        torch.backends.cuda.can_use_flash_attention(parameters),
        torch.backends.cuda.can_use_efficient_attention(parameters),
    )


def log_sum(
    query: Float[Tensor, "batch heads queries dim"],
    key: Float[Tensor, "batch heads keys dim"],
    value: Float[Tensor, "batch heads keys value_dim"],
    causal: bool,
) -> tuple[Float[Tensor, "batch heads queries value_dim"], Float[Tensor, "batch heads queries"]]:
    """The softmax attention of queries that are scaled already, and the logarithm of each row's sum of exponentials.

    Errors:
        Declined: the kernel does not take them.
    """
    if not fused_kernels(query, key, value, causal)[1]:
        raise Declined
    operator = getattr(torch.ops.aten, FORWARD)
    output, total, *_ = operator(
        query, key, value, None, compute_log_sumexp=True, dropout_p=0.0, is_causal=causal, scale=1.0
    )
    return output, total.narrow(-1, 0, query.shape[2])  # the kernel fills it up to a multiple of 32


def _scaled(call: AttentionCall, causal: bool) -> Float[Tensor, "batch heads queries dim"]:
    """Queries times scale and factor."""
    assert isinstance(call.normaliser, FactorNormaliser)
    if call.normaliser.needs_entropy:
        entropy = _entropy(call, causal)
    else:
        entropy = call.query.new_zeros(*call.query.shape[:3], 1, dtype=call.dtype)
    position = call.rows.query.unsqueeze(1)
    visible = position + 1 if causal else torch.full_like(position, call.keys)
    # If the factor has a gradient, that is to parameters of the normaliser.
    factor = call.normaliser.factor(entropy, visible, position).to(call.dtype)
    return (call.query * (call.scale * factor)).to(call.query.dtype)


@torch.no_grad()
def _entropy(call: AttentionCall, causal: bool) -> Float[Tensor, "batch heads queries 1"]:
    """The entropy of each row's softmax, in nats."""
    query = call.query.to(call.dtype) * call.scale
    key = (call.without_groups() if causal else call).key.to(call.dtype)
    # A hidden key has a weight of 0, which does not undo NaN; a row that sees it has NaN from its logits all the same.
    value = key.nan_to_num(0.0, 0.0, 0.0) if causal else key
    mean, total = log_sum(_folded(query, key, causal), key, value, causal)
    entropy: Tensor = total.reshape(query.shape[:3]) - torch.linalg.vecdot(query, mean.reshape(query.shape))
    return entropy.clamp(min=0).unsqueeze(-1)


def _folded(
    query: Float[Tensor, "batch heads queries dim"], key: Float[Tensor, "batch kv_heads keys dim"], causal: bool
) -> Float[Tensor, "batch some_heads some_queries dim"]:
    """Where all queries see all keys, those that share a key head become queries of one head: no key is repeated."""
    return query if causal else query.reshape(*key.shape[:2], -1, query.shape[-1])
