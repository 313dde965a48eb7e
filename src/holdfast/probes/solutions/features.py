"""What the output layer of a network is given, and what the network makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from holdfast.errors import ArgumentError
from holdfast.optim.rewarming.layers import named_modules, output_layer
from holdfast.probes.plasticity.activations import call
from holdfast.probes.plasticity.learning_speed import tensor_of
from holdfast.probes.report import evaluating, random_state_kept
from holdfast.probes.solutions.continual import rows

ROWS = 4096
"""Of features, at most."""


@dataclass(frozen=True, eq=False)
class HeadRecord:
    """One run of a network on a batch, on the CPU, a row for each target that counts.

    Arguments:
        features: what the output layer was given, H; in an MLP the outputs of its last hidden layer.
        logits: what it made of it.
        targets: classes.
    """

    features: Float[Tensor, "rows features"]
    logits: Float[Tensor, "rows classes"]
    targets: Int64[Tensor, " rows"]


def head_of(model: nn.Module, name: str | None = None) -> nn.Linear:
    """The output layer.

    Arguments:
        model: any.
        name: of the layer; `None`: the last linear layer that a forward calls.

    Errors:
        ArgumentError: there is none of that name, or it is not linear.
    """
    found = output_layer(model) if name is None else dict(named_modules(model)).get(name)
    if not isinstance(found, nn.Linear):
        raise ArgumentError("head", "the name of a linear output layer of the model", name or type(found).__name__)
    return found


def record_head(model: nn.Module, head: nn.Linear, inputs: Any, targets: Tensor, *, seed: int) -> HeadRecord:
    """Run a network on a batch in evaluation mode; modes, hooks, gradients and random states are as before.

    Arguments:
        model: any.
        head: its output layer.
        inputs: a tensor, a tuple of arguments or a dict of them.
        targets: classes; negative ones do not count.
        seed: of which rows are taken if there are more than 4096.

    Errors:
        ArgumentError: the output layer is not called just once, or what it puts out is not what the model puts out.
    """
    given: list[Tensor] = []
    made: list[Tensor] = []

    def hook(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        given.append(arguments[0].detach().clone())
        made.append(output.detach())

    handle = head.register_forward_hook(hook, prepend=True)
    try:
        with random_state_kept(), evaluating(model), torch.no_grad():
            output = tensor_of(call(model, inputs)).detach()
    finally:
        handle.remove()
    if len(given) != 1 or output.shape != made[0].shape:
        found = f"{len(given)} calls" if len(given) != 1 else f"outputs {tuple(made[0].shape)} of {tuple(output.shape)}"
        raise ArgumentError("head", "a layer that is called once and whose outputs are the logits", found)
    logits, classes = rows(output, targets)
    features, _ = rows(given[0], targets)
    if not len(classes):
        raise ArgumentError("targets", "at least one class", "none")
    if int(classes.max()) >= logits.shape[1]:
        raise ArgumentError("targets", f"classes below {logits.shape[1]}", int(classes.max()))
    places = torch.arange(len(classes))
    if len(classes) > ROWS:
        drawn = torch.randperm(len(classes), generator=torch.Generator().manual_seed(seed))
        places = drawn[:ROWS].sort().values
    return HeadRecord(features.cpu().double()[places], logits.cpu().double()[places], classes.cpu().long()[places])
