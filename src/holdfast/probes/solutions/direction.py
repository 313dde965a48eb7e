"""Two optimisers in one: the direction of a step from one, its length from the other.

It tells whether a solution comes from where an optimiser steps, or from how far.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.optim import Optimizer

from holdfast.errors import ArgumentError

SMALLEST = 1e-16
"""Added to the norm of a direction."""


class DirectionSwap:
    """Steps along the direction of one optimiser, as far as another would have gone: ΔW = d ‖b‖ / (‖d‖ + 10⁻¹⁶).

    By tensor, with Frobenius norms; b and d are the changes that both would make from the same weights and gradients.
    A scheduler is for `magnitude`: the rate of the direction cancels, and is best large, about 1 where steps are
    normalised, lest its change be lost to rounding. A tensor that one of both leaves as it was, stays.

    Arguments:
        direction: optimiser of the direction; without weight decay, which would be part of it.
        magnitude: of the length, for the same parameters; without weight decay.

    Errors:
        ArgumentError: the parameters differ, or there is weight decay.
    """

    def __init__(self, direction: Optimizer, magnitude: Optimizer) -> None:
        sets = [
            {id(p): p for group in optimizer.param_groups for p in group["params"]}
            for optimizer in (direction, magnitude)
        ]
        if sets[0].keys() != sets[1].keys():
            raise ArgumentError(
                "magnitude", f"the {len(sets[0])} parameters of direction", f"{len(sets[1])}, or others"
            )
        for name, optimizer in (("direction", direction), ("magnitude", magnitude)):
            decays = [group.get("weight_decay", 0) for group in optimizer.param_groups]
            if any(decays):
                raise ArgumentError(name, "an optimiser with weight_decay=0, since decay has no direction", max(decays))
        self.direction, self.magnitude = direction, magnitude
        self._parameters = list(sets[0].values())

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Of the length, with the rates that count."""
        return self.magnitude.param_groups

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.magnitude.zero_grad()

    @torch.no_grad()
    def step(self) -> None:
        """Change the weights.

        Errors:
            ArgumentError: a step is not finite; the weights are as they were.
        """
        start = [parameter.clone() for parameter in self._parameters]
        gradients = [None if parameter.grad is None else parameter.grad.clone() for parameter in self._parameters]
        self.magnitude.step()
        lengths = [float((p.double() - s.double()).norm()) for p, s in zip(self._parameters, start, strict=True)]
        for parameter, before, gradient in zip(self._parameters, start, gradients, strict=True):
            parameter.copy_(before)
            parameter.grad = gradient  # some optimisers write into it
        self.direction.step()
        changes = [p.double() - s.double() for p, s in zip(self._parameters, start, strict=True)]
        for parameter, before in zip(self._parameters, start, strict=True):
            parameter.copy_(before)
        for number, (length, change) in enumerate(zip(lengths, changes, strict=True)):
            if not math.isfinite(length + float(change.norm())):
                shape = tuple(self._parameters[number].shape)
                raise ArgumentError("step", "finite changes", f"one that is not, of parameter {number}, shape {shape}")
        for parameter, before, length, change in zip(self._parameters, start, lengths, changes, strict=True):
            if length > 0:
                parameter.copy_(before.double() + change * (length / (float(change.norm()) + SMALLEST)))

    def state_dict(self) -> dict[str, Any]:
        """States of both."""
        return {"direction": self.direction.state_dict(), "magnitude": self.magnitude.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from states of both."""
        for name in ("direction", "magnitude"):
            if name not in state:
                raise ArgumentError("state", "the states of direction and magnitude", f"{', '.join(state)}")
        self.direction.load_state_dict(state["direction"])
        self.magnitude.load_state_dict(state["magnitude"])
