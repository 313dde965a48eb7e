"""Triton kernels, each beside its PyTorch twin, and the choice between the two.

`HOLDFAST_KERNELS=reference` forces the twins; `HOLDFAST_KERNELS=triton` forces the kernels, or says why it cannot.
With the latter `holdfast.nn.adaptive_attention` too uses the kernel, wherever that takes its inputs.
Triton itself is imported only where a kernel may run.
"""

from __future__ import annotations

import os
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from holdfast.errors import ArgumentError
from holdfast.nn.temperature import PUBLISHED, AdaptiveTemperature

VARIABLE = "HOLDFAST_KERNELS"

__all__ = ["VARIABLE", "attention", "implementation", "opted_in"]


def implementation(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Tensor | None = None,
    sinks: Tensor | None = None,
    temperature: object = PUBLISHED,
) -> Literal["triton", "reference"]:
    """Say what computes adaptive attention on these inputs.

    Arguments:
        query: (batch, heads, queries, dim); its device and dtype decide, like those of the other tensors.
        key: (batch, kv_heads, keys, dim).
        value: (batch, kv_heads, keys, value_dim).
        mask: a mask beyond causality and window, which the kernel does not take.
        sinks: sink logits, which it does not take either.
        temperature: what is to set the temperature: the kernel takes an `AdaptiveTemperature`, or `None` for none.

    Returns:
        `"triton"` for tensors on a CUDA device that the kernel supports and that need no gradient, otherwise
        `"reference"`: any PyTorch implementation.

    Errors:
        ArgumentError: `HOLDFAST_KERNELS` is neither of the two names, or forces a kernel that cannot run here.
    """
    wanted = os.environ.get(VARIABLE, "")
    if wanted not in ("", "triton", "reference"):
        raise ArgumentError(VARIABLE, "triton or reference", wanted)
    if wanted == "reference" or (wanted == "" and not query.is_cuda):
        return "reference"
    from holdfast.nn.kernels.adaptive_attention import refusal

    reason = refusal(query, key, value, mask=mask, sinks=sinks, temperature=temperature)
    if reason is None:
        return "triton"
    if wanted == "triton":
        raise ArgumentError(VARIABLE, "reference on these inputs", f"triton, and {reason}")
    return "reference"


def opted_in(query: Tensor, key: Tensor, value: Tensor, *, temperature: AdaptiveTemperature | None) -> bool:
    """Say whether the user asked for the kernel and it takes these inputs.

    What has another way of its own, as `holdfast.nn.adaptive_attention` has, takes the kernel where this is true and
    its own way elsewhere, without an error.

    Arguments:
        query: (batch, heads, queries, dim).
        key: (batch, kv_heads, keys, dim).
        value: (batch, kv_heads, keys, value_dim).
        temperature: the law; `None`: plain softmax attention.
    """
    if os.environ.get(VARIABLE) != "triton":
        return False
    from holdfast.nn.kernels.adaptive_attention import available

    return available(query, key, value, temperature=temperature)


def attention(
    query: Float[Tensor, "batch heads queries dim"],
    key: Float[Tensor, "batch kv_heads keys dim"],
    value: Float[Tensor, "batch kv_heads keys value_dim"],
    *,
    causal: bool = False,
    scale: float | None = None,
    softcap: float | None = None,
    window: int | None = None,
    temperature: AdaptiveTemperature | None = PUBLISHED,
) -> Float[Tensor, "batch heads queries value_dim"]:
    """Adaptive-temperature attention by the kernel where it can run, by its twin elsewhere.

    Arguments:
        query: of float16, bfloat16 or float32; the twin takes float64 too.
        key: `kv_heads` divides `heads`; each key head serves that many query heads in turn (GQA).
        value: as `key`.
        causal: a query sees no key after it; the last query stands at the last key.
        scale: of the products; 1 / sqrt(dim) unless given.
        softcap: logits become softcap x tanh(logit / softcap), before the temperature.
        window: a query sees keys less than this many positions away.
        temperature: the law; `None`: plain softmax attention.

    Returns:
        The output, in the dtype of `query`; zeros for a query without a visible key.

    Errors:
        ArgumentError: shapes or options that do not fit, or a kernel is forced that cannot run.

    Source: arXiv 2410.01104, section 3.
    """
    from holdfast.nn.kernels import adaptive_attention as room

    chosen = implementation(query, key, value, temperature=temperature)
    compute = room.adaptive_attention_triton if chosen == "triton" else room.adaptive_attention_twin
    return compute(
        query, key, value, causal=causal, scale=scale, softcap=softcap, window=window, temperature=temperature
    )
