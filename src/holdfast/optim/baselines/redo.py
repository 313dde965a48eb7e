"""ReDo: recycle dormant units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from holdfast.errors import ArgumentError, count_of
from holdfast.optim.baselines.replacement import UnitPart
from holdfast.optim.baselines.units import Units


class ReDo(UnitPart):
    """Every so many steps, replace the units that are dormant on the batches of that step.

    The score of a unit is its mean |h| over examples and positions, divided by the mean of that over the layer; it is
    dormant if the score is at most the threshold. A dormant unit gets fresh incoming weights and bias, its outgoing
    weights become zero, and the optimiser's moments of all these are forgotten. The optimiser's count of steps stays,
    so that Adam's first step there is about three times as long as a usual one.

    Arguments:
        model: whose linear and convolutional units are replaced, as far as `units` says; a network that `torch.fx` can
            trace.
        optimizer: that trains it.
        every: steps from one replacement to the next.
        threshold: of the score, at least 0; the paper's 0.1 is for a low replay ratio.
        initialize: gives a layer fresh weights, as in `model.apply(initialize)`; `None`: its own `reset_parameters`.

    Errors:
        ArgumentError: see `UnitPart`; or a number is out of range.

    Source: Sokar et al., "The dormant neuron phenomenon in deep reinforcement learning", arXiv 2302.12902.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: object,
        *,
        every: int,
        threshold: float = 0.025,
        initialize: Callable[[nn.Module], object] | None = None,
    ) -> None:
        self.every = count_of("every", every, least=1)
        if not threshold >= 0:
            raise ArgumentError("threshold", "a number of at least 0", threshold)
        self.threshold = threshold
        self.steps = 0
        self.last: dict[str, int] = {}
        """Of each layer, units that were replaced last time."""
        self._sums: dict[str, Tensor] = {}
        super().__init__(model, optimizer, initialize)

    def hear(self, units: Units, activations: Float[Tensor, "places units"]) -> None:
        """Add up sizes. How many there were is the same for all units of a layer, and no matter for their scores."""
        size = activations.abs().sum(0, dtype=torch.promote_types(activations.dtype, torch.float32))
        self._sums[units.name] = self._sums[units.name] + size if units.name in self._sums else size

    def after_step(self) -> None:
        """Replace what is dormant when it is time."""
        super().after_step()
        self.steps += 1
        if self.steps % self.every == 0:
            chosen = {name: self._dormant(size) for name, size in self._sums.items()}
            self.last = {name: len(index) for name, index in chosen.items()}
            self.replace(chosen)
        self._sums = {}
        self.listening = (self.steps + 1) % self.every == 0

    def state_dict(self) -> dict[str, Any]:
        """The count of steps."""
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the count of another process."""
        self.steps = int(state["steps"])
        self.listening = (self.steps + 1) % self.every == 0 or not self._heard

    def _dormant(self, size: Float[Tensor, " units"]) -> Tensor:
        # Multiplied rather than divided: a layer that is dead has a mean of 0, and all of it is dormant.
        return (size <= self.threshold * size.mean()).nonzero().flatten()
