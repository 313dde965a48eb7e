"""Double deep Q-learning of small networks, one a lane, as stacked matrices, with the penalty and its learning.

A network sees row and column of its cell, each one-hot. After each update its values of all cells become the table that
is played by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor
from torch.nn.functional import one_hot

from holdfast.lab.seeds import generator_for
from holdfast.studies.macros.lanes import META, Course, Evaluations, Lanes, Setup, Similarities, courses
from holdfast.studies.macros.settings import DeepConfig
from holdfast.studies.macros.streams import WEIGHTS
from holdfast.studies.macros.worlds import World

Weights = tuple[Tensor, ...]
"""Of stacked networks: matrix (lanes, in, out) and bias (lanes, 1, out) of each layer."""


class Networks:
    """Networks of all lanes. The arms of a seed begin with the same weights.

    Arguments:
        lanes: who plays, by their values.
        setups: of the arms.
        seeds: of each arm.
        config: how they learn.
    """

    def __init__(self, lanes: Lanes, setups: Sequence[Setup], seeds: Sequence[int], config: DeepConfig) -> None:
        self.lanes, self.config, self.world = lanes, config, lanes.world
        n, side, each = lanes.world.n, lanes.world.grid.side, len(seeds)
        cells = torch.arange(lanes.world.cells)
        self.seen = torch.cat([one_hot(cells // side, side), one_hot(cells % side, side)], 1).float()
        """What is seen in each cell, (cells, 2 · side)."""
        weights = stacked((2 * side, config.width, config.width, n), seeds, lanes.arms)
        self.weights = tuple(weight.requires_grad_() for weight in weights)
        self.adam = torch.optim.Adam(self.weights, lr=config.lr)
        self.legal = (lanes.q > -torch.inf).view(lanes.number, -1, n)[:, :1]
        self.similarities = [Similarities(setup) for setup in setups if setup.learned]
        eta = [setup.eta for setup in setups if setup.sigma is not None]
        self.eta = torch.tensor(eta).repeat_interleave(each)
        fixed = [setup.sigma for setup in setups if setup.sigma is not None and not setup.learned]
        self.fixed = torch.cat(fixed).float() if fixed else torch.zeros(0, n, n)
        self.slow = torch.zeros(0)
        self.updates = 0
        self._show()

    def update(self, u: Float[Tensor, "numbers lanes"]) -> None:
        """One update of each network, and of each similarity that is learned.

        Arguments:
            u: random numbers of the step.
        """
        config, first = self.config, self.lanes.first_learned
        if self.updates % config.target_every == 0:
            self.slow = self.lanes.q.view(self.lanes.number, self.world.cells, -1).clone()
        self.updates += 1
        places = u[META:].T.reshape(self.lanes.number, -1, config.batch)
        code = self._drawn(places[:, 0])
        before = tuple(weight[first:].detach().clone() for weight in self.weights)
        q = values(self.weights, self.seen[self.world.cell_of[code]])
        sigma = self._sigma()
        residual = q[self.lanes.first_fixed :]
        residual = residual - residual @ sigma.mT
        loss = self._error(q, code).sum() + (self.eta * residual.square().sum(2).mean(1)).sum()
        gradients = torch.autograd.grad(loss, self.weights)
        self._step(gradients)
        if self.similarities:
            self._learn(before, code[first:], self._drawn(places[:, -1])[first:], sigma[len(self.fixed) :])
        self._show()

    def _sigma(self) -> Float32[Tensor, "penalised n n"]:
        """Of the lanes with a penalty."""
        return torch.cat([self.fixed, *(similarity.matrix().detach().float() for similarity in self.similarities)])

    def _drawn(self, places: Float[Tensor, "lanes batch"]) -> Int64[Tensor, "lanes batch"]:
        """Codes of transitions, evenly from all that a lane has stored."""
        lanes = self.lanes
        return lanes.stored.gather(1, (places * lanes.count.unsqueeze(1)).long()).long()

    def _error(self, q: Float[Tensor, "some batch n"], code: Int64[Tensor, "some batch"]) -> Float[Tensor, " some"]:
        """Mean squared error of the last lanes, as many as there are rows."""
        world, n = self.world, self.world.n
        table = self.lanes.q.view(self.lanes.number, -1, n)[-len(q) :]
        after = world.after[code].unsqueeze(2).expand(-1, -1, n)
        chosen = table.gather(1, after).argmax(2, keepdim=True)
        value = self.slow[-len(q) :].gather(1, after).gather(2, chosen).squeeze(2)
        target = world.reward[code] + world.discount[code] * value
        taken = q.gather(2, world.action_of[code].unsqueeze(2)).squeeze(2)
        return (taken - target.float()).square().mean(1)

    @torch.no_grad()
    def _step(self, gradients: Sequence[Tensor]) -> None:
        """One step of Adam."""
        for weight, gradient in zip(self.weights, gradients, strict=True):
            weight.grad = gradient
        self.adam.step()

    def _learn(
        self,
        before: Weights,
        code: Int64[Tensor, "learned batch"],
        other: Int64[Tensor, "learned batch"],
        sigma: Float32[Tensor, "learned n n"],
    ) -> None:
        """The meta-gradient through the step that was just made, and a step of the similarities.

        Arguments:
            before: weights that it began with.
            code: its transitions.
            other: those of the outer loss.
            sigma: similarities that it was made with.
        """
        first = self.lanes.first_learned
        after = tuple(weight[first:].detach().requires_grad_() for weight in self.weights)
        outer = self._error(values(after, self.seen[self.world.cell_of[other]]), other).sum()
        gradients = torch.autograd.grad(outer, after)
        direction = tuple(g * self._factor(weight)[first:] for g, weight in zip(gradients, self.weights, strict=True))
        seen = self.seen[self.world.cell_of[code]]
        q, change = values_and_change(before, direction, seen)
        deviation = torch.eye(self.world.n) - sigma
        r, r_change = q @ deviation.mT, change @ deviation.mT
        gradient = r_change.mT @ q + r.mT @ change
        gradient = gradient.double() * (2 * self.eta[-len(sigma) :, None, None] / q.shape[1])
        for similarity, part in zip(self.similarities, gradient.chunk(len(self.similarities)), strict=True):
            similarity.step(part)

    def _factor(self, weight: Tensor) -> Tensor:
        """By which Adam multiplied the gradient in its last step, momentum apart."""
        state, (group,) = self.adam.state[weight], self.adam.param_groups
        second = state["exp_avg_sq"] / (1 - group["betas"][1] ** float(state["step"]))
        factor: Tensor = group["lr"] / (second.sqrt() + group["eps"])
        return factor

    @torch.no_grad()
    def _show(self) -> None:
        """Play by the values of now."""
        table = values(self.weights, self.seen.expand(self.lanes.number, -1, -1))
        self.lanes.q = table.masked_fill(~self.legal, -torch.inf).double().flatten(0, 1)


def values(weights: Weights, seen: Float32[Tensor, "lanes batch inputs"]) -> Float32[Tensor, "lanes batch n"]:
    """Q values of stacked networks.

    Arguments:
        weights: of the networks.
        seen: observations.
    """
    hidden = seen
    for matrix, bias in zip(weights[::2], weights[1::2], strict=True):
        hidden = torch.baddbmm(bias, hidden if hidden is seen else hidden.relu(), matrix)
    return hidden


def values_and_change(
    weights: Weights, direction: Weights, seen: Float32[Tensor, "lanes batch inputs"]
) -> tuple[Float32[Tensor, "lanes batch n"], Float32[Tensor, "lanes batch n"]]:
    """Q values of stacked networks, and their derivative along a direction of the weights.

    Arguments:
        weights: of the networks.
        direction: of the same shapes.
        seen: observations.
    """
    hidden, change = seen, torch.zeros_like(seen)
    for layer in range(0, len(weights), 2):
        if layer:
            hidden, change = hidden.relu(), change * (hidden > 0)
        matrix, bias = weights[layer : layer + 2]
        change = torch.baddbmm(torch.baddbmm(direction[layer + 1], hidden, direction[layer]), change, matrix)
        hidden = torch.baddbmm(bias, hidden, matrix)
    return hidden, change


def stacked(sizes: Sequence[int], seeds: Sequence[int], arms: int) -> Weights:
    """Weights as torch's layers begin with, by seed, the same for each arm.

    Arguments:
        sizes: of the layers.
        seeds: of the weights.
        arms: how often each.
    """
    weights: list[Tensor] = []
    generators = [generator_for(seed, WEIGHTS) for seed in seeds]
    for inputs, outputs in pairwise(sizes):
        for rows in (inputs, 1):
            bound = inputs**-0.5
            drawn = [bound * (2 * torch.rand(rows, outputs, generator=of_seed) - 1) for of_seed in generators]
            weights.append(torch.stack(drawn).repeat(arms, 1, 1))
    return tuple(weights)


def learn(
    world: World, setups: Mapping[str, Setup], seeds: Sequence[int], config: DeepConfig, *stream: int
) -> dict[str, Course]:
    """Train a network for each arm and seed.

    Arguments:
        world: where.
        setups: of the arms.
        seeds: of each arm.
        config: how.
        stream: numbers of this run among those of the seeds.
    """
    order = sorted(setups, key=lambda arm: setups[arm].rank)
    in_order = [setups[arm] for arm in order]
    lanes = Lanes(world, in_order, seeds, config.steps, config.epsilon, *stream)
    networks, evaluations = Networks(lanes, in_order, seeds, config), Evaluations(lanes, config.evaluations)
    for step, u in enumerate(lanes.draws(META + 2 * config.batch)):
        lanes.decide(u)
        lanes.left -= 1
        if (step + 1) % config.update_every == 0:
            networks.update(u)
        evaluations.after(step + 1)
    return courses(setups, order, evaluations.scores(), networks.similarities)
