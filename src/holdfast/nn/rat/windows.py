"""RAT's core and its gradients one window of chunks at a time, with all the closed states that a window's queries see.

A window's recurrences are computed first, which closes its chunks; then, a few heads at a time, a table of logits of
its queries with all states closed so far. A query's own chunk has not ended at its token, so that the column of that
chunk is free for the logit with the running state there: one softmax sees both. Rows of a table are ordered by (place
in the chunk, chunk).

The gradients of a window need nothing of the later ones but what these gave to the closed states.

Nothing here looks at values, so that no accelerator is waited for. Values in a table's product are finite: where the
value of a state is not, its key is NaN, which reaches the rows that see it, and those alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from holdfast.nn.normalisers import FactorNormaliser, Plain
from holdfast.nn.rat.call import ChunkCall
from holdfast.nn.rotary import rotated, turns

ROWS = 512
"""Queries of a head in a window, unless a chunk is longer: enough for a fast product, of few hidden logits."""

TABLE = 1 << 18
"""Logits that a processor's thread works on at once, 1 MiB in float32, which stay in its cache."""

GPU_TABLE = 1 << 25
"""Logits that an accelerator works on at once, 128 MiB in float32: few launches."""

LONGEST = 1 << 22
"""Logits of one head at most, 16 MiB in float32, unless those of one chunk are more."""

STATES = 1 << 19
"""Numbers in the running states of a window, of all its sequences, on a processor; 2 MiB in float32."""


@dataclass(frozen=True)
class Closed:
    """End states of chunks, those of the past first; or the gradients of these.

    Arguments:
        keys: turned to their chunk's position; NaN where the value was not finite.
        values: finite.
        past: how many are from before the call.
        hidden: which of these are no keys of a row; `None`: none.
    """

    keys: Float[Tensor, "batch heads states dim"]
    values: Float[Tensor, "batch heads states dim"]
    past: int
    hidden: Bool[Tensor, "batch past"] | None

    @classmethod
    def before(cls, call: ChunkCall) -> Closed:
        """Those of the past, and room for those of the call."""
        batch, _, heads, dim = call.value.shape
        past = 0 if call.past is None else call.past.keys.shape[2]
        keys, values = call.value.new_empty(2, batch, heads, past + call.chunks, dim, dtype=call.dtype)
        if call.past is None or past == 0:
            return cls(keys, values, 0, None)
        hidden = hidden_past(call)
        states = [call.past.keys.to(call.dtype), call.past.values.to(call.dtype)]
        if hidden is not None:
            states = [state.masked_fill(hidden[:, None, :, None], 0.0) for state in states]
        keys[:, :, :past], values[:, :, :past] = _finite_values(*states)
        return cls(keys, values, past, hidden)

    def gradients(self) -> Closed:
        """Zeros for each state."""
        return replace(self, keys=torch.zeros_like(self.keys), values=torch.zeros_like(self.values))

    def of(self, sequences: slice) -> Closed:
        """Those of some sequences: views."""
        hidden = None if self.hidden is None else self.hidden[sequences]
        return Closed(self.keys[sequences], self.values[sequences], self.past, hidden)


@dataclass(frozen=True)
class Gradients:
    """Where windows write the gradients of a call to, in its dtypes."""

    query: Float[Tensor, "batch time groups dim"]
    key: Float[Tensor, "batch time groups dim"]
    value: Float[Tensor, "batch time heads dim"]
    gate: Float[Tensor, "batch time heads dim"]
    running_key: Float[Tensor, "batch heads dim"]
    running_value: Float[Tensor, "batch heads dim"]

    def of(self, sequences: slice) -> Gradients:
        """Those of some sequences: views."""
        return Gradients(**{name: tensor[sequences] for name, tensor in vars(self).items()})


def hidden_past(call: ChunkCall) -> Bool[Tensor, "batch past"] | None:
    """Which states of the past are no keys; `None` where a look that costs nothing tells that there are none."""
    assert call.past is not None
    hidden = torch.arange(call.past.keys.shape[2], device=call.past.count.device) >= call.past.count[:, None]
    if call.value.device.type != "cpu" or torch.compiler.is_compiling():
        return hidden
    try:
        return hidden if bool(hidden.any()) else None
    except RuntimeError:  # of tensors without values
        return hidden


class Scratch:
    """Memory for tables of logits, which is made once and used again and again."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._memory: Tensor | None = None

    def tables(self, like: Tensor, *shape: int) -> tuple[Tensor, ...]:
        """As many tables as there are, with what was there before."""
        size = math.prod(shape)
        if self._memory is None or self._memory.shape[1] < size:
            self._memory = like.new_empty(self._count, size)
        return tuple(memory[:size].view(shape) for memory in self._memory)


class Window:
    """Some chunks of a call, all of its sequences.

    In tensors by place the first dimensions are (place in the chunk, sequence, chunk), and heads are two dimensions:
    (heads that share a group, groups), for head h takes group h mod groups.

    Arguments:
        call: the call.
        closed: states; those of the chunks before the window are there.
        scratch: for two tables, and for three where there are gradients.
        first: first chunk.
        stop: chunk after the last.
    """

    def __init__(self, call: ChunkCall, closed: Closed, scratch: Scratch, first: int, stop: int) -> None:
        self.call, self.closed, self.scratch = call, closed, scratch
        self.first, self.stop = first, stop
        self.tokens = slice(first * call.chunk_size, min(call.time, stop * call.chunk_size))
        self.columns = closed.past + stop
        self.gate = self._by_place(call.gate, fill=1.0)
        self.key, self.value = self._by_place(call.key), self._by_place(call.value)
        position = call.first_chunk[:, None] + torch.arange(first, stop, device=call.value.device)
        factor = query_factor(call, position)
        self.factor = factor[:, :, None, None, None] if isinstance(factor, Tensor) else factor
        self.query = self._by_place(call.query) * self.factor
        self.turn = None
        if call.rope_theta is not None:
            cosine, sine = turns(position[:, :, None, None], call.value.shape[3], call.rope_theta, call.dtype)
            self.turn = cosine, sine
        past = call.past
        self.running_key = self._recurrence(self.key, None if past is None else past.running_key)
        self.running_value = self._recurrence(self.value, None if past is None else past.running_value)

    def close(self) -> tuple[Float[Tensor, "batch chunks heads dim"], Float[Tensor, "batch chunks heads dim"]]:
        """Write the states of the window's chunks to those that are closed, and return them, key and value."""
        key, value = self.running_key[-1], self.running_value[-1]
        here = slice(self.closed.past + self.first, self.closed.past + self.stop)
        pairs = zip((self.closed.keys, self.closed.values), _finite_values(self._turned(key), value), strict=True)
        for states, ends in pairs:
            states[:, :, here] = ends.flatten(2, 3).transpose(1, 2)
        return key.flatten(2, 3), value.flatten(2, 3)

    def write_output(self, output: Float[Tensor, "batch time heads dim"]) -> None:
        """Write the output of the window's tokens, after its chunks are closed.

        Arguments:
            output: of the whole call.
        """
        query, own = self._rows(self._turned(self.query)), self._rows(self._own_logits())
        values = self.closed.values.flatten(0, 1)
        closed, share = torch.empty_like(query), torch.empty_like(own)
        for heads, (logits, weights) in self._tables():
            self._fill_weights(logits, weights, query[heads], own[heads], heads)
            self._take_itself(weights, share[heads])
            torch.bmm(weights, values[heads, : self.columns], out=closed[heads])
        self._write(output, torch.addcmul(self._unrowed(closed), self._unrowed(share), self.running_value))

    def backward(
        self,
        of_answer: tuple[Tensor | None, ...],
        of_closed: Closed,
        gradients: Gradients,
    ) -> None:
        """Write the gradients of this window, after those of the later ones.

        Arguments:
            of_answer: gradients of output, key ends and value ends of the whole call, as far as there are any.
            of_closed: of the closed states so far, to which this window adds its share.
            gradients: of the whole call.
        """
        output, *ends = of_answer
        of_query = torch.zeros_like(self.query)
        of_states = [torch.zeros_like(self.running_key), torch.zeros_like(self.running_value)]
        if output is not None:
            of_query, *of_states = self._through_tables(self._by_place(output), of_closed)
        here = slice(of_closed.past + self.first, of_closed.past + self.stop)
        of_keys, of_values = (
            states[:, :, here].transpose(1, 2).unflatten(2, self.gate.shape[3:5])
            for states in (of_closed.keys, of_closed.values)
        )
        gates = self.gate.unbind()
        for states, closed, end in zip(of_states, (self._turned(of_keys, back=True), of_values), ends, strict=True):
            by_place = states.unbind()
            by_place[-1].add_(closed)
            if end is not None:
                by_place[-1].add_(end[:, self.first : self.stop].unflatten(2, self.gate.shape[3:5]))
            for place in range(len(by_place) - 1, 0, -1):
                by_place[place - 1].addcmul_(gates[place], by_place[place])
        of_key, of_value = of_states
        of_gate = (self._before(self.running_key, "running_key") - self.key) * of_key
        of_gate.addcmul_(self._before(self.running_value, "running_value") - self.value, of_value)
        if self.first == 0:
            gradients.running_key.copy_((self.gate[0] * of_key[0])[:, 0].flatten(1, 2))
            gradients.running_value.copy_((self.gate[0] * of_value[0])[:, 0].flatten(1, 2))
        kept = 1 - self.gate
        self._write(gradients.query, of_query * self.factor)
        self._write(gradients.key, (kept * of_key).sum(3, keepdim=True))
        self._write(gradients.value, kept * of_value)
        self._write(gradients.gate, of_gate)

    def _through_tables(self, output: Tensor, of_closed: Closed) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of queries (without their factor) and running states from that of the output; all by place."""
        query, own = self._rows(self._turned(self.query)), self._rows(self._own_logits())
        of_output, of_share = self._rows(output), self._rows((output * self.running_value).sum(-1, keepdim=True))
        keys, values, of_keys, of_values = (
            states.flatten(0, 1)[:, : self.columns]
            for states in (self.closed.keys, self.closed.values, of_closed.keys, of_closed.values)
        )
        of_query, share, of_own = torch.empty_like(query), torch.empty_like(own), torch.empty_like(own)
        for heads, (logits, weights, of_weights) in self._tables():
            self._fill_weights(logits, weights, query[heads], own[heads], heads)
            torch.bmm(of_output[heads], values[heads].mT, out=of_weights)
            self._itself(of_weights).copy_(self._of_itself(of_share[heads]))
            of_logits = logits  # which are needed no more
            torch.ops.aten._softmax_backward_data.out(of_weights, weights, -1, weights.dtype, grad_input=of_logits)
            self._take_itself(weights, share[heads])
            self._take_itself(of_logits, of_own[heads])
            torch.bmm(of_logits, keys[heads], out=of_query[heads])
            of_keys[heads] += of_logits.mT @ query[heads]
            of_values[heads] += weights.mT @ of_output[heads]
        by_own = self._unrowed(of_own)
        through_closed = self._unrowed(of_query).sum(3, keepdim=True)
        through_own = (by_own * self.running_key).sum(3, keepdim=True)
        of_query = self._turned(through_closed, back=True) + through_own
        return of_query, by_own * self.query, self._unrowed(share) * output

    def _tables(self) -> Iterator[tuple[slice, tuple[Tensor, ...]]]:
        """Some heads at a time, and tables (heads, rows, columns) for them."""
        chunk, batch, chunks, repeats, groups, _ = self.gate.shape
        count, places = batch * repeats * groups, chunk * chunks
        room = TABLE * torch.get_num_threads() if self.gate.device.type == "cpu" else GPU_TABLE
        step = max(1, room // (places * self.columns))
        for start in range(0, count, step):
            heads = slice(start, min(count, start + step))
            yield heads, self.scratch.tables(self.query, heads.stop - start, places, self.columns)

    def _fill_weights(self, logits: Tensor, weights: Tensor, query: Tensor, own: Tensor, heads: slice) -> None:
        """Write logits of some heads and their weights, a query's own in the column of its chunk."""
        keys = self.closed.keys.flatten(0, 1)[heads, : self.columns]
        torch.bmm(query, keys.mT, out=logits)
        if self.closed.hidden is not None:
            hidden = self.closed.hidden.repeat_interleave(self.call.value.shape[2], 0)[heads]
            logits[:, :, : self.closed.past].masked_fill_(hidden[:, None], -math.inf)
        count = self.stop - self.first
        if count > 1:
            later = torch.ones(count, count, dtype=torch.bool, device=logits.device).triu(1)
            self._recent(logits).masked_fill_(later, -math.inf)
        self._itself(logits).copy_(self._of_itself(own))
        torch.softmax(logits, -1, out=weights)

    def _recent(self, table: Tensor) -> Float[Tensor, "heads chunk chunks chunks"]:
        """The columns of the window's chunks: a view."""
        count = self.stop - self.first
        recent: Tensor = table.unflatten(1, (-1, count))[..., self.columns - count :]
        return recent

    def _itself(self, table: Tensor) -> Float[Tensor, "heads chunk chunks"]:
        """Where queries meet their own chunk: a view."""
        return self._recent(table).diagonal(dim1=-2, dim2=-1)

    def _of_itself(self, rows: Float[Tensor, "heads rows 1"]) -> Float[Tensor, "heads chunk chunks"]:
        """A number of each row, laid out like `_itself`: a view."""
        return rows.view(len(rows), -1, self.stop - self.first)

    def _take_itself(self, table: Tensor, rows: Float[Tensor, "heads rows 1"]) -> None:
        """Move to `rows` what stands where queries meet their own chunk, and leave zeros."""
        view = self._itself(table)
        self._of_itself(rows).copy_(view)
        view.zero_()

    def _own_logits(self) -> Float[Tensor, "chunk batch chunks repeats groups 1"]:
        """Of each query and the running state at its token, which their common position does not change."""
        return (self.query * self.running_key).sum(-1, keepdim=True)

    def _recurrence(self, x: Tensor, start: Tensor | None) -> Float[Tensor, "chunk batch chunks repeats groups dim"]:
        """The running state at every token."""
        states = torch.empty_like(self.gate, memory_format=torch.contiguous_format)
        state = self._starts(start)
        for x_here, gate, here in zip(x.unbind(), self.gate.unbind(), states.unbind(), strict=True):
            state = torch.lerp(x_here, state, gate, out=here)
        return states

    def _starts(self, start: Tensor | None) -> Float[Tensor, "batch chunks repeats groups dim"]:
        """The state before each chunk: zero, but for the first one of the call."""
        if start is None or self.first > 0:
            return self.gate.new_zeros(()).expand(self.gate.shape[1:])
        states = self.gate.new_zeros(self.gate.shape[1:])
        states[:, 0] = start.unflatten(1, self.gate.shape[3:5])
        return states

    def _before(self, states: Tensor, name: str) -> Float[Tensor, "chunk batch chunks repeats groups dim"]:
        """The state before each token."""
        start = None if self.call.past is None else getattr(self.call.past, name)
        return torch.cat([self._starts(start).unsqueeze(0), states[:-1]])

    def _turned(self, x: Tensor, *, back: bool = False) -> Tensor:
        """Turned to the position of the chunk, or from there; by place or for each chunk."""
        if self.turn is None:
            return x
        cosine, sine = self.turn
        return rotated(x, (cosine, -sine if back else sine))

    def _by_place(self, tensor: Tensor, fill: float = 0.0) -> Float[Tensor, "chunk batch chunks _ groups dim"]:
        """The window's tokens in what is computed in; `fill` stands for those that the last chunk lacks."""
        here, count = tensor[:, self.tokens].to(self.call.dtype), self.stop - self.first
        lacking = count * self.call.chunk_size - here.shape[1]
        if lacking:
            here = pad(here, (0, 0, 0, 0, 0, lacking), value=fill)
        by_chunk: Tensor = here.unflatten(1, (count, self.call.chunk_size)).unflatten(3, (-1, self.call.query.shape[2]))
        return by_chunk.permute(2, 0, 1, 3, 4, 5)

    def _write(self, tensor: Float[Tensor, "batch time heads dim"], by_place: Tensor) -> None:
        """Write the window's tokens."""
        here, by_time = tensor[:, self.tokens], by_place.permute(1, 2, 0, 3, 4, 5)
        if here.shape[1] == by_time.shape[1] * by_time.shape[2]:
            here.unflatten(2, by_time.shape[3:5]).unflatten(1, by_time.shape[1:3]).copy_(by_time)
        else:
            here.copy_(by_time.flatten(1, 2).flatten(2, 3)[:, : here.shape[1]])

    def _rows(self, by_place: Tensor) -> Float[Tensor, "heads rows dim"]:
        """By place to the rows of tables, of the heads of all sequences."""
        chunk, batch, chunks, _, groups, dim = by_place.shape
        by_head = by_place.expand(chunk, batch, chunks, self.gate.shape[3], groups, dim).permute(1, 3, 4, 0, 2, 5)
        return by_head.reshape(-1, chunk * chunks, dim)

    def _unrowed(self, rows: Float[Tensor, "heads rows dim"]) -> Tensor:
        """The reverse of `_rows`: a view."""
        chunk, batch, chunks, repeats, groups, _ = self.gate.shape
        return rows.view(batch, repeats, groups, chunk, chunks, -1).permute(3, 0, 4, 1, 2, 5)


def windows(call: ChunkCall, closed: Closed) -> list[tuple[int, int]]:
    """First chunk of every window, and the one after its last."""
    rows = ROWS if call.value.device.type == "cpu" else 4 * ROWS
    logits = call.chunk_size * closed.keys.shape[2]
    count = max(1, min(call.chunks, rows // call.chunk_size, LONGEST // logits))
    return [(first, min(call.chunks, first + count)) for first in range(0, call.chunks, count)]


def query_factor(call: ChunkCall, position: Int[Tensor, "rows chunks"]) -> Float[Tensor, "rows chunks"] | float:
    """What queries of chunks are multiplied by: the scale, and what the normaliser makes of the chunk's position."""
    normaliser = call.normaliser
    assert isinstance(normaliser, FactorNormaliser)
    if type(normaliser) is Plain:
        return call.scale
    # A query sees the chunks before its own, and its own running state.
    zeros = torch.zeros(position.shape, dtype=call.dtype, device=position.device)
    return normaliser.factor(zeros, position + 1, position).to(call.dtype) * call.scale


def _finite_values(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Zeros for numbers that are not finite, and NaN for their state's key."""
    return keys + (values * 0).sum(-1, keepdim=True), values.nan_to_num(0.0, 0.0, 0.0)
