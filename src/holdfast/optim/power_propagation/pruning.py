"""Prune by magnitude: masks, a schedule that prunes while training goes on, and masks for other tools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from holdfast.errors import ArgumentError, MissingExtraError, count_of
from holdfast.optim.baselines.parameters import named_parameters, trained_parameters
from holdfast.optim.power_propagation.optimizer import PowerProp
from holdfast.optim.power_propagation.selection import powered
from holdfast.optim.rewarming.hooks import PROJECT, StepPart
from holdfast.optim.rewarming.layers import Layer, output_layer


@torch.no_grad()
def magnitude_masks(
    model: nn.Module, kept: float | int, *, output: float | int | None = None, exclude: Iterable[str] | None = None
) -> dict[str, Tensor]:
    """Masks of the largest weights of each layer.

    Arguments:
        model: whose linear and convolutional weights are ranked, each layer's on its own.
        kept: share of a layer's weights that stays, rounded to a number of them, and never none.
        output: share of the output layer's; by default min(1, 2 · kept), as in arXiv 2110.00296.
        exclude: names of weights, or of modules around them, without a mask; `*` stands for anything.

    Returns:
        By the weight's name, true for what stays. Of equal weights at the edge, the first stay.

    Errors:
        ArgumentError: a share is not within (0, 1], or a weight is not finite.
    """
    output = min(1.0, 2 * kept) if output is None else output
    for argument, share in (("kept", kept), ("output", output)):
        if not 0 < share <= 1:
            raise ArgumentError(argument, "a share above 0 and up to 1", share)
    head = output_layer(model)
    of_head = set() if head is None else {id(parameter) for parameter in head.parameters()}
    layers, _ = powered(model, exclude)
    return {layer.name: _largest(layer, output if id(layer.parameter) in of_head else kept) for layer in layers}


@torch.no_grad()
def two_of_four_masks(model: nn.Module, *, exclude: Iterable[str] | None = None) -> dict[str, Tensor]:
    """Masks of the two largest of each four weights in a row, the pattern that GPUs multiply fast.

    Arguments:
        model: whose linear weights get one, where the inputs are a multiple of four.
        exclude: as in `magnitude_masks`.
    """
    masks = {}
    for layer in powered(model, exclude)[0]:
        weight = layer.parameter
        if weight.ndim == 2 and weight.shape[1] % 4 == 0:
            fours = weight.abs().reshape(-1, 4)
            mask = torch.zeros_like(fours, dtype=torch.bool)
            mask.scatter_(1, fours.topk(2, dim=1).indices, True)
            masks[layer.name] = mask.view_as(weight)
    return masks


@torch.no_grad()
def apply_masks_(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set what masks leave out to zero.

    Errors:
        ArgumentError: the model has no such parameter, or a shape differs; nothing has been changed then.
    """
    parameters = _checked(model, masks)
    for name, mask in masks.items():
        parameters[name].mul_(mask)


def export_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """Hand masks over to `torch.nn.utils.prune`, whose `remove` then makes them final.

    Arguments:
        model: changed in place.
        masks: by the parameters' names.

    Returns:
        The model, whose masked weights are now `weight_orig · weight_mask`.

    Errors:
        ArgumentError: the model has no such parameter, or a shape differs.
    """
    _checked(model, masks)
    modules = dict(model.named_modules())
    for name, mask in masks.items():
        module_name, _, key = name.rpartition(".")
        prune.custom_from_mask(modules[module_name], key, mask)
    return model


def pack_two_of_four_(model: nn.Module, masks: Mapping[str, Tensor] | None = None) -> nn.Module:
    """Hand weights of which two of four are zero over to torchao, which packs them for the GPU's sparse tensor cores.

    Arguments:
        model: on a GPU and changed in place: its packed weights are multiplied fast, and trained no more.
        masks: of linear layers, by their weights' names; by default those of `two_of_four_masks`.

    Returns:
        The model.

    Errors:
        ArgumentError: the model has no such weight, or it is no linear layer's; a mask leaves more than two of four;
            weights are not in float16 or bfloat16, not of 32 · n outputs and 64 · m inputs, or not on a GPU. Nothing
            has been changed then.
        MissingExtraError: torchao is not installed.

    Source: Mishra et al., "Accelerating sparse deep neural networks", arXiv 2104.08378 (the pattern).
    """
    masks = two_of_four_masks(model) if masks is None else masks
    parameters = _checked(model, masks)
    linear = {id(module.weight): module for module in model.modules() if isinstance(module, nn.Linear)}
    for name, mask in masks.items():
        weight = parameters[name]
        if id(weight) not in linear:
            raise ArgumentError("masks", "weights of linear layers", name)
        if weight.dtype not in (torch.float16, torch.bfloat16):
            raise ArgumentError("model", "weights in float16 or bfloat16", f"{name} in {weight.dtype}")
        if weight.shape[0] % 32 or weight.shape[1] % 64:
            shape = f"{name} of shape {tuple(weight.shape)}"
            raise ArgumentError("masks", "weights of 32 · n outputs and 64 · m inputs", shape)
        if bool(((mask != 0).reshape(-1, 4).sum(1) > 2).any()):
            raise ArgumentError("masks", "at most two of four", name)
    try:
        from torchao.sparsity import sparse_api
    except ModuleNotFoundError as error:
        raise MissingExtraError("torchao is not installed: install it with  pip install torchao") from error
    for name in masks:
        if not parameters[name].is_cuda:
            raise ArgumentError("model", "weights on a GPU", f"{name} on {parameters[name].device}")
    apply_masks_(model, masks)
    chosen = {linear[id(parameters[name])] for name in masks}
    sparse_api.sparsify_(model, sparse_api.SemiSparseWeightConfig(), lambda module, _: module in chosen)
    return model


class GradualPruning(StepPart):
    """Prune more and more while training goes on: kept(t) = k + (1 − k)(1 − (t − begin)/(end − begin))³.

    What is pruned stays so. A `PowerProp` gets the masks; with any other optimiser the weights are multiplied by them
    after each step.

    Arguments:
        model: see `magnitude_masks`.
        optimizer: of torch, or a wrapper with one as `.optimizer`.
        kept: k, the share of each layer's weights that is left at the end; twice that of the output layer's.
        begin: step after which the first weights go.
        end: step after which `kept` is reached.
        every: steps between two prunings.
        exclude: see `magnitude_masks`.

    Errors:
        ArgumentError: `kept` is not within (0, 1], or `end` is not behind `begin`.

    Source: Zhu & Gupta, "To prune, or not to prune", arXiv 1710.01878, equation 1.
    """

    rank = PROJECT

    def __init__(
        self,
        model: nn.Module,
        optimizer: object,
        *,
        kept: float | int,
        begin: int,
        end: int,
        every: int = 100,
        exclude: Iterable[str] | None = None,
    ) -> None:
        if not 0 < kept <= 1:
            raise ArgumentError("kept", "a share above 0 and up to 1", kept)
        count_of("begin", begin)
        count_of("end", end, begin + 1)
        count_of("every", every, 1)
        trained_parameters(model, optimizer)
        self.model, self.kept, self.begin, self.end, self.every = model, kept, begin, end, every
        self.exclude = None if exclude is None else tuple(exclude)
        self.step = 0
        self.masks: dict[str, Tensor] = {}
        """True for what is not pruned yet, by name."""
        super().__init__(optimizer)

    def share(self, step: int) -> float:
        """What is kept of a layer after a step."""
        left = 1 - (min(max(step, self.begin), self.end) - self.begin) / (self.end - self.begin)
        return self.kept + (1 - self.kept) * left**3

    @torch.no_grad()
    def after_step(self) -> None:
        """Prune if it is time."""
        self.step += 1
        due = self.step == self.end or (self.step - self.begin) % self.every == 0
        if self.begin <= self.step <= self.end and due:
            # Pruned weights are zero, the smallest there are: they stay pruned.
            self.masks = magnitude_masks(self.model, self.share(self.step), exclude=self.exclude)
            if isinstance(self.optimizer, PowerProp):
                self.optimizer.set_masks({n: mask for n, mask in self.masks.items() if n in self.optimizer.weights})
        if not isinstance(self.optimizer, PowerProp):
            apply_masks_(self.model, self.masks)

    def state_dict(self) -> dict[str, Any]:
        """Step and masks."""
        return {"step": self.step, "masks": dict(self.masks)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what began in another process."""
        parameters = _checked(self.model, state["masks"])
        self.masks = {name: mask.to(parameters[name].device) for name, mask in state["masks"].items()}
        self.step = count_of("step", state["step"])


def _largest(layer: Layer, kept: float | int) -> Tensor:
    magnitude = layer.parameter.abs().flatten()
    if not bool(magnitude.isfinite().all()):
        raise ArgumentError("model", "finite weights", layer.name)
    number = max(1, round(kept * magnitude.numel()))
    mask = torch.zeros_like(magnitude, dtype=torch.bool)
    mask[magnitude.argsort(descending=True, stable=True)[:number]] = True
    return mask.view_as(layer.parameter)


def _checked(model: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, nn.Parameter]:
    parameters = named_parameters(model)
    for name, mask in masks.items():
        if name not in parameters:
            raise ArgumentError("masks", "names of parameters of the model", name)
        if mask.shape != parameters[name].shape:
            raise ArgumentError("masks", f"{name} of shape {tuple(parameters[name].shape)}", f"{tuple(mask.shape)}")
    return parameters
