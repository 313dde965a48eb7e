"""Causal softmax attention as a sequence mixer: over everything before, or over a sliding window."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from holdfast.errors import ArgumentError, count_of
from holdfast.nn.attention import AttentionCall
from holdfast.nn.attention.attention import attend
from holdfast.nn.layout import Layout, check_input
from holdfast.nn.learned_scale import learned_scale
from holdfast.nn.normalisers import Normaliser, Plain, checked_normaliser
from holdfast.nn.rotary import check_rope, rotated, turns
from holdfast.nn.state import Slots, State, check_precision, limit_of, of_kind


@dataclass(frozen=True, kw_only=True)
class AttentionState(State):
    """State of `CausalAttention`: keys, turned to their positions, and values of all tokens.

    Arguments:
        cache: they.
    """

    cache: Slots

    def crop(self, length: int) -> AttentionState:
        """The state after the first `length` tokens of every row.

        Errors:
            ArgumentError: there are not so many in all rows.
        """
        if (self.ragged and length != self.longest) or not 0 <= length <= self.longest:
            raise ArgumentError("length", f"at most {self.longest}, all rows alike", length)
        cache = replace(self.cache, used=length, appended=None)
        return replace(self, seen=self.seen.clamp(max=length), longest=length, cache=cache)

    def restarted(
        self, rows: Bool[Tensor, " batch"], initial: AttentionState, longest: int | None = None
    ) -> AttentionState:
        """With some rows before their first token; see `State.restarted`."""
        new = super().restarted(rows, initial, longest)
        return replace(new, cache=replace(new.cache, used=new.longest))


@dataclass(frozen=True, kw_only=True)
class WindowState(State):
    """State of `CausalAttention` with a window: keys and values of the last tokens of each row, at the end.

    Arguments:
        cache: they, keys turned to their positions. The last slot in use is the last token of every row; at the front
            is nothing of meaning, where a row has read fewer tokens.
    """

    cache: Slots


class CausalAttention(nn.Module):
    """Sequence mixer: softmax attention of each token over itself and those before it.

        v, q, k(, z) = in_proj(x)        y = out_proj(attention(q, k, v)), times sigmoid(z) before out_proj if gated

    Arguments:
        dim: width of input and output.
        heads: number of query heads, which divides `dim`.
        kv_heads: number of key heads; each serves `heads / kv_heads` query heads in turn (GQA). `None`: as many.
        rope_theta: base of rotary positions; `None`: no positions.
        window: a token sees so many, itself included; `None`: all.
        normaliser: turns logits into weights; `None`: the softmax.
        output_gate: whether a gate multiplies the output, as in `RAT`.

    Errors:
        ArgumentError: sizes that do not divide, or no positive whole numbers.

    Source: arXiv 2507.04416, the attention and local attention baselines; arXiv 2305.13245 for shared key heads.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        kv_heads: int | None = None,
        rope_theta: float | None = 10_000.0,
        window: int | None = None,
        normaliser: Normaliser | None = None,
        output_gate: bool = False,
    ) -> None:
        super().__init__()
        count_of("dim", dim, least=1)
        count_of("heads", heads, least=1)
        if dim % heads:
            raise ArgumentError("dim", f"a multiple of the {heads} heads", dim)
        kv_heads = heads if kv_heads is None else count_of("kv_heads", kv_heads, least=1)
        if heads % kv_heads:
            raise ArgumentError("kv_heads", f"a divisor of the {heads} heads", kv_heads)
        check_rope(rope_theta, dim // heads)
        self.dim, self.heads, self.kv_heads, self.head_dim = dim, heads, kv_heads, dim // heads
        self.rope_theta = rope_theta
        self.window = None if window is None else count_of("window", window, least=1)
        self.normaliser = checked_normaliser(normaliser)
        self.scale = learned_scale(self.normaliser, heads)
        width = kv_heads * self.head_dim
        self.widths = (width, dim, width, dim) if output_gate else (width, dim, width)
        self.in_proj = nn.Linear(dim, sum(self.widths), bias=False)
        self.out_proj = nn.Linear(dim, dim, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal weights of standard deviation 0.02."""
        nn.init.normal_(self.in_proj.weight, std=0.02)
        nn.init.normal_(self.out_proj.weight, std=0.02)

    def extra_repr(self) -> str:
        """What the projections do not show."""
        return f"heads={self.heads}, kv_heads={self.kv_heads}, window={self.window}"

    def init_state(self, batch: int, *, limit: int | None = None) -> AttentionState | WindowState:
        """The state before the first token.

        Arguments:
            batch: number of rows.
            limit: room for so many tokens in memory that is written in place, and so is not for training; `None`: it
                grows.

        Errors:
            ArgumentError: a limit that is no whole number from 0 on.
        """
        limit = limit_of(limit)
        weight = self.out_proj.weight
        seen = torch.zeros(batch, dtype=torch.long, device=weight.device)
        slots = limit or 0 if self.window is None else self.window - 1 if limit is not None else 0
        # Quantised weights are whole numbers, which keys are not.
        dtype = weight.dtype if weight.is_floating_point() else torch.get_default_dtype()
        entry = torch.zeros(batch, self.kv_heads, slots, self.head_dim, dtype=dtype, device=weight.device)
        if self.window is None:
            cache = Slots(entry, entry.clone(), fixed=limit is not None, appended=[0])
            return AttentionState(seen=seen, limit=limit, cache=cache)
        return WindowState(seen=seen, limit=limit, cache=Slots(entry, entry.clone(), slots, limit is not None))

    def forward(
        self,
        x: Float[Tensor, "batch time dim"],
        state: State | None = None,
        layout: Layout | None = None,
    ) -> tuple[Float[Tensor, "batch time dim"], AttentionState | WindowState]:
        """Mix all tokens, or continue a state by any number of them; see `RAT.forward`."""
        check_input(x, self.dim, layout)
        if state is None:
            before = self.init_state(x.shape[0] if layout is None else layout.lengths.shape[0])
        else:
            before = self._checked(state, x, layout)
        if x.shape[1] == 0:
            return x, self.init_state(x.shape[0]) if state is None else before
        x = x if layout is None else layout.cleared(x)
        value, query, key, *gate = self.in_proj(x).split(self.widths, -1)
        parts = (part.unflatten(-1, (-1, self.head_dim)) for part in (query, key, value))
        if layout is not None:
            parts = (layout.unpack(part) for part in parts)
        query, key, value = (part.transpose(1, 2) for part in parts)
        lengths = None if layout is None else layout.lengths
        if 0 in (query.shape[0], query.shape[2]):
            mixed, after = query, before
        else:
            if self.rope_theta is not None:
                position = before.seen[:, None, None] + torch.arange(query.shape[2], device=x.device)
                turn = turns(position, self.head_dim, self.rope_theta, torch.promote_types(x.dtype, torch.float32))
                query, key = rotated(query, turn), rotated(key, turn)
            if isinstance(before, WindowState):
                mixed, of_window = self._within_window(query, key, value, before, lengths)
                after = before.followed_by(of_window)
            else:
                mixed, of_all = self._over_all(query, key, value, before, lengths)
                after = before.followed_by(of_all)
        mixed = mixed.transpose(1, 2)
        if layout is not None:
            mixed, after = layout.pack(mixed), after.reorder(layout.last) if layout.packed else after
        mixed = mixed.flatten(2)
        return self.out_proj(torch.sigmoid(gate[0]) * mixed if gate else mixed), after

    def _checked(self, given: State, x: Tensor, layout: Layout | None) -> AttentionState | WindowState:
        """A state that this layer may continue."""
        state = of_kind(given, AttentionState) if self.window is None else of_kind(given, WindowState)
        state.check(x, tokens=x.shape[1], packed=layout is not None and layout.packed)
        keys = state.cache.keys
        if (keys.shape[1], keys.shape[3]) != (self.kv_heads, self.head_dim):
            expected = f"{self.kv_heads} key heads of width {self.head_dim}"
            raise ArgumentError("state", expected, f"{keys.shape[1]} of width {keys.shape[3]}")
        check_precision(torch.promote_types(keys.dtype, torch.float32), self.out_proj.weight.dtype)
        return state

    def _over_all(
        self, query: Tensor, key: Tensor, value: Tensor, state: AttentionState, lengths: Tensor | None
    ) -> tuple[Float[Tensor, "sequences heads time dim"], AttentionState]:
        counts, past = state.counts(query.shape[2], lengths), state.cache
        if state.longest == 0 and state.limit is None:
            past = Slots(key[:, :, :0], value[:, :, :0])
        if counts["ragged"]:
            number = torch.full_like(state.seen, query.shape[2]) if lengths is None else lengths
            cache = past.append(key, value, state.seen, number, counts["longest"])
        else:
            number, cache = None, past.append(key, value)
        after = replace(state, **counts, cache=cache)
        if state.longest == 0:  # padding stands behind: causality hides it
            return self._causal(query, key, value), after
        keys, values = cache.read(slice(cache.used), query.dtype)
        if number is None:
            return self._causal(query, keys, values), after
        last = state.seen[:, None] + torch.arange(query.shape[2], device=query.device)
        visible = torch.arange(cache.used, device=query.device) <= last[:, :, None]
        return self._masked(query, keys, values, visible, state.seen, number), after

    def _within_window(
        self, query: Tensor, key: Tensor, value: Tensor, state: WindowState, lengths: Tensor | None
    ) -> tuple[Float[Tensor, "sequences heads time dim"], WindowState]:
        assert self.window is not None
        tokens, before, free = query.shape[2], self.window - 1, max(8, self.window // 4)
        counts, past = state.counts(tokens, lengths), state.cache
        if state.longest == 0 and state.limit is None:
            past = Slots(key[:, :, :0], value[:, :, :0])
        if lengths is None and tokens <= free and state.limit is None:
            # Room for some tokens more than a window: all is moved to the front once in a while, not at every token.
            if past.used + tokens > past.keys.shape[2]:
                past = past.last(before, min(before + free, 2 * (past.used + tokens)))
            cache = past.append(key, value)
            seen = slice(max(0, cache.used - tokens - before), cache.used)
            keys, values = cache.read(seen, query.dtype)
        else:
            past = past.last(before)
            keys, values = (
                torch.cat([past.keys.to(key.dtype), key], 2),
                torch.cat([past.values.to(value.dtype), value], 2),
            )
            joined = Slots(keys, values, keys.shape[2])
            cache = joined.last(before, before) if lengths is None else joined.ending(past.used + lengths, before)
            if state.limit is not None:
                cache = state.cache.overwritten(cache)
        kept = keys.shape[2] - tokens
        after = replace(state, **counts, cache=cache)
        if state.ragged or (state.limit is not None and state.longest > 0):
            slot, row = torch.arange(kept + tokens, device=key.device), torch.arange(tokens, device=key.device) + kept
            visible = (slot <= row[:, None]) & (slot > row[:, None] - self.window)
            visible = visible & (slot >= kept - state.seen[:, None, None])
            number = torch.full_like(state.seen, tokens) if lengths is None else lengths
            return self._masked(query, keys, values, visible, state.seen, number), after
        if state.limit is not None:
            keys, values = key, value
        if keys.shape[2] <= self.window or type(self.normaliser) is not Plain:
            return self._causal(query, keys, values, state.longest), after
        return windowed(query, keys, values, self.window), after

    def _causal(
        self, query: Tensor, key: Tensor, value: Tensor, first: int | None = None
    ) -> Float[Tensor, "sequences heads time dim"]:
        """The last query at the last key, which sees all keys, unless a normaliser is asked: that sees the window.

        Arguments:
            query: queries.
            key: keys.
            value: values.
            first: position of the first query; `None`: the first key is the first of its row.
        """
        if type(self.normaliser) is not Plain:
            normaliser = self.normaliser if self.scale is None else self.scale()
            call = AttentionCall.of(query, key, value, causal=True, window=self.window, normaliser=normaliser)
            if first is not None:
                call = replace(call, first_query=first, first_key=first + call.queries - call.keys)
            return attend(call)
        grouped = self.heads != self.kv_heads
        queries, keys = query.shape[2], key.shape[2]
        if queries == keys:  # under torch.compile a comparison of sizes is no bool that could be handed on
            return scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=grouped)
        if queries == 1:
            return self._folded(query, key, value)
        from torch.nn.attention.bias import causal_lower_right  # loads Triton

        bias = cast("Tensor", causal_lower_right(queries, keys))
        return scaled_dot_product_attention(query, key, value, attn_mask=bias, enable_gqa=grouped)

    def _folded(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
    ) -> Float[Tensor, "sequences heads 1 dim"]:
        """One query, whose heads stand as queries of the key head that they share: no key is repeated."""
        folded = query.reshape(query.shape[0], self.kv_heads, -1, self.head_dim)
        return scaled_dot_product_attention(folded, key, value, attn_mask=mask).reshape(query.shape)

    def _masked(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        visible: Bool[Tensor, "sequences time keys"],
        seen: Tensor,
        number: Tensor,
    ) -> Float[Tensor, "sequences heads time dim"]:
        """Rows of several lengths.

        Arguments:
            query: queries.
            key: keys.
            value: values.
            visible: which keys each query sees.
            seen: tokens that each row has read before.
            number: queries of each row.
        """
        if type(self.normaliser) is Plain:
            if query.shape[2] == 1:
                return self._folded(query, key, value, visible[:, None])
            grouped = self.heads != self.kv_heads
            return scaled_dot_product_attention(query, key, value, attn_mask=visible[:, None], enable_gqa=grouped)
        # A normaliser may ask for positions, which differ from row to row.
        rows = []
        for row, (first, queries) in enumerate(zip(seen.tolist(), number.tolist(), strict=True)):
            mixed = torch.zeros_like(query[row : row + 1])
            if queries:
                keys = visible[row, :queries].any(0).nonzero()
                here, sees = slice(row, row + 1), slice(int(keys[0]), int(keys[-1]) + 1)
                part = self._causal(query[here, :, :queries], key[here, :, sees], value[here, :, sees], first)
                mixed = pad(part, (0, 0, 0, query.shape[2] - queries))
            rows.append(mixed)
        return torch.cat(rows)


def windowed(
    query: Float[Tensor, "batch heads time dim"],
    key: Float[Tensor, "batch kv_heads keys dim"],
    value: Float[Tensor, "batch kv_heads keys dim"],
    window: int,
) -> Float[Tensor, "batch heads time dim"]:
    """Softmax attention in a sliding window, in time and memory that grow with time x window.

    Blocks of `window` queries see two blocks of keys, through one mask for all blocks but the first.

    Arguments:
        query: the last one stands at the last key.
        key: with less than `window` keys before the first query.
        value: likewise.
        window: a query sees so many keys, its own included.
    """
    time, before = query.shape[2], key.shape[2] - query.shape[2]
    blocks, free = -(-time // window), window - 1 - before
    behind = blocks * window - time
    query = pad(query, (0, 0, 0, behind)).unflatten(2, (blocks, window)).transpose(1, 2)
    key, value = (
        pad(tensor, (0, 0, free, behind)).unfold(2, 2 * window - 1, window).permute(0, 2, 1, 4, 3)
        for tensor in (key, value)
    )
    slot, row = torch.arange(2 * window - 1, device=query.device), torch.arange(window, device=query.device)[:, None]
    band = (slot >= row) & (slot < row + window)
    outputs = [
        scaled_dot_product_attention(
            query[:, part].flatten(0, 1),
            key[:, part].flatten(0, 1),
            value[:, part].flatten(0, 1),
            attn_mask=mask,
            enable_gqa=query.shape[2] != key.shape[2],
        ).unflatten(0, (query.shape[0], -1))
        for part, mask in ((slice(0, 1), band & (slot >= free)), (slice(1, None), band))
        if part.start < blocks
    ]
    return torch.cat(outputs, 1).transpose(1, 2).flatten(2, 3)[:, :, :time]
