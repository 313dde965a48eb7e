"""What an optimiser remembers of a parameter, forgotten: all of it, or that of a few units."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch.optim import Optimizer

from holdfast.errors import ArgumentError
from holdfast.optim.rewarming.hooks import real_optimizer


def reset_moments(optimizer: object, parameters: Iterable[Tensor] | nn.Module | None = None) -> None:
    """Forget moments and step counts, so that the next step is as the first one of a new optimiser.

    Learning rates and all other settings stay as they are.

    Arguments:
        optimizer: any of torch, or a wrapper of one.
        parameters: whose moments are forgotten: some, or those of a module; `None` for all.

    Errors:
        ArgumentError: a parameter is not the optimiser's.

    Source: Asadi et al., "Resetting the optimizer in deep RL", arXiv 2306.17833.
    """
    inner = real_optimizer(optimizer)
    groups = _groups(inner)
    if isinstance(parameters, nn.Module):
        parameters = parameters.parameters()
    elif isinstance(parameters, Tensor):
        parameters = [parameters]
    for parameter in list(groups) if parameters is None else parameters:
        if parameter not in groups:
            raise ArgumentError("parameters", "parameters of the optimizer", f"one of shape {tuple(parameter.shape)}")
        state = inner.state.get(parameter)
        if state is None:
            continue
        if isinstance(inner, torch.optim.Adagrad):
            # It makes its state when it is built, and only then.
            state["sum"].fill_(groups[parameter]["initial_accumulator_value"])
            state["step"].zero_()
        else:
            del inner.state[parameter]


def reset_moments_of(optimizer: Optimizer, parameter: Tensor, dim: int, index: Int64[Tensor, " chosen"]) -> None:
    """Forget the moments of some rows or columns of a parameter.

    What is found is found by the parameter itself, whatever its place in the optimiser. Every tensor of its state that
    has its shape is put back there to what a new optimiser begins with; what is kept for the parameter as a whole, such
    as the count of steps, stays.

    Arguments:
        optimizer: that changes it; nothing happens for a parameter that has no state yet.
        parameter: of a layer.
        dim: in which the units are.
        index: of the units, or of what belongs to them.
    """
    state: dict[str, Any] = optimizer.state.get(parameter, {})
    if not state:
        return
    group = _groups(optimizer)[parameter]
    beginnings = {"sum": group.get("initial_accumulator_value", 0.0), "step_size": group["lr"]}
    for name, tensor in state.items():
        if isinstance(tensor, Tensor) and tensor.shape == parameter.shape:
            tensor.index_fill_(dim, index.to(tensor.device), float(beginnings.get(name, 0.0)))


def _groups(optimizer: Optimizer) -> dict[Tensor, dict[str, Any]]:
    """The group of each parameter. A tensor is its own key: it hashes by identity."""
    return {parameter: group for group in optimizer.param_groups for parameter in group["params"]}
