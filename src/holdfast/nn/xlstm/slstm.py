"""The core of the sLSTM: a recurrence of scalar memories with exponential gates, one token after the other."""

from __future__ import annotations

import os
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from holdfast.errors import ArgumentError
from holdfast.nn.attention.call import full_precision
from holdfast.nn.attention.triton.host import VARIABLE
from holdfast.nn.xlstm.slstm_reference import SLSTMMemory, slstm_steps


def slstm(
    inputs: Float[Tensor, "time heads batch gates"], recurrent: Float[Tensor, "heads dim gates"], before: SLSTMMemory
) -> SLSTMMemory:
    """The memory after every token, unit by unit.

        i, f, z, o = inputs_t + h_{t-1} recurrent
        m_t = max(log sigmoid(f) + m_{t-1}, i)
        i' = exp(i - m_t)        f' = exp(log sigmoid(f) + m_{t-1} - m_t)
        c_t = f' c_{t-1} + i' tanh(z)        n_t = f' n_{t-1} + i'        h_t = sigmoid(o) c_t / n_t

    One of i' and f' is 1 and neither is greater, so that |c| <= n and n >= 1 at any gate value.

    Arguments:
        inputs: what a token adds to the gates i, f, z, o, each `dim` wide, biases included; at least one token.
        recurrent: what the last output adds to them.
        before: the memory before the first token.

    Returns:
        The memory after each token, in float32 or better as the inputs are. Its `hidden` is the output.

    Where gradients are asked for, the backward pass is written out, which takes about two thirds of autograd's time on
    small networks. The environment's `HOLDFAST_KERNELS=reference` and compilers take the plain loop.

    Errors:
        ArgumentError: a gradient of a gradient is asked for, which the plain loop alone has.

    Source: arXiv 2405.04517, section 2.2 and appendix A.
    """
    tensors = (inputs, recurrent, *before)
    plain = (
        os.environ.get(VARIABLE) == "reference"
        or torch.compiler.is_compiling()
        or not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))
    )
    if plain:
        return slstm_steps(inputs, recurrent, before)
    return SLSTMMemory(*_SLSTM.apply(*tensors))  # type: ignore[no-untyped-call]


class _SLSTM(torch.autograd.Function):
    """The loop in memory of its own, and its backward pass."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, recurrent: Tensor, *before: Tensor) -> tuple[Tensor, ...]:
        time, heads, batch, gates = inputs.shape
        dim = gates // 4
        # Each with the memory before the first token in front, or what a token takes in: the cell tanh(z), n one.
        memory = inputs.new_empty(time + 1, 2, heads, batch, dim)
        outputs, stabilisers = (inputs.new_empty(time + 1, heads, batch, dim) for _ in range(2))
        memory[0, 0], memory[0, 1], outputs[0], stabilisers[0] = before
        taken = inputs.new_ones(time, 2, heads, batch, dim)
        shares = inputs.new_empty(time, 2, heads, batch, dim)  # i' and f'
        raw = inputs.new_empty(time, heads, batch, gates)
        i, f, z, o = (gate.unbind(0) for gate in raw.chunk(4, -1))
        z_taken, (let_in, keep) = taken[:, 0].unbind(0), (share.unbind(0) for share in shares.unbind(1))
        m, h, both = stabilisers.unbind(0), outputs.unbind(0), memory.unbind(0)
        for t, entry in enumerate(inputs.unbind(0)):
            torch.baddbmm(entry, h[t], recurrent, out=raw[t])
            kept = logsigmoid(f[t]).add_(m[t])
            torch.maximum(kept, i[t], out=m[t + 1])
            torch.sub(i[t], m[t + 1], out=let_in[t])
            torch.sub(kept, m[t + 1], out=keep[t])
            shares[t].exp_()
            torch.tanh(z[t], out=z_taken[t])
            torch.mul(both[t], keep[t], out=both[t + 1]).addcmul_(taken[t], let_in[t])
            torch.sigmoid(o[t], out=h[t + 1]).mul_(both[t + 1][0]).div_(both[t + 1][1])
        ctx.save_for_backward(recurrent, memory, outputs, raw, taken, shares)
        ctx.set_materialize_grads(False)
        return memory[1:, 0], memory[1:, 1], outputs[1:], stabilisers[1:]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise ArgumentError("create_graph", "HOLDFAST_KERNELS=reference for gradients of gradients", True)
        recurrent, memory, outputs, raw, taken, shares = ctx.saved_tensors
        with full_precision(raw.device):
            dim = recurrent.shape[1]
            _, f, _, o = raw.chunk(4, -1)
            o, (let_in, keep) = torch.sigmoid(o), shares.unbind(1)
            # Derivatives by what stands in the equation; those with two entries are by, or of, cell and normaliser.
            h_by_memory = torch.stack([o, -outputs[1:]], 1).div_(memory[1:, 1:])
            h_by_o = outputs[1:] * (1 - o)
            cell_by_z = let_in * (1 - taken[:, 0].square())
            memory_by_i = let_in.unsqueeze(1) * taken
            memory_by_f = memory[:-1] * (keep * torch.sigmoid(-f)).unsqueeze(1)

            of_raw = torch.empty_like(raw)
            of_memory, of_h = torch.zeros_like(memory[0]), torch.zeros_like(outputs[0])
            of_cell, product = of_memory[0], torch.empty_like(of_memory)
            from_cell, from_normaliser = product.unbind(0)
            asked = [
                (total, gradient.unbind(0))
                for total, gradient in zip((*of_memory.unbind(0), of_h), gradients[:3], strict=True)
                if gradient is not None
            ]
            by_step = zip(
                *(factor.unbind(0) for factor in (h_by_memory, h_by_o, cell_by_z, memory_by_i, memory_by_f, keep)),
                *(gate.unbind(0) for gate in (of_raw, *of_raw.chunk(4, -1))),
                strict=True,
            )
            back = recurrent.mT
            for t, step in reversed(list(enumerate(by_step))):
                memory_share, o_share, z_share, i_share, f_share, kept, of_gates, of_i, of_f, of_z, of_o = step
                for total, gradient in asked:
                    total.add_(gradient[t])
                of_memory.addcmul_(of_h, memory_share)
                torch.mul(of_memory, i_share, out=product)
                torch.add(from_cell, from_normaliser, out=of_i)
                torch.mul(of_memory, f_share, out=product)
                torch.add(from_cell, from_normaliser, out=of_f)
                torch.mul(of_cell, z_share, out=of_z)
                torch.mul(of_h, o_share, out=of_o)
                of_memory.mul_(kept)
                torch.bmm(of_gates, back, out=of_h)
            before = outputs[:-1].permute(1, 3, 0, 2).reshape(len(recurrent), dim, -1)
            of_recurrent = torch.bmm(before, of_raw.transpose(0, 1).flatten(1, 2))
        return of_raw, of_recurrent, of_memory[0], of_memory[1], of_h, None
