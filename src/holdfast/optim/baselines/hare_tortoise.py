"""Hare and tortoise: fast weights that are put back, now and then, to their slow average."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from holdfast.errors import ArgumentError, count_of
from holdfast.optim.baselines.parameters import load_tensors, named_parameters, trained_parameters
from holdfast.optim.rewarming.hooks import StepPart
from holdfast.optim.rewarming.layers import named_modules


class HareTortoise(StepPart):
    """The model is the hare. After each step tortoise ← momentum · tortoise + (1 − momentum) · hare; every so many
    steps hare ← tortoise.

    The tortoise is what one evaluates, or bootstraps from. It averages parameters, and buffers of floating point, such
    as the statistics of BatchNorm. The optimiser's moments stay.

    Arguments:
        model: the hare.
        optimizer: that trains it.
        every: steps from one reset of the hare to the next.
        momentum: of the tortoise.

    Errors:
        ArgumentError: the optimiser changes none of the parameters, or a number is out of range.

    Source: Lee et al., "Slow and steady wins the race: maintaining plasticity with hare and tortoise networks", ICML
        2024, arXiv 2406.02596.
    """

    def __init__(self, model: nn.Module, optimizer: object, *, every: int, momentum: float = 0.999) -> None:
        self.every = count_of("every", every, least=1)
        if not 0 <= momentum < 1:
            raise ArgumentError("momentum", "a number of at least 0 and below 1", momentum)
        trained_parameters(model, optimizer)
        self.momentum = momentum
        self.steps = 0
        self._model, self._hare = model, _tensors(model)
        self.tortoise: dict[str, Tensor] = {
            name: hare.detach().to(torch.promote_types(hare.dtype, torch.float32), copy=True)
            for name, hare in self._hare.items()
        }
        """The slow weights by name, in float32 or better: in half precision they would not move."""
        super().__init__(optimizer)

    @torch.no_grad()
    def after_step(self) -> None:
        """Let the tortoise follow, and put the hare back when it is time."""
        self.steps += 1
        slow = list(self.tortoise.values())
        fast = [hare.detach().to(self.tortoise[name].dtype) for name, hare in self._hare.items()]
        torch._foreach_lerp_(slow, fast, 1 - self.momentum)
        if self.steps % self.every == 0:
            load_tensors("tortoise", self._hare, self.tortoise)

    @contextmanager
    def slow_weights(self) -> Iterator[nn.Module]:
        """The model with the weights of the tortoise; those of the hare come back afterwards."""
        kept = {name: hare.detach().clone() for name, hare in self._hare.items()}
        try:
            load_tensors("tortoise", self._hare, self.tortoise)
            yield self._model
        finally:
            load_tensors("hare", self._hare, kept)

    def state_dict(self) -> dict[str, Any]:
        """The slow weights and the count of steps."""
        return {"steps": self.steps, "tortoise": dict(self.tortoise)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with what began in another process."""
        load_tensors("tortoise", self.tortoise, state["tortoise"])
        self.steps = int(state["steps"])


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of floating point."""
    tensors: dict[str, Tensor] = dict(named_parameters(model))
    for module_name, module in named_modules(model):
        for key, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point():
                tensors[f"{module_name}.{key}" if module_name else key] = buffer
    return tensors
