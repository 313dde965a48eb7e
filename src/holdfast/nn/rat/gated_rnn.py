"""The gated recurrence over the whole sequence, between two projections: RAT with a single chunk."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from holdfast.errors import ArgumentError, count_of
from holdfast.nn.attention.call import full_precision
from holdfast.nn.layout import Layout, check_input
from holdfast.nn.state import State, check_precision, limit_of, of_kind


def gated_scan(
    gate: Float[Tensor, "batch time dim"],
    x: Float[Tensor, "batch time dim"],
    start: Float[Tensor, "batch dim"],
) -> Float[Tensor, "batch time dim"]:
    """h_t = g_t h_{t-1} + (1 - g_t) x_t, in about twice the square root of `time` steps.

    Blocks of tokens run side by side, each from zero; what a block began with then fades by the product of its gates,
    which is at most one, so that nothing can overflow.

    Arguments:
        gate: in [0, 1].
        x: what the gates let in.
        start: the state before the first token.
    """
    time = x.shape[1]
    size = 1
    while size * size < time:  # torch.compile, where lengths vary, knows no integer root
        size += 1
    blocks = -(-time // size)
    lacking = blocks * size - time
    gates = pad(gate, (0, 0, 0, lacking), value=1.0).unflatten(1, (blocks, size)).unbind(2)
    inputs = pad(x, (0, 0, 0, lacking)).unflatten(1, (blocks, size)).unbind(2)
    state, fade = torch.zeros_like(inputs[0]), torch.ones_like(gates[0])
    states, fades = [], []
    for g, entry in zip(gates, inputs, strict=True):
        state, fade = torch.lerp(entry, state, g), fade * g
        states.append(state)
        fades.append(fade)
    begin, begins = start, []
    for last, whole in zip(state.unbind(1), fade.unbind(1), strict=True):
        begins.append(begin)
        begin = last + whole * begin
    joined = torch.addcmul(torch.stack(states, 2), torch.stack(fades, 2), torch.stack(begins, 1).unsqueeze(2))
    return joined.flatten(1, 2)[:, :time]


@dataclass(frozen=True, kw_only=True)
class GatedRNNState(State):
    """State of `GatedRNN`.

    Arguments:
        running: the state of every channel, in float32 or better.
    """

    running: Float[Tensor, "batch dim"]


class GatedRNN(nn.Module):
    """Sequence mixer: a gated recurrence, of constant memory.

        z, v, g = in_proj(x)        h_t = gate h_{t-1} + (1 - gate) v_t        y = out_proj(sigmoid(z) * h)

    Arguments:
        dim: width of input and output.
        memory: at first the gates remember for 1 to `memory - 1` tokens.

    Source: arXiv 2507.04416, the RNN baseline.
    """

    def __init__(self, dim: int, *, memory: int = 1024) -> None:
        super().__init__()
        self.dim, self.memory = count_of("dim", dim, least=1), count_of("memory", memory, least=1)
        self.in_proj = nn.Linear(dim, 3 * dim, bias=False)
        self.out_proj = nn.Linear(dim, dim, bias=False)
        self.gate_bias = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal weights of standard deviation 0.02; gates that remember for 1 to `memory - 1` tokens."""
        nn.init.normal_(self.in_proj.weight, std=0.02)
        nn.init.normal_(self.out_proj.weight, std=0.02)
        with torch.no_grad():
            self.gate_bias.uniform_(1.0, max(1.0, self.memory - 1.0)).log_()

    def init_state(self, batch: int, *, limit: int | None = None) -> GatedRNNState:
        """The state before the first token; see `RAT.init_state`."""
        weight = self.gate_bias  # those of projections may be quantised
        wide = torch.promote_types(weight.dtype, torch.float32)
        return GatedRNNState(
            seen=torch.zeros(batch, dtype=torch.long, device=weight.device),
            limit=limit_of(limit),
            running=torch.zeros(batch, self.dim, dtype=wide, device=weight.device),
        )

    def forward(
        self, x: Float[Tensor, "batch time dim"], state: State | None = None, layout: Layout | None = None
    ) -> tuple[Float[Tensor, "batch time dim"], GatedRNNState]:
        """Mix all tokens, or continue a state by any number of them; see `RAT.forward`."""
        check_input(x, self.dim, layout)
        if state is None:
            before = self.init_state(x.shape[0] if layout is None else layout.lengths.shape[0])
        else:
            before = of_kind(state, GatedRNNState)
            before.check(x, tokens=x.shape[1], packed=layout is not None and layout.packed)
            if before.running.shape[1] != self.dim:
                raise ArgumentError("state", f"a state of width {self.dim}", f"one of {before.running.shape[1]}")
            check_precision(before.running.dtype, self.gate_bias.dtype)
        if x.shape[1] == 0:
            return x, self.init_state(x.shape[0]) if state is None else before
        x = x if layout is None else layout.cleared(x)
        z, value, gate = self.in_proj(x).chunk(3, -1)
        wide = before.running.dtype
        gate, value = torch.sigmoid(gate.to(wide) + self.gate_bias.to(wide)), value.to(wide)
        if layout is not None:
            gate, value = layout.unpack(gate, 1.0), layout.unpack(value)
        with full_precision(x.device):
            states = gated_scan(gate, value, before.running) if value.shape[1] else value
        running = states[:, -1] if value.shape[1] else before.running
        after = before.followed_by(
            GatedRNNState(**before.counts(value.shape[1], None if layout is None else layout.lengths), running=running)
        )
        if layout is not None:
            states, after = layout.pack(states), after.reorder(layout.last) if layout.packed else after
        return self.out_proj(torch.sigmoid(z) * states.to(z.dtype)), after
