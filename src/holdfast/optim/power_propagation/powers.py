"""θ = φ|φ|^(α−1), its inverse and its factor |φ|^(α−1), on tensors of any size.

On a CPU a tensor is worked on in pieces that stay in the cache, so that each map costs one pass through memory. Powers
of 2, 3 and 4 are multiplications.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator

import torch
from torch import Tensor, nn

PIECE = 1 << 17
"""Elements that are worked on at a time on a CPU: of larger pieces a cache of 1 MiB keeps too little, and smaller ones
cost more calls."""
ALIKE = 4
"""Roots of one weight that are taken on two devices, or by other numbers of threads, differ by fewer last bits."""


def factor(root: Tensor, alpha: float | int, out: Tensor | None = None) -> Tensor:
    """|φ|^(α−1) of a root φ, elementwise: times φ it is the weight, times α the slope.

    Arguments:
        root: φ.
        alpha: α.
        out: written to, if given.
    """
    if alpha == 2:
        return torch.abs(root, out=out)
    if alpha == 3:
        return torch.mul(root, root, out=out)
    if alpha == 4:
        return torch.pow(root, 3, out=out).abs_()  # which torch does by multiplications
    return torch.abs(root, out=out).pow_(alpha - 1)


def power(root: Tensor, alpha: float | int, out: Tensor | None = None) -> Tensor:
    """The weight θ = φ|φ|^(α−1) = sign(φ)|φ|^α of a root φ, elementwise.

    Arguments:
        root: φ.
        alpha: α.
        out: written to, if given; not φ itself.
    """
    return torch.mul(factor(root, alpha, out), root, out=out)


def root(weight: Tensor, alpha: float | int) -> Tensor:
    """The root φ = sign(θ)|θ|^(1/α) of a weight θ, elementwise."""
    if alpha == 2:
        return weight.abs().sqrt_().copysign_(weight)
    if alpha == 4:
        return weight.abs().sqrt_().sqrt_().copysign_(weight)
    return weight.abs().pow_(1 / alpha).copysign_(weight)


def preconditioner(weight: Tensor, alpha: float | int, floor: float | int = 0.0) -> Tensor:
    """The diagonal P(θ) = α²(|θ| + δ)^(2−2/α) by which gradient flow in φ is one in θ, elementwise.

    Arguments:
        weight: θ.
        alpha: α.
        floor: δ, with which a weight of zero still moves.
    """
    magnitude = weight.abs().add_(floor)
    if alpha == 2:
        return magnitude.mul_(4)
    return magnitude.pow_(2 - 2 / alpha).mul_(alpha**2)


def pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same places of several tensors of one shape, to be changed in place: in pieces on a CPU, else whole."""
    if in_pieces(*tensors):
        yield from zip(*(tensor.view(-1).split(PIECE) for tensor in tensors), strict=True)
    else:
        yield tensors


class Scratch:
    """Tensors for what is computed of one piece, the same for all pieces.

    Kept from step to step: memory that is given back and asked for again is paid for page by page.
    """

    def __init__(self) -> None:
        self._whole: dict[torch.dtype, tuple[Tensor, Tensor]] = {}

    def like(self, piece: Tensor) -> tuple[Tensor, Tensor]:
        """Two tensors as large as a piece."""
        size = piece.numel()
        if piece.dtype not in self._whole:
            self._whole[piece.dtype] = piece.new_empty(PIECE), piece.new_empty(PIECE)
        one, other = self._whole[piece.dtype]
        return (one, other) if size == PIECE else (one[:size], other[:size])


def in_pieces(*tensors: Tensor) -> bool:
    """Whether `pieces` cuts tensors up."""
    for tensor in tensors:
        if not tensor.is_cpu or type(tensor) not in _PLAIN or not tensor.is_contiguous():
            return False
    return True


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two contiguous tensors of one size and type on a CPU hold the same, bit for bit.

    At a quarter of the cost of `torch.equal`, which compares a number at a time.
    """
    return not _memcmp(one.data_ptr(), other.data_ptr(), one.numel() * one.element_size())


_memcmp = ctypes.CDLL("msvcrt" if os.name == "nt" else None).memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_PLAIN = (Tensor, nn.Parameter)
