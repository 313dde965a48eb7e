"""Which weights power-propagation acts on, and which it cannot."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from holdfast.errors import ArgumentError
from holdfast.optim.rewarming.layers import Layer, named_modules, select

MOST_ZEROS = 0.01
"""Share of a tensor's elements that may be exactly zero."""
STEEPEST = 6
"""The largest α for which small weights do not vanish."""


class PowerPropWarning(UserWarning):
    """Power-propagation works, but perhaps not as meant."""


def powered(model: nn.Module, exclude: Iterable[str] | None) -> tuple[tuple[Layer, ...], dict[str, str]]:
    """The weights of linear and convolutional layers, and by name why other layers' weights are left alone.

    Arguments:
        model: any; wrapped and compiled ones too.
        exclude: names of parameters or of modules around them; `*` stands for anything.

    Errors:
        ArgumentError: a name matches nothing.
    """
    selection = select(model, include="all", exclude=exclude)
    embedded = {
        id(parameter)
        for _, module in named_modules(model)
        if "Embedding" in type(module).__name__
        for parameter in module.parameters(recurse=False)
    }
    excluded = dict(selection.excluded)
    chosen = []
    for layer in selection.layers:
        if id(layer.parameter) in embedded:
            tied = f", tied with {', '.join(layer.aliases)}" if layer.aliases else ""
            excluded[layer.name] = f"an embedding{tied}"
        elif layer.role != "weight":
            excluded[layer.name] = "a part of a parametrised weight"
        elif not layer.parameter.is_floating_point() or not layer.parameter.numel():
            excluded[layer.name] = "no real numbers" if layer.parameter.numel() else "no elements"
        else:
            chosen.append(layer)
    return tuple(chosen), excluded


def check_alpha(alpha: float | int) -> float:
    """α as a number; the map has no slope at zero below 1, and above 6 weights underflow.

    Errors:
        ArgumentError: it is below 1, or no finite number.
    """
    if not isinstance(alpha, (int, float)) or not math.isfinite(alpha) or alpha < 1:
        raise ArgumentError("alpha", "a finite number of at least 1", alpha)
    if alpha > STEEPEST:
        warnings.warn(f"alpha={alpha:g}: weights that are small become zero for ever", PowerPropWarning, stacklevel=3)
    return float(alpha)


def check_zeros(weights: Mapping[str, nn.Parameter]) -> None:
    """Refuse weights that would never move: θ = 0 is a fixed point for α > 1.

    Errors:
        ArgumentError: more than 1 % of a tensor is exactly zero, as in the second matrix of a LoRA adapter.
    """
    for name, weight in weights.items():
        share = 1 - float(torch.count_nonzero(weight.detach())) / weight.numel()
        if share > MOST_ZEROS:
            raise ArgumentError(
                "model",
                "weights that are not zero, which power-propagation never moves: exclude this one, or keep zeros",
                f"{name}, of which {share:.0%} is zero",
            )
