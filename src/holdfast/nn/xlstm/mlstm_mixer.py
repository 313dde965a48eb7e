"""The mLSTM layer: everything of its block between the norm and the residual."""

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
from holdfast.nn.xlstm.call import Memory, MLSTMCall, in_dtype
from holdfast.nn.xlstm.causal_convolution import CausalConvolution
from holdfast.nn.xlstm.mlstm import Backend, check_backend, computed

GROUP = 4
"""Channels that are projected together to queries, keys and values."""


@dataclass(frozen=True, kw_only=True)
class MLSTMState(State):
    """State of `MLSTM`, of the same size after any number of tokens, in float32 or better; see `Memory`.

    Arguments:
        cell: C, true values times exp(-stabiliser).
        normaliser: n, likewise.
        stabiliser: m.
        tail: the convolution's last three inputs.
    """

    cell: Float[Tensor, "batch heads dim dim"]
    normaliser: Float[Tensor, "batch heads dim"]
    stabiliser: Float[Tensor, "batch heads"]
    tail: Float[Tensor, "batch before inner"]


class MLSTM(nn.Module):
    """Sequence mixer: a matrix memory with exponential gates, between two projections.

        u, z = in_proj(x)        c = silu(convolution(u))        q, k, v = qkv(c, c, u), four channels at a time
        y = out_proj((norm(mlstm(q, k, v, gates([q, k, v]))) + skip * c) * silu(z))

    Arguments:
        dim: width of input and output. The inner one is twice that, up to the next multiple of 64.
        heads: number of heads, which divides the inner width.
        blocks: number of blocks of the network, by which the weights of `out_proj` are smaller at first.
        backend: what computes the core; `auto`: the fastest that can.

    Errors:
        ArgumentError: sizes that do not divide, or no positive whole numbers.

    Source: arXiv 2405.04517, section 2.4 and appendix; the block of arXiv 2410.22391.
    """

    def __init__(self, dim: int, heads: int, *, blocks: int = 1, backend: Backend = "auto") -> None:
        super().__init__()
        self.dim, self.heads = count_of("dim", dim, least=1), count_of("heads", heads, least=1)
        self.blocks = count_of("blocks", blocks, least=1)
        self.inner = -(-2 * dim // 64) * 64
        if self.inner % heads:
            raise ArgumentError("heads", f"a divisor of the inner width {self.inner}", heads)
        check_backend(backend)
        self.backend = backend
        self.in_proj = nn.Linear(dim, 2 * self.inner, bias=False)
        self.convolution = CausalConvolution(self.inner)
        self.qkv = nn.Parameter(torch.empty(3, self.inner // GROUP, GROUP, GROUP))
        self.gates = nn.Linear(3 * self.inner, 2 * heads)
        self.norm = nn.Parameter(torch.empty(self.inner))
        self.skip = nn.Parameter(torch.empty(self.inner))
        self.out_proj = nn.Linear(self.inner, dim, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal weights that suit the width; gates that look at their bias only, and forget little."""
        small = math.sqrt(2 / (5 * self.dim))
        nn.init.normal_(self.in_proj.weight, std=small)
        nn.init.normal_(self.qkv, std=small)
        nn.init.normal_(self.out_proj.weight, std=2 / (self.blocks * math.sqrt(self.dim)))
        self.convolution.reset_parameters()
        nn.init.ones_(self.norm)
        nn.init.ones_(self.skip)
        nn.init.zeros_(self.gates.weight)
        with torch.no_grad():
            self.gates.bias[: self.heads].normal_(std=0.1)
            self.gates.bias[self.heads :] = torch.linspace(3.0, 6.0, self.heads)

    def extra_repr(self) -> str:
        """What the projections do not show."""
        return f"heads={self.heads}, backend={self.backend!r}"

    def init_state(self, batch: int, *, limit: int | None = None) -> MLSTMState:
        """The state before the first token.

        Arguments:
            batch: number of rows.
            limit: tokens that may follow; its memory is then written in place, and is as large at any limit. `None`:
                no limit, and no state that was handed out ever changes.

        Errors:
            ArgumentError: a limit that is no whole number from 0 on.
        """
        limit, weight = limit_of(limit), self.skip  # those of projections may be quantised
        wide = torch.promote_types(weight.dtype, torch.float32)
        size = self.inner // self.heads

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(batch, *shape, dtype=wide, device=weight.device)

        return MLSTMState(
            seen=torch.zeros(batch, dtype=torch.long, device=weight.device),
            limit=limit,
            cell=zeros(self.heads, size, size),
            normaliser=zeros(self.heads, size),
            stabiliser=zeros(self.heads),
            tail=zeros(self.convolution.width - 1, self.inner),
        )

    def forward(
        self, x: Float[Tensor, "batch time dim"], state: State | None = None, layout: Layout | None = None
    ) -> tuple[Float[Tensor, "batch time dim"], MLSTMState]:
        """Mix all tokens, or continue a state by any number of them; see `RAT.forward`."""
        check_input(x, self.dim, layout)
        if state is None:
            before = self.init_state(len(x) if layout is None else len(layout.lengths))
        else:
            before = self._checked(state, x, layout)
        if x.shape[1] == 0:
            return x, self.init_state(len(x)) if state is None else before
        x = x if layout is None else layout.cleared(x)
        u, z = self.in_proj(x).chunk(2, -1)
        if layout is not None:
            u = layout.unpack(u)
        if u.shape[1] == 0:  # no token of the batch is live
            return torch.zeros_like(x), before
        mixed, after = self._mixed(u, before, None if layout is None else layout.lengths)
        after = before.followed_by(after)
        if layout is not None:
            mixed, after = layout.pack(mixed), after.reorder(layout.last) if layout.packed else after
        return self.out_proj(mixed * silu(z)), after

    def _checked(self, given: State, x: Tensor, layout: Layout | None) -> MLSTMState:
        """A state that this layer may continue."""
        state = of_kind(given, MLSTMState)
        state.check(x, tokens=x.shape[1], packed=layout is not None and layout.packed)
        ours, theirs = (self.heads, self.inner // self.heads), tuple(state.cell.shape[1:3])
        if ours != theirs:
            raise ArgumentError("state", f"heads and head width of {ours}", f"of {theirs}")
        check_precision(state.cell.dtype, self.skip.dtype)
        return state

    def _mixed(
        self, u: Float[Tensor, "sequences longest inner"], before: MLSTMState, lengths: Tensor | None
    ) -> tuple[Float[Tensor, "sequences longest inner"], MLSTMState]:
        """What the output gate takes, and the state after it."""
        batch, time, inner = u.shape
        convolved, tail = self.convolution(u, before.tail, lengths)
        convolved = silu(convolved)
        if batch == 0:
            return convolved, before
        with full_precision(u.device):
            call = self._call(convolved, u, before, lengths)
            answer = computed(call, self.backend)
        head_dim = inner // self.heads
        normed = layer_norm(answer.output, (head_dim,), eps=1e-5)
        normed = normed.view(batch, self.heads, time, head_dim).transpose(1, 2).reshape(batch, time, inner)
        mixed = torch.addcmul(convolved * in_dtype(self.skip, u.dtype), normed, in_dtype(self.norm, u.dtype))
        memory, shape = answer.memory, before.normaliser.shape
        return mixed, MLSTMState(
            **before.counts(time, lengths),
            cell=before.cell if memory.cell is call.memory.cell else memory.cell.view(before.cell.shape),
            normaliser=memory.normaliser.view(shape),
            stabiliser=memory.stabiliser.view(shape[:2]),
            tail=tail,
        )

    def _call(
        self, convolved: Tensor, u: Float[Tensor, "sequences longest inner"], before: MLSTMState, lengths: Tensor | None
    ) -> MLSTMCall:
        """Queries, keys, values and gates of all heads, and their memory."""
        batch, time, inner = u.shape
        heads, head_dim, wide = self.heads, inner // self.heads, before.cell.dtype
        # Each group of channels times its own matrix, with tokens last, where products are fastest.
        groups = torch.cat([convolved, convolved, u], -1).view(batch * time, -1, GROUP).permute(1, 2, 0)
        qkv = torch.bmm(in_dtype(self.qkv, u.dtype).flatten(0, 1), groups)
        features = in_dtype(qkv, wide).view(3 * inner, batch * time)
        bias = in_dtype(self.gates.bias, wide).unsqueeze(-1)
        gates = torch.addmm(bias, in_dtype(self.gates.weight, wide), features)
        input_gate, forget_gate = gates.view(2, heads, batch, time).transpose(1, 2).reshape(2, -1, time)
        if lengths is not None:
            # Behind its end a row takes nothing in and forgets nothing.
            behind = torch.arange(time, device=u.device) >= lengths.repeat_interleave(heads)[:, None]
            input_gate = input_gate.masked_fill(behind, -math.inf)
            forget_gate = forget_gate.masked_fill(behind, math.inf)
        by_head = qkv.view(3, heads, head_dim, batch, time).permute(0, 3, 1, 4, 2)
        query, key, value = by_head.reshape(3, -1, time, head_dim)
        memory = Memory(
            cell=before.cell.flatten(0, 1),
            normaliser=before.normaliser.flatten(0, 1),
            stabiliser=before.stabiliser.flatten(),
        )
        return MLSTMCall(
            query=query,
            key=key,
            value=value,
            input_gate=input_gate,
            forget_gate=forget_gate,
            memory=memory,
            scale=head_dim**-0.5,
            in_place=before.limit is not None and not torch.is_grad_enabled(),
        )
