"""Units of a network, listened to while it trains and replaced by fresh ones: the ground of ReDo and its kin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from holdfast.errors import ArgumentError
from holdfast.optim.baselines.moments import reset_moments_of
from holdfast.optim.baselines.units import Units, replaceable_units
from holdfast.optim.rewarming.hooks import StepPart


class UnitPart(StepPart):
    """Listens to hidden units while a network trains, and replaces some of them.

    Only forwards in training mode with gradients are listened to: not an evaluation between steps, nor the targets of
    a Q-network.

    A subclass fills in `hear` and `after_step`.

    Arguments:
        model: whose forward `torch.fx` can trace, on one process.
        optimizer: that trains it.
        initialize: given a layer, gives it fresh weights, as in `model.apply(initialize)`; `None`: the layer's own
            `reset_parameters`.

    Errors:
        ArgumentError: the model cannot be traced, has no units that can be replaced, or is trained by several
            processes, whose units would drift apart.
    """

    def __init__(
        self, model: nn.Module, optimizer: object, initialize: Callable[[nn.Module], object] | None = None
    ) -> None:
        distributed = torch.distributed
        if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
            raise ArgumentError("model", "one that a single process trains", f"{distributed.get_world_size()} of them")
        self.units, self.left_out = replaceable_units(model)
        self.listening = True
        self._initialize = initialize
        self._heard = False
        self._handles: list[RemovableHandle] = []
        super().__init__(optimizer)

    def hear(self, units: Units, activations: Float[Tensor, "places units"]) -> None:
        """Called with the activations of each forward while `listening`."""
        raise NotImplementedError

    def after_step(self) -> None:
        """See that something was heard at all.

        Errors:
            ArgumentError: nothing was, before the first step: the model is compiled, or not in training mode.
        """
        if not self._heard:
            raise ArgumentError("model", "one that runs in training mode, not compiled, before a step", "no such run")

    def attach(self) -> None:
        """Act from now on; nothing happens if it does already."""
        super().attach()
        if self._handles:
            return
        for units in self.units:
            place = units.listening
            ear = _Ear(self, units)
            if place.at_input:
                self._handles.append(place.module.register_forward_pre_hook(ear))
            else:
                self._handles.append(place.module.register_forward_hook(ear))

    def remove(self) -> None:
        """Act no longer; `attach` undoes it."""
        super().remove()
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __getstate__(self) -> dict[str, Any]:
        """Without handles: a copied model has ears that are deaf, and gets new ones with its copy of this."""
        return {**super().__getstate__(), "_handles": []}

    @torch.no_grad()
    def replace(self, chosen: dict[str, Int64[Tensor, " chosen"]]) -> None:
        """Give units fresh incoming weights and none to their readers, and forget the moments of both.

        The network's function changes by what the units contributed. Scales, offsets and running statistics of norms in
        between begin anew as well.

        Arguments:
            chosen: units by the name of their layer.
        """
        picked = [(units, chosen[units.name]) for units in self.units if len(chosen.get(units.name, ()))]
        # Readers first: a fresh unit reads other fresh ones.
        for units, index in picked:
            for consumer in units.consumers:
                inputs = consumer.inputs(index)
                self._weight(consumer.module).index_fill_(1, inputs, 0.0)
                reset_moments_of(self.optimizer, self._weight(consumer.module), 1, inputs)
            for norm in units.norms:
                self._renew(norm, index)
        for units, index in picked:
            self._refresh(units.module, index)

    def _refresh(self, layer: nn.Module, index: Int64[Tensor, " chosen"]) -> None:
        """Fresh rows, from the distribution that all were drawn from."""
        parameters = list(layer.parameters(recurse=False))
        kept = [parameter.detach().clone() for parameter in parameters]
        (self._initialize or _reset_parameters)(layer)
        for parameter, old in zip(parameters, kept, strict=True):
            fresh = parameter.detach()[index].clone()
            parameter.copy_(old)
            parameter.index_copy_(0, index, fresh)
            reset_moments_of(self.optimizer, parameter, 0, index)

    def _renew(self, norm: nn.Module, index: Int64[Tensor, " chosen"]) -> None:
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            tensor = getattr(norm, name, None)
            if tensor is not None:
                tensor.index_fill_(0, index, value)
                reset_moments_of(self.optimizer, tensor, 0, index)

    @staticmethod
    def _weight(module: nn.Module) -> Tensor:
        weight = module.weight
        assert isinstance(weight, Tensor)
        return weight


class _Ear:
    """A hook that passes activations on. A copy is deaf, so that a copied model does not drag a part along."""

    def __init__(self, part: UnitPart | None = None, units: Units | None = None) -> None:
        self.part, self.units = part, units

    def __call__(self, module: nn.Module, given: tuple[Any, ...], made: Any = None) -> None:
        part, units = self.part, self.units
        if part is None or units is None or not part.listening or not module.training or not torch.is_grad_enabled():
            return
        part._heard = True
        with torch.no_grad():
            part.hear(units, units.of((given[0] if units.listening.at_input else made).detach()))

    def __deepcopy__(self, memo: Any) -> _Ear:
        return _Ear()

    def __reduce__(self) -> tuple[type[_Ear], tuple[()]]:
        return _Ear, ()


def _reset_parameters(layer: nn.Module) -> None:
    layer.reset_parameters()  # type: ignore[operator]
