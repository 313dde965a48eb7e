"""A causal convolution of each channel, which continues from the last inputs."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from holdfast.nn.xlstm.call import in_dtype

FEW = 16
"""Tokens up to which fewer operations count for more than memory."""


class CausalConvolution(nn.Module):
    """y_t = bias + sum over s of weight_s x_{t - width + 1 + s}, channel by channel.

    Arguments:
        dim: number of channels.
        width: tokens that an output depends on.
    """

    def __init__(self, dim: int, width: int = 4) -> None:
        super().__init__()
        self.width = width
        self.weight = nn.Parameter(torch.empty(dim, 1, width))
        self.bias = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform up to the inverse root of the width, as `torch.nn.Conv1d` begins."""
        bound = self.width**-0.5
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(
        self,
        x: Float[Tensor, "batch time dim"],
        tail: Float[Tensor, "batch before dim"],
        lengths: Int[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch time dim"], Float[Tensor, "batch before dim"]]:
        """Convolve all tokens, or go on.

        Arguments:
            x: the input.
            tail: the last `width - 1` inputs before it, zero where there are fewer.
            lengths: tokens of each row; `None`: all.

        Returns:
            The output, in the dtype of `x`, and the last inputs after it, in that of `tail`.
        """
        joined = torch.cat([in_dtype(tail, x.dtype), x], 1)
        output = self._convolved(joined)
        if lengths is None:
            last = joined[:, x.shape[1] :].clone()  # so that the state does not hold all of the input
        else:
            place = lengths[:, None] + torch.arange(self.width - 1, device=x.device)
            last = joined.gather(1, place[:, :, None].expand(-1, -1, x.shape[2]))
        return output, in_dtype(last, tail.dtype)

    def _convolved(self, x: Float[Tensor, "batch joined dim"]) -> Float[Tensor, "batch time dim"]:
        """Sums of products, which on a processor are faster than a library's convolution at any length."""
        weight, bias = in_dtype(self.weight, x.dtype).squeeze(1), in_dtype(self.bias, x.dtype)
        batch, time = x.shape[0], x.shape[1] - self.width + 1
        if batch * time <= FEW:
            return (x.unfold(1, self.width, 1) * weight).sum(-1) + bias
        output = bias
        for place, factor in enumerate(weight.unbind(1)):
            output = torch.addcmul(output, x[:, place : place + time], factor)
        return output
