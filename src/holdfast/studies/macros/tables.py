"""Semi-Markov Q-learning on tables, many seeds and arms side by side, with the similarity penalty and its learning.

A lane is a table with its agent. All lanes make a primitive step at a time, and one update in it: at even steps of the
newest transition, at odd ones of one drawn from all that the lane has stored. Both terms of an update come from the
same row of the table,

    Q(s) ← Q(s) - lr 2η MᵀM Q(s) - lr (Q(s,a) - R - D max_b Q(s',b)) e_a,   M = I - Σ

and a similarity that is learned takes the meta-gradient through it (`holdfast.rl.similarity.meta`), with transitions of
the same cell as other batch: on a table nothing else tells what the penalty has moved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from holdfast.lab import progress
from holdfast.lab.seeds import rng_for
from holdfast.rl.similarity import sinkhorn
from holdfast.studies.macros.streams import EVALUATION, PLAY
from holdfast.studies.macros.worlds import MOVES, World

if TYPE_CHECKING:
    from torch import Tensor

EXPLORE, ACTION, TIE, REPLAY, SUB, META = range(6)
"""Which of a step's random numbers is what for; those from the last on are for the transitions of the outer loss."""
REMEMBERED = 64
"""Transitions of a cell that those of the outer loss are drawn from."""
OUTER = 4
"""Transitions of the outer loss."""
ROUNDS = 12
"""Of Sinkhorn's normalisation."""
BLOCK = 500
"""Steps whose random numbers are drawn at once."""


@dataclass(frozen=True, kw_only=True)
class TableConfig:
    """How a table is learned.

    Arguments:
        steps: primitive steps in all.
        evaluations: greedy ones after the first, in equal distances.
        epsilon: share of random decisions.
        lr: of the table.
        meta_every: updates of the table for one step of the similarity.
    """

    steps: int = 40_000
    evaluations: int = 40
    epsilon: float = 0.1
    lr: float = 0.2
    meta_every: int = 20


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What an arm has, in the order of seeds.

    Arguments:
        eta: strength of the penalty; 0: none.
        sigma: (seeds, n, n), the similarity of the penalty, or the one that learning starts from.
        learned: the parametrisation in which it is learned; `None`: it stays.
        meta_lr: of Adam on it.
        primitives: no macros.
        steps_too: primitive steps within macros are stored as transitions of their own.
    """

    eta: float = 0.0
    sigma: Tensor | None = None
    learned: Literal["raw", "sinkhorn"] | None = None
    meta_lr: float = 0.0
    primitives: bool = False
    steps_too: bool = False


@dataclass(frozen=True)
class Course:
    """How an arm went.

    Arguments:
        scores: (evaluations + 1, seeds): 1 is the shortest way, 0 never to reach the goal.
        sigma: (seeds, n, n), the similarity in the end; `None`: there was none.
    """

    scores: Tensor
    sigma: Tensor | None


class Similarities:
    """Similarities of some lanes, while they are learned.

    Arguments:
        setup: of these lanes.
    """

    def __init__(self, setup: Setup) -> None:
        assert setup.sigma is not None
        self.kind = setup.learned
        start = setup.sigma.log() if self.kind == "sinkhorn" else setup.sigma.clone()
        self.weights = start.requires_grad_()
        self.adam = torch.optim.Adam([self.weights], lr=setup.meta_lr)

    def matrix(self) -> Tensor:
        """Σ of each lane."""
        return sinkhorn(self.weights, ROUNDS) if self.kind == "sinkhorn" else self.weights

    def step(self, gradient: Tensor) -> None:
        """One step of Adam.

        Arguments:
            gradient: of the outer loss by Σ, (lanes, n, n).
        """
        with torch.enable_grad():
            (self.weights.grad,) = torch.autograd.grad(self.matrix(), self.weights, gradient)
        if self.kind == "raw":
            self.weights.grad = (self.weights.grad + self.weights.grad.mT) / 2
        self.adam.step()
        if self.kind == "raw":
            with torch.no_grad():
                self.weights.copy_(((self.weights + self.weights.mT) / 2).clamp(min=0.0))


class Tables:
    """Tables and agents of all lanes: arms by seeds, arms with a penalty after those without, learned ones last.

    Arguments:
        world: where they are.
        setups: of the arms, in that order.
        seeds: of each arm.
        config: how they learn.
        stream: numbers of this run among those of the seeds.
    """

    def __init__(
        self, world: World, setups: Sequence[Setup], seeds: Sequence[int], config: TableConfig, *stream: int
    ) -> None:
        self.world, self.config, self.seeds = world, config, seeds
        kinds = [2 if setup.learned else setup.sigma is not None for setup in setups]
        assert kinds == sorted(kinds)
        self.arms = len(setups)
        each, lanes = len(seeds), len(setups) * len(seeds)
        self.first_fixed, self.first_learned = (each * sum(kind < first for kind in kinds) for first in (1, 2))
        self.lane = torch.arange(lanes)
        self.base = self.lane * world.cells
        self.q = torch.zeros(lanes * world.cells, world.n, dtype=torch.float64)
        self.choices = torch.full((lanes,), world.n)
        for arm, setup in enumerate(setups):
            if setup.primitives:
                self.q.view(self.arms, -1, world.n)[arm, :, len(MOVES) :] = -torch.inf
                self.choices[arm * each : (arm + 1) * each] = len(MOVES)
        self.cell, self.time, self.left, self.count, self.newest = (
            torch.zeros(lanes, dtype=torch.long) for _ in range(5)
        )
        self.stored = torch.zeros(lanes, config.steps, dtype=torch.int32)
        self.steps_too = [slice(arm * each, (arm + 1) * each) for arm, setup in enumerate(setups) if setup.steps_too]
        self.made = torch.zeros(len(self.steps_too), each, config.steps, dtype=torch.int32)
        self.similarities = [Similarities(setup) for setup in setups if setup.learned]
        fixed = [setup.sigma for setup in setups if setup.sigma is not None and not setup.learned]
        penalised = [setup for setup in setups if setup.sigma is not None]
        strength = torch.tensor([[2 * config.lr * setup.eta] for setup in penalised], dtype=torch.float64)
        self.strength = strength.repeat_interleave(each, 0)
        identity = torch.eye(world.n, dtype=torch.float64)
        self.residual = identity - torch.cat(fixed) if fixed else torch.zeros(0, world.n, world.n)
        self.normal = torch.zeros(lanes - self.first_fixed, world.n, world.n, dtype=torch.float64)
        self.normal[: len(self.residual)] = self.residual.mT @ self.residual
        self.deviation = torch.zeros(lanes - self.first_learned, world.n, world.n, dtype=torch.float64)
        """M of the lanes whose similarity is learned."""
        self.gradient = torch.zeros_like(self.deviation)
        self.recent = torch.zeros(len(self.deviation), world.cells, REMEMBERED, dtype=torch.int32)
        self.seen = torch.zeros(len(self.deviation), world.cells, dtype=torch.long)
        self._renew()
        self.play = [rng_for(seed, PLAY, *stream) for seed in seeds]
        self.evaluation = [rng_for(seed, EVALUATION, *stream) for seed in seeds]

    @torch.no_grad()
    def run(self) -> Tensor:
        """Play and learn to the end.

        Returns:
            Scores, (evaluations + 1, arms, seeds).
        """
        steps, scores = self.config.steps, [self.evaluate()]
        every = steps // self.config.evaluations
        for begin in range(0, steps, BLOCK):
            drawn = torch.stack([torch.from_numpy(rng.random((BLOCK, META + OUTER))) for rng in self.play], 2)
            for step in range(begin, min(begin + BLOCK, steps)):
                u = drawn[step - begin].repeat(1, self.arms)
                self._decide(u)
                self._update(step, u)
                if (step + 1) % every == 0 and len(scores) <= self.config.evaluations:
                    scores.append(self.evaluate())
                    progress.report((step + 1) / steps, score=float(scores[-1].mean()))
        return torch.stack(scores)

    def _decide(self, u: Tensor) -> None:
        """Where the last action is over, the next one, carried out at once."""
        world, lanes = self.world, (self.left == 0).nonzero().squeeze(1)
        if not len(lanes):
            return
        u, cell = u[:, lanes], self.cell[lanes]
        action = _greedy(self.q[self.base[lanes] + cell], u[TIE])
        explored = (u[ACTION] * self.choices[lanes]).long()
        action = torch.where(u[EXPLORE] < self.config.epsilon, explored, action)
        pair, time = cell * world.n + action, self.time[lanes]
        made = torch.minimum(world.lasts[pair], world.grid.limit - time)
        code = pair * world.longest + made - 1
        count = self.count[lanes]
        self.newest[lanes], self.left[lanes] = code, made
        self.stored[lanes, count] = code.int()
        self.count[lanes] = count + 1
        time = time + made
        over = (world.discount[code] == 0) | (time >= world.grid.limit)
        self.cell[lanes] = torch.where(over, 0, world.after[code])
        self.time[lanes] = torch.where(over, 0, time)
        learned = lanes >= self.first_learned
        place = (lanes - self.first_learned)[learned], cell[learned]
        self.recent[(*place, self.seen[place] % REMEMBERED)] = code[learned].int()
        self.seen[place] += 1

    def _update(self, step: int, u: Tensor) -> None:
        """One update in each lane, and what it says of similarities."""
        world, lr = self.world, self.config.lr
        code = self.newest
        if step % 2:
            code = self.stored[self.lane, (u[REPLAY] * self.count).long()].long()
        for number, lanes in enumerate(self.steps_too):
            code = self._primitive_step(number, lanes, step, code, u)
        self.left -= 1
        place, action = self.base + world.cell_of[code], world.action_of[code].unsqueeze(1)
        row = self.q[place]
        error = row.gather(1, action).squeeze(1) - self._target(code, self.base)
        after = row.scatter_add(1, action, -lr * error.unsqueeze(1))
        if self.first_fixed < len(row):
            old = row[self.first_fixed :]
            after[self.first_fixed :] -= self.strength * torch.bmm(self.normal, old.unsqueeze(2)).squeeze(2)
        self.q[place] = after
        if self.similarities:
            self._learn_from(row[self.first_learned :], world.cell_of[code[self.first_learned :]], u)
            if (step + 1) % self.config.meta_every == 0:
                gradients = self.gradient.chunk(len(self.similarities))
                for similarity, gradient in zip(self.similarities, gradients, strict=True):
                    similarity.step(gradient)
                self.gradient.zero_()
                self._renew()

    def _primitive_step(self, number: int, lanes: slice, step: int, code: Tensor, u: Tensor) -> Tensor:
        """Store the primitive step of now; at every second draw from the replay one of them is taken.

        The newest decision is always learned from itself, and primitive steps, of which there are more than decisions,
        do not dilute the replay of these.
        """
        world, newest = self.world, self.newest[lanes]
        before = newest % world.longest + 1 - self.left[lanes]
        cell = world.path[newest // world.longest * world.longest + before]
        primitive = world.primitive[world.action_of[newest], before]
        self.made[number, :, step] = ((cell * world.n + primitive) * world.longest).int()
        if step % 2 == 0:
            return code
        drawn = (u[REPLAY, lanes] * (step + 1)).long()
        made = self.made[number, torch.arange(len(drawn)), drawn].long()
        code = code.clone()
        code[lanes] = torch.where(u[SUB, lanes] < 0.5, made, code[lanes])
        return code

    def _target(self, code: Tensor, base: Tensor) -> Tensor:
        """R + D max_b Q(s',b)."""
        world = self.world
        return world.reward[code] + world.discount[code] * self.q[base + world.after[code]].amax(-1)

    def _learn_from(self, q: Tensor, cell: Tensor, u: Tensor) -> None:
        """Add the meta-gradient of the update that was just made, up to a factor.

        Arguments:
            q: rows before it.
            cell: their cells.
            u: random numbers of the step.
        """
        world, first = self.world, self.first_learned
        lane, base = self.lane[: len(q)], self.base[first:]
        known = self.seen[lane, cell].clamp(max=REMEMBERED)
        drawn = (u[META:, first:] * known).long()
        code = self.recent[lane, cell, drawn].long()
        action = world.action_of[code]
        errors = self.q[base + cell].gather(1, action.T) - self._target(code, base).T
        change = torch.zeros_like(q).scatter_add(1, action.T, errors / OUTER)
        both = torch.stack((q, change), 2)
        r = torch.bmm(self.deviation, both)
        self.gradient.baddbmm_(r.flip(2), both.mT)  # ṙ qᵀ + r q̇ᵀ

    def _renew(self) -> None:
        """M and MᵀM after a step of the similarities."""
        if not self.similarities:
            return
        sigma = torch.cat([similarity.matrix().detach() for similarity in self.similarities])
        self.deviation = torch.eye(self.world.n, dtype=torch.float64) - sigma
        self.normal[self.first_learned - self.first_fixed :] = self.deviation.mT @ self.deviation

    def evaluate(self) -> Tensor:
        """Score of a greedy episode of each lane, (arms, seeds)."""
        world, limit = self.world, self.world.grid.limit
        drawn = torch.stack([torch.from_numpy(rng.random(limit)) for rng in self.evaluation], 1)
        cell, time = torch.zeros_like(self.cell), torch.zeros_like(self.time)
        total, factor = torch.zeros(len(cell), dtype=torch.float64), torch.ones(len(cell), dtype=torch.float64)
        for u in drawn:
            action = _greedy(self.q[self.base + cell], u.repeat(self.arms))
            pair = cell * world.n + action
            made = torch.minimum(world.lasts[pair], limit - time).clamp(min=1)
            code = pair * world.longest + made - 1
            total += factor * world.reward[code]
            time += made
            factor = torch.where(time < limit, factor * world.discount[code], 0.0)
            cell = world.after[code]
            if not bool(factor.any()):
                break
        return ((total - world.worst) / (world.best - world.worst)).view(self.arms, -1)


def _greedy(rows: Tensor, u: Tensor) -> Tensor:
    """The best action of each row; among equal ones that which a uniform random number says."""
    best = rows == rows.amax(1, keepdim=True)
    ranks = best.cumsum(1)
    chosen = (u * ranks[:, -1]).long()
    return (ranks > chosen.unsqueeze(1)).int().argmax(1)


def learn(
    world: World, setups: Mapping[str, Setup], seeds: Sequence[int], config: TableConfig, *stream: int
) -> dict[str, Course]:
    """Learn a table for each arm and seed. The arms of a seed share its random numbers.

    Arguments:
        world: where.
        setups: of the arms.
        seeds: of each arm.
        config: how.
        stream: numbers of this run among those of the seeds.
    """
    order = sorted(setups, key=lambda arm: 2 if setups[arm].learned else setups[arm].sigma is not None)
    tables = Tables(world, [setups[arm] for arm in order], seeds, config, *stream)
    scores = tables.run()
    learned = iter(tables.similarities)
    courses = {}
    for number, arm in enumerate(order):
        sigma = next(learned).matrix().detach() if setups[arm].learned else setups[arm].sigma
        courses[arm] = Course(scores[:, number], sigma)
    return {arm: courses[arm] for arm in setups}
