"""Rotary positions: pairs of channels turn with the position, so that a product of two tells how far apart they are.

pair i of channels (i, i + dim / 2):  angle = position x base ** (-2 i / dim)
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from holdfast.errors import ArgumentError


def turns(
    position: Int[Tensor, "*shape"], dim: int, base: float, dtype: torch.dtype
) -> tuple[Float[Tensor, "*shape pairs"], Float[Tensor, "*shape pairs"]]:
    """Cosine and sine of the angles of every pair of channels.

    The angles are in float64, where any position is exact: in a table of bfloat16 those above 256 would be rounded.

    Arguments:
        position: of each vector, from 0.
        dim: channels of a vector, an even number.
        base: of the frequencies.
        dtype: of the result.
    """
    pair = torch.arange(dim // 2, device=position.device, dtype=torch.float64)
    angle = position.to(torch.float64).unsqueeze(-1) * base ** (-2 * pair / dim)
    return angle.cos().to(dtype), angle.sin().to(dtype)


def rotated(
    x: Float[Tensor, "*shape dim"], turn: tuple[Float[Tensor, "*#shape pairs"], Float[Tensor, "*#shape pairs"]]
) -> Float[Tensor, "*shape dim"]:
    """Turn each pair of channels (i, i + dim / 2) by its angle.

    Arguments:
        x: queries or keys.
        turn: cosine and sine of the angles, which broadcast against the pairs of `x`.

    Returns:
        In the dtype of `x`.

    Source: arXiv 2104.09864, in the arrangement with halves.
    """
    cosine, sine = turn
    first, second = x.to(cosine.dtype).chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1).to(x.dtype)


def check_rope(rope_theta: Any, dim: int) -> None:
    """Refuse a base that is no positive number, and heads whose channels make no pairs."""
    if rope_theta is None:
        return
    if not isinstance(rope_theta, int | float) or isinstance(rope_theta, bool) or not rope_theta > 0:
        raise ArgumentError("rope_theta", "a positive number or None", repr(rope_theta))
    if dim % 2:
        raise ArgumentError("rope_theta", "None, where a head has an odd number of channels", f"{rope_theta}, {dim}")
