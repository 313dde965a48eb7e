"""Small networks that the tests of baselines share."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def mlp(seed: int = 0, width: int = 6) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 5), nn.ReLU(), nn.Linear(5, 3))


class Convolutions(nn.Module):
    """One ReLU for all, a norm between, and an image that is flattened."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second, self.head, self.relu = nn.Conv2d(4, 3, 3, padding=1), nn.Linear(27, 2), nn.ReLU()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.norm(self.first(image)))
        x = F.relu(self.second(x))
        return self.relu(self.head(x.flatten(1)))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, steps: int = 1) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
