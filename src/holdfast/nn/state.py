"""What a sequence mixer keeps of the tokens it has read, so that it can go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from holdfast.errors import ArgumentError, count_of

S = TypeVar("S", bound="State")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class State:
    """Base of the states of all mixers. Every row may have read a number of tokens of its own.

    Arguments:
        seen: live tokens that each row has read.
        longest: no row has read more.
        ragged: whether one may have read fewer; if not, nothing that follows needs a mask.
        limit: tokens that there is room for, in memory that is written in place; `None`: it grows, and no state that
            was handed out ever changes.
    """

    seen: Int[Tensor, " batch"]
    longest: int = 0
    ragged: bool = False
    limit: int | None = None

    @property
    def batch(self) -> int:
        """Number of rows."""
        return self.seen.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept but the counts."""
        parts = [getattr(self, field.name) for field in fields(self)]
        return sum(
            part.nbytes
            for part in parts
            if isinstance(part, Slots) or (isinstance(part, Tensor) and part.is_floating_point())
        )

    def mapped(self: S, change: Callable[[Tensor], Tensor]) -> S:
        """The state with every tensor changed."""
        changed: dict[str, Any] = {}
        for field in fields(self):
            part = getattr(self, field.name)
            if isinstance(part, Tensor):
                changed[field.name] = change(part)
            elif isinstance(part, Slots):
                changed[field.name] = part.mapped(change)
        return replace(self, **changed)

    def reorder(self: S, index: Int[Tensor, " rows"]) -> S:
        """The state of some rows, in any order and any number of times, as beam search chooses them.

        Errors:
            ArgumentError: the index is no tensor of whole numbers.
        """
        if not isinstance(index, Tensor) or index.ndim != 1 or index.dtype not in (torch.int64, torch.int32):
            got = f"{index.dtype} of shape {tuple(index.shape)}" if isinstance(index, Tensor) else repr(index)
            raise ArgumentError("index", "a tensor of row numbers, int64 and of one dimension", got)
        return self.mapped(lambda tensor: tensor.index_select(0, index.to(tensor.device)))

    def detach(self: S) -> S:
        """The state as a constant of later backward passes."""
        return self.mapped(Tensor.detach)

    def crop(self: S, length: int) -> S:
        """The state after the first `length` tokens only.

        Errors:
            ArgumentError: it keeps nothing from which that could be told.
        """
        if length == self.longest and not self.ragged:
            return self
        raise ArgumentError("length", f"{self.longest}, since this state cannot go back", length)

    def restarted(self: S, rows: Bool[Tensor, " batch"], initial: S, longest: int | None = None) -> S:
        """The state with some rows before their first token, as where an episode has ended and another one begins.

        Arguments:
            rows: which.
            initial: of the same mixer and batch, before the first token.
            longest: no row has read more, the restarted ones not counted, as whoever counts tokens knows; `None`: as
                many as before. What attention keeps would grow with every episode.
        """
        changed: dict[str, Any] = {"ragged": True, "longest": self.longest if longest is None else longest}
        for field in fields(self):
            part = getattr(self, field.name)
            if isinstance(part, Tensor):
                chosen = rows.view(-1, *(1 for _ in part.shape[1:]))
                changed[field.name] = torch.where(chosen, getattr(initial, field.name), part)
            elif isinstance(part, Slots) and self.limit is None:
                # Slots of such a row are written again from the first on, where states that were handed out see them.
                changed[field.name] = replace(part, appended=None, age=0)
        return self.followed_by(replace(self, **changed))

    def counts(self, tokens: int, lengths: Int[Tensor, " batch"] | None) -> dict[str, Any]:
        """The fields of this class after more tokens.

        Arguments:
            tokens: of the row with most.
            lengths: of each row; `None`: all have as many.
        """
        return {
            "seen": self.seen + (tokens if lengths is None else lengths),
            "longest": self.longest + tokens,
            "ragged": self.ragged or lengths is not None,
            "limit": self.limit,
        }

    def check(self, x: Float[Tensor, "batch time dim"], *, tokens: int, packed: bool) -> None:
        """Refuse an input that does not continue this state, before anything is written.

        Arguments:
            x: the input.
            tokens: of the row with most.
            packed: whether rows hold documents, each of which begins anew.

        Errors:
            ArgumentError: the number of rows or the device differs, or there is no room for so many more tokens.
        """
        if packed:
            raise ArgumentError("state", "None where documents are packed, each of which begins anew", "a state")
        if self.batch != x.shape[0]:
            raise ArgumentError("state", f"{x.shape[0]} rows, as the input has", f"a state of {self.batch}")
        if self.seen.device != x.device:
            raise ArgumentError("state", f"a state on {x.device}, where the input is", f"one on {self.seen.device}")
        if self.limit is not None and self.longest + tokens > self.limit:
            raise ArgumentError("state", f"room for {self.longest + tokens} tokens", f"a limit of {self.limit}")

    def followed_by(self: S, new: S) -> S:
        """The new state, in the memory of this one where that is written in place."""
        if self.limit is None:
            return new
        kept: dict[str, Any] = {"limit": self.limit}
        for field in fields(self):
            part = getattr(self, field.name)
            after = getattr(new, field.name)
            if isinstance(part, Tensor):  # which may have been written in place already
                kept[field.name] = part if after is part else part.detach().copy_(after)
        return replace(new, **kept)


def of_kind(state: Any, kind: type[T]) -> T:
    """A state as that of a mixer.

    Errors:
        ArgumentError: it is one of another.
    """
    if not isinstance(state, kind):
        raise ArgumentError("state", f"{kind.__name__} or None", type(state).__name__)
    return state


def check_precision(kept: torch.dtype, weight: torch.dtype) -> None:
    """Refuse a state in another precision than a layer computes in, float32 or that of its weights if it is better.

    Arguments:
        kept: dtype of what the state keeps.
        weight: dtype of the layer's weights.

    Errors:
        ArgumentError: they differ.
    """
    wide = torch.promote_types(weight, torch.float32)
    if kept != wide:
        raise ArgumentError("state", f"a state in {wide}", f"one in {kept}")


def limit_of(limit: int | None) -> int | None:
    """A number of tokens that a state has room for, or none.

    Errors:
        ArgumentError: it is no whole number from 0 on.
    """
    return None if limit is None else count_of("limit", limit)


@dataclass(frozen=True)
class Slots:
    """Keys and values in slots, to which more are appended; each row has a number of its own.

    Appending is in place where there is room, and never changes what another state sees: a state that was continued
    once already copies before it is continued again. Where a backward pass may follow, nothing is in place.

    Arguments:
        keys: of all slots; those behind a row's number hold nothing of meaning.
        values: likewise.
        used: no row has more than so many.
        fixed: whether the number of slots stays: appending beyond it is an error.
        appended: how often these tensors were appended to, by any state; `None`: they are not to be written.
        age: how often they had been when this state was made.
    """

    keys: Float[Tensor, "batch heads slots dim"]
    values: Float[Tensor, "batch heads slots dim"]
    used: int = 0
    fixed: bool = False
    appended: list[int] | None = None
    age: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all slots, free ones included."""
        return self.keys.nbytes + self.values.nbytes

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Slots:
        """With both tensors changed; they are copied before anything is appended, since they may share memory."""
        return replace(self, keys=change(self.keys), values=change(self.values), appended=None, age=0)

    def read(self, places: slice, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keys and values of some slots. Mixed precision may have been switched since they were kept."""
        return self.keys[:, :, places].to(dtype), self.values[:, :, places].to(dtype)

    def last(self, number: int, room: int = 0) -> Slots:
        """The last slots in use, at most so many.

        Arguments:
            number: how many.
            room: slots to have in all, in memory of their own; 0: a view, to which nothing is appended in place.
        """
        number = min(number, self.used)
        parts = [tensor[:, :, self.used - number : self.used] for tensor in (self.keys, self.values)]
        if not room or (torch.is_grad_enabled() and any(part.requires_grad for part in parts)):
            return Slots(parts[0], parts[1], number)
        whole = [part.new_zeros(*part.shape[:2], max(room, number), part.shape[3]) for part in parts]
        for tensor, part in zip(whole, parts, strict=True):
            tensor[:, :, :number] = part
        return Slots(whole[0], whole[1], number, appended=[0])

    def ending(self, stop: Int[Tensor, " batch"], number: int) -> Slots:
        """For each row the slots before its `stop`, at most so many; where there are fewer, any stand in front."""
        number = min(number, self.used)
        index = torch.arange(number, device=stop.device) + (stop - number)[:, None]
        index = index.clamp(min=0)[:, None, :, None].expand(*self.keys.shape[:2], number, self.keys.shape[3])
        return Slots(self.keys.gather(2, index), self.values.gather(2, index), number)

    def overwritten(self, new: Slots) -> Slots:
        """The slots of a fixed number with the new ones at their end, in place."""
        free = self.used - new.used
        for whole, part in ((self.keys, new.keys), (self.values, new.values)):
            whole[:, :, free:] = part[:, :, : new.used]
        return self

    def append(
        self,
        keys: Float[Tensor, "batch heads new dim"],
        values: Float[Tensor, "batch heads new dim"],
        count: Int[Tensor, " batch"] | None = None,
        number: Int[Tensor, " batch"] | None = None,
        used: int | None = None,
    ) -> Slots:
        """With new keys and values behind those of each row.

        Arguments:
            keys: the new ones.
            values: likewise.
            count: how many each row has; `None`: `self.used` in every row, and every row takes all new ones.
            number: how many of the new ones each row takes, from the first on.
            used: no row has more afterwards; to be given with `count`.

        Errors:
            ArgumentError: there is no room, and the number of slots is fixed.
        """
        new = keys.shape[2]
        used = self.used + new if used is None else used
        if self.fixed and used > self.keys.shape[2]:
            raise ArgumentError("state", f"room for {used} entries", f"a fixed {self.keys.shape[2]}")
        if new == 0 or used == 0:
            return replace(self, used=used)
        keys, values = keys.to(self.keys.dtype), values.to(self.values.dtype)
        pairs = ((self.keys, keys), (self.values, values))
        apart = torch.is_grad_enabled() and any(tensor.requires_grad for pair in pairs for tensor in pair)
        if count is not None and (new > 1 or apart):
            assert number is not None
            joined = [_joined(old, tail, count, number, used) for old, tail in pairs]
            if not self.fixed:
                return Slots(joined[0], joined[1], used)
            keys, values = joined
            slots = self._writable(used)
            slots.keys[:, :, :used], slots.values[:, :, :used] = keys, values
        elif apart or (self.used == 0 and not self.fixed):
            both = [torch.cat([old[:, :, : self.used], tail], 2) for old, tail in pairs]
            return Slots(both[0], both[1], used)
        else:
            slots = self._writable(used)
            for whole, tail in ((slots.keys, keys), (slots.values, values)):
                if count is None:
                    whole[:, :, self.used : used] = tail
                else:
                    assert number is not None
                    _write(whole, tail[:, :, 0], count, number > 0)
        assert slots.appended is not None
        slots.appended[0] += 1
        return replace(slots, used=used, age=slots.appended[0])

    def _writable(self, used: int) -> Slots:
        """Slots with room for so many, to which nobody else has appended."""
        if self.appended is not None and self.appended[0] == self.age and used <= self.keys.shape[2]:
            return self
        size = self.keys.shape[2] if self.fixed else max(used, 2 * self.used)
        both = []
        for old in (self.keys, self.values):
            whole = old.new_zeros(*old.shape[:2], size, old.shape[3])
            whole[:, :, : self.used] = old[:, :, : self.used]
            both.append(whole)
        return Slots(both[0], both[1], self.used, self.fixed, appended=[0])


def _joined(
    old: Tensor, tail: Tensor, count: Tensor, number: Tensor, used: int
) -> Float[Tensor, "batch heads used dim"]:
    """Old and new of each row as one tensor, zero behind them, without writing."""
    place = torch.arange(used, device=old.device)
    of_tail = (place - count[:, None]).clamp(max=tail.shape[2] - 1)
    source = torch.where(of_tail < 0, place.clamp(max=max(old.shape[2], 1) - 1), old.shape[2] + of_tail)
    index = source[:, None, :, None].expand(*old.shape[:2], used, old.shape[3])
    behind = place >= (count + number)[:, None]
    return torch.cat([old, tail], 2).gather(2, index).masked_fill(behind[:, None, :, None], 0.0)


def _write(whole: Tensor, entry: Tensor, count: Tensor, takes: Tensor) -> None:
    """Write an entry behind those of each row that takes it, without a look at values: no accelerator has to wait."""
    row = torch.arange(len(whole), device=whole.device)
    slot = count.clamp(max=whole.shape[2] - 1)
    whole[row, :, slot] = torch.where(takes[:, None, None], entry, whole[row, :, slot])
