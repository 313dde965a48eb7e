"""L2-init, or regenerative regularisation: draw weights towards where they began rather than to zero."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from holdfast.errors import ArgumentError
from holdfast.optim.baselines.gradients import GradientPart
from holdfast.optim.baselines.parameters import changed_by, load_tensors, named_parameters, trained_parameters


class L2Init(GradientPart):
    """Add the gradient of strength · ‖θ − θ_0‖² to that of the loss, before each step.

    θ_0 are the parameters as they are now. Only those with a gradient are drawn.

    Arguments:
        model: whose parameters are drawn, as far as they require gradients.
        optimizer: that changes them.
        strength: λ; its authors and their peers use 1e-2 to 1e-4.

    Errors:
        ArgumentError: the optimiser changes none of the parameters, or `strength` is negative.

    Source: Kumar et al., "Maintaining plasticity via regenerative regularization", arXiv 2308.11958.
    """

    def __init__(self, model: nn.Module, optimizer: object, *, strength: float) -> None:
        if not strength >= 0:
            raise ArgumentError("strength", "a number of at least 0", strength)
        trained_parameters(model, optimizer)
        self.strength = strength
        self._parameters = {name: p for name, p in named_parameters(model).items() if p.requires_grad}
        self.initial: dict[str, Tensor] = {name: p.detach().clone() for name, p in self._parameters.items()}
        """θ_0 by the parameters' names."""
        super().__init__(optimizer)

    def penalty(self) -> Tensor:
        """strength · ‖θ − θ_0‖², to be logged."""
        squares = [(p.detach() - self.initial[name]).square().sum() for name, p in self._parameters.items()]
        return self.strength * torch.stack(squares).sum()

    def change_gradients(self) -> None:
        """Add 2 · strength · (θ − θ_0)."""
        changed = changed_by(self.optimizer)
        weights, starts, gradients = list[Tensor](), list[Tensor](), list[Tensor]()
        for name, parameter in self._parameters.items():
            if id(parameter) in changed and parameter.grad is not None:
                weights.append(parameter.detach())
                starts.append(self.initial[name])
                gradients.append(parameter.grad)
        if weights:
            away = torch._foreach_sub(weights, starts)
            torch._foreach_mul_(away, 2 * self.strength * self.scale)
            torch._foreach_add_(gradients, away)

    def state_dict(self) -> dict[str, Any]:
        """Where the weights began."""
        return {"initial": dict(self.initial)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with what began in another process."""
        load_tensors("initial", self.initial, state["initial"])
