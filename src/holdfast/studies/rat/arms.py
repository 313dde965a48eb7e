"""The arms that models differ in: which mixers they have. An arm's name says it all.

attention, gqa8, rnn, rat4, rat16, rat64      all layers alike; the number is RAT's chunk size
attention-window, rat16-window                every other layer is attention in a sliding window
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast.errors import ArgumentError

if TYPE_CHECKING:
    from holdfast.nn import BackboneConfig

GQA = 8
"""Query heads a key head in the arm `gqa8`."""

# Places in the page's palette, which suits light and dark pages and colour-blind readers.
COLOURS = {"attention": "C0", "gqa8": "C5", "rat4": "C2", "rat16": "C1", "rat64": "C3", "rnn": "C4"}
WINDOW = "-window"


def style(arm: str) -> dict[str, Any]:
    """Colour and line of an arm in figures; hybrids are broken lines."""
    base = arm.removesuffix(WINDOW)
    return {"color": COLOURS.get(base, "C6"), "linestyle": "--" if base != arm else "-", "label": arm}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Shape of the models, which all arms share.

    Arguments:
        dim: width of the residual stream.
        heads: query heads.
        layers: number of blocks; an even one where there are hybrids.
        window: tokens that a token sees in a layer with a window.
        qk_groups: queries and keys that RAT's heads share.
    """

    dim: int = 64
    heads: int = 4
    layers: int = 1
    window: int = 64
    qk_groups: int = 2


def backbone_of(arm: str, shape: Shape, tokens: int, *, rope_theta: float | None = 10_000.0) -> BackboneConfig:
    """The backbone of an arm.

    Arguments:
        arm: its name.
        shape: what all arms share.
        tokens: of the sequences that it is trained on: for so long gated recurrences may remember at first.
        rope_theta: base of rotary positions; `None`: no layer has positions.

    Errors:
        ArgumentError: there is no such arm.
    """
    from holdfast.nn import BackboneConfig

    base, hybrid = arm.removesuffix(WINDOW), arm.endswith(WINDOW)
    chunk = re.fullmatch(r"rat([1-9]\d*)", base)
    if not chunk and base not in ("attention", "gqa8", "rnn"):
        raise ArgumentError("arm", "attention, gqa8, rnn or rat with a chunk size, with or without -window", arm)
    mixer = "rat" if chunk else "attention" if base == "gqa8" else base
    cycle = (mixer, "window") if hybrid else (mixer,)
    return BackboneConfig(
        mixers=tuple(cycle[layer % len(cycle)] for layer in range(shape.layers)),
        dim=shape.dim,
        heads=shape.heads,
        chunk_size=int(chunk[1]) if chunk else tokens,
        qk_groups=shape.qk_groups,
        kv_heads=shape.heads // GQA if base == "gqa8" else None,
        window=shape.window,
        memory=tokens,
        rope_theta=rope_theta,
    )
