"""Pairs to add modulo a number, and the two networks that learn a part of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from holdfast.lab.seeds import generator_for
from holdfast.studies.plasticity.shapes import Addition, MLPShape, TransformerShape
from holdfast.studies.plasticity.streams import SPLIT, WEIGHTS


class Pairs(NamedTuple):
    """Pairs of numbers and their sums."""

    inputs: Int[Tensor, "n 2"]
    sums: Int[Tensor, " n"]


def split(task: Addition, seed: int) -> tuple[Pairs, Pairs]:
    """The pairs of a seed to learn from, and those to test on."""
    p = task.modulus
    order = torch.randperm(p * p, generator=generator_for(seed, SPLIT))
    inputs = torch.stack([order // p, order % p], dim=1)
    every = Pairs(inputs, inputs.sum(1) % p)
    cut = int(task.share * p * p)
    return Pairs(every.inputs[:cut], every.sums[:cut]), Pairs(every.inputs[cut:], every.sums[cut:])


class AdditionTransformer(nn.Module):
    """One block that reads x, y and constant tokens and answers at the last token. No biases.

    A token's key and value depend on the token and its position alone, and nobody reads what other tokens than the
    last one become. So keys and values are computed once for each of the 2 p + constants tokens at their positions, and
    the query once for all pairs: the same function as that of a block which computes them for each pair.

    Arguments:
        task: what is added.
        shape: of the network.
        seed: of the initial weights: N(0, 1 / fan in), embeddings N(0, 1 / dim).
    """

    def __init__(self, task: Addition, shape: TransformerShape, seed: int) -> None:
        super().__init__()
        p, dim = task.modulus, shape.dim
        self.modulus, self.heads, self.constants = p, shape.heads, shape.constants
        self.tokens = nn.Embedding(p + shape.constants, dim)
        self.positions = nn.Embedding(2 + shape.constants, dim)
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        self.up = nn.Linear(dim, shape.hidden, bias=False)
        self.down = nn.Linear(shape.hidden, dim, bias=False)
        self.unembed = nn.Linear(dim, p, bias=False)
        self.norms = nn.ModuleList([nn.RMSNorm(dim, eps=1e-6) if shape.norm else nn.Identity() for _ in range(3)])
        initialise(self, seed)

    def forward(self, inputs: Int[Tensor, "n 2"]) -> Float[Tensor, "n modulus"]:
        """Logits of the sum."""
        attended = self._attended(inputs)
        logits: Tensor = self.unembed(self.norms[2](attended + self.down(self._units(attended))))
        return logits

    def units(self, inputs: Int[Tensor, "n 2"]) -> Float[Tensor, "n hidden"]:
        """What the feed-forward units say, after their ReLU."""
        return self._units(self._attended(inputs))

    def _units(self, attended: Tensor) -> Tensor:
        return functional.relu(self.up(self.norms[1](attended)))

    def _attended(self, inputs: Tensor) -> Tensor:
        """The last token after the attention."""
        p, size = self.modulus, 2 * self.modulus + self.constants
        numbers, positions = self.tokens.weight[:p], self.positions.weight
        constants = self.tokens.weight[p:] + positions[2:]
        stream = torch.cat([numbers + positions[0], numbers + positions[1], constants])
        normed = self.norms[0](stream)
        keys, values = (layer(normed).unflatten(-1, (self.heads, -1)) for layer in (self.key, self.value))
        query = self.query(normed[-1:]).unflatten(-1, (self.heads, -1))
        scores = (keys * query).sum(-1) / math.sqrt(keys.shape[-1])
        constant = torch.arange(2 * p, size, device=inputs.device).expand(len(inputs), -1)
        rows = torch.cat([inputs[:, :1], inputs[:, 1:] + p, constant], dim=1)
        weights = functional.embedding(rows, scores).softmax(1)
        read = functional.embedding(rows, values.flatten(1)).unflatten(-1, (self.heads, -1))
        attended: Tensor = stream[-1] + self.out((weights.unsqueeze(-1) * read).sum(1).flatten(1))
        return attended


class AdditionMLP(nn.Module):
    """Embeddings of x and of y, which share nothing, a hidden layer with RMSNorm before its ReLU, and a read-out.

    Arguments:
        task: what is added.
        shape: of the network.
        seed: of the initial weights, as those of the transformer.
    """

    def __init__(self, task: Addition, shape: MLPShape, seed: int) -> None:
        super().__init__()
        self.first = nn.Embedding(task.modulus, shape.dim)
        self.second = nn.Embedding(task.modulus, shape.dim)
        self.hidden = nn.Linear(2 * shape.dim, shape.hidden, bias=False)
        self.norm = nn.RMSNorm(shape.hidden, eps=1e-6)
        self.unembed = nn.Linear(shape.hidden, task.modulus, bias=False)
        initialise(self, seed)

    def forward(self, inputs: Int[Tensor, "n 2"]) -> Float[Tensor, "n modulus"]:
        """Logits of the sum."""
        logits: Tensor = self.unembed(self.units(inputs))
        return logits

    def units(self, inputs: Int[Tensor, "n 2"]) -> Float[Tensor, "n hidden"]:
        """What the hidden units say, after their ReLU."""
        left, right = self.hidden.weight.chunk(2, dim=1)  # the layer on both embeddings, once a number, not a pair
        summed = functional.embedding(inputs[:, 0], self.first.weight @ left.mT)
        summed = summed + functional.embedding(inputs[:, 1], self.second.weight @ right.mT)
        return functional.relu(self.norm(summed))


@torch.no_grad()
def initialise(model: nn.Module, seed: int) -> None:
    """Draw matrices from N(0, 1 / columns): fan in of linear layers, width of embeddings."""
    generator = generator_for(seed, WEIGHTS)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0.0, parameter.shape[1] ** -0.5, generator=generator)


@torch.no_grad()
def accuracy(model: nn.Module, pairs: Pairs) -> float:
    """Share of pairs whose sum has the greatest logit."""
    return float((model(pairs.inputs).argmax(1) == pairs.sums).float().mean())


def learn(model: nn.Module, optimizer: torch.optim.Optimizer, pairs: Pairs) -> Iterator[Float[Tensor, ""]]:
    """Take a step on all pairs for each value that is asked for: the loss before it."""
    while True:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(pairs.inputs), pairs.sums)
        loss.backward()
        optimizer.step()
        yield loss.detach()
