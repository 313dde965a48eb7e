"""Many networks for addition in one program: cells that differ in their optimiser alone, on a leading dimension.

What `holdfast.optim` and AdamW do to one network is written out here for all cells at once; a test holds the two
together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from holdfast.optim.rewarming.cycle import Cycle
from holdfast.studies.plasticity.addition import AdditionTransformer, split
from holdfast.studies.plasticity.shapes import Addition, TransformerShape

BETAS, EPSILON = (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class Cell:
    """How one of the networks is trained (AdamW).

    Arguments:
        rate: constant learning rate, until the re-warm if there is one.
        decay: weight decay of matrices.
        scale_decay: weight decay of the norm layers' scales.
        held: whether all matrices are held at their initial norms.
        cycle: course of the rate from the re-warm on.
        offset: steps before it.
    """

    rate: float
    decay: float = 0.0
    scale_decay: float = 0.0
    held: bool = True
    cycle: Cycle | None = None
    offset: int = 0

    def rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        return self.rate if self.cycle is None or step < self.offset else self.cycle.rate(step - self.offset)


class Cells:
    """The networks, with the same initial weights.

    Arguments:
        task: what is added.
        shape: of each network.
        cells: how they are trained.
        seed: of weights and pairs.
        device: where.
    """

    def __init__(
        self, task: Addition, shape: TransformerShape, cells: Sequence[Cell], seed: int, device: str = "cpu"
    ) -> None:
        self.cells, self.device, self.steps = cells, device, 0
        self.model = AdditionTransformer(task, shape, seed).to(device)
        # Copies, not views of one tensor: each cell goes its own way.
        self.weights = {
            name: tensor.detach().expand(len(cells), *tensor.shape).clone().requires_grad_()
            for name, tensor in self.model.named_parameters()
        }
        self.first = {name: torch.zeros_like(tensor) for name, tensor in self.weights.items()}
        self.second = {name: torch.zeros_like(tensor) for name, tensor in self.weights.items()}
        self.targets = {name: _norms(tensor.detach()) for name, tensor in self.weights.items() if _is_matrix(tensor)}
        self.held = self._column([float(cell.held) for cell in cells]).bool()
        self.decays = {
            name: self._column([cell.decay if _is_matrix(tensor) else cell.scale_decay for cell in cells])
            for name, tensor in self.weights.items()
        }
        learnt, tests = split(task, seed)
        self.learnt, self.tests = (type(part)(*(tensor.to(device) for tensor in part)) for part in (learnt, tests))
        self._forward = torch.vmap(self._one, in_dims=(0, None))

    def _column(self, values: Sequence[float]) -> Float[Tensor, " cells"]:
        return torch.tensor(values, device=self.device)

    def _one(self, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
        logits: Tensor = functional_call(self.model, weights, (inputs,))
        return logits

    def step(self) -> Float[Tensor, " cells"]:
        """One step on all pairs: the loss of each cell before it."""
        logits = self._forward(self.weights, self.learnt.inputs)
        targets = self.learnt.sums.expand(len(self.cells), -1)
        losses = functional.cross_entropy(logits.mT, targets, reduction="none").mean(1)
        gradients = torch.autograd.grad(losses.sum(), list(self.weights.values()))
        rates = self._column([cell.rate_at(self.steps) for cell in self.cells])
        self.steps += 1
        with torch.no_grad():
            for name, gradient in zip(self.weights, gradients, strict=True):
                self._update(name, gradient, rates)
        return losses.detach()

    def _update(self, name: str, gradient: Tensor, rates: Tensor) -> None:
        """AdamW, then the projection of the cells that are held."""
        weight, first, second = self.weights[name], self.first[name], self.second[name]
        shape = (-1, *[1] * (weight.ndim - 1))
        weight.mul_(1 - (rates * self.decays[name]).view(shape))
        first.lerp_(gradient, 1 - BETAS[0])
        second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        scale = (second / (1 - BETAS[1] ** self.steps)).sqrt_().add_(EPSILON)
        weight.sub_(rates.view(shape) / (1 - BETAS[0] ** self.steps) * first / scale)
        if name in self.targets:
            factors = torch.where(self.held, self.targets[name] / _norms(weight), 1.0)
            weight.mul_(factors.view(shape))

    @torch.no_grad()
    def accuracies(self) -> tuple[list[float], list[float]]:
        """Training and test accuracy of each cell."""
        train, test = (
            (self._forward(self.weights, part.inputs).argmax(-1) == part.sums).float().mean(1).tolist()
            for part in (self.learnt, self.tests)
        )
        return train, test


def _is_matrix(tensor: Tensor) -> bool:
    return tensor.ndim > 2  # the first dimension is the cells


def _norms(tensor: Float[Tensor, "cells rows columns"]) -> Float[Tensor, " cells"]:
    norms: Tensor = torch.linalg.vector_norm(tensor.flatten(1), dim=1)
    return norms


@dataclass(frozen=True)
class CellResult:
    """What became of a cell: `best` test accuracy, `train` accuracy at the end, and the `step` at which it grokked."""

    best: float
    train: float
    step: int


def train_cells(
    cells: Cells, steps: int, evaluate_every: int, grokked: float, told: Callable[[float], None]
) -> list[CellResult]:
    """Train all cells.

    Arguments:
        cells: with their initial weights.
        steps: for all of them.
        evaluate_every: steps between two tests.
        grokked: test accuracy that counts as having generalised.
        told: called with the share that is done.
    """
    count = len(cells.cells)
    best, first, train = [0.0] * count, [steps] * count, [0.0] * count
    for step in range(1, steps + 1):
        cells.step()
        if step % evaluate_every == 0 or step == steps:
            train, test = cells.accuracies()
            for place, share in enumerate(test):
                best[place] = max(best[place], share)
                if share >= grokked:
                    first[place] = min(first[place], step)
            told(step / steps)
    return [CellResult(*values) for values in zip(best, train, first, strict=True)]
