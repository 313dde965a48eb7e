"""The optimisers that are compared, each made for a whole model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


@dataclass(frozen=True, kw_only=True)
class Arm:
    """How a network is trained, and which.

    Arguments:
        label: in figures.
        method: `sgd`, `adamw`, `adagrad`, `shampoo`, `soap` or `muon`.
        graft: of Shampoo: whose length its steps have, so that only their direction is its own.
        beta: decay of the statistics' memory, where it is not the method's own.
        bias: whether layers have biases.
        standard: whether layers are initialised as torch does by default.
        bias_rate: share of the learning rate that biases get.
        reset: whether the optimiser is made anew at each task, and forgets.
        length: how many times the steps each task has.
    """

    label: str
    method: str = "sgd"
    graft: str = "sgd"
    beta: float | None = None
    bias: bool = False
    standard: bool = False
    bias_rate: float = 1.0
    reset: bool = False
    length: int = 1


def make(arm: Arm, model: nn.Module, rate: float) -> Optimizer:
    """The optimiser of an arm; no decay, but for AdamW its default.

    Arguments:
        arm: what kind.
        model: all whose parameters it has.
        rate: learning rate. In `shampoo`, biases get that of SGD, and so does everything but matrices.
    """
    import torch

    from holdfast.optim import second_order

    parameters: list[dict[str, Any]] = [
        {"params": [tensor for tensor in model.parameters() if tensor.ndim > 1]},
        {"params": [tensor for tensor in model.parameters() if tensor.ndim == 1], "lr": rate * arm.bias_rate},
    ]
    parameters = [group for group in parameters if group["params"]]
    if arm.method == "sgd":
        return torch.optim.SGD(parameters, lr=rate)
    if arm.method == "adamw":
        return torch.optim.AdamW(parameters, lr=rate)
    if arm.method == "adagrad":
        return torch.optim.Adagrad(parameters, lr=rate)
    if arm.method == "shampoo":
        graft: Any = arm.graft
        rest = None if graft != "sgd" else lambda vectors: torch.optim.SGD(vectors, lr=rate * arm.bias_rate)
        return second_order("shampoo", model, lr=rate, beta=arm.beta, graft=graft, rest=rest)
    method: Any = arm.method
    return second_order(method, model, lr=rate, beta=arm.beta, head=True)
