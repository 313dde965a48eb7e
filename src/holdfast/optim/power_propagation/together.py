"""The two maps of power-propagation on many tensors at once, for a GPU: a launch of a kernel is for all of them.

As `powers`, but each function takes lists of tensors, one entry a weight, and changes what its name ends with `_` for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from holdfast.optim.power_propagation.powers import ALIKE

AT_ONCE = 1 << 25
"""Elements of the tensors that are worked on at once, unless one alone is larger: five lists of as many are made."""


def can_be(value: Tensor, weight: Tensor) -> bool:
    """Whether a weight and its root are for these functions."""
    plain = type(value) in (Tensor, nn.Parameter) and type(weight) in (Tensor, nn.Parameter)
    return plain and value.is_cuda and weight.device == value.device and weight.dtype == value.dtype


def chunks(weights: Mapping[str, Tensor]) -> Iterator[list[str]]:
    """Names of weights that are worked on at once: of one device and type, and not too many."""
    alike: dict[tuple[torch.device, torch.dtype], list[str]] = {}
    for name, weight in weights.items():
        alike.setdefault((weight.device, weight.dtype), []).append(name)
    for names in alike.values():
        chunk: list[str] = []
        size = 0
        for name in names:
            if chunk and size + weights[name].numel() > AT_ONCE:
                yield chunk
                chunk, size = [], 0
            chunk.append(name)
            size += weights[name].numel()
        yield chunk


def factors_(into: list[Tensor], values: list[Tensor], alpha: float) -> None:
    """|φ|^(α−1)."""
    torch._foreach_copy_(into, values)
    if alpha == 2:
        torch._foreach_abs_(into)
    elif alpha == 3:
        torch._foreach_mul_(into, values)
    elif alpha == 4:
        torch._foreach_mul_(into, values)
        torch._foreach_mul_(into, values)
        torch._foreach_abs_(into)
    else:
        torch._foreach_abs_(into)
        torch._foreach_pow_(into, alpha - 1)


def powers_(into: list[Tensor], values: list[Tensor], masks: list[Tensor | None], alpha: float) -> None:
    """θ of φ."""
    factors_(into, values, alpha)
    torch._foreach_mul_(into, values)
    _mask_(into, masks)


def roots(weights: list[Tensor], alpha: float) -> list[Tensor]:
    """φ of θ."""
    made = list(torch._foreach_abs(weights))
    if alpha in (2, 4):
        torch._foreach_sqrt_(made)
    if alpha == 4:
        torch._foreach_sqrt_(made)
    if alpha not in (2, 4):
        torch._foreach_pow_(made, 1 / alpha)
    torch._foreach_mul_(made, torch._foreach_sign(weights))
    return made


def take_up_(values: list[Tensor], weights: list[Tensor], masks: list[Tensor | None], alpha: float) -> Tensor:
    """New roots of elements of θ that somebody else has written; no step waits for the GPU to know whether any were.

    Returns:
        For each tensor a number that is not 0 if any of its roots are other ones now.
    """
    foreign = [torch.empty_like(value) for value in values]
    powers_(foreign, values, masks, alpha)
    torch._foreach_sub_(foreign, weights)
    torch._foreach_sign_(foreign)
    torch._foreach_abs_(foreign)  # 1 where θ is not what was written last, 0 elsewhere
    fresh = roots(weights, alpha)
    apart = list(torch._foreach_sub(fresh, values))
    torch._foreach_abs_(apart)
    near = list(torch._foreach_abs(values))
    torch._foreach_mul_(near, ALIKE * torch.finfo(values[0].dtype).eps)
    torch._foreach_sub_(apart, near)
    torch._foreach_sign_(apart)
    torch._foreach_clamp_min_(apart, 0)  # 1 where its root is another one
    torch._foreach_mul_(foreign, apart)
    torch._foreach_lerp_(values, fresh, foreign)  # at 0 and at 1 exactly one of the two
    return torch.stack(list(torch._foreach_norm(foreign, torch.inf)))


def gradients_(
    into: list[Tensor], gradients: list[Tensor], values: list[Tensor], masks: list[Tensor | None], alpha: float
) -> None:
    """∂L/∂φ = α|φ|^(α−1) ∂L/∂θ."""
    factors_(into, values, alpha)
    torch._foreach_mul_(into, gradients)
    torch._foreach_mul_(into, alpha)
    _mask_(into, masks)


def _mask_(tensors: list[Tensor], masks: list[Tensor | None]) -> None:
    for tensor, mask in zip(tensors, masks, strict=True):
        if mask is not None:
            tensor.mul_(mask)
