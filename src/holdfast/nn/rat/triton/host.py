"""RAT by Triton kernels: which calls they take, and their derivative.

Closed chunks are a small set of keys and values that all later queries share, and the own key is each query's own. So
one launch runs the recurrence and leaves the states, and another weighs them; no state but those at the ends of chunks
and no logit but the own one is ever stored. The backward pass runs the recurrence again.

Triton is imported only where a kernel may run.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from holdfast.nn.attention.call import transformed
from holdfast.nn.attention.triton.agreement import agrees, measured
from holdfast.nn.attention.triton.host import VARIABLE, kernels_wanted
from holdfast.nn.normalisers import Plain
from holdfast.nn.rat import reference
from holdfast.nn.rat.call import ChunkAnswer, ChunkCall, Past

MAX_DIM = 256
DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def wanted(call: ChunkCall) -> bool:
    """Whether the kernels are to compute a call where no backend is asked for.

    Errors:
        ArgumentError: `HOLDFAST_KERNELS` is neither of the two names.
    """
    name = kernels_wanted()
    if name or transformed() or not measured(call.value) or refusal(call) is not None:
        return name == "triton"
    kind = (call.value.shape[-1], call.chunk_size, call.rope_theta is None)
    return agrees("RAT", call.value, kind, lambda: _small_cases(call))


def _small_cases(call: ChunkCall) -> Iterator[tuple[Tensor, Tensor]]:
    """Output and gradients of a call like this one, and the output of one more token, with what they should be."""
    dim, time, generator = call.value.shape[-1], 2 * call.chunk_size + 5, torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(2, *shape, dim, generator=generator).to(call.value)

    def of(tensors: Sequence[Tensor], past: Past | None = None) -> ChunkCall:
        query, key, value, gate = tensors
        return replace(call, query=query, key=key, value=value, gate=gate, past=past)

    tensors = [drawn(time, 1), drawn(time, 1), drawn(time, 2), drawn(time, 2).sigmoid()]
    weights = drawn(time, 2)
    found, exact = (
        _with_gradients(module, of([tensor.to(dtype, copy=True).requires_grad_() for tensor in tensors]), weights)
        for module, dtype in ((compute, call.value.dtype), (reference.compute, torch.float64))
    )
    yield from zip(found, exact, strict=True)
    count = torch.tensor([5, 3], device=call.value.device)
    before = {name: drawn(2, 5) for name in ("keys", "values")}
    running = {name: drawn(2) for name in ("running_key", "running_value")}
    past = Past(count=count, **before, **{name: tensor.float() for name, tensor in running.items()})
    wide = Past(count=count, **{name: tensor.double() for name, tensor in (before | running).items()})
    last = [tensor[:, -1:] for tensor in tensors]
    with torch.no_grad():
        yield compute(of(last, past)).output, reference.compute(of([t.double() for t in last], wide)).output


def _with_gradients(run: Callable[[ChunkCall], ChunkAnswer], call: ChunkCall, weights: Tensor) -> list[Tensor]:
    with torch.enable_grad():
        output = run(call).output
        leaves = (call.query, call.key, call.value, call.gate)
        return [output.detach(), *torch.autograd.grad(output, leaves, weights.to(output))]


def refusal(call: ChunkCall) -> str | None:
    """Why the kernels cannot compute a call, asked for or not."""
    dtypes = {tensor.dtype for tensor in (call.value, call.gate)}
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if not dtypes <= set(DTYPES):
        return f"the inputs are of {max(dtypes, key=lambda dtype: dtype.itemsize)}"
    if call.value.shape[-1] > MAX_DIM:
        return f"a head has more than {MAX_DIM} dimensions"
    if type(call.normaliser) is not Plain:
        return f"the kernel knows no {type(call.normaliser).__name__}"
    if call.value.is_cuda or (call.value.device.type == "cpu" and _interpreted()):
        return None
    return f"the inputs are on {call.value.device.type}"


def compute(call: ChunkCall) -> ChunkAnswer:
    """Compute a call of at least one row and token by the kernels.

    Extra memory: two copies of the states at the ends of chunks and a number for each head and token; two tensors of
    the size of the value in the backward pass. A call of one token that continues without gradient is one launch, or
    two where its states are split among programs; it waits for nothing on the host, so that a CUDA graph may hold it.

    Products of bfloat16 and float16 take states and weights in that dtype, and sum in float32. NaN in a token reaches
    no earlier one; NaN or infinity in a value is NaN in every row of a tile that sees its chunk's end. Gradients are
    of the first order, and `create_graph` is an error.
    """
    call = _laid_out(call)
    past = call.past
    with _on(call.value.device):
        if call.time == 1 and past is not None and not call.needs_gradient:
            from holdfast.nn.rat.triton import launches

            return launches.step(call, past)
        options = Options(call.chunk_size, float(call.scale), call.rope_theta, call.needs_gradient)
        before = () if past is None else tuple(getattr(past, field.name) for field in fields(Past))
        tensors = (call.query, call.key, call.value, call.gate, *before)
        parts: tuple[Tensor, Tensor, Tensor] = _Kernels.apply(options, *tensors)  # type: ignore[no-untyped-call]
        return ChunkAnswer(*parts)


@dataclass(frozen=True)
class Options:
    """What is no tensor in a call."""

    chunk_size: int
    scale: float
    rope_theta: float | None
    needs_gradient: bool

    def call(self, query: Tensor, key: Tensor, value: Tensor, gate: Tensor, *before: Tensor) -> ChunkCall:
        """The call of these tensors; `before` are the fields of its past, or nothing."""
        names = [field.name for field in fields(Past)]
        return ChunkCall(
            query=query,
            key=key,
            value=value,
            gate=gate,
            chunk_size=self.chunk_size,
            scale=self.scale,
            rope_theta=self.rope_theta,
            past=Past(**dict(zip(names, before, strict=True))) if before else None,
        )


class _Kernels(torch.autograd.Function):
    """Output, key ends and value ends as a function of the tensors of a call."""

    @staticmethod
    def forward(ctx: Any, options: Options, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        from holdfast.nn.rat.triton import launches

        call = options.call(*tensors)
        made = launches.states(call, keys=False)
        keys, values = launches.closed(call, made)
        query = launches.turned_query(call)
        output, log_sum = launches.attend(call, made, query, keys, values, lse=options.needs_gradient)
        if options.needs_gradient:
            ctx.options = options
            ctx.set_materialize_grads(False)
            ctx.save_for_backward(*tensors, output, log_sum)
        return output, made.key_ends, made.value_ends

    @staticmethod
    def backward(
        ctx: Any, gradient: Tensor | None, of_key_ends: Tensor | None, of_value_ends: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        from holdfast.nn.rat.triton import launches

        if torch.is_grad_enabled():  # a gradient of this gradient would silently lack what these kernels do
            raise RuntimeError(f"the Triton kernels of RAT have no second derivative: set {VARIABLE}=reference")
        *tensors, output, log_sum = ctx.saved_tensors
        call = ctx.options.call(*tensors)
        with _on(output.device):
            made = launches.states(call, keys=True)
            keys, values = launches.closed(call, made)
            gradient = torch.zeros_like(output) if gradient is None else gradient.contiguous()
            rows = launches.Rows(launches.turned_query(call), keys, values, output, log_sum, gradient)
            of_query, delta, of_own = launches.query_gradient(call, made, rows)
            key_parts, value_parts = launches.state_gradient(call, rows, delta, keys, values, past=False)
            key_ends, value_ends = torch.empty_like(made.key_ends), torch.empty_like(made.value_ends)
            launches.turned(key_parts.transpose(2, 3), key_ends, call, turn=-1)
            launches.turned(value_parts.transpose(2, 3), value_ends, call, turn=0)
            for end, given in ((key_ends, of_key_ends), (value_ends, of_value_ends)):
                if given is not None:
                    end += given
            token = launches.scan_gradient(call, made, rows, of_own, key_ends, value_ends)
            before = () if call.past is None else (*_of_states(call, call.past, rows, delta), None, *token.running)
        return None, of_query, token.key, token.value, token.gate, *before


def _of_states(call: ChunkCall, past: Past, rows: Any, delta: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the states of chunks before a call; those that are no row's get zeros."""
    from holdfast.nn.rat.triton import launches

    keys, values = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (past.keys, past.values))
    if keys.shape[2]:
        parts = launches.state_gradient(call, rows, delta, past.keys, past.values, past=True)
        for part, out in zip(parts, (keys, values), strict=True):
            launches.turned(part.transpose(2, 3), out.transpose(1, 2), call, turn=0)
    return keys, values


def _laid_out(call: ChunkCall) -> ChunkCall:
    """The same call with the channels of every tensor next to each other in memory, and no chunk longer than a row."""
    past = call.past
    if past is not None:
        past = replace(
            past,
            keys=_dense(past.keys),
            values=_dense(past.values),
            running_key=_dense(past.running_key),
            running_value=_dense(past.running_value),
        )
    query, key, value, gate = (_dense(x) for x in (call.query, call.key, call.value, call.gate))
    chunk_size = min(call.chunk_size, call.time)  # no loop over tokens that a single chunk lacks
    return replace(call, query=query, key=key, value=value, gate=gate, past=past, chunk_size=chunk_size)


def _dense(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on a CPU."""
    from holdfast.nn.rat.triton import kernels

    return kernels.INTERPRETED


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Launch on the device that the inputs are on."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
