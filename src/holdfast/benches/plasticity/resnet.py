"""The network whose layers the bench steps: ResNet-18 for small images, without biases before its norms."""

from __future__ import annotations

import torch
from torch import Tensor, nn

STAGES = (1, 2, 4, 8)
"""Widths of the four stages, in multiples of the first."""


class Residual(nn.Module):
    """Two convolutions, and a third one across where shapes change."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        across = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.across: nn.Module = nn.Identity() if stride == 1 and inputs == outputs else across

    def forward(self, x: Tensor) -> Tensor:
        """Of images."""
        hidden = torch.relu(self.first_norm(self.first(x)))
        result: Tensor = torch.relu(self.second_norm(self.second(hidden)) + self.across(x))
        return result


def resnet18(width: int) -> nn.Module:
    """11.2 million parameters at a width of 64.

    Arguments:
        width: channels of the first stage.
    """
    blocks: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    channels = width
    for stage, times in enumerate(STAGES):
        for number in range(2):
            blocks.append(Residual(channels, width * times, 2 if stage and not number else 1))
            channels = width * times
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))
