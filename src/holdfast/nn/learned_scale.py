"""The scale of each head of `SSMax` as a parameter of the layer that attends."""

from __future__ import annotations

import torch
from torch import nn

from holdfast.errors import ArgumentError
from holdfast.nn.normalisers import Normaliser, SSMax


class LearnedScale(nn.Module):
    """Keeps the logarithm of one scale a head, so that a scale stays positive, and gives the normaliser with them.

    Arguments:
        start: what the scales begin with.
        heads: how many there are.

    Errors:
        ArgumentError: `start` is for another number of heads, or is not `learned`.

    Source: arXiv 2501.19399, section 3, where s is learned for each head and layer.
    """

    def __init__(self, start: SSMax, heads: int) -> None:
        super().__init__()
        if not start.learned:
            raise ArgumentError("start", "SSMax(..., learned=True)", repr(start))
        if start.heads not in (None, heads):
            raise ArgumentError("normaliser", f"one scale, or one for each of {heads} heads", f"{start.heads} scales")
        self.start = start
        self.log_scale = nn.Parameter(torch.empty(heads))
        self.reset_parameters()

    def extra_repr(self) -> str:
        """How many heads there are."""
        return f"heads={len(self.log_scale)}"

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Scales as they began."""
        self.log_scale.copy_(self.beginning())

    def beginning(self) -> torch.Tensor:
        """Logarithms of the scales that it began with."""
        scale = torch.as_tensor(self.start.scale, dtype=torch.float64, device=self.log_scale.device)
        return scale.log().expand(len(self.log_scale)).to(self.log_scale.dtype)

    def forward(self) -> SSMax:
        """The normaliser with the scales as they are, in float32 or better."""
        scale = self.log_scale.to(torch.promote_types(self.log_scale.dtype, torch.float32)).exp()
        return SSMax(scale)


def learned_scale(normaliser: Normaliser, heads: int) -> LearnedScale | None:
    """What a layer of so many heads keeps for a normaliser; `None` where nothing of it is learned."""
    if isinstance(normaliser, SSMax) and normaliser.learned:
        return LearnedScale(normaliser, heads)
    return None
