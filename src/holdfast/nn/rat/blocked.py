"""RAT's core in PyTorch's own operations, on any device: never more than a window's logits in memory.

Without gradient a window leaves output and closed states and is forgotten; a backward pass computes it again. One new
token has a way of its own (`decode.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from holdfast.nn.attention.call import full_precision
from holdfast.nn.normalisers import FactorNormaliser
from holdfast.nn.rat import decode, reference
from holdfast.nn.rat.call import ChunkAnswer, ChunkCall, Past
from holdfast.nn.rat.windows import STATES, Closed, Gradients, Scratch, Window, windows


def refusal(call: ChunkCall) -> str | None:
    """A normaliser that needs whole rows of logits, and tensors that a transform of `torch.func` stands behind."""
    normaliser = call.normaliser
    if not isinstance(normaliser, FactorNormaliser) or normaliser.needs_entropy:
        return "the normaliser needs whole rows of logits"
    if normaliser.heads is not None:
        return "the normaliser has a factor for each head"
    if torch.compiler.is_exporting():
        return "a graph for all lengths has no loop over windows"
    if torch.compiler.is_compiling():
        return None
    if torch.jit.is_tracing() or torch.autograd.forward_ad._current_level >= 0:  # type: ignore[attr-defined, no-untyped-call]
        return "the tensors are traced or differentiated forwards"
    return None if torch._C._functorch.peek_interpreter_stack() is None else "the tensors are transformed"


def compute(call: ChunkCall) -> ChunkAnswer:
    """Output and chunk states."""
    if call.time == 1 and not call.needs_gradient:
        return decode.compute(call)
    way = _beside_graph if torch.compiler.is_compiling() else _computed
    return ChunkAnswer(*way(_options(call), *_tensors(call)))


def _options(call: ChunkCall) -> dict[str, Any]:
    """What is no tensor."""
    return {name: getattr(call, name) for name in ("chunk_size", "scale", "rope_theta", "normaliser")}


def _tensors(call: ChunkCall) -> tuple[Tensor | None, ...]:
    """The call's, and those of its past."""
    past = call.past
    of_past = (None,) * 5 if past is None else tuple(getattr(past, field.name) for field in fields(past))
    return call.query, call.key, call.value, call.gate, *of_past


def _call(options: dict[str, Any], tensors: Sequence[Any]) -> ChunkCall:
    query, key, value, gate, *of_past = tensors
    past = None
    if of_past[0] is not None:
        past = Past(**{field.name: tensor for field, tensor in zip(fields(Past), of_past, strict=True)})
    return ChunkCall(query=query, key=key, value=value, gate=gate, past=past, **options)


def _computed(options: dict[str, Any], *tensors: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Output and ends."""
    call = _call(options, tensors)
    if call.needs_gradient:
        answer: tuple[Tensor, Tensor, Tensor] = _Windows.apply(options, *tensors)  # type: ignore[no-untyped-call]
        return answer
    return _forward(call, Closed.before(call))


_beside_graph = torch._disable_dynamo(_computed)  # type: ignore[attr-defined]
"""In a compiled function: a loop over windows would make a large graph of its own for every length."""


def _sequences(call: ChunkCall, chunks: int) -> list[slice]:
    """Those that windows of so many chunks take at once."""
    batch, _, heads, dim = call.value.shape
    numbers = chunks * call.chunk_size * heads * dim
    step = max(1, STATES // numbers) if call.value.device.type == "cpu" else batch
    return [slice(start, min(batch, start + step)) for start in range(0, batch, step)]


def _part(call: ChunkCall, sequences: slice) -> ChunkCall:
    """Some sequences of a call: views."""
    tensors = [None if tensor is None else tensor[sequences] for tensor in _tensors(call)]
    return _call(_options(call), tensors)


def _forward(call: ChunkCall, closed: Closed) -> tuple[Tensor, Tensor, Tensor]:
    """Output and ends; the closed states are written."""
    batch, _, heads, dim = call.value.shape
    output = torch.empty_like(call.value, memory_format=torch.contiguous_format)
    ends = call.value.new_empty(2, batch, call.chunks, heads, dim, dtype=call.dtype)
    scratch, spans = Scratch(2), windows(call, closed)
    for sequences in _sequences(call, spans[0][1]):
        part, states = _part(call, sequences), closed.of(sequences)
        for first, stop in spans:
            window = Window(part, states, scratch, first, stop)
            for tensor, end in zip(ends, window.close(), strict=True):
                tensor[sequences, first:stop] = end
            window.write_output(output[sequences])
    return output, ends[0], ends[1]


class _Windows(torch.autograd.Function):
    """`_forward` with the gradients of all that is differentiable."""

    @staticmethod
    def forward(ctx: Any, options: dict[str, Any], *tensors: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        call = _call(options, tensors)
        closed = Closed.before(call)
        answer = _forward(call, closed)
        ctx.set_materialize_grads(False)
        ctx.options = options
        before = list(tensors[4:6])
        for place, needed in enumerate(ctx.needs_input_grad[5:7]):
            if not needed:  # it may be the memory of a cache, which is written to, and is among the closed states
                before[place] = None
        ctx.save_for_backward(closed.keys, closed.values, closed.hidden, *tensors[:4], *before, *tensors[6:])
        return answer

    @staticmethod
    def backward(ctx: Any, *of_answer: Tensor | None) -> tuple[Tensor | None, ...]:
        keys, values, hidden, *tensors = ctx.saved_tensors
        call = _call(ctx.options, [*tensors[:4], *(None,) * 5])
        closed = Closed(keys, values, keys.shape[2] - call.chunks, hidden)
        if tensors[-1] is not None:
            past = (states[:, :, : closed.past] for states in (keys, values))
            before = [given if tensor is None else tensor for tensor, given in zip(tensors[4:6], past, strict=True)]
            call = _call(ctx.options, [*tensors[:4], *before, *tensors[6:]])
        with full_precision(call.value.device):
            if torch.is_grad_enabled():
                return None, *_by_formula(call, of_answer)
            return None, *_gradients(call, closed, of_answer)


def _gradients(call: ChunkCall, closed: Closed, of_answer: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """Those of `_tensors`."""
    batch, _, heads, dim = call.value.shape
    of_running = call.value.new_zeros(2, batch, heads, dim, dtype=call.dtype)
    of_tensors = [torch.empty_like(tensor) for tensor in (call.query, call.key, call.value, call.gate)]
    gradients, of_closed = Gradients(*of_tensors, *of_running), closed.gradients()
    scratch, spans = Scratch(3), windows(call, closed)
    for sequences in _sequences(call, spans[0][1]):
        part, states, of_states = _part(call, sequences), closed.of(sequences), of_closed.of(sequences)
        asked = tuple(None if tensor is None else tensor[sequences] for tensor in of_answer)
        for first, stop in reversed(spans):
            Window(part, states, scratch, first, stop).backward(asked, of_states, gradients.of(sequences))
    of_past: tuple[Tensor | None, ...] = (None,) * 5
    if call.past is not None:
        past = slice(0, call.past.keys.shape[2])
        of_past = (of_closed.keys[:, :, past], of_closed.values[:, :, past], None, *of_running)
    return *of_tensors, *of_past


def _by_formula(call: ChunkCall, of_answer: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """Those of `_tensors` in operations that differentiate again, with all logits in memory."""
    tensors, answer = _tensors(call), reference.compute(call)
    wanted = [tensor for tensor in tensors if tensor is not None and tensor.requires_grad]
    pairs = zip((answer.output, answer.key_ends, answer.value_ends), of_answer, strict=True)
    asked = [(output, gradient) for output, gradient in pairs if gradient is not None]
    of_wanted = iter(
        torch.autograd.grad(
            [output for output, _ in asked], wanted, [g for _, g in asked], create_graph=True, allow_unused=True
        )
    )
    return tuple(next(of_wanted) if tensor is not None and tensor.requires_grad else None for tensor in tensors)
