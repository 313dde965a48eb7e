"""RAT's core as a function of tensors: recurrence inside chunks, softmax attention across them."""

from __future__ import annotations

import os
from numbers import Real
from types import ModuleType
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.errors import ArgumentError, count_of
from holdfast.nn.attention.call import DTYPES, full_precision
from holdfast.nn.attention.triton.host import VARIABLE
from holdfast.nn.normalisers import Normaliser, checked_normaliser
from holdfast.nn.rat import blocked, reference
from holdfast.nn.rat.call import ChunkAnswer, ChunkCall
from holdfast.nn.rat.triton import host as triton
from holdfast.nn.rotary import check_rope

Backend = Literal["auto", "reference", "torch", "triton"]


def rat_attention(
    query: Float[Tensor, "batch time groups dim"],
    key: Float[Tensor, "batch time groups dim"],
    value: Float[Tensor, "batch time heads dim"],
    gate: Float[Tensor, "batch time heads dim"],
    *,
    chunk_size: int,
    scale: float | None = None,
    rope_theta: float | None = None,
    normaliser: Normaliser | None = None,
    backend: Backend = "auto",
    check: bool = False,
) -> Float[Tensor, "batch time heads dim"]:
    """Gated recurrence inside chunks of `chunk_size` tokens, and softmax attention across the chunks' last states.

        k_t = g_t k_{t-1} + (1 - g_t) key_t        v_t likewise; both start from zero in every chunk
        output_t = softmax attention of query_t over the last k, v of every earlier chunk and over k_t, v_t

    With a chunk as long as the sequence it is a gated recurrence; with chunks of one token and closed gates it is
    causal attention.

    Arguments:
        query: `groups` divides `heads`; head h takes group h mod groups.
        key: likewise.
        value: of any length, which no size need divide.
        gate: forget gate in [0, 1] of each channel: 1 keeps the state, 0 takes the token.
        chunk_size: tokens a chunk.
        scale: of the products of queries and keys; 1 / sqrt(dim) unless given.
        rope_theta: base of rotary positions by the index of the chunk; `None`: no positions.
        normaliser: turns logits into weights; `None`: the softmax.
        backend: what computes it; `auto` takes the fastest that can, and the reference where the environment has
            `HOLDFAST_KERNELS=reference`.
        check: look whether all gates are in [0, 1], which reads every value.

    Returns:
        The output, in the dtype of `value`. Logits, recurrence and softmax are in float32 or better.

    Errors:
        ArgumentError: shapes, dtypes, devices or options that do not fit.

    Source: arXiv 2507.04416, section 3.
    """
    call = checked(query, key, value, gate, chunk_size, scale, rope_theta, normaliser)
    if check and not bool(((gate >= 0) & (gate <= 1)).all()):
        raise ArgumentError("gate", "numbers in [0, 1]", "others, or NaN")
    if call.time == 0 or value.shape[0] == 0:
        return value + 0 * (query.sum() + key.sum() + gate.sum())
    with full_precision(value.device):
        return computed(call, backend).output


def checked(
    query: Any, key: Any, value: Any, gate: Any, chunk_size: Any, scale: Any, rope_theta: Any, normaliser: Any
) -> ChunkCall:
    """The arguments of `rat_attention` as a call.

    Errors:
        ArgumentError: shapes, dtypes, devices or options that do not fit.
    """
    for name, tensor in {"query": query, "key": key, "value": value, "gate": gate}.items():
        if not isinstance(tensor, Tensor):
            raise ArgumentError(name, "a tensor", type(tensor).__name__)
        if tensor.ndim != 4:
            raise ArgumentError(name, "four dimensions (batch, time, heads, dim)", f"shape {tuple(tensor.shape)}")
        if tensor.device != value.device:
            raise ArgumentError(name, f"a tensor on {value.device}, where value is", f"one on {tensor.device}")
    batch, time, heads, dim = value.shape
    groups = query.shape[2]
    if value.dtype not in DTYPES:
        raise ArgumentError("value", "float16, bfloat16, float32 or float64", str(value.dtype))
    if heads == 0 or dim == 0:
        raise ArgumentError("value", "at least one head and channel", f"shape {tuple(value.shape)}")
    if groups == 0 or heads % groups or query.shape != (batch, time, groups, dim):
        expected = f"shape (batch {batch}, time {time}, a divisor of {heads} heads, dim {dim})"
        raise ArgumentError("query", expected, f"shape {tuple(query.shape)}")
    for name, tensor, shape in (("key", key, query.shape), ("gate", gate, value.shape)):
        if tensor.shape != shape:
            raise ArgumentError(name, f"shape {tuple(shape)}", f"shape {tuple(tensor.shape)}")
    for name, tensor in (("query", query), ("key", key)):
        if tensor.dtype != value.dtype:
            raise ArgumentError(name, f"the dtype of value, {value.dtype}", str(tensor.dtype))
    if gate.dtype not in DTYPES:
        raise ArgumentError("gate", "a floating dtype", str(gate.dtype))
    count_of("chunk_size", chunk_size, least=1)
    if scale is not None and not isinstance(scale, Real | torch.SymFloat):
        raise ArgumentError("scale", "a number", repr(scale))
    check_rope(rope_theta, dim)
    return ChunkCall(
        query=query,
        key=key,
        value=value,
        gate=gate,
        chunk_size=chunk_size,
        scale=cast("float", dim**-0.5 if scale is None else scale),
        rope_theta=rope_theta,
        normaliser=checked_normaliser(normaliser),
    )


BACKENDS: dict[str, ModuleType] = {"triton": triton, "torch": blocked, "reference": reference}
"""By name, the fastest first; each has `refusal(call)`, why it does not take a call, and `compute(call)`."""


def check_backend(backend: Any) -> None:
    """Refuse a name that is no backend's."""
    if backend != "auto" and backend not in BACKENDS:
        raise ArgumentError("backend", f"auto or one of {', '.join(BACKENDS)}", backend)


def computed(call: ChunkCall, backend: str = "auto") -> ChunkAnswer:
    """Compute a call of at least one row and token.

    Errors:
        ArgumentError: there is no such backend, or it does not take the call.
    """
    check_backend(backend)
    for name in _unasked(call) if backend == "auto" else [backend]:
        module = BACKENDS[name]
        reason: str | None = module.refusal(call)
        if reason is None:
            answer: ChunkAnswer = module.compute(call)
            return answer
        if backend != "auto":
            raise ArgumentError("backend", f"one that takes this call, which {backend} does not ({reason})", backend)
    raise AssertionError("the last backend takes every call")


def _unasked(call: ChunkCall) -> list[str]:
    """Backends to try in turn where none is asked for: the reference alone where the environment forces it."""
    if os.environ.get(VARIABLE) == "reference":
        return ["reference"]
    return [name for name in BACKENDS if name != "triton" or triton.wanted(call)]
