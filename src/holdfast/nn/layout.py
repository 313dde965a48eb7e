"""Which tokens of a batch are live and where documents begin: how it unpacks into sequences, and back.

Mixers see sequences only, each of its live tokens and nothing else. So padding on the left, on the right or in between
and documents packed into one row are one case, and none of them can leak.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from holdfast.errors import ArgumentError


@dataclass(frozen=True)
class Layout:
    """The sequences of a batch. Every row has at least one, perhaps of no token.

    Arguments:
        token: which token of the flattened batch each place holds, any where a sequence has ended.
        lengths: tokens of each sequence.
        place: which place of the flattened sequences each token of the batch has; 0 for one that is not live.
        live: which tokens are.
        last: the sequence that each row ends with.
        packed: whether a row may hold several.
    """

    token: Int[Tensor, "sequences longest"]
    lengths: Int[Tensor, " sequences"]
    place: Int[Tensor, "batch time"]
    live: Bool[Tensor, "batch time"]
    last: Int[Tensor, " batch"]
    packed: bool

    @classmethod
    def of_mask(cls, mask: Any) -> Layout | None:
        """Of an attention mask; `None` where all tokens are live.

        Arguments:
            mask: batch x time, True or 1 where a token is live, False or 0 elsewhere. One that is added to logits, 0
                where a token is live, is another thing, and refused.

        Errors:
            ArgumentError: it is no such tensor.
        """
        if not isinstance(mask, Tensor) or mask.ndim != 2:
            got = f"shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
            raise ArgumentError("attention_mask", "a tensor with two dimensions (batch, time)", got)
        live = mask == 1
        neither = ~(live | (mask == 0))
        whole, wrong = torch.stack([live.all(), neither.any()]).tolist()  # an accelerator is waited for once
        if wrong:
            raise ArgumentError(
                "attention_mask", "1 where a token is live and 0 elsewhere", str(mask[neither][0].item())
            )
        return None if whole else cls._of(live, torch.zeros_like(live), packed=False)

    @classmethod
    def of_documents(cls, cu_seqlens: Any, batch: int, time: int) -> Layout:
        """Of documents packed one behind the other.

        Arguments:
            cu_seqlens: whole numbers from 0 to batch x time in which documents begin in the flattened batch, and its
                end; a document may not run from one row into the next.
            batch: number of rows.
            time: tokens a row.

        Errors:
            ArgumentError: that is not so.
        """
        whole = isinstance(cu_seqlens, Tensor) and cu_seqlens.ndim == 1 and not cu_seqlens.is_floating_point()
        if not whole or len(cu_seqlens) < 2:
            raise ArgumentError("cu_seqlens", "a tensor of at least two whole numbers", repr(cu_seqlens))
        bounds: list[int] = cu_seqlens.tolist()
        rising = all(low < high for low, high in pairwise(bounds))
        if bounds[0] != 0 or bounds[-1] != batch * time or not rising:
            raise ArgumentError("cu_seqlens", f"rising numbers from 0 to {batch * time}", str(bounds))
        if not {row * time for row in range(batch)} <= set(bounds):
            raise ArgumentError("cu_seqlens", f"a document that begins with each row of {time} tokens", str(bounds))
        first = torch.zeros(batch * time, dtype=torch.bool, device=cu_seqlens.device)
        first[cu_seqlens[:-1].long()] = True
        first = first.view(batch, time)
        return cls._of(torch.ones_like(first), first, packed=True)

    @classmethod
    def _of(cls, live: Tensor, first: Tensor, *, packed: bool) -> Layout:
        batch, time = live.shape
        row = torch.arange(batch, device=live.device)
        # Sequences are numbered row by row; a row's first token begins none that its row has not begun already.
        begins = first & live
        begins[:, :1] = False
        within = begins.cumsum(1)
        last = (within[:, -1] if time else row * 0) + 1
        last = last.cumsum(0) - 1
        number = within + (last - (within[:, -1] if time else row * 0))[:, None]
        sequences = int(last[-1]) + 1 if batch else 0
        counted = live.long()
        lengths = torch.zeros(sequences, dtype=torch.long, device=live.device)
        lengths.scatter_add_(0, number.flatten(), counted.flatten())
        before = (lengths.cumsum(0) - lengths)[number]  # live tokens of earlier sequences
        rank = counted.flatten().cumsum(0).view(batch, time) - counted - before
        longest = int(lengths.max()) if sequences else 0
        place = torch.where(live, number * longest + rank, 0)
        token = torch.zeros(sequences * longest, dtype=torch.long, device=live.device)
        token[place[live]] = live.flatten().nonzero().squeeze(1)
        return cls(token.view(sequences, longest), lengths, place, live, last, packed)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return self.token.shape[1]

    @property
    def inside(self) -> Bool[Tensor, "sequences longest"]:
        """Which places hold a token."""
        return torch.arange(self.longest, device=self.token.device) < self.lengths[:, None]

    def cleared(self, x: Float[Tensor, "batch time *rest"]) -> Float[Tensor, "batch time *rest"]:
        """With zeros for tokens that are not live, whatever was there."""
        return x.masked_fill(~self.live.view(*self.live.shape, *(1 for _ in x.shape[2:])), 0.0)

    def unpack(
        self, x: Float[Tensor, "batch time *rest"], fill: float = 0.0
    ) -> Float[Tensor, "sequences longest *rest"]:
        """The sequences of a batch.

        Arguments:
            x: of every token.
            fill: what stands behind the end of a sequence.
        """
        inside = self.inside.view(*self.token.shape, *(1 for _ in x.shape[2:]))
        return x.flatten(0, 1)[self.token].masked_fill(~inside, fill)

    def pack(self, x: Float[Tensor, "sequences longest *rest"]) -> Float[Tensor, "batch time *rest"]:
        """The batch of sequences, zero where a token is not live."""
        if self.longest == 0:
            return x.new_zeros(*self.live.shape, *x.shape[2:])
        return self.cleared(x.flatten(0, 1)[self.place])


def check_input(x: Any, dim: int, layout: Any) -> None:
    """Refuse what a mixer cannot read; a layout of another batch could broadcast.

    Arguments:
        x: the input, of shape (batch, time, dim).
        dim: its width.
        layout: that of its tokens, or `None`.

    Errors:
        ArgumentError: the input has another shape, or the layout is none, or that of another batch.
    """
    if x.ndim != 3 or x.shape[-1] != dim:
        raise ArgumentError("x", f"shape (batch, time, {dim})", f"shape {tuple(x.shape)}")
    if layout is None:
        return
    if not isinstance(layout, Layout):
        raise ArgumentError("layout", "a Layout, as Layout.of_mask makes it, or None", type(layout).__name__)
    if layout.live.shape != x.shape[:2]:
        raise ArgumentError("layout", f"that of {tuple(x.shape[:2])} tokens", f"one of {tuple(layout.live.shape)}")
