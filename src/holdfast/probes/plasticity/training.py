"""How the networks of the probe are trained: as the user's own, with fresh moments and a constant learning rate."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from holdfast.errors import ArgumentError
from holdfast.optim.baselines.parameters import named_parameters
from holdfast.optim.rewarming.hooks import attached, real_optimizer
from holdfast.optim.rewarming.projection import ProjectionWarning, Projector

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]
Project = Callable[[nn.Module, Optimizer], object]
"""Attaches a `Projector`."""

PEAKS = ("max_lr", "initial_lr", "lr")
"""Where the peak rate of a group may be, as the largest of them: what schedulers of torch note, and the rate now."""

SCHEDULED = ("initial_lr", "max_lr", "min_lr", "initial_momentum", "max_momentum", "base_momentum", "swa_lr")
"""What schedulers add to a group, and a fresh optimiser has no use for."""

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": partial(torch.optim.SGD, momentum=0.9),
    "rmsprop": torch.optim.RMSprop,
}
"""Those that have a name."""


def optimizer_named(name: str, peak: float, *, weight_decay: float = 0.0) -> MakeOptimizer:
    """From parameters to an optimiser at the peak rate.

    Arguments:
        name: one of `OPTIMIZERS`.
        peak: learning rate.
        weight_decay: of the optimiser.

    Errors:
        ArgumentError: there is none of that name, or it takes no such rate or decay.
    """
    if name not in OPTIMIZERS:
        raise ArgumentError("optimizer", f"one of {', '.join(OPTIMIZERS)}", name)
    make = partial(OPTIMIZERS[name], lr=peak, weight_decay=weight_decay)
    try:
        make([nn.Parameter(torch.zeros(1))])
    except (ValueError, TypeError) as error:
        raise ArgumentError("peak", "a learning rate, and a weight decay that is not negative", str(error)) from error
    return make


class Training:
    """Makes optimisers that are alike for networks that are alike.

    Arguments:
        model: the user's.
        optimizer: the user's, with or without state; or a function from parameters to one at the peak rate.
        peak: learning rate of the first group with one; `None`: that of the optimiser.
        current: the one that training has come to; `None`: that of the user's optimiser, or the peak rate.
        projector: attaches a projector to a network's optimiser; `None`: as the user's optimiser has one or not.

    Errors:
        ArgumentError: the optimiser holds parameters that the model lacks, or a rate is not positive.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | MakeOptimizer,
        *,
        peak: float | None,
        current: float | None,
        projector: Project | None,
    ) -> None:
        self._make: Callable[[nn.Module], Optimizer]
        self._project = projector
        if callable(optimizer) and not hasattr(optimizer, "param_groups"):
            make: MakeOptimizer = optimizer
            self._make = lambda network: _made(make, network)
            own_peak = _rate(self._make(model), "lr")
            own_current = own_peak if peak is None else peak
        else:
            inner = real_optimizer(optimizer)
            groups = _groups(model, inner)
            self._make = lambda network: _rebuilt(type(inner), groups, network)
            own_peak, own_current = max(_rate(inner, name) for name in PEAKS), _rate(inner, "lr")
            if projector is None:
                self._project = _same_projector(inner)
        self._own_peak = own_peak
        self.peak = own_peak if peak is None else peak
        self.current = own_current if current is None else current
        for name, rate in (("optimizer", own_peak), ("peak", self.peak), ("current", self.current)):
            if not rate > 0:
                raise ArgumentError(name, "a learning rate above 0", rate)

    @property
    def projected(self) -> bool:
        """Whether norms are held."""
        return self._project is not None

    def optimizer(self, network: nn.Module, rate: float) -> Optimizer:
        """A fresh optimiser of a network.

        Arguments:
            network: like the user's model.
            rate: learning rate of the first group; those of others keep their proportion to it.
        """
        optimizer = self._make(network)
        for group in optimizer.param_groups:
            group["lr"] = float(group["lr"]) * rate / self._own_peak
        if self._project is not None:
            with warnings.catch_warnings():
                # The user has seen them at their own training.
                warnings.simplefilter("ignore", ProjectionWarning)
                self._project(network, optimizer)
        return optimizer


def _made(make: MakeOptimizer, network: nn.Module) -> Optimizer:
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer: object = make(trained)
    if not isinstance(optimizer, Optimizer):
        raise ArgumentError("optimizer", "a function that returns a torch.optim.Optimizer", type(optimizer).__name__)
    return optimizer


def _rate(optimizer: Optimizer, name: str) -> float:
    """Of the first group that learns."""
    rates = [float(group.get(name, 0.0)) for group in optimizer.param_groups]
    return next((rate for rate in rates if rate > 0), 0.0)


def _groups(model: nn.Module, optimizer: Optimizer) -> list[tuple[dict[str, Any], list[str]]]:
    """Settings of each group at the peak rate, and names of its parameters."""
    names = {id(parameter): name for name, parameter in named_parameters(model).items()}
    groups = []
    for group in optimizer.param_groups:
        missing = [tuple(parameter.shape) for parameter in group["params"] if id(parameter) not in names]
        if missing:
            raise ArgumentError(
                "optimizer", "one that holds parameters of the model alone", f"one of shape {missing[0]}"
            )
        settings = {key: value for key, value in group.items() if key not in ("params", *SCHEDULED)}
        settings["lr"] = max(float(group.get(name, 0.0)) for name in PEAKS)
        groups.append((settings, [names[id(parameter)] for parameter in group["params"]]))
    return groups


def _rebuilt(kind: type[Optimizer], groups: list[tuple[dict[str, Any], list[str]]], network: nn.Module) -> Optimizer:
    parameters = named_parameters(network)
    described = [{**settings, "params": [parameters[name] for name in names]} for settings, names in groups]
    try:
        return kind(described)  # type: ignore[call-arg]
    except TypeError as error:
        expected = "a function from parameters to an optimiser, for one that is built from more than groups"
        raise ArgumentError("optimizer", expected, f"{kind.__name__} ({error})") from error


def _same_projector(optimizer: Optimizer) -> Project | None:
    """One that holds the same layers as the user's; they are at their norms already."""
    own = next((part for part in attached(optimizer) if isinstance(part, Projector)), None)
    if own is None:
        return None
    held, left, every = list(own.targets), list(own.excluded), own.every
    return lambda network, fresh: Projector(network, fresh, every=every, include=held, exclude=left)
