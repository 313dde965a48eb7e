"""Small images of handwritten digits, and what networks need to learn them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from holdfast.errors import require
from holdfast.lab.seeds import generator_for

CLASSES = 10


class Labelled(NamedTuple):
    """Images, a row each, and their classes."""

    images: Float[Tensor, "n pixels"]
    labels: Int[Tensor, " n"]


def digits(seed: int, *stream: int, extra: str) -> Labelled:
    """All 1,797 digits of scikit-learn in an order of the seed: 8 × 8 pixels from 0 to 1, not centred.

    Arguments:
        seed: of the order.
        stream: numbers that tell it from the seed's other draws.
        extra: that brings scikit-learn to the study that asks.

    Errors:
        MissingExtraError: scikit-learn is not installed.
    """
    bunch = require("sklearn.datasets", extra).load_digits()
    images = torch.as_tensor(bunch.data / 16, dtype=torch.float32)
    order = torch.randperm(len(images), generator=generator_for(seed, *stream))
    return Labelled(images[order], torch.as_tensor(bunch.target)[order])


@torch.no_grad()
def linear(fan_in: int, fan_out: int, scale: float, generator: torch.Generator, *, bias: bool = True) -> nn.Linear:
    """A layer with weights from N(0, scale² / fan in), and biases of 0 if it has any."""
    layer = nn.Linear(fan_in, fan_out, bias=bias)
    layer.weight.normal_(0.0, scale * fan_in**-0.5, generator=generator)
    if bias:
        layer.bias.zero_()
    return layer


@torch.no_grad()
def accuracy(model: nn.Module, data: Labelled) -> float:
    """Share of images whose label has the greatest logit."""
    return float((model(data.images).argmax(1) == data.labels).float().mean())


def learn(
    model: nn.Module, optimizer: torch.optim.Optimizer, data: Labelled, batches: Int[Tensor, "steps batch"]
) -> Iterator[tuple[float, float]]:
    """Take a step on each batch, given by its places in the data: loss and accuracy before it."""
    for places in batches:
        labels = data.labels[places]
        logits = model(data.images[places])
        loss = functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item(), (logits.argmax(1) == labels).float().mean().item()


def batches_of(count: int, steps: int, batch: int, seed: int, *stream: int) -> Int[Tensor, "steps batch"]:
    """Places of the examples in each batch, drawn with replacement.

    Arguments:
        count: of the examples.
        steps: number of batches.
        batch: examples in each.
        seed: of the draw.
        stream: numbers that tell it from the seed's other draws.
    """
    return torch.randint(count, (steps, batch), generator=generator_for(seed, *stream))
