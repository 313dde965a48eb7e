"""The RAT layer: recurrence inside chunks, attention across them, between two projections."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from holdfast.errors import ArgumentError, count_of
from holdfast.nn.attention.call import full_precision
from holdfast.nn.layout import Layout, check_input
from holdfast.nn.learned_scale import learned_scale
from holdfast.nn.normalisers import Normaliser, checked_normaliser
from holdfast.nn.rat.call import ChunkCall
from holdfast.nn.rat.rat_attention import Backend, check_backend, computed
from holdfast.nn.rat.state import RATState
from holdfast.nn.rotary import check_rope
from holdfast.nn.state import Slots, State, check_precision, limit_of, of_kind


class RAT(nn.Module):
    """Sequence mixer: gated recurrence inside chunks, softmax attention across the chunks' last states.

        z, v, g, q, k = in_proj(x)        gate = sigmoid(g + gate_bias)
        y = out_proj(sigmoid(z) * rat_attention(q, k, v, gate))

    Arguments:
        dim: width of input and output.
        heads: number of heads, which divides `dim`.
        chunk_size: tokens a chunk, the one knob: as long as the sequence makes it a gated recurrence.
        qk_groups: number of queries and keys that the heads share, head h that of number h mod qk_groups; `None`: one
            a head. The recurrent keys are distinct in every head all the same, since gates are.
        rope_theta: base of rotary positions by chunk index; `None`: no positions.
        normaliser: turns logits into weights; `None`: the softmax.
        backend: what computes the core; `auto`: the fastest that can.

    Errors:
        ArgumentError: sizes that do not divide, or no positive whole numbers.

    Source: arXiv 2507.04416, section 3. The parameters have the names and the order of the published checkpoints.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        chunk_size: int = 16,
        qk_groups: int | None = 2,
        rope_theta: float | None = 10_000.0,
        normaliser: Normaliser | None = None,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        count_of("dim", dim, least=1)
        count_of("heads", heads, least=1)
        count_of("chunk_size", chunk_size, least=1)
        if dim % heads:
            raise ArgumentError("dim", f"a multiple of the {heads} heads", dim)
        groups = heads if qk_groups is None else count_of("qk_groups", qk_groups, least=1)
        if heads % groups:
            raise ArgumentError("qk_groups", f"a divisor of the {heads} heads", groups)
        check_rope(rope_theta, dim // heads)
        check_backend(backend)
        self.dim, self.heads, self.groups, self.head_dim = dim, heads, groups, dim // heads
        self.chunk_size, self.rope_theta, self.backend = chunk_size, rope_theta, backend
        self.normaliser = checked_normaliser(normaliser)
        self.scale = learned_scale(self.normaliser, heads)
        self.in_proj = nn.Linear(dim, 3 * dim + 2 * groups * self.head_dim, bias=False)
        self.out_proj = nn.Linear(dim, dim, bias=False)
        self.gate_bias = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal weights of standard deviation 0.02; gates that remember for 1 to `chunk_size - 1` tokens."""
        nn.init.normal_(self.in_proj.weight, std=0.02)
        nn.init.normal_(self.out_proj.weight, std=0.02)
        with torch.no_grad():
            self.gate_bias.uniform_(1.0, max(1.0, self.chunk_size - 1.0)).log_()

    def extra_repr(self) -> str:
        """What the projections do not show."""
        return f"heads={self.heads}, chunk_size={self.chunk_size}, qk_groups={self.groups}"

    def init_state(self, batch: int, *, limit: int | None = None) -> RATState:
        """The state before the first token.

        Arguments:
            batch: number of rows.
            limit: room for so many tokens in memory that is written in place, as a step under a CUDA graph needs it,
                and so is not for training; `None`: it grows.

        Errors:
            ArgumentError: a limit that is no whole number from 0 on.
        """
        limit = limit_of(limit)
        weight = self.gate_bias  # those of projections may be quantised
        wide = torch.promote_types(weight.dtype, torch.float32)
        slots = 0 if limit is None else limit // self.chunk_size
        entry = weight.new_zeros(batch, self.heads, slots, self.head_dim).detach()
        running = torch.zeros(batch, self.heads, self.head_dim, dtype=wide, device=weight.device)
        return RATState(
            seen=torch.zeros(batch, dtype=torch.long, device=weight.device),
            limit=limit,
            closed=Slots(entry, entry.clone(), fixed=limit is not None, appended=[0]),
            running_key=running,
            running_value=running.clone(),
            chunk_size=self.chunk_size,
            rope_theta=self.rope_theta,
        )

    def forward(
        self, x: Float[Tensor, "batch time dim"], state: State | None = None, layout: Layout | None = None
    ) -> tuple[Float[Tensor, "batch time dim"], RATState]:
        """Mix all tokens, or continue a state by any number of them.

        Arguments:
            x: the input.
            state: what came before; `None`: nothing.
            layout: which tokens are live and where documents begin; `None`: all are, and each row is one.

        Returns:
            The output, zero for tokens that are not live, and the state after the last token (with packed documents
            that of each row's last document).

        Errors:
            ArgumentError: shapes that do not fit, or a state of another layer, batch, device or precision.
        """
        check_input(x, self.dim, layout)
        if state is None:
            batch = x.shape[0] if layout is None else layout.lengths.shape[0]
            continued = self.init_state(batch)
        else:
            continued = self._checked(state, x, layout)
        if x.shape[1] == 0:
            return x, self.init_state(x.shape[0]) if state is None else continued
        x = x if layout is None else layout.cleared(x)
        width = self.groups * self.head_dim
        z, value, gate, query, key = self.in_proj(x).split([self.dim] * 3 + [width] * 2, -1)
        wide = torch.promote_types(gate.dtype, torch.float32)
        gate = torch.sigmoid(gate.to(wide) + self.gate_bias.to(wide))
        value, gate, query, key = (part.unflatten(-1, (-1, self.head_dim)) for part in (value, gate, query, key))
        lengths = None
        if layout is not None:
            query, key, value = (layout.unpack(part) for part in (query, key, value))
            gate, lengths = layout.unpack(gate, 1.0), layout.lengths
        if state is None:  # in the dtype that the projections have on this input
            nothing = value.new_zeros(value.shape[0], self.heads, 0, self.head_dim)
            continued = replace(continued, closed=Slots(nothing, nothing))
        with full_precision(x.device):
            mixed, after = self._mixed(query, key, value, gate, continued, lengths)
        if layout is not None:
            mixed, after = layout.pack(mixed), after.reorder(layout.last) if layout.packed else after
        return self.out_proj(torch.sigmoid(z) * mixed.flatten(2)), after

    def _checked(self, given: State, x: Tensor, layout: Layout | None) -> RATState:
        """A state that this layer may continue."""
        state = of_kind(given, RATState)
        state.check(x, tokens=x.shape[1], packed=layout is not None and layout.packed)
        ours = (self.heads, self.head_dim, self.chunk_size, self.rope_theta)
        theirs = (*state.running_key.shape[1:], state.chunk_size, state.rope_theta)
        if ours != theirs:
            raise ArgumentError("state", f"heads, head_dim, chunk_size, rope_theta of {ours}", f"of {theirs}")
        check_precision(state.running_key.dtype, self.gate_bias.dtype)
        return state

    def _mixed(
        self, query: Tensor, key: Tensor, value: Tensor, gate: Tensor, state: RATState, lengths: Tensor | None
    ) -> tuple[Float[Tensor, "sequences longest heads dim"], RATState]:
        """The core's output and the state after it, of sequences that continue a state."""
        tokens = value.shape[1]
        if 0 in (tokens, value.shape[0]):
            return value, state
        # One token changes the open chunk only; more may begin new ones, and must begin where a chunk does.
        shift = tokens > 1 and state.longest > 0
        if shift:
            offset = state.seen % self.chunk_size if state.ragged else state.longest % self.chunk_size
            query, key, value = (shifted(part, offset, self.chunk_size) for part in (query, key, value))
            gate = shifted(gate, offset, self.chunk_size, fill=1.0)
        call = ChunkCall(
            query=query,
            key=key,
            value=value,
            gate=gate,
            chunk_size=self.chunk_size,
            scale=1 / math.sqrt(self.head_dim),
            rope_theta=self.rope_theta,
            past=state.past,
            normaliser=self.normaliser if self.scale is None else self.scale(),
        )
        answer = computed(call, self.backend)
        output = shifted_back(answer.output, offset, tokens) if shift else answer.output
        return output, state.extended(answer, tokens, lengths)


def shifted(
    x: Float[Tensor, "batch time heads dim"], offset: Tensor | int, chunk_size: int, fill: float = 0.0
) -> Float[Tensor, "batch later heads dim"]:
    """Tokens moved back in time by an offset below the chunk size, each row by its own."""
    if isinstance(offset, int):
        return pad(x, (0, 0, 0, 0, offset, 0), value=fill)
    place = torch.arange(x.shape[1] + chunk_size - 1, device=x.device) - offset[:, None]
    outside = (place < 0) | (place >= x.shape[1])
    index = place.clamp(0, x.shape[1] - 1)[:, :, None, None].expand(-1, -1, *x.shape[2:])
    return x.gather(1, index).masked_fill(outside[:, :, None, None], fill)


def shifted_back(
    x: Float[Tensor, "batch later heads dim"], offset: Tensor | int, time: int
) -> Float[Tensor, "batch time heads dim"]:
    """The inverse of `shifted`."""
    if isinstance(offset, int):
        return x[:, offset : offset + time]
    place = torch.arange(time, device=x.device) + offset[:, None]
    return x.gather(1, place[:, :, None, None].expand(-1, -1, *x.shape[2:]))
