"""How many of its weights a solution needs: accuracy after one-shot pruning by magnitude, without retraining."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from holdfast.errors import ArgumentError
from holdfast.probes.solutions.continual import accuracy

FRACTIONS = (1.0, 0.5, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01)
"""Of the weights that are kept."""


@dataclass(frozen=True)
class Kept:
    """Accuracy with some weights alone.

    Arguments:
        fraction: of each layer's weights, the largest; the output layer keeps min(1, 2 × fraction).
        accuracy: with all others zero. Biases are kept.
    """

    fraction: float
    accuracy: float


def largest(weights: Float[Tensor, "*shape"], fraction: float) -> Float[Tensor, "*shape"]:
    """The largest weights by magnitude, at least one, and zeros for the others."""
    if not 0 < fraction <= 1:
        raise ArgumentError("fraction", "a share above 0 and up to 1", fraction)
    number = max(1, round(fraction * weights.numel()))
    flat = weights.detach().flatten()
    # Stable, so that among equal ones the first are kept on all machines.
    kept = flat.abs().sort(descending=True, stable=True).indices[:number]
    return torch.zeros_like(flat).index_copy(0, kept, flat[kept]).view_as(weights)


def pruning_curve(
    model: nn.Module,
    inputs: Any,
    targets: Tensor,
    weights: Mapping[str, Tensor],
    head: str,
    fractions: Sequence[float] = FRACTIONS,
) -> tuple[Kept, ...]:
    """Accuracy at each fraction of kept weights; the model's own weights stay.

    Arguments:
        model: any.
        inputs: of the examples.
        targets: classes.
        weights: that are pruned, each layer for itself, by name.
        head: which of them is the output layer's.
        fractions: to keep.

    Source: the setting of power-propagation's authors, arXiv 2110.00296.
    """
    curve = []
    for fraction in fractions:
        pruned = {
            name: largest(tensor, min(1.0, 2 * fraction) if name == head else fraction)
            for name, tensor in weights.items()
        }
        curve.append(Kept(fraction, accuracy(model, inputs, targets, pruned)))
    return tuple(curve)
