"""What processes that train together agree on: the first one's number, and its decision."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed
from torch import Tensor


def agree(
    value: float, decide: Callable[[float], bool] | None, device: torch.device, *, everywhere: bool
) -> tuple[float, bool]:
    """The first process's value and decision, in every process.

    Without processes that train together, simply this one's.

    Arguments:
        value: of this process.
        decide: about a value; only the answer of the first process counts.
        device: on which tensors are sent.
        everywhere: let the other processes decide about the first one's value too, though their answer does not count,
            so that what `decide` remembers is the same in all.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value, decide is not None and decide(value)
    first = torch.distributed.get_rank() == 0
    decision = first and decide is not None and decide(value)
    message: Tensor = torch.tensor([value, float(decision)], dtype=torch.float64, device=device)
    torch.distributed.broadcast(message, src=0)
    value, answer = message.tolist()
    if not first and everywhere and decide is not None:
        decide(value)
    return value, bool(answer)
