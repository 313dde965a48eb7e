"""Continual backprop: replace, all the time, a few of the least useful units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from holdfast.errors import ArgumentError, count_of
from holdfast.optim.baselines.parameters import load_tensors
from holdfast.optim.baselines.replacement import UnitPart
from holdfast.optim.baselines.units import Consumer, Units

LEAST_INCOMING = 1e-3
"""Of the layer's mean |w_in|: what is below counts as this."""


@dataclass(eq=False)
class UnitHistory:
    """What is known of a layer's units. The first two are averages that began at zero with each unit.

    Arguments:
        utility: average of the contribution.
        mean: average activation.
        age: steps that each unit has seen.
        due: units that are to be replaced, as a number with a fraction.
    """

    utility: Float[Tensor, " units"]
    mean: Float[Tensor, " units"]
    age: Int64[Tensor, " units"]
    due: Float[Tensor, ""]

    def grown(self, decay: float, extra: int = 0) -> Float[Tensor, " units"]:
        """1 − decay^age: what an average from zero has to be divided by, unit by unit."""
        return (1 - decay ** (self.age + extra).double()).to(self.mean.device, self.mean.dtype)


@dataclass(eq=False)
class _Forward:
    """Sums over the forwards of one step."""

    mean: Tensor
    deviation: Tensor
    forwards: int = 1


class ContinualBackprop(UnitPart):
    """After each step, replace the units of least utility among those that are old enough, at a small rate.

    The contribution of a unit is mean|w_out| · mean|h − ĥ| / mean|w_in|, where ĥ is its average activation; its utility
    is the average of that. Both averages begin at zero with the unit, and are corrected by 1 − decay^age of the unit
    itself. A replaced unit's average activation goes on in its readers' biases: they get w_out · ĥ.

    Arguments:
        model: whose linear and convolutional units are replaced, as far as `units` says; a network that `torch.fx` can
            trace.
        optimizer: that trains it.
        rate: share of the units that are old enough, replaced at each step; fractions add up.
        decay: of both averages.
        maturity: steps for which a unit is left alone.
        initialize: gives a layer fresh weights, as in `model.apply(initialize)`; `None`: its own `reset_parameters`.

    Errors:
        ArgumentError: see `UnitPart`; or a number is out of range.

    Source: Dohare et al., "Loss of plasticity in deep continual learning", Nature 632, 2024; arXiv 2306.13812.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: object,
        *,
        rate: float = 1e-4,
        decay: float = 0.99,
        maturity: int = 100,
        initialize: Callable[[nn.Module], object] | None = None,
    ) -> None:
        if not 0 <= rate <= 1:
            raise ArgumentError("rate", "a number from 0 to 1", rate)
        if not 0 <= decay < 1:
            raise ArgumentError("decay", "a number of at least 0 and below 1", decay)
        self.rate, self.decay, self.maturity = rate, decay, count_of("maturity", maturity)
        self.replaced = 0
        """Units so far."""
        self._forwards: dict[str, _Forward] = {}
        super().__init__(model, optimizer, initialize)
        self.history = {units.name: _new_history(units) for units in self.units}
        """By the name of the layer."""

    def hear(self, units: Units, activations: Float[Tensor, "places units"]) -> None:
        """Take the mean, and the mean distance from what the average will be with it."""
        history = self.history[units.name]
        x = activations.to(history.mean.dtype)
        mean = x.mean(0)
        average = torch.lerp(mean, history.mean, self.decay) / history.grown(self.decay, 1)
        deviation = (x - average).abs().mean(0)
        before = self._forwards.get(units.name)
        if before is None:
            self._forwards[units.name] = _Forward(mean, deviation)
        else:
            before.mean, before.deviation = before.mean + mean, before.deviation + deviation
            before.forwards += 1

    @torch.no_grad()
    def after_step(self) -> None:
        """Update the utilities, and replace what is due."""
        super().after_step()
        chosen: dict[str, Tensor] = {}
        for units in self.units:
            forward = self._forwards.get(units.name)
            if forward is not None:
                index = self._choose(units, self.history[units.name], forward)
                if len(index):
                    chosen[units.name] = index
        self._forwards = {}
        for units in self.units:
            if units.name in chosen:
                self._hand_over(units, chosen[units.name])
        self.replace(chosen)
        for name, index in chosen.items():
            history = self.history[name]
            history.age[index.to(history.age.device)] = 0
            history.utility[index] = 0
            history.mean[index] = 0
            self.replaced += len(index)

    def state_dict(self) -> dict[str, Any]:
        """The histories."""
        return {"replaced": self.replaced, "history": self._tensors()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the histories of another process."""
        load_tensors("history", self._tensors(), state["history"])
        self.replaced = int(state["replaced"])

    def _tensors(self) -> dict[str, Tensor]:
        return {
            f"{name}.{key}": tensor for name, history in self.history.items() for key, tensor in vars(history).items()
        }

    def _choose(self, units: Units, history: UnitHistory, forward: _Forward) -> Int64[Tensor, " chosen"]:
        """Grow older by a step, and name the units that are due."""
        history.age += 1
        history.mean.lerp_(forward.mean / forward.forwards, 1 - self.decay)
        outgoing = sum(_size(consumer, units.count) for consumer in units.consumers)
        incoming = self._weight(units.module).flatten(1).abs().mean(1)
        # A unit without incoming weights is constant, but for rounding, which must not be divided by zero.
        incoming = incoming.clamp(min=LEAST_INCOMING * incoming.mean())
        contribution = outgoing * (forward.deviation / forward.forwards) / incoming
        history.utility.lerp_(contribution.to(history.utility.dtype), 1 - self.decay)
        # Ages are on the CPU: counting them does not wait for a GPU.
        old = history.age > self.maturity
        history.due += self.rate * float(old.sum())
        number = int(history.due)
        if number == 0:
            return torch.empty(0, dtype=torch.int64, device=history.utility.device)
        history.due -= number
        utility = history.utility / history.grown(self.decay)
        return utility.masked_fill(~old.to(utility.device), torch.inf).topk(number, largest=False).indices

    def _hand_over(self, units: Units, index: Int64[Tensor, " chosen"]) -> None:
        """Add the average contribution of units to the biases of those who read them.

        Not where something else than reshaping lies between: what they read is not what was averaged.
        """
        history = self.history[units.name]
        average = (history.mean / history.grown(self.decay))[index]
        for consumer in units.consumers:
            bias: Any = consumer.module.bias
            if consumer.direct and bias is not None:
                columns = self._weight(consumer.module)[:, consumer.inputs(index)]
                columns = columns.flatten(2).sum(2) if columns.ndim > 2 else columns
                bias += columns @ average.repeat_interleave(consumer.block).to(columns.dtype)


def _size(consumer: Consumer, units: int) -> Float[Tensor, " units"]:
    """Mean |w| from each unit to a reader."""
    weight: Any = consumer.module.weight
    by_input = weight.abs().flatten(2).mean(2).mean(0) if weight.ndim > 2 else weight.abs().mean(0)
    sizes: Tensor = by_input.view(units, consumer.block).mean(1)
    return sizes


def _new_history(units: Units) -> UnitHistory:
    weight: Any = units.module.weight
    zeros = torch.zeros(units.count, device=weight.device, dtype=torch.promote_types(weight.dtype, torch.float32))
    return UnitHistory(
        zeros, zeros.clone(), torch.zeros(units.count, dtype=torch.int64), torch.zeros((), dtype=torch.float64)
    )
