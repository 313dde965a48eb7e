"""The sLSTM layer: everything of its block between the norm and the residual."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import layer_norm, silu

from holdfast.errors import ArgumentError, count_of
from holdfast.nn.attention.call import full_precision
from holdfast.nn.layout import Layout, check_input
from holdfast.nn.state import State, check_precision, limit_of, of_kind
from holdfast.nn.xlstm.causal_convolution import CausalConvolution
from holdfast.nn.xlstm.slstm import slstm
from holdfast.nn.xlstm.slstm_reference import SLSTMMemory


@dataclass(frozen=True, kw_only=True)
class SLSTMState(State):
    """State of `SLSTM`, of the same size after any number of tokens, in float32 or better.

    Arguments:
        cell: c, the true value times exp(-stabiliser).
        normaliser: n, likewise.
        hidden: h.
        stabiliser: m, -inf before the first token.
        tail: the convolution's last three inputs.
    """

    cell: Float[Tensor, "batch heads dim"]
    normaliser: Float[Tensor, "batch heads dim"]
    hidden: Float[Tensor, "batch heads dim"]
    stabiliser: Float[Tensor, "batch heads dim"]
    tail: Float[Tensor, "batch before inner"]


class SLSTM(nn.Module):
    """Sequence mixer: scalar memories with exponential gates, which see the last output of their head.

        c = silu(convolution(x))
        i, f = projections of c, z, o of x, a head at a time        y = norm(slstm(i, f, z, o))

    Arguments:
        dim: width of input and output.
        heads: number of heads, which divides `dim`.
        block: place in the network, from 0, by which forget gates remember longer at first.
        blocks: number of blocks of the network.

    Errors:
        ArgumentError: sizes that do not divide, or no whole numbers of that size.

    Source: arXiv 2405.04517, section 2.2 and appendix A; the block of arXiv 2410.22391.
    """

    def __init__(self, dim: int, heads: int, *, block: int = 0, blocks: int = 1) -> None:
        super().__init__()
        self.dim, self.heads = count_of("dim", dim, least=1), count_of("heads", heads, least=1)
        if dim % heads:
            raise ArgumentError("dim", f"a multiple of the {heads} heads", dim)
        self.block, self.blocks = count_of("block", block), count_of("blocks", blocks, least=1)
        if block >= blocks:
            raise ArgumentError("block", f"less than the {blocks} blocks", block)
        size = dim // heads
        self.convolution = CausalConvolution(dim)
        self.gates = nn.Parameter(torch.empty(4, heads, size, size))
        self.recurrent = nn.Parameter(torch.empty(heads, size, 4, size))
        self.bias = nn.Parameter(torch.empty(heads, 4, size))
        self.norm = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal weights that suit the width, no recurrent ones, and forget biases from +5 down to -7 in each head."""
        self.convolution.reset_parameters()
        nn.init.normal_(self.gates, std=math.sqrt(2 / (5 * self.dim)))
        nn.init.zeros_(self.recurrent)
        nn.init.zeros_(self.bias)
        nn.init.ones_(self.norm)
        size = self.dim // self.heads
        power = 0.3 + 1.3 * self.block / max(1, self.blocks - 1)
        with torch.no_grad():
            self.bias[:, 1] = 5.0 - 12.0 * (torch.arange(size) / max(1, size - 1)) ** power

    def extra_repr(self) -> str:
        """What no submodule shows."""
        return f"dim={self.dim}, heads={self.heads}"

    def init_state(self, batch: int, *, limit: int | None = None) -> SLSTMState:
        """The state before the first token; see `RAT.init_state`."""
        limit, weight = limit_of(limit), self.norm
        wide = torch.promote_types(weight.dtype, torch.float32)
        zero = torch.zeros(batch, self.heads, self.dim // self.heads, dtype=wide, device=weight.device)
        return SLSTMState(
            seen=torch.zeros(batch, dtype=torch.long, device=weight.device),
            limit=limit,
            cell=zero,
            normaliser=zero.clone(),
            hidden=zero.clone(),
            stabiliser=torch.full_like(zero, -math.inf),
            tail=zero.new_zeros(batch, self.convolution.width - 1, self.dim),
        )

    def forward(
        self, x: Float[Tensor, "batch time dim"], state: State | None = None, layout: Layout | None = None
    ) -> tuple[Float[Tensor, "batch time dim"], SLSTMState]:
        """Mix all tokens, or continue a state by any number of them; see `RAT.forward`."""
        check_input(x, self.dim, layout)
        if state is None:
            before = self.init_state(len(x) if layout is None else len(layout.lengths))
        else:
            before = self._checked(state, x, layout)
        if x.shape[1] == 0:
            return x, self.init_state(len(x)) if state is None else before
        if layout is None:
            output, after = self._mixed(x, before, None)
            return output, before.followed_by(after)
        if layout.longest == 0:  # no token of the batch is live
            return torch.zeros_like(x), before
        output, after = self._mixed(layout.unpack(x), before, layout.lengths)
        after = before.followed_by(after)
        return layout.pack(output), after.reorder(layout.last) if layout.packed else after

    def _checked(self, given: State, x: Tensor, layout: Layout | None) -> SLSTMState:
        """A state that this layer may continue."""
        state = of_kind(given, SLSTMState)
        state.check(x, tokens=x.shape[1], packed=layout is not None and layout.packed)
        ours, theirs = (self.heads, self.dim // self.heads), tuple(state.cell.shape[1:])
        if ours != theirs:
            raise ArgumentError("state", f"heads and head width of {ours}", f"of {theirs}")
        check_precision(state.cell.dtype, self.norm.dtype)
        return state

    def _mixed(
        self, x: Float[Tensor, "sequences longest dim"], before: SLSTMState, lengths: Tensor | None
    ) -> tuple[Float[Tensor, "sequences longest dim"], SLSTMState]:
        """The output for sequences that continue a state, and the state after them."""
        convolved, tail = self.convolution(x, before.tail, lengths)
        pairs = []
        for source, weight in zip((silu(convolved), x), self.gates.to(x.dtype).split(2), strict=True):
            pairs.append(torch.einsum("bthi,ghoi->thbgo", source.unflatten(-1, (self.heads, -1)), weight))
        projected = torch.cat(pairs, 3)
        with full_precision(x.device):
            wide = before.cell.dtype
            inputs = (projected.to(wide) + self.bias.to(wide).unsqueeze(1)).flatten(3)
            start = (before.cell, before.normaliser, before.hidden, before.stabiliser)
            memory = slstm(
                inputs, self.recurrent.to(wide).flatten(2), SLSTMMemory(*(part.transpose(0, 1) for part in start))
            )
            normed = layer_norm(memory.hidden, memory.hidden.shape[3:], eps=1e-5)
            output = normed.permute(2, 0, 1, 3).flatten(2) * self.norm.to(wide)
        cell, normaliser, hidden, stabiliser = (
            _last(every.transpose(1, 2), first, lengths) for every, first in zip(memory, start, strict=True)
        )
        return output.to(projected.dtype), SLSTMState(
            **before.counts(x.shape[1], lengths),
            cell=cell,
            normaliser=normaliser,
            hidden=hidden,
            stabiliser=stabiliser.detach(),
            tail=tail,
        )


def _last(
    every: Float[Tensor, "time batch heads dim"], first: Float[Tensor, "batch heads dim"], lengths: Tensor | None
) -> Float[Tensor, "batch heads dim"]:
    """What each row has after its last token, in memory of its own; `first` where it has none."""
    if lengths is None:
        return every[-1].clone()
    row = torch.arange(len(lengths), device=every.device)
    return torch.where((lengths > 0)[:, None, None], every[(lengths - 1).clamp(min=0), row], first)
