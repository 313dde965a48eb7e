"""The mLSTM by Triton kernels: which calls they take, and their derivative.

The gates' part of the chunkwise form is that of `chunkwise`, in PyTorch: decay that is exact at any gate is written
once, and autograd knows its derivative. The kernels do what is of the size of keys and values: the memories, one chunk
after the other in float32, and the products of each chunk. The backward pass computes the memories again.

Triton is imported only where a kernel may run.
"""

from __future__ import annotations

import importlib.util
import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, pad

from holdfast.nn.attention.triton.host import VARIABLE
from holdfast.nn.xlstm.call import Memory, MLSTMAnswer, MLSTMCall
from holdfast.nn.xlstm.chunkwise import LEAST
from holdfast.nn.xlstm.decay import faded, stabilised

DTYPES = (torch.float16, torch.bfloat16, torch.float32)

SIZES = (16, 64)
"""Fewest and most tokens of a chunk: what a matrix product takes, and whose weights fit a multiprocessor in float32."""


def refusal(call: MLSTMCall) -> str | None:
    """Why the kernels cannot compute a call, asked for or not."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if call.value.dtype not in DTYPES or call.memory.cell.dtype != torch.float32:
        return f"the inputs are of {call.value.dtype}"
    if call.value.is_cuda or (call.value.device.type == "cpu" and _interpreted()):
        return None
    return f"the inputs are on {call.value.device.type}"


def compute(call: MLSTMCall) -> MLSTMAnswer:
    """Compute a call of at least one head and token by the kernels.

    Extra memory: the memories before all chunks in float32, and a few weights of `chunk_size` numbers a token, which
    is brought to a power of two from 16 to 64. Products of bfloat16 and float16 take weights and memories in that
    dtype, and sum in float32. Gradients are of the first order, and `create_graph` is an error.
    """
    size = min(max(1 << (call.chunk_size - 1).bit_length(), SIZES[0]), SIZES[1])
    before = call.memory
    with _on(call.value.device):
        from holdfast.nn.xlstm.triton import launches

        log_input, log_forget = _chunked(call.input_gate, size, -math.inf), _chunked(call.forget_gate, size, math.inf)
        left = faded(logsigmoid(log_forget))
        log_taken, log_kept = left[:, -1, 1:] + log_input, left[:, -1, 0].unflatten(0, (len(call.value), -1))
        own = log_taken.detach().amax(-1).clamp(min=LEAST).view(log_kept.shape)
        units = launches.units(log_kept.detach(), own, before.stabiliser)
        begin, end = units[:, :-1], units[:, 1:]
        forget, taken = (log_kept + begin - end).exp(), (log_taken - end.reshape(-1, 1)).exp()
        weights, unit = stabilised(left, torch.cat([begin.reshape(-1, 1), log_input], 1))
        least = (-math.log(call.scale) - unit).exp()
        vectors = (_dense(x) for x in (call.query, call.key, call.value))
        state = before.cell.contiguous(), before.normaliser.contiguous()
        parts: tuple[Tensor, Tensor, Tensor] = _Kernels.apply(  # type: ignore[no-untyped-call]
            call.eps / call.scale, *vectors, weights, least, forget, taken, *state
        )
    output, cell, normaliser = parts
    return MLSTMAnswer(output, Memory(cell=cell, normaliser=normaliser, stabiliser=units[:, -1].clone()))


class _Kernels(torch.autograd.Function):
    """Output, cell and normaliser as a function of the tensors of `Chunks`."""

    @staticmethod
    def forward(ctx: Any, eps: float, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        from holdfast.nn.xlstm.triton import launches

        given = launches.Chunks(eps, *tensors)
        cells, normalisers = launches.memories(given)
        output, denominator = launches.output(given, cells, normalisers)
        ctx.eps = eps
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, output, denominator)
        return output, cells[:, -1].clone(), normalisers[:, -1].clone()

    @staticmethod
    def backward(
        ctx: Any, gradient: Tensor | None, of_cell: Tensor | None, of_normaliser: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        from holdfast.nn.xlstm.triton import launches

        if torch.is_grad_enabled():  # a gradient of this gradient would silently lack what these kernels do
            raise RuntimeError(f"the Triton kernels of the mLSTM have no second derivative: set {VARIABLE}=reference")
        *tensors, output, denominator = ctx.saved_tensors
        given = launches.Chunks(ctx.eps, *tensors)
        with _on(output.device):
            cells, normalisers = launches.memories(given)
            gradient = torch.zeros_like(output) if gradient is None else gradient.contiguous()
            least = given.least.squeeze(-1)
            inverse = 1 / (torch.maximum(denominator.abs(), least) + ctx.eps)
            along = _chunked((gradient.float() * output.float()).sum(-1), given.taken.shape[1], 0.0)
            of_denominator = torch.where(denominator.abs() >= least, -along * inverse * denominator.sign(), 0.0)
            rows = launches.Rows(cells, normalisers, gradient, inverse, of_denominator)
            end_cell = torch.zeros_like(given.cell) if of_cell is None else of_cell
            end_normaliser = torch.zeros_like(given.normaliser) if of_normaliser is None else of_normaliser
            dcells, dnormalisers, dforget = launches.memory_gradient(given, rows, end_cell, end_normaliser)
            dq, dk, dweights, dtaken = launches.key_gradient(given, rows, dcells, dnormalisers)
            dv = launches.value_gradient(given, rows, dcells)
        return None, dq, dk, dv, dweights, None, dforget, dtaken, dcells[:, 0], dnormalisers[:, 0]


def _chunked(x: Tensor, size: int, fill: float) -> Tensor:
    """Numbers of tokens in float32, one chunk a row; `fill` stands for those that the last chunk of a head lacks."""
    lacking = -x.shape[1] % size
    return pad(x.float(), (0, lacking), value=fill).view(-1, size)


def _dense(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on a CPU."""
    from holdfast.nn.xlstm.triton import kernels

    return kernels.INTERPRETED


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Launch on the device that the inputs are on."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
