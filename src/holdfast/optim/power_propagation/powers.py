"""θ = φ|φ|^(α−1), its inverse and its slope, on tensors of any size.

On a CPU a tensor is worked on in pieces that stay in the cache, so that each map costs one pass through memory. Powers
of 2, 3 and 4 are multiplications.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

PIECE = 1 << 15
"""Elements that are worked on at a time on a CPU: five pieces of float32 fit into a cache of 1 MiB."""


def power(root: Tensor, alpha: float | int) -> Tensor:
    """The weight θ = φ|φ|^(α−1) = sign(φ)|φ|^α of a root φ, elementwise."""
    if alpha == 1:
        return root.clone()
    if alpha == 2:
        return root.abs().mul_(root)
    if alpha == 3:
        return root.square().mul_(root)
    if alpha == 4:
        return root.square().mul_(root).mul_(root.abs())
    return root.abs().pow_(alpha).copysign_(root)


def root(weight: Tensor, alpha: float | int) -> Tensor:
    """The root φ = sign(θ)|θ|^(1/α) of a weight θ, elementwise."""
    if alpha == 1:
        return weight.clone()
    if alpha == 2:
        return weight.abs().sqrt_().copysign_(weight)
    if alpha == 4:
        return weight.abs().sqrt_().sqrt_().copysign_(weight)
    return weight.abs().pow_(1 / alpha).copysign_(weight)


def slope(root: Tensor, alpha: float | int) -> Tensor:
    """dθ/dφ = α|φ|^(α−1), elementwise."""
    if alpha == 1:
        return torch.ones_like(root)
    if alpha == 2:
        return root.abs().mul_(2)
    if alpha == 3:
        return root.square().mul_(3)
    if alpha == 4:
        return root.square().mul_(root.abs()).mul_(4)
    return root.abs().pow_(alpha - 1).mul_(alpha)


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
    first = tensors[0]
    if first.device.type != "cpu" or not all(type(t).__name__ in _PLAIN and t.is_contiguous() for t in tensors):
        yield tensors
        return
    flat = [tensor.view(-1) for tensor in tensors]
    for start in range(0, first.numel(), PIECE):
        yield tuple(tensor[start : start + PIECE] for tensor in flat)


_PLAIN = ("Tensor", "Parameter")
