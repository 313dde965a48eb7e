"""Tasks one after the other, made of images: pairs of classes, or all classes with pixels in other orders."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from holdfast.errors import ArgumentError
from holdfast.lab.seeds import generator_for
from holdfast.studies.digits import CLASSES, Labelled, linear
from holdfast.studies.solutions.streams import PERMUTATION, WEIGHTS


@dataclass(frozen=True)
class Split:
    """Images to learn from, and to test on."""

    train: Labelled
    test: Labelled


def centred(data: Labelled, tests: int) -> Split:
    """The first images test and the others train; the mean of those is subtracted, for it would be a bias in disguise.

    Arguments:
        data: all images, in random order.
        tests: how many.

    Errors:
        ArgumentError: there are not so many.
    """
    if not 0 < tests < len(data.images):
        raise ArgumentError("tests", f"a number from 1 to {len(data.images) - 1}", tests)
    mean = data.images[tests:].mean(0)
    shifted = data.images - mean
    return Split(
        Labelled(shifted[tests:], data.labels[tests:]),
        Labelled(shifted[:tests], data.labels[:tests]),
    )


def pairs(split: Split) -> list[Split]:
    """The classes (0, 1) to (8, 9), of which each task has two; the labels stay what they are."""

    def of(data: Labelled, first: int) -> Labelled:
        chosen = (data.labels == first) | (data.labels == first + 1)
        return Labelled(data.images[chosen], data.labels[chosen])

    return [Split(of(split.train, first), of(split.test, first)) for first in range(0, CLASSES, 2)]


def permuted(split: Split, count: int, seed: int) -> list[Split]:
    """All classes, with the pixels of task k in an order of its own, and as they are in the first.

    Arguments:
        split: the images.
        count: number of tasks.
        seed: of the orders.
    """
    orders = [
        torch.randperm(split.train.images.shape[1], generator=generator_for(seed, PERMUTATION, task))
        for task in range(1, count)
    ]
    return [split] + [
        Split(*(Labelled(part.images[:, order], part.labels) for part in (split.train, split.test))) for order in orders
    ]


def network(sizes: tuple[int, ...], seed: int, *, bias: bool = False, standard: bool = False) -> nn.Sequential:
    """Linear layers with ReLU between them; at a seed the weights are the same with biases and without.

    Hidden weights are drawn from N(0, 2 / fan in), those of the head from N(0, 1 / fan in); biases are 0.

    Arguments:
        sizes: inputs, units of each hidden layer, outputs.
        seed: of the weights.
        bias: whether layers have biases.
        standard: initialise as `torch.nn.Linear` does instead: all from U(−1 / √fan in, 1 / √fan in).
    """
    generator = generator_for(seed, WEIGHTS)
    modules: list[nn.Module] = []
    for number, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        last = number == len(sizes) - 2
        layer = linear(fan_in, fan_out, 1.0 if last else 2**0.5, generator, bias=bias)
        if standard:
            for tensor, stream in zip(layer.parameters(), (2 * number, 2 * number + 1), strict=False):
                bound = fan_in**-0.5
                nn.init.uniform_(tensor, -bound, bound, generator=generator_for(seed, WEIGHTS, stream))
        modules += [layer] if last else [layer, nn.ReLU()]
    return nn.Sequential(*modules)


def on(split: Split, device: str) -> Split:
    """The same on another device."""

    def moved(data: Labelled) -> Labelled:
        tensors: tuple[Tensor, Tensor] = (data.images.to(device), data.labels.to(device))
        return Labelled(*tensors)

    return Split(moved(split.train), moved(split.test))
