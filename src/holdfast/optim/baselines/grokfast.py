"""Grokfast-EMA: strengthen the slow part of the gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from holdfast.errors import ArgumentError
from holdfast.optim.baselines.gradients import GradientPart
from holdfast.optim.baselines.parameters import changed_by, load_tensors, named_parameters, trained_parameters
from holdfast.optim.rewarming.hooks import skipped


class Grokfast(GradientPart):
    """g ← g + factor · m, where m ← decay · m + (1 − decay) · g is the gradient's average; m begins as the first g.

    Once m has caught up this is a larger step: with plain SGD about 1 + `factor` times as long, and with Adam, which
    divides by the gradient's size, hardly a change at all. Compare it at the same effective learning rate.

    Arguments:
        model: whose gradients are changed.
        optimizer: that uses them.
        decay: α; the code of its authors takes 0.98.
        factor: λ; it takes 2.

    Errors:
        ArgumentError: the optimiser changes none of the parameters, or a number is out of range.

    Source: Lee et al., "Grokfast: accelerated grokking by amplifying slow gradients", arXiv 2405.20233.
    """

    def __init__(self, model: nn.Module, optimizer: object, *, decay: float = 0.98, factor: float = 2.0) -> None:
        if not 0 <= decay < 1:
            raise ArgumentError("decay", "a number of at least 0 and below 1", decay)
        if not factor >= 0:
            raise ArgumentError("factor", "a number of at least 0", factor)
        trained_parameters(model, optimizer)
        self.decay, self.factor = decay, factor
        self.average: dict[str, Tensor] = {}
        """m by the parameters' names, from the first gradient on; unscaled, in float32 or better."""
        self._parameters = named_parameters(model)
        super().__init__(optimizer)

    def change_gradients(self) -> None:
        """Update the averages, and add them."""
        changed = changed_by(self.optimizer)
        found_inf = skipped(self.optimizer)
        for name, parameter in self._parameters.items():
            gradient = parameter.grad
            if gradient is None or id(parameter) not in changed:
                continue
            plain = gradient.to(_precise(gradient.dtype)) / self.scale
            if found_inf is not None:
                # A scaler will leave this step out: what is not finite must not stay in the average.
                plain = torch.where(found_inf > 0, self.average.get(name, torch.zeros_like(plain)), plain)
            if name not in self.average:
                # A copy: `zero_grad(set_to_none=False)` empties the gradient itself.
                self.average[name] = plain.clone()
            else:
                self.average[name].lerp_(plain, 1 - self.decay)
            gradient.add_(self.average[name] * (self.factor * self.scale))

    def state_dict(self) -> dict[str, Any]:
        """The averages."""
        return {"average": dict(self.average)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the averages of another process.

        Errors:
            ArgumentError: a name or a shape is not that of a parameter.
        """
        fresh = {
            name: torch.zeros_like(parameter, dtype=_precise(parameter.dtype))
            for name, parameter in self._parameters.items()
            if name in state["average"]
        }
        load_tensors("average", fresh, state["average"])
        self.average = fresh


def _precise(dtype: torch.dtype) -> torch.dtype:
    """Small parts of an average would be lost in half precision."""
    return torch.promote_types(dtype, torch.float32)
