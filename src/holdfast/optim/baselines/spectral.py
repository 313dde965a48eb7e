"""Spectral regularisation: keep the largest singular value of each layer near 1."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from holdfast.errors import ArgumentError, count_of
from holdfast.optim.baselines.gradients import GradientPart
from holdfast.optim.baselines.parameters import changed_by, load_tensors
from holdfast.optim.rewarming.hooks import real_optimizer
from holdfast.optim.rewarming.layers import layers_of

FIRST_ITERATIONS = 20
"""Of the power method when it begins; later ones start from a vector that is nearly right."""


class SpectralRegularization(GradientPart):
    """Add the gradient of strength · Σ (σ^k − 1)² before each step, where σ is a layer's largest singular value.

    The weight of a convolution counts as a matrix of its output channels. σ comes from the power method, whose vectors
    are kept from step to step. Biases and the scales of norms are left alone.

    Arguments:
        model: whose linear, convolutional and embedding layers are regularised.
        optimizer: that changes their weights.
        strength: λ.
        exponent: k.
        iterations: of the power method at each step.

    Errors:
        ArgumentError: the optimiser changes no layer, or a number is out of range.

    Source: Lewandowski et al., "Learning continually by spectral regularization", arXiv 2406.06811.
    """

    def __init__(
        self, model: nn.Module, optimizer: object, *, strength: float, exponent: int = 2, iterations: int = 1
    ) -> None:
        if not strength >= 0:
            raise ArgumentError("strength", "a number of at least 0", strength)
        self.strength = strength
        self.exponent = count_of("exponent", exponent, least=1)
        self.iterations = count_of("iterations", iterations, least=1)
        changed = changed_by(real_optimizer(optimizer))
        layers = [layer for layer in layers_of(model) if layer.role == "weight"]
        self._layers = {layer.name: layer.parameter for layer in layers}
        if not changed & {id(parameter) for parameter in self._layers.values()}:
            raise ArgumentError("optimizer", "one that changes layers of the model", "none of them")
        # One seed for all, away from the user's random state.
        generator = torch.Generator().manual_seed(0)
        self._vectors = {
            name: torch.randn(len(parameter), generator=generator).to(parameter.device, _precise(parameter.dtype))
            for name, parameter in self._layers.items()
        }
        with torch.no_grad():
            for name, parameter in self._layers.items():
                self._iterate(name, parameter, FIRST_ITERATIONS)
        super().__init__(optimizer)

    @torch.no_grad()
    def largest_singular_values(self) -> dict[str, Tensor]:
        """σ of each layer by its parameter's name, as the power method has it."""
        return {name: self._iterate(name, parameter, 1)[0] for name, parameter in self._layers.items()}

    def change_gradients(self) -> None:
        """Add the derivative, 2 · strength · (σ^k − 1) · k σ^(k−1) · u vᵀ."""
        k = self.exponent
        changed = changed_by(self.optimizer)
        for name, parameter in self._layers.items():
            if parameter.grad is None or id(parameter) not in changed:
                continue
            sigma, u, v = self._iterate(name, parameter, self.iterations)
            slope = 2 * self.strength * (sigma**k - 1) * k * sigma ** (k - 1) * self.scale
            parameter.grad.add_((torch.outer(u * slope, v)).view_as(parameter))

    def state_dict(self) -> dict[str, Any]:
        """The vectors of the power method."""
        return {"vectors": dict(self._vectors)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the vectors of another process."""
        load_tensors("vectors", self._vectors, state["vectors"])

    def _iterate(
        self, name: str, parameter: Tensor, iterations: int
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " outputs"], Float[Tensor, " inputs"]]:
        """The power method: σ and its vectors, in float32 or better."""
        matrix = parameter.detach().flatten(1).to(_precise(parameter.dtype))
        u = self._vectors[name]
        for _ in range(iterations):
            v = nn.functional.normalize(matrix.mT @ u, dim=0)
            u = nn.functional.normalize(matrix @ v, dim=0)
        # A matrix of zeros has no vectors: what is kept stays, so that it may find some later.
        self._vectors[name] = torch.where(u.any(), u, self._vectors[name])
        return u @ (matrix @ v), u, v


def _precise(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
