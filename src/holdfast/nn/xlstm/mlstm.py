"""The mLSTM as a function of tensors: a matrix memory with exponential gates."""

from __future__ import annotations

from numbers import Real
from types import ModuleType
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.errors import ArgumentError, count_of
from holdfast.nn.attention.call import DTYPES, full_precision
from holdfast.nn.attention.triton.host import kernels_wanted
from holdfast.nn.xlstm import chunkwise, parallel, recurrent
from holdfast.nn.xlstm.call import Memory, MLSTMAnswer, MLSTMCall
from holdfast.nn.xlstm.triton import host as triton

Backend = Literal["auto", "triton", "parallel", "chunkwise", "recurrent"]


def mlstm(
    query: Float[Tensor, "batch time heads dim"],
    key: Float[Tensor, "batch time heads dim"],
    value: Float[Tensor, "batch time heads value_dim"],
    input_gate: Float[Tensor, "batch time heads"],
    forget_gate: Float[Tensor, "batch time heads"],
    state: Memory | None = None,
    *,
    scale: float | None = None,
    eps: float = 1e-6,
    chunk_size: int = 64,
    backend: Backend = "auto",
) -> tuple[Float[Tensor, "batch time heads value_dim"], Memory]:
    """Write every value into a matrix by its key, under gates, and read it by the query.

        C_t = f_t C_{t-1} + i_t k_t v_t^T        n_t = f_t n_{t-1} + i_t k_t
        h_t = C_t^T q_t / max(|n_t^T q_t|, 1)        f = sigmoid(forget_gate), i = exp(input_gate)

    It is computed in units in which neither gate overflows. Behind a forget gate of any pre-activation, however low,
    the output keeps its precision.

    Arguments:
        query: is multiplied by `scale`.
        key: of the dtype of `value`, as the query is.
        value: of any length, which no size need divide.
        input_gate: pre-activations; -inf takes nothing in.
        forget_gate: pre-activations; +inf forgets nothing, -inf all.
        state: the memory that the tokens continue; `None`: an empty one.
        scale: 1 / sqrt(dim) unless given.
        eps: added to the denominator in the unit of the memory.
        chunk_size: tokens that the chunkwise form takes at once; any.
        backend: what computes it. All have the same result; `auto` takes the form that is fastest at that length, and
            where the environment has `HOLDFAST_KERNELS` set to reference or triton, the recurrent one or the kernels.

    Returns:
        The output, in the dtype of `value`, and the memory after the last token, in float32 or better. The gradient
        takes the unit for a constant, which it is but for `eps`.

    Errors:
        ArgumentError: shapes, dtypes, devices or options that do not fit.

    Source: arXiv 2405.04517, section 2.3.
    """
    call = checked(query, key, value, input_gate, forget_gate, state, scale, eps, chunk_size)
    check_backend(backend)
    batch, time, heads, _ = value.shape
    if 0 in (batch, time):
        nothing = 0 * (query.sum() + key.sum() + input_gate.sum() + forget_gate.sum())
        return value + nothing.to(value.dtype), call.memory.reshape(batch, heads)
    with full_precision(value.device):
        answer = computed(call, backend)
    return answer.output.unflatten(0, (batch, heads)).transpose(1, 2), answer.memory.reshape(batch, heads)


def checked(
    query: Any,
    key: Any,
    value: Any,
    input_gate: Any,
    forget_gate: Any,
    state: Any,
    scale: Any,
    eps: Any,
    chunk_size: Any,
) -> MLSTMCall:
    """The arguments of `mlstm` as a call.

    Errors:
        ArgumentError: shapes, dtypes, devices or options that do not fit.
    """
    vectors, gates = (
        {"value": value, "query": query, "key": key},
        {"input_gate": input_gate, "forget_gate": forget_gate},
    )
    for name, tensor in (vectors | gates).items():
        if not isinstance(tensor, Tensor):
            raise ArgumentError(name, "a tensor", type(tensor).__name__)
        if tensor.ndim != (4 if name in vectors else 3):
            dims = "four dimensions (batch, time, heads, dim)" if name in vectors else "three (batch, time, heads)"
            raise ArgumentError(name, dims, f"shape {tuple(tensor.shape)}")
        if tensor.dtype not in DTYPES:
            raise ArgumentError(name, "float16, bfloat16, float32 or float64", str(tensor.dtype))
        if tensor.device != value.device:
            raise ArgumentError(name, f"a tensor on {value.device}, where value is", f"one on {tensor.device}")
        if name in vectors and tensor.dtype != value.dtype:
            raise ArgumentError(name, f"the dtype of value, {value.dtype}", str(tensor.dtype))
        expected = value.shape[:3] if name != "key" else query.shape
        if tensor.shape[: len(expected)] != expected:
            raise ArgumentError(name, f"shape {(*expected, 'dim')[: tensor.ndim]}", f"shape {tuple(tensor.shape)}")
    if 0 in (*value.shape[2:], query.shape[3]):
        raise ArgumentError("value", "at least one head and channel", f"shape {tuple(value.shape)}")
    memory = _memory(state, query, value)
    count_of("chunk_size", chunk_size, least=1)
    for name, number in (("scale", scale), ("eps", eps)):
        if not isinstance(number, Real | torch.SymFloat) and not (name == "scale" and number is None):
            raise ArgumentError(name, "a number", repr(number))
    if scale is not None and not scale > 0:
        raise ArgumentError("scale", "a number above 0", repr(scale))
    query, key, value, input_gate, forget_gate = (
        tensor.transpose(1, 2).flatten(0, 1) for tensor in (query, key, value, input_gate, forget_gate)
    )
    wide = torch.promote_types(value.dtype, torch.float32)
    return MLSTMCall(
        query=query,
        key=key,
        value=value,
        input_gate=input_gate,
        # The logarithms of nothing would leave nothing to measure by, where both gates are closed.
        forget_gate=forget_gate.to(wide).clamp(min=chunkwise.LEAST),
        memory=memory,
        scale=cast("float", query.shape[2] ** -0.5 if scale is None else scale),
        eps=cast("float", eps),
        chunk_size=chunk_size,
    )


def _memory(state: Any, query: Tensor, value: Tensor) -> Memory:
    """A memory that a call may continue, as the call has it."""
    (batch, _, heads, dim), value_dim = query.shape, value.shape[3]
    wide = torch.promote_types(value.dtype, torch.float32)
    shapes = {"cell": (batch, heads, dim, value_dim), "normaliser": (batch, heads, dim), "stabiliser": (batch, heads)}
    if state is None:
        zeros = {name: value.new_zeros(shape, dtype=wide) for name, shape in shapes.items()}
        return Memory(**zeros).reshape(batch * heads)
    if not isinstance(state, Memory):
        raise ArgumentError("state", "a Memory, as mlstm returns it, or None", type(state).__name__)
    for name, shape in shapes.items():
        kept = getattr(state, name)
        expected, got = (shape, wide, value.device), (tuple(kept.shape), kept.dtype, kept.device)
        if expected != got:
            raise ArgumentError("state", f"a {name} of {_said(expected)}", f"one of {_said(got)}")
    lowest = state.stabiliser.detach().clamp(min=chunkwise.LEAST)
    return Memory(cell=state.cell, normaliser=state.normaliser, stabiliser=lowest).reshape(batch * heads)


def _said(parts: tuple[Any, ...]) -> str:
    """Shape, dtype and device in words."""
    shape, dtype, device = parts
    return f"shape {shape} in {dtype} on {device}"


BACKENDS: dict[str, ModuleType] = {
    "triton": triton,
    "parallel": parallel,
    "chunkwise": chunkwise,
    "recurrent": recurrent,
}
"""By name; each has `refusal(call)`, why it does not take a call, and `compute(call)`."""


def check_backend(backend: Any) -> None:
    """Refuse a name that is no backend's."""
    if backend != "auto" and backend not in BACKENDS:
        raise ArgumentError("backend", f"auto or one of {', '.join(BACKENDS)}", backend)


def computed(call: MLSTMCall, backend: str = "auto") -> MLSTMAnswer:
    """Compute a call of at least one row and token.

    Errors:
        ArgumentError: there is no such backend, or it does not take the call.
    """
    check_backend(backend)
    if backend == "auto":
        backend = _unasked(call)
    module = BACKENDS[backend]
    reason: str | None = module.refusal(call)
    if reason is not None:
        raise ArgumentError("backend", f"one that takes this call, which {backend} does not ({reason})", backend)
    answer: MLSTMAnswer = module.compute(call)
    return answer


def _unasked(call: MLSTMCall) -> str:
    """The form for a call where none is asked for: the reference or the kernels where the environment says so."""
    wanted = kernels_wanted()
    if wanted == "reference":
        return "recurrent"
    if wanted == "triton" and triton.refusal(call) is None:
        return "triton"
    return "parallel" if call.time <= 2 * call.chunk_size else "chunkwise"
