"""Digits on a canvas, labels that have nothing to do with them, and networks that learn labels."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor, nn

from holdfast.lab.seeds import generator_for
from holdfast.studies.digits import CLASSES, Labelled, linear
from holdfast.studies.plasticity.shapes import Layers
from holdfast.studies.plasticity.streams import LABELS, NOISE, WEIGHTS


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
        modules.append(linear(fan_in, layers.width, 2**0.5, generator))
        if norm:
            modules.append(nn.LayerNorm(layers.width, elementwise_affine=False))
        modules.append(nn.ReLU())
    return nn.Sequential(*modules, linear(layers.width, outputs, head, generator))


def random_labels(count: int, seed: int, *stream: int) -> Int[Tensor, " n"]:
    """Classes that have nothing to do with images."""
    return torch.randint(CLASSES, (count,), generator=generator_for(seed, LABELS, *stream))
