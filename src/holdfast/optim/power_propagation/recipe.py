"""The way to train for pruning that held up best: AdamW on the roots, with decay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from holdfast.optim.power_propagation.optimizer import PowerProp
from holdfast.optim.power_propagation.selection import powered


def power_adamw(
    model: nn.Module,
    *,
    lr: float | int = 1e-3,
    alpha: float | int = 4.0,
    decay: float | int = 0.4,
    exclude: Iterable[str] | None = None,
    **others: Any,
) -> PowerProp:
    """AdamW on the roots of a model's weights, with decay on these alone.

    Adam divides the gradient of a root by its size, so that half of power-propagation's exponent is lost; decay of
    φ, which penalises about ‖θ‖ to the power 2/α (exactly so with SGD), makes up for it and more.

    Arguments:
        model: all its parameters that require gradients are trained.
        lr: learning rate; `lr · decay` is what a root loses a step.
        alpha: α.
        decay: decoupled, of the roots. Too little of it (0.1) leaves the last fractions of weights worse, too much (1)
            costs accuracy before pruning.
        exclude: names of weights that are trained by AdamW as they are, without decay; see `PowerProp`.
        others: arguments of `torch.optim.AdamW`.
    """
    layers, _ = powered(model, exclude)
    roots = [layer.parameter for layer in layers if layer.parameter.requires_grad]
    known = {id(parameter) for parameter in roots}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    groups: list[dict[str, Any]] = [{"params": roots, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, **others)
    return PowerProp(model, optimizer, alpha=alpha, exclude=exclude)
