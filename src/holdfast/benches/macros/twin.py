"""Rainbow as public single-file versions have it, with the same network: what ours is timed beside.

Three things differ, and each can be had as ours is, to see what it is worth: the tree and the projection go through a
batch one transition at a time; noisy layers draw a number for each weight; Adam is PyTorch's default.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from holdfast.rl.rainbow.networks import NoisyLinear, RainbowNetwork
from holdfast.rl.rainbow.projection import project
from holdfast.rl.rainbow.replay import Batch, Replay
from holdfast.rl.rainbow.settings import RainbowSettings


@dataclass(frozen=True)
class Ours:
    """What a twin has as ours is.

    Arguments:
        loops: tree and projection over whole batches.
        noise: of two factors.
        adam: fused.
    """

    loops: bool = False
    noise: bool = False
    adam: bool = False


class LoopTree:
    """A binary tree of sums in a list, one number at a time.

    Arguments:
        priorities: of all numbers.
    """

    def __init__(self, priorities: np.ndarray[Any, Any]) -> None:
        self.size = 1 << (len(priorities) - 1).bit_length()
        self.sums = [0.0] * (2 * self.size)
        for number in np.flatnonzero(priorities):
            self.update(int(number), float(priorities[number]))

    def update(self, number: int, priority: float) -> None:
        """Set one priority, and add the change to all sums above."""
        node = number + self.size
        change = priority - self.sums[node]
        while node:
            self.sums[node] += change
            node //= 2

    def find(self, mass: float) -> int:
        """The number at a place."""
        node = 1
        while node < self.size:
            node *= 2
            if mass > self.sums[node]:
                mass -= self.sums[node]
                node += 1
        return node - self.size


class FullyNoisyLinear(nn.Module):
    """A noisy layer with a number drawn for each weight.

    Arguments:
        like: a layer of ours of the same size.
    """

    noise: Tensor
    bias_noise: Tensor

    def __init__(self, like: NoisyLinear) -> None:
        super().__init__()
        self.weight, self.bias = like.weight, like.bias
        self.weight_sigma, self.bias_sigma = like.weight_sigma, like.bias_sigma
        self.register_buffer("noise", torch.zeros_like(like.weight_sigma))
        self.register_buffer("bias_noise", torch.zeros_like(like.bias_sigma))

    def forward(self, x: Tensor) -> Tensor:
        """Of features."""
        weight, bias = self.weight + self.weight_sigma * self.noise, self.bias + self.bias_sigma * self.bias_noise
        return functional.linear(x, weight, bias)

    def resample(self, generator: torch.Generator) -> None:
        """Draw all noise anew."""
        self.noise.normal_(generator=generator)
        self.bias_noise.normal_(generator=generator)


class Twin:
    """An agent that learns as such versions do.

    Arguments:
        network: of ours; copied.
        replay: whose transitions it learns from.
        settings: how it learns.
        ours: what it has as ours is.
    """

    def __init__(self, network: RainbowNetwork, replay: Replay, settings: RainbowSettings, ours: Ours) -> None:
        self.settings, self.replay, self.ours = settings, replay, ours
        self.network = copy.deepcopy(network)
        if not ours.noise:
            _swap(self.network)
        self.target = copy.deepcopy(self.network)
        self.device = network.support.device
        self.noise = torch.Generator(self.device).manual_seed(0)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=settings.lr, eps=settings.adam_eps, fused=True if ours.adam else None
        )
        self.rng = np.random.default_rng(0)
        self.tree = LoopTree(replay.tree[np.arange(replay.capacity)])

    def update(self, importance: float) -> Tensor:
        """One step; the loss."""
        batch = self._sample(importance)
        for network in (self.network, self.target):
            if self.ours.noise:
                network.resample(self.noise)
            else:
                for layer in network.modules():
                    if isinstance(layer, FullyNoisyLinear):
                        layer.resample(self.noise)
        rows = torch.arange(len(batch.actions), device=self.device)
        with torch.no_grad():
            best = self.network.values(batch.successors).argmax(1)
            following = self.target(batch.successors)[rows, best].softmax(-1)
            target = (project if self.ours.loops else project_by_row)(
                following, batch.returns, batch.discounts, self.network.support
            )
        logits = self.network(batch.observations)[rows, batch.actions]
        losses = -(target * logits.log_softmax(-1)).sum(-1)
        loss: Tensor = (batch.weights * losses).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        errors = losses.detach().cpu().numpy() + 1e-6
        if self.ours.loops:
            self.replay.update(batch.numbers, errors)
        else:
            for number, error in zip(batch.numbers, errors, strict=True):
                self.tree.update(int(number), float(error) ** self.settings.priority)
        return loss.detach()

    def _sample(self, importance: float) -> Batch:
        size = self.settings.batch
        if self.ours.loops:
            return self.replay.sample(size, importance, self.device)
        part = self.tree.sums[1] / size
        numbers = [self.tree.find((place + self.rng.random()) * part) for place in range(size)]
        priorities = np.array([self.tree.sums[number + self.tree.size] for number in numbers])
        weights = (priorities / priorities.min()) ** -importance
        return self.replay.batch(np.array(numbers), weights, self.device)


def project_by_row(probabilities: Tensor, returns: Tensor, discounts: Tensor, support: Tensor) -> Tensor:
    """The projection of a batch, whose rows are scattered one at a time."""
    low, high, atoms = float(support[0]), float(support[-1]), len(support)
    moved = (returns[:, None] + discounts[:, None] * support).clamp(low, high)
    place = ((moved - low) / (high - low) * (atoms - 1)).clamp(0, atoms - 1)
    below = place.floor().clamp(max=atoms - 2)
    upper = probabilities * (place - below)
    lower = probabilities - upper
    result = torch.zeros_like(probabilities)
    for row in range(len(probabilities)):
        result[row].index_add_(0, below[row].long(), lower[row])
        result[row].index_add_(0, below[row].long() + 1, upper[row])
    return result


def _swap(network: nn.Module) -> None:
    """Put a layer with full noise in place of each noisy one."""
    for name, layer in network.named_children():
        if isinstance(layer, NoisyLinear):
            setattr(network, name, FullyNoisyLinear(layer))
        else:
            _swap(layer)
