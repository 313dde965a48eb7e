"""What a RAT layer keeps of the tokens it has read: the last states of its closed chunks, and the running state."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from holdfast.errors import ArgumentError
from holdfast.nn.rat.call import ChunkAnswer, Past
from holdfast.nn.rotary import rotated, turns
from holdfast.nn.state import Slots, State


@dataclass(frozen=True, kw_only=True)
class RATState(State):
    """State of `RAT`. After n tokens a row has n // chunk_size closed chunks.

    Arguments:
        closed: last states of closed chunks; keys are turned to their chunk's position.
        running_key: running state of the open chunk, not turned; zero where none is open.
        running_value: likewise.
        chunk_size: tokens a chunk.
        rope_theta: base of the positions of `closed.keys`.
    """

    closed: Slots
    running_key: Float[Tensor, "batch heads dim"]
    running_value: Float[Tensor, "batch heads dim"]
    chunk_size: int
    rope_theta: float | None

    def crop(self, length: int) -> RATState:
        """The state after the first `length` tokens, where a chunk begins: an open one cannot be told from its end.

        Errors:
            ArgumentError: inside a chunk that has gone on since, or rows of several lengths.
        """
        if length == self.longest and not self.ragged:
            return self
        if self.ragged or not 0 <= length <= self.longest or length % self.chunk_size:
            expected = f"{self.longest} or a smaller multiple of the chunk size {self.chunk_size}, all rows alike"
            raise ArgumentError("length", expected, length)
        chunks, zero = length // self.chunk_size, torch.zeros_like(self.running_key)
        closed = replace(self.closed, used=chunks, appended=None)
        seen = torch.full_like(self.seen, length)
        return replace(self, seen=seen, longest=length, closed=closed, running_key=zero, running_value=zero.clone())

    def restarted(self, rows: Bool[Tensor, " batch"], initial: RATState, longest: int | None = None) -> RATState:
        """With some rows before their first token; see `State.restarted`."""
        new = super().restarted(rows, initial, longest)
        return replace(new, closed=replace(new.closed, used=new.longest // self.chunk_size))

    @property
    def past(self) -> Past | None:
        """What a call of the core continues."""
        if self.longest == 0:
            return None
        closed = self.closed
        stop = closed.keys.shape[2] if self.limit is not None else closed.used
        return Past(
            keys=closed.keys[:, :, :stop],
            values=closed.values[:, :, :stop],
            count=self.seen // self.chunk_size,
            running_key=self.running_key,
            running_value=self.running_value,
        )

    def extended(self, answer: ChunkAnswer, tokens: int, lengths: Tensor | None) -> RATState:
        """The state after a call of the core that began with its open chunk.

        Arguments:
            answer: of the core.
            tokens: new tokens of the longest row.
            lengths: new tokens of each row; `None`: of all as many.
        """
        counts = self.counts(tokens, lengths)
        size, longest, seen = self.chunk_size, counts["longest"], counts["seen"]
        count, chunks = self.seen // size, answer.key_ends.shape[1]
        if counts["ragged"] or self.limit is not None:
            number = seen // size - count
            index = number.clamp(max=chunks - 1)[:, None, None, None].expand(-1, 1, *answer.key_ends.shape[2:])
            is_open = (seen % size > 0)[:, None, None]
            ends = (answer.key_ends, answer.value_ends)
            running_key, running_value = (torch.where(is_open, end.gather(1, index)[:, 0], 0.0) for end in ends)
            closed = self.closed.append(*self._entries(answer, chunks, count), count, number, longest // size)
        else:
            closing = longest // size - self.longest // size
            ends = (answer.key_ends, answer.value_ends)
            at_boundary = longest % size == 0
            running_key, running_value = (
                torch.zeros_like(end[:, 0]) if at_boundary else end.select(1, closing) for end in ends
            )
            closed = self.closed
            if closing:
                closed = closed.append(*self._entries(answer, closing, count))
        new = replace(self, **counts, closed=closed, running_key=running_key, running_value=running_value)
        return self.followed_by(new)

    def _entries(
        self, answer: ChunkAnswer, chunks: int, count: Tensor
    ) -> tuple[Float[Tensor, "batch heads chunks dim"], Float[Tensor, "batch heads chunks dim"]]:
        """Keys, turned to their positions, and values of the first chunks of an answer."""
        key, value = (end[:, :chunks].transpose(1, 2) for end in (answer.key_ends, answer.value_ends))
        if self.rope_theta is not None:
            index = count[:, None, None] + torch.arange(chunks, device=key.device)
            key = rotated(key, turns(index, key.shape[-1], self.rope_theta, key.dtype))
        return key, value
