"""Groups of parameters that a schedule can give rates of their own, layer by layer (arXiv 2507.20057, section 5.2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from holdfast.errors import ArgumentError
from holdfast.optim.rewarming.layers import layers_of, named_modules, output_layer

LayerMode = Literal["constant", "fast_features", "slow_features", "even_ratio"]
SLOWER = 0.1
"""Rate of the output layer with fast features, and of all others with slow features, as a share."""


def layer_groups(
    model: nn.Module,
    groups: Iterable[Mapping[str, Any]] | None = None,
    *,
    head: str | None = None,
    **defaults: Any,
) -> list[dict[str, Any]]:
    """Groups of parameters for an optimiser, one for each layer.

    A layer is a linear, convolutional or embedding module, with its bias; the scales and offsets of norms, and whatever
    else is left, are one more group.

    Arguments:
        model: any.
        groups: groups that exist, such as those of `scale_decay_groups`: each is divided, and keeps its settings.
        head: name of the output layer, as in `model.named_modules()`; by default the last that a forward calls.
        defaults: further settings of every group, such as `weight_decay`.

    Returns:
        Groups with, beside `params`, the keys `layer` (name of the module, empty for what is left) and `head` (whether
        it is the output layer). A tensor that the output layer shares with another belongs to the output layer.

    Errors:
        ArgumentError: `head` names no module; `groups` has tensors that are not the model's.
    """
    modules = dict(named_modules(model))
    if head is not None and head not in modules:
        raise ArgumentError("head", "the name of a module of the model", head)
    last = output_layer(model) if head is None else modules[head]
    of_head = set() if last is None else {id(parameter) for parameter in last.parameters()}
    with_layer = {id(layer.module): layer.module_name for layer in layers_of(model)}
    owner: dict[int, str] = {}
    for module in modules.values():
        for parameter in module.parameters(recurse=False):
            owner.setdefault(id(parameter), with_layer.get(id(module), ""))
        if id(module) in with_layer:  # a layer's parts: parametrised weights, the projection of an attention
            for parameter in module.parameters():
                owner[id(parameter)] = owner.get(id(parameter)) or with_layer[id(module)]
    divided: list[dict[str, Any]] = []
    given = [{"params": list(model.parameters())}] if groups is None else groups
    for settings in given:
        parts: dict[tuple[str, bool], list[Tensor]] = {}
        for parameter in settings["params"]:
            if id(parameter) not in owner:
                raise ArgumentError("groups", "parameters of the model", f"a tensor of shape {tuple(parameter.shape)}")
            parts.setdefault((owner[id(parameter)], id(parameter) in of_head), []).append(parameter)
        divided += [
            {**defaults, **settings, "params": parameters, "layer": layer, "head": is_head}
            for (layer, is_head), parameters in parts.items()
        ]
    return divided


def multipliers(
    groups: list[dict[str, Any]], mode: LayerMode, scale: float | None = None
) -> tuple[list[float], float | None]:
    """By what the rate of each group is multiplied.

    Arguments:
        groups: of an optimiser. `fast_features` and `slow_features` need one or more whose key `head` is true.
        mode: `constant`: 1. `fast_features`: 0.1 for the output layer. `slow_features`: 0.1 for all others.
            `even_ratio`: in proportion to the mean absolute weight, so that the same relative change is due to each
            layer, with a mean of 1 over the layers; a group without a tensor of two dimensions or more, or whose
            weights are all 0, has 1.
        scale: mean absolute weight that stands for 1; by default the mean over the groups.

    Returns:
        The multipliers, and the scale (`None` but for `even_ratio`).

    Errors:
        ArgumentError: an unknown mode, or no group is the output layer where one is needed.
    """
    if mode not in get_args(LayerMode):
        raise ArgumentError("layers", f"one of {', '.join(get_args(LayerMode))}", mode)
    if mode == "constant":
        return [1.0] * len(groups), None
    if mode == "even_ratio":
        sizes = [_mean_absolute(group["params"]) for group in groups]
        weights = [size for size in sizes if size > 0]
        if scale is None:
            scale = sum(weights) / len(weights) if weights else 1.0
        return [size / scale if size > 0 else 1.0 for size in sizes], scale
    heads = [bool(group.get("head", False)) for group in groups]
    if not any(heads):
        raise ArgumentError("layers", "groups with a key `head`, as layer_groups makes them", f"{mode} without one")
    return [SLOWER if is_head == (mode == "fast_features") else 1.0 for is_head in heads], None


def _mean_absolute(parameters: Iterable[Tensor]) -> float:
    """Mean |w| over all entries of matrices and larger tensors; 0 if there are none."""
    total, count = 0.0, 0
    with torch.no_grad():
        for weight in _matrices(parameters):
            amount = weight.abs().sum(dtype=torch.float64 if weight.device.type != "mps" else torch.float32)
            whole = amount.full_tensor() if hasattr(amount, "full_tensor") else amount  # of all shards of a DTensor
            total, count = total + float(whole), count + weight.numel()
    return total / count if count else 0.0


def _matrices(parameters: Iterable[Tensor]) -> Iterator[Tensor]:
    return (parameter.detach() for parameter in parameters if parameter.ndim >= 2)
