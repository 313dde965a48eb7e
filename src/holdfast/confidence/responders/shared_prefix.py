"""Logits after many prompts that begin alike: the beginning is computed once, its keys and values serve all of them.

With K prompts of P shared and S other tokens the cost is that of P / K + S tokens a prompt in the place of P + S.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Tokens = Sequence[int]


@dataclass(frozen=True)
class Group:
    """Prompts that are computed together.

    Arguments:
        rows: their numbers.
        prefix: tokens that all of them begin with and that are computed once; 0: nothing is shared.
    """

    rows: list[int]
    prefix: int = 0


@dataclass
class LastLogits:
    """Computes the logits at the end of prompts, in batches.

    Arguments:
        model: a causal language model of transformers, in evaluation mode.
        batch_tokens: most tokens of one forward call.
        share: compute the beginning that prompts share only once, where the model's cache allows it.
    """

    model: Any
    batch_tokens: int = 8192
    share: bool = True
    _accepted: frozenset[str] = field(init=False, repr=False)
    _attends: bool = field(init=False, repr=False)
    _window: int | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._accepted = frozenset(inspect.signature(self.model.forward).parameters)
        self._attends = attends(self.model)
        self._window = sight(self.model)

    def __call__(self, rows: Sequence[Tokens], keep: int = 1) -> Iterator[tuple[list[int], Tensor]]:
        """The logits at the last `keep` places of every row.

        Arguments:
            rows: tokens of the prompts, each at least `keep` of them; those that begin alike one after the other.
            keep: places, counted from the end.

        Returns:
            Numbers of some rows, and their logits (rows, keep, vocabulary) in the model's precision; in no order that
            can be relied on.
        """
        single: list[int] = []
        for group in self._groups(rows, keep):
            if group.prefix and len(group.rows) > 1:
                yield from self._shared(rows, group, keep)
            else:
                single += group.rows
        yield from self._plain(rows, single, keep)

    def _groups(self, rows: Sequence[Tokens], keep: int) -> Iterator[Group]:
        """Neighbours that share enough for it to pay."""
        if not (self.share and self._attends):
            yield Group(list(range(len(rows))))
            return
        members: list[int] = []
        prefix = 0
        for row, tokens in enumerate(rows):
            if members:
                common = min(prefix, shared(rows[members[0]], tokens, prefix), len(tokens) - keep)
                # One more member saves its beginning, and costs the others what they no longer share.
                if len(members) * common > (len(members) - 1) * prefix:
                    members.append(row)
                    prefix = common
                    continue
                yield Group(members, prefix)
            members, prefix = [row], len(tokens) - keep
        if members:
            yield Group(members, prefix)

    @torch.inference_mode()
    def _shared(self, rows: Sequence[Tokens], group: Group, keep: int) -> Iterator[tuple[list[int], Tensor]]:
        from transformers import DynamicCache

        device = self.model.device
        beginning = torch.tensor([list(rows[group.rows[0]][: group.prefix])], device=device)
        cache = DynamicCache(config=self.model.config)
        self.model(beginning, past_key_values=cache, use_cache=True, **self._last(1))
        # Padding between beginning and end would push the beginning out of sight of a window.
        windowed = self._window is not None and max(len(rows[row]) for row in group.rows) >= self._window
        for members in self._batches(rows, group.rows, pad=not windowed):
            ends = [rows[row][group.prefix :] for row in members]
            repeated = copy_of(cache)
            repeated.batch_repeat_interleave(len(members))
            tokens, live = padded_left(ends, device)
            mask = torch.cat([live.new_ones(len(members), group.prefix), live], dim=1)
            output = self.model(
                tokens,
                attention_mask=mask,
                past_key_values=repeated,
                use_cache=True,
                **self._positions(mask, tokens.shape[1]),
                **self._last(keep),
            )
            yield members, output.logits[:, -keep:]

    @torch.inference_mode()
    def _plain(self, rows: Sequence[Tokens], numbers: list[int], keep: int) -> Iterator[tuple[list[int], Tensor]]:
        for members in self._batches(rows, numbers, pad=self._attends):
            tokens, mask = padded_left([rows[row] for row in members], self.model.device)
            extra = {"attention_mask": mask, **self._positions(mask, tokens.shape[1])} if self._attends else {}
            output = self.model(tokens, **extra, **self._last(keep))
            yield members, output.logits[:, -keep:]

    def _batches(self, rows: Sequence[Tokens], numbers: list[int], *, pad: bool) -> Iterator[list[int]]:
        """Rows of similar length together, within `batch_tokens`; of equal length where there can be no padding."""
        batch: list[int] = []
        for row in sorted(numbers, key=lambda row: -len(rows[row])):
            longest = len(rows[batch[0]]) if batch else 0
            full = (len(batch) + 1) * longest > self.batch_tokens
            if batch and (full or (not pad and len(rows[row]) != longest)):
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def _positions(self, mask: Tensor, length: int) -> dict[str, Tensor]:
        if "position_ids" not in self._accepted:
            return {}
        return {"position_ids": (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -length:]}

    def _last(self, keep: int) -> dict[str, int]:
        """Logits of the last places only: those of all places would fill the memory."""
        return {"logits_to_keep": keep} if "logits_to_keep" in self._accepted else {}


def attends(model: Any) -> bool:
    """Whether all layers of a model keep keys and values of every token, so that padding can be masked and a cache be
    shared; those that are recurrent, or keep something else, are not looked into."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    if getattr(model, "_is_stateful", False) or model.config.is_encoder_decoder:
        return False
    layers = DynamicCache(config=model.config).layers
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


def sight(model: Any) -> int | None:
    """Tokens that a layer sees, of the layer that sees the fewest; `None`: all layers see all tokens."""
    from transformers import DynamicCache

    windows = [getattr(layer, "sliding_window", None) for layer in DynamicCache(config=model.config).layers]
    return min((window for window in windows if window is not None), default=None)


def copy_of(cache: Any) -> Any:
    """A cache of its own with the same content, which is not copied: layers replace their tensors, and never write
    into them."""
    copied = copy.copy(cache)
    copied.layers = [copy.copy(layer) for layer in cache.layers]
    return copied


def padded_left(rows: Sequence[Tokens], device: Any) -> tuple[Tensor, Tensor]:
    """Rows as one tensor with zeros at the left, and which places are live, 1 or 0."""
    longest = max(map(len, rows))
    tokens = torch.tensor([[0] * (longest - len(row)) + list(row) for row in rows])
    live = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return tokens.to(device), live.to(device)


def shared(one: Tokens, other: Tokens, most: int) -> int:
    """How many tokens two rows begin with alike, up to some number."""
    limit = min(len(one), len(other), most)
    for place in range(limit):
        if one[place] != other[place]:
            return place
    return limit
