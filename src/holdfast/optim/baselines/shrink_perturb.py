"""Shrink and perturb: keep a part of every weight and add a part of a fresh one."""

from __future__ import annotations

import torch
from torch import nn

from holdfast.errors import ArgumentError
from holdfast.optim.baselines.parameters import named_parameters


@torch.no_grad()
def shrink_and_perturb_(model: nn.Module, fresh: nn.Module, *, shrink: float = 0.4, perturb: float = 0.1) -> nn.Module:
    """θ ← shrink · θ + perturb · θ_fresh, for all parameters.

    The authors make a new optimiser afterwards, as moments belong to the weights that were:
    `holdfast.optim.reset_moments` does the same to one that is there. Buffers stay: the running statistics of BatchNorm
    are those of the old weights until some batches have passed in training mode.

    Arguments:
        model: that has been trained; changed in place.
        fresh: one of the same architecture, newly initialised; left as it is.
        shrink: what remains of the weights, from 0 to 1; at 1 with `perturb` 0 nothing happens.
        perturb: how much of the fresh weights is added.

    Returns:
        The model.

    Errors:
        ArgumentError: the networks differ in names or shapes, are the same, or a share is out of range.

    Source: Ash and Adams, "On warm-starting neural network training", arXiv 1910.08475; the shares are those of its
        code.
    """
    if not 0 <= shrink <= 1:
        raise ArgumentError("shrink", "a number from 0 to 1", shrink)
    if not perturb >= 0:
        raise ArgumentError("perturb", "a number of at least 0", perturb)
    own, new = named_parameters(model), named_parameters(fresh)
    shapes, expected = ({name: tuple(p.shape) for name, p in side.items()} for side in (new, own))
    for name in sorted({*own, *new}):
        if shapes.get(name) != expected.get(name):
            wanted = f"{name} of shape {expected[name]}" if name in own else f"no parameter {name}"
            raise ArgumentError("fresh", wanted, f"one of shape {shapes[name]}" if name in new else "none")
        if own[name] is new[name]:
            raise ArgumentError("fresh", "another network than the model", f"one that shares {name} with it")
    for name, parameter in own.items():
        other = new[name].to(device=parameter.device, dtype=parameter.dtype)
        parameter.mul_(shrink).add_(other, alpha=perturb)
    return model
