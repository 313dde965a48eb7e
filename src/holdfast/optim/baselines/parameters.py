"""The parameters that an optimiser changes, by their names in a model; and tensors kept under these names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from holdfast.errors import ArgumentError
from holdfast.optim.rewarming.hooks import real_optimizer
from holdfast.optim.rewarming.layers import named_modules


def named_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Of a model, each tensor once, by names without what `torch.compile` and the like put before them."""
    names: dict[int, tuple[str, nn.Parameter]] = {}
    for module_name, module in named_modules(model):
        for key, parameter in module.named_parameters(recurse=False):
            names.setdefault(id(parameter), (f"{module_name}.{key}" if module_name else key, parameter))
    return dict(names.values())


def trained_parameters(model: nn.Module, optimizer: object) -> dict[str, nn.Parameter]:
    """Those of a model that an optimiser changes.

    Errors:
        ArgumentError: there is none.
    """
    changed = changed_by(real_optimizer(optimizer))
    trained = {name: parameter for name, parameter in named_parameters(model).items() if id(parameter) in changed}
    if not trained:
        raise ArgumentError("optimizer", "one that changes parameters of the model", "none of them")
    return trained


def changed_by(optimizer: Optimizer) -> set[int]:
    """Ids of an optimiser's parameters, those of groups that were added later too."""
    return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}


@torch.no_grad()
def load_tensors(argument: str, kept: Mapping[str, Tensor], saved: Any) -> None:
    """Copy saved tensors into those that are kept under the same names.

    Arguments:
        argument: what errors call `saved`.
        kept: written to.
        saved: names and tensors.

    Errors:
        ArgumentError: names are missing or unexpected, or a shape differs; nothing has been copied then.
    """
    if not isinstance(saved, Mapping):
        raise ArgumentError(argument, "tensors by name", type(saved).__name__)
    missing, unexpected = sorted(set(kept) - set(saved)), sorted(set(saved) - set(kept))
    if missing or unexpected:
        found = f"missing: {', '.join(missing) or 'none'}; unexpected: {', '.join(unexpected) or 'none'}"
        raise ArgumentError(argument, "tensors of the model's parameters", found)
    for name, tensor in kept.items():
        if saved[name].shape != tensor.shape:
            shape = tuple(saved[name].shape)
            raise ArgumentError(argument, f"{name} of shape {tuple(tensor.shape)}", f"shape {shape}")
    for name, tensor in kept.items():
        tensor.copy_(saved[name])
