"""Where padding and packed documents are, from the many ways in which transformers says it."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from holdfast.errors import ArgumentError
from holdfast.nn import Layout


@torch.compiler.disable  # type: ignore[untyped-decorator]
def layout_of(
    x: Float[Tensor, "batch time dim"], mask: Tensor | None, positions: Tensor | None, bounds: Tensor | None
) -> Layout | None:
    """Where padding and documents are among new tokens; `None`: all are live, and every row is one document.

    It reads values, once a call of a model, and so is no part of a compiled graph.

    Arguments:
        x: the tokens' embeddings.
        mask: of all tokens or of the new ones, True or 1 where one is live; `None`: all are.
        positions: they go on by one inside a document; `None`: a row is one.
        bounds: as of `Layout.of_documents`; positions are not asked then.

    Errors:
        ArgumentError: shapes that do not fit, or documents together with padding.
    """
    batch, time = x.shape[:2]
    padded = None
    if mask is not None:
        if mask.ndim != 2 or len(mask) != batch or mask.shape[1] < time:
            expected = f"shape ({batch}, {time}), or with columns of earlier tokens before"
            raise ArgumentError("attention_mask", expected, f"shape {tuple(mask.shape)}")
        padded = Layout.of_mask(mask[:, mask.shape[1] - time :])
    if bounds is not None:
        if padded is not None:
            raise ArgumentError("attention_mask", "ones only, where documents are packed", "padding")
        return Layout.of_documents(bounds, batch, time)
    if positions is None or time == 0:
        return padded
    if positions.ndim != 2 or len(positions) not in (1, batch) or positions.shape[1] != time:
        raise ArgumentError("position_ids", f"shape ({batch}, {time})", f"shape {tuple(positions.shape)}")
    positions = positions.expand(batch, time)
    if padded is None:
        bounds = documents(positions)
        return None if bounds is None else Layout.of_documents(bounds, batch, time)
    if falls(positions, padded.live):
        raise ArgumentError("position_ids", "positions that rise in a row, where others are padded", "packed documents")
    return padded


def documents(positions: Int[Tensor, "batch time"]) -> Int[Tensor, " bounds"] | None:
    """Where documents begin in the flattened batch, and its end; `None` where every row is one."""
    first = torch.ones_like(positions, dtype=torch.bool)
    first[:, 1:] = positions.diff(dim=1) != 1
    starts = first.flatten().nonzero().squeeze(1)
    return None if len(starts) == len(positions) else torch.cat([starts, starts.new_full((1,), positions.numel())])


def falls(positions: Int[Tensor, "batch time"], live: Tensor) -> bool:
    """Whether positions of live tokens do not rise in some row. Those of padding mean nothing."""
    of_live = positions.masked_fill(~live, -1)
    before = of_live.cummax(1).values[:, :-1]
    return bool((live[:, 1:] & (of_live[:, 1:] <= before)).any())
