"""What several parts measure of a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def norms(model: nn.Module) -> float:
    """Sum of the Frobenius norms of a network's matrices."""
    return sum(float(tensor.detach().norm()) for tensor in model.parameters() if tensor.ndim > 1)


@torch.no_grad()
def dead_units(model: nn.Sequential, inputs: Tensor) -> float:
    """Share of ReLU units, over all layers alike, that are active for no input."""
    from holdfast.probes.plasticity import dead_ratio

    shares, values = list[float](), inputs
    for module in model:
        values = module(values)
        if isinstance(module, nn.ReLU):
            shares.append(dead_ratio((values > 0).unsqueeze(1)))
    return sum(shares) / len(shares)
