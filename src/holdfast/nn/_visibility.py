"""Which key a query sees: causality, window and mask, of whole tables and of chunks of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from holdfast.nn.normalisers import Rows, hidden_keys


@dataclass(frozen=True)
class Options:
    """What decides which key a query sees, and how a product becomes a logit."""

    causal: bool
    window: int | None
    scale: float
    softcap: float | None
    queries: int
    keys: int

    @property
    def offset(self) -> int:
        """Position of the first query: the last query stands at the last key."""
        return self.keys - self.queries

    def span(self, start: int, stop: int) -> tuple[int, int]:
        """Keys outside of which no query from `start` up to `stop` sees anything."""
        low, high = 0, self.keys
        if self.causal:
            high = max(0, min(high, stop + self.offset))
        if self.window is not None:
            low = max(0, start + self.offset - self.window + 1)
            high = high if self.causal else min(high, max(0, stop + self.offset + self.window - 1))
        return min(low, high), high

    def hidden(self, query: Int[Tensor, " query"], key: Int[Tensor, " key"]) -> Bool[Tensor, "query key"] | None:
        """Which keys are hidden from which query; `None` where none is."""
        ahead = key - query[:, None]
        hidden = None
        if self.causal:
            hidden = ahead > 0
        if self.window is not None:
            far = ahead.abs() >= self.window
            hidden = far if hidden is None else hidden | far
        return hidden


def hidden_and_added(
    mask: Tensor | None, rows: Rows, options: Options
) -> tuple[Bool[Tensor, ...] | None, Float[Tensor, ...] | None]:
    """What causality, window and a mask for these very rows hide, and what the mask adds."""
    hidden = options.hidden(rows.query, rows.key)
    if mask is None:
        return hidden, None
    own = ~mask if mask.dtype == torch.bool else hidden_keys(mask)
    return own if hidden is None else hidden | own, None if mask.dtype == torch.bool else mask


def full_mask(mask: Tensor) -> Tensor:
    """A mask with all four dimensions."""
    return mask[(None,) * (4 - mask.ndim)]


def mask_of_head(mask: Tensor, batch: int, head: int) -> Tensor:
    """The mask of one head, (queries or 1, keys or 1)."""
    full = full_mask(mask)
    return full[batch if full.shape[0] > 1 else 0, head if full.shape[1] > 1 else 0]


def cut_mask(mask: Tensor, start: int, stop: int, low: int, high: int) -> Tensor:
    """The part of a mask for these queries and keys; a dimension of size one stands for all of them."""
    part = mask if mask.shape[-2] == 1 else mask[..., start:stop, :]
    return part if part.shape[-1] == 1 else part[..., low:high]
