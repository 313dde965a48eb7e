"""Attention with any normaliser, by the first way that can compute the call.

Every way is a file with two functions: `refusal(call)` says why it does not take a call, `compute(call)` computes it.
"""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.nn.attention import checkpointed, fused, plain, scaled, streamed
from holdfast.nn.attention.call import AttentionCall, Declined, full_precision
from holdfast.nn.attention.triton import host as triton
from holdfast.nn.normalisers import Normaliser
from holdfast.nn.temperature import AdaptiveTemperature


class Way(Protocol):
    """One way to compute attention. Every way has the numbers of `plain`, within rounding."""

    def refusal(self, call: AttentionCall, /) -> str | None:
        """Why it does not take the call; `None` where it does."""

    def compute(self, call: AttentionCall, /) -> Float[Tensor, "batch heads queries value_dim"]:
        """The output in any dtype; it may raise `Declined`."""


WAYS: tuple[Way, ...] = (triton, fused, scaled, streamed, plain, checkpointed)
"""In order of preference; the last one takes every call."""


def adaptive_attention(
    query: Float[Tensor, "batch heads queries dim"],
    key: Float[Tensor, "batch kv_heads keys dim"],
    value: Float[Tensor, "batch kv_heads keys value_dim"],
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    softcap: float | None = None,
    window: int | None = None,
    sinks: Float[Tensor, " heads"] | None = None,
    normaliser: AdaptiveTemperature | Normaliser | None = None,
    detach: bool = True,
) -> Float[Tensor, "batch heads queries value_dim"]:
    """Attention whose weights are sharpened, row by row, by as much as their entropy asks for.

    Memory is a few tiles of logits, or a few copies of the inputs: a full table of scores is never made. Statistics
    are in float32 or better whatever the inputs. On a CPU, without additive mask, softcap and sinks, the gradient is
    that of PyTorch's fused attention, and so is the output where the factor needs no entropy; other outputs are
    computed in tiles that stay in the cache. On CUDA, without mask, window, softcap and sinks, output and gradient are
    those of PyTorch's fused attention of queries times their factor, rounded to their dtype; second derivatives there
    need `torch.nn.attention.sdpa_kernel(SDPBackend.MATH)` around. In half precision on GPUs where it was measured, and
    anywhere with `HOLDFAST_KERNELS=triton` in the environment, a Triton kernel computes what it takes: no mask, sinks
    and gradient, and a law.

    Arguments:
        query: of float16, bfloat16, float32 or float64.
        key: `kv_heads` divides `heads`; each key head serves that many query heads in turn (GQA). Not repeated.
        value: as `key`.
        mask: broadcasts to (batch, heads, queries, keys): bool, True = visible, or additive in a floating dtype
            (-inf, or at most half the dtype's lowest value, hides).
        causal: a query sees no key after it; the last query stands at the last key.
        scale: of the products; 1 / sqrt(dim) unless given.
        softcap: logits become softcap x tanh(logit / softcap), before mask and normaliser.
        window: a query sees keys less than this many positions away.
        sinks: a logit for each head that takes part in the softmax, its entropy and its temperature, and has no value.
        normaliser: a law, or any `Normaliser`; `None`: the published law.
        detach: treat the law's temperature as a constant in the backward pass. For a `Normaliser` it says so itself.

    Returns:
        The output, in the dtype of `query`; zeros for a query without a visible key. NaN stays in its rows; one in a
        query makes that row NaN, one (or an infinity) in a key or value reaches no row that does not see that key. (At
        values neither the Triton kernel nor PyTorch's on CUDA looks: there it may reach rows near one that sees it.)

    Errors:
        ArgumentError: shapes, dtypes or options that do not fit.

    Source: arXiv 2410.01104, section 3.
    """
    return attend(
        AttentionCall.of(
            query,
            key,
            value,
            mask=mask,
            causal=causal,
            scale=scale,
            softcap=softcap,
            window=window,
            sinks=sinks,
            normaliser=normaliser,
            detach=detach,
        )
    )


def attend(call: AttentionCall) -> Float[Tensor, "batch heads queries value_dim"]:
    """The output of a call, in the dtype of its query."""
    with full_precision(call.query.device):
        if torch.compiler.is_exporting():  # one graph stands for all lengths, so that none may decide
            return plain.compute(call.without_groups()).to(call.query.dtype)
        for way in WAYS:
            if way.refusal(call) is None:
                try:
                    return way.compute(call).to(call.query.dtype)
                except Declined:
                    continue
    raise AssertionError("the last way takes every call")


def attention_weights(
    query: Float[Tensor, "batch heads queries dim"],
    key: Float[Tensor, "batch kv_heads keys dim"],
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    softcap: float | None = None,
    window: int | None = None,
    sinks: Float[Tensor, " heads"] | None = None,
    normaliser: AdaptiveTemperature | Normaliser | None = None,
    detach: bool = True,
) -> Float[Tensor, "batch heads queries keys"]:
    """The weights of `adaptive_attention`, with all scores in memory.

    Arguments:
        query: as in `adaptive_attention`, like the other arguments.
        key: likewise.
        mask: likewise.
        causal: likewise.
        scale: likewise.
        softcap: likewise.
        window: likewise.
        sinks: likewise; their weight is left out, so that rows may sum to less than one.
        normaliser: likewise.
        detach: likewise.

    Returns:
        The weights, in float32 or better.
    """
    call = AttentionCall.of(
        query,
        key,
        mask=mask,
        causal=causal,
        scale=scale,
        softcap=softcap,
        window=window,
        sinks=sinks,
        normaliser=normaliser,
        detach=detach,
    )
    with full_precision(query.device):
        return plain.weights(call.without_groups() if torch.compiler.is_exporting() else call)
