"""What an optimiser needs that has another one inside: other tensors for the time of a step, and whole copies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.optim import Optimizer


@contextmanager
def standing_in(optimizer: Optimizer, stand_ins: Mapping[Tensor, Tensor]) -> Iterator[None]:
    """Within, an optimiser's groups and its state hold stand-ins in the place of parameters.

    The parameters and their gradients are not touched, and outside everything is filed under them again, whatever
    happens within: a step, or a `load_state_dict`, which then casts the state to the type of the stand-ins.

    Arguments:
        optimizer: of torch.
        stand_ins: by parameter; parameters that are not there stand for themselves.
    """
    _replace(optimizer, stand_ins)
    try:
        yield
    finally:
        _replace(optimizer, {stand_in: parameter for parameter, stand_in in stand_ins.items()})


def attributes(optimizer: Optimizer) -> dict[str, Any]:
    """What an optimiser keeps beside groups, state and hooks, which torch leaves out of copies and pickles."""
    known = ("defaults", "state", "param_groups", "step")
    return {k: v for k, v in vars(optimizer).items() if k not in known and not k.startswith("_")}


def copied(optimizer: Optimizer) -> dict[str, Any]:
    """What a wrapper of optimisers takes along into copies and pickles: all but hooks, as any optimiser of torch.

    Nor does it take a `step` of its own along, which is a scheduler's or Accelerate's, around this optimiser's step.
    """
    return {k: v for k, v in vars(optimizer).items() if k != "step" and not k.startswith("_optimizer_")}


def _replace(optimizer: Optimizer, others: Mapping[Tensor, Tensor]) -> None:
    for group in optimizer.param_groups:
        group["params"] = [others.get(tensor, tensor) for tensor in group["params"]]
    for tensor in list(optimizer.state):
        if tensor in others:
            optimizer.state[others[tensor]] = optimizer.state.pop(tensor)
