"""A run whose loss has come to nothing stops."""

from __future__ import annotations

import math

from holdfast.errors import HoldfastError


class TrainingError(HoldfastError):
    """A run that cannot go on."""


def check_loss(loss: float, steps: int) -> None:
    """Refuse to go on without a loss.

    Arguments:
        loss: of the last steps.
        steps: how many there were.

    Errors:
        TrainingError: it is no finite number.
    """
    if not math.isfinite(loss):
        raise TrainingError(f"the loss is {loss} after {steps} steps; try a smaller --lr")
