"""Small images of handwritten digits, and networks that learn labels for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from holdfast.errors import require
from holdfast.lab.seeds import generator_for
from holdfast.studies.plasticity.shapes import Layers
from holdfast.studies.plasticity.streams import BATCHES, LABELS, NOISE, SPLIT, WEIGHTS

CLASSES = 10


class Labelled(NamedTuple):
    """Images, a row each, and their classes."""

    images: Float[Tensor, "n pixels"]
    labels: Int[Tensor, " n"]


def digits(seed: int) -> Labelled:
    """All 1,797 digits of scikit-learn in an order of the seed: 8 × 8 pixels from 0 to 1, not centred.

    Errors:
        MissingExtraError: scikit-learn is not installed.
    """
    bunch = require("sklearn.datasets", "plasticity").load_digits()
    images = torch.as_tensor(bunch.data / 16, dtype=torch.float32)
    order = torch.randperm(len(images), generator=generator_for(seed, SPLIT))
    return Labelled(images[order], torch.as_tensor(bunch.target)[order])


def on_canvas(data: Labelled, size: int, noise: float, seed: int) -> Labelled:
    """The same digits, each at a random place of a larger canvas, with normal noise on all pixels.

    Arguments:
        data: images of 8 × 8.
        size: side of the canvas.
        noise: standard deviation.
        seed: of places and noise.
    """
    generator, count, free = generator_for(seed, NOISE), len(data.images), size - 7
    canvas = noise * torch.randn(count, size, size, generator=generator)
    corners = torch.randint(free, (count, 2), generator=generator)
    rows, columns = ((corners[:, axis, None] + torch.arange(8)) for axis in (0, 1))
    canvas[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]] += data.images.view(-1, 8, 8)
    return Labelled(canvas.flatten(1), data.labels)


def network(inputs: int, outputs: int, layers: Layers, *, norm: bool, seed: int, head: float = 1.0) -> nn.Sequential:
    """Linear layers, with LayerNorm without a learned scale before each ReLU or without it.

    Hidden weights are drawn from N(0, 2 / fan in), those of the head from N(0, head² / fan in); biases are 0.

    Arguments:
        inputs: numbers that it reads.
        outputs: numbers that it gives.
        layers: its hidden layers.
        norm: whether it has LayerNorm.
        seed: of the weights.
        head: scale of the head's weights.
    """
    generator = generator_for(seed, WEIGHTS)
    modules: list[nn.Module] = []
    for fan_in in [inputs] + [layers.width] * (layers.depth - 1):
        modules.append(_linear(fan_in, layers.width, 2**0.5, generator))
        if norm:
            modules.append(nn.LayerNorm(layers.width, elementwise_affine=False))
        modules.append(nn.ReLU())
    return nn.Sequential(*modules, _linear(layers.width, outputs, head, generator))


@torch.no_grad()
def _linear(fan_in: int, fan_out: int, scale: float, generator: torch.Generator) -> nn.Linear:
    layer = nn.Linear(fan_in, fan_out)
    layer.weight.normal_(0.0, scale * fan_in**-0.5, generator=generator)
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
    return torch.randint(count, (steps, batch), generator=generator_for(seed, BATCHES, *stream))


def random_labels(count: int, seed: int, *stream: int) -> Int[Tensor, " n"]:
    """Classes that have nothing to do with images."""
    return torch.randint(CLASSES, (count,), generator=generator_for(seed, LABELS, *stream))
