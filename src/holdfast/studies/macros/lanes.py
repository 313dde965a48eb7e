"""Play in a world, many seeds and arms side by side, by the values that a learner keeps in a table.

A lane is an agent in its own copy of the world. All lanes make a primitive step at a time: one whose last action is
over takes a decision, carries it out at once, stores it, and then waits as many steps as it took.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float64, Int64

from holdfast.lab import progress
from holdfast.lab.seeds import rng_for
from holdfast.rl.similarity import sinkhorn
from holdfast.studies.macros.streams import EVALUATION, PLAY
from holdfast.studies.macros.worlds import MOVES, World

if TYPE_CHECKING:
    from collections.abc import Iterator

from torch import Tensor

EXPLORE, ACTION, TIE, REPLAY, SUB, META = range(6)
"""Which of a step's random numbers is what for; those from the last on are for what the learner draws."""
BLOCK = 500
"""Steps whose random numbers are drawn at once."""
ROUNDS = 12
"""Of Sinkhorn's normalisation."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What an arm has, in the order of seeds.

    Arguments:
        eta: strength of the penalty; 0: none.
        sigma: (seeds, n, n), the similarity of the penalty, or the one that learning starts from.
        learned: the parametrisation in which it is learned; `None`: it stays.
        meta_lr: of Adam on it.
        primitives: no macros.
        steps_too: primitive steps within macros are stored as transitions of their own (tables alone).
    """

    eta: float = 0.0
    sigma: Float64[Tensor, "seeds n n"] | None = None
    learned: Literal["raw", "sinkhorn"] | None = None
    meta_lr: float = 0.0
    primitives: bool = False
    steps_too: bool = False

    @property
    def rank(self) -> int:
        """Its place among arms: without a penalty, with one that stays, with one that is learned."""
        return 2 if self.learned else int(self.sigma is not None)


@dataclass(frozen=True)
class Course:
    """How an arm went.

    Arguments:
        scores: of greedy episodes: 1 is the shortest way, 0 never to reach the goal.
        sigma: the similarity in the end; `None`: there was none.
    """

    scores: Float64[Tensor, "evaluations seeds"]
    sigma: Float64[Tensor, "seeds n n"] | None


class Lanes:
    """Agents, arms by seeds. The arms of a seed share its random numbers, which depend on no other seed.

    Arguments:
        world: where they are.
        setups: of the arms, by their rank.
        seeds: of each arm.
        steps: primitive steps in all.
        epsilon: share of random decisions.
        stream: numbers of this run among those of the seeds.
    """

    def __init__(
        self, world: World, setups: Sequence[Setup], seeds: Sequence[int], steps: int, epsilon: float, *stream: int
    ) -> None:
        ranks = [setup.rank for setup in setups]
        assert ranks == sorted(ranks)
        each = len(seeds)
        self.world, self.arms, self.steps, self.epsilon = world, len(setups), steps, epsilon
        self.number = self.arms * each
        self.first_fixed, self.first_learned = (each * sum(rank < first for rank in ranks) for first in (1, 2))
        """The first lane with a penalty, and the first whose similarity is learned."""
        self.lane = torch.arange(self.number)
        self.base = self.lane * world.cells
        self.q = torch.zeros(self.number * world.cells, world.n, dtype=torch.float64)
        """Values by which is played, (lanes · cells, n); -∞ where there is no such action."""
        self.choices = torch.full((self.number,), world.n)
        for arm, setup in enumerate(setups):
            if setup.primitives:
                self.q.view(self.arms, -1, world.n)[arm, :, len(MOVES) :] = -torch.inf
                self.choices[arm * each : (arm + 1) * each] = len(MOVES)
        self.cell, self.time, self.left, self.count, self.newest = (
            torch.zeros(self.number, dtype=torch.long) for _ in range(5)
        )
        self.stored = torch.zeros(self.number, steps, dtype=torch.int32)
        """Codes of the decisions; `count` of each lane."""
        self._play = [rng_for(seed, PLAY, *stream) for seed in seeds]
        self._evaluation = [rng_for(seed, EVALUATION, *stream) for seed in seeds]

    def draws(self, numbers: int) -> Iterator[Float64[Tensor, "numbers lanes"]]:
        """Random numbers of each step.

        Arguments:
            numbers: a step.
        """
        for begin in range(0, self.steps, BLOCK):
            drawn = torch.stack([torch.from_numpy(rng.random((BLOCK, numbers))) for rng in self._play], 2)
            for step in range(min(BLOCK, self.steps - begin)):
                yield drawn[step].repeat(1, self.arms)

    def decide(self, u: Float64[Tensor, "numbers lanes"]) -> Int64[Tensor, " deciding"]:
        """Where the last action is over, the next one, carried out at once and stored.

        Arguments:
            u: random numbers of the step.

        Returns:
            The lanes that took a decision.
        """
        world, lanes = self.world, (self.left == 0).nonzero().squeeze(1)
        if len(lanes):
            u, cell = u[:, lanes], self.cell[lanes]
            action = greedy(self.q[self.base[lanes] + cell], u[TIE])
            explored = (u[ACTION] * self.choices[lanes]).long()
            action = torch.where(u[EXPLORE] < self.epsilon, explored, action)
            pair, time = cell * world.n + action, self.time[lanes]
            made = torch.minimum(world.lasts[pair], world.grid.limit - time)
            code, count = pair * world.longest + made - 1, self.count[lanes]
            self.newest[lanes], self.left[lanes] = code, made
            self.stored[lanes, count] = code.int()
            self.count[lanes] = count + 1
            time = time + made
            over = (world.discount[code] == 0) | (time >= world.grid.limit)
            self.cell[lanes] = torch.where(over, 0, world.after[code])
            self.time[lanes] = torch.where(over, 0, time)
        return lanes

    def evaluate(self) -> Float64[Tensor, "arms seeds"]:
        """Score of a greedy episode of each lane."""
        world, limit = self.world, self.world.grid.limit
        drawn = torch.stack([torch.from_numpy(rng.random(limit)) for rng in self._evaluation], 1)
        cell, time = torch.zeros_like(self.cell), torch.zeros_like(self.time)
        total, factor = torch.zeros(len(cell), dtype=torch.float64), torch.ones(len(cell), dtype=torch.float64)
        for u in drawn:
            pair = cell * world.n + greedy(self.q[self.base + cell], u.repeat(self.arms))
            made = torch.minimum(world.lasts[pair], limit - time).clamp(min=1)
            code = pair * world.longest + made - 1
            total += factor * world.reward[code]
            time += made
            factor = torch.where(time < limit, factor * world.discount[code], 0.0)
            cell = world.after[code]
            if not bool(factor.any()):
                break
        return ((total - world.worst) / (world.best - world.worst)).view(self.arms, -1)


def greedy(rows: Float64[Tensor, "rows n"], u: Float64[Tensor, " rows"]) -> Int64[Tensor, " rows"]:
    """The best action of each row; among equal ones that which a uniform random number says."""
    best = rows == rows.amax(1, keepdim=True)
    ranks = best.cumsum(1)
    chosen = (u * ranks[:, -1]).long()
    return (ranks > chosen.unsqueeze(1)).int().argmax(1)


class Similarities:
    """Similarities of the lanes of an arm, while they are learned.

    Arguments:
        setup: of the arm.
    """

    def __init__(self, setup: Setup) -> None:
        assert setup.sigma is not None
        self.kind = setup.learned
        start = setup.sigma.log() if self.kind == "sinkhorn" else setup.sigma.clone()
        self.weights = start.requires_grad_()
        self.adam = torch.optim.Adam([self.weights], lr=setup.meta_lr)

    def matrix(self) -> Float64[Tensor, "seeds n n"]:
        """Σ of each lane."""
        return sinkhorn(self.weights, ROUNDS) if self.kind == "sinkhorn" else self.weights

    def step(self, gradient: Float64[Tensor, "seeds n n"]) -> None:
        """One step of Adam.

        Arguments:
            gradient: of the outer loss by Σ.
        """
        with torch.enable_grad():
            (self.weights.grad,) = torch.autograd.grad(self.matrix(), self.weights, gradient)
        if self.kind == "raw":
            self.weights.grad = (self.weights.grad + self.weights.grad.mT) / 2
        self.adam.step()
        if self.kind == "raw":
            with torch.no_grad():
                self.weights.copy_(((self.weights + self.weights.mT) / 2).clamp(min=0.0))


def courses(
    setups: Mapping[str, Setup],
    order: Sequence[str],
    scores: Float64[Tensor, "evaluations arms seeds"],
    similarities: Sequence[Similarities],
) -> dict[str, Course]:
    """What a run gives.

    Arguments:
        setups: of the arms.
        order: of the arms in the run.
        scores: in that order.
        similarities: those that were learned, in that order.
    """
    learned, found = iter(similarities), {}
    for number, arm in enumerate(order):
        sigma = next(learned).matrix().detach() if setups[arm].learned else setups[arm].sigma
        found[arm] = Course(scores[:, number], sigma)
    return {arm: found[arm] for arm in setups}


class Evaluations:
    """Greedy episodes in equal distances of a run, the first before it.

    Arguments:
        lanes: of the run.
        number: after the first.
    """

    def __init__(self, lanes: Lanes, number: int) -> None:
        self._lanes, self._every, self._number = lanes, lanes.steps // number, number
        self._scores = [lanes.evaluate()]

    def after(self, step: int) -> None:
        """Evaluate, if it is time.

        Arguments:
            step: steps that were made.
        """
        if step % self._every == 0 and len(self._scores) <= self._number:
            self._scores.append(self._lanes.evaluate())
            progress.report(step / self._lanes.steps, score=float(self._scores[-1].mean()))

    def scores(self) -> Float64[Tensor, "evaluations arms seeds"]:
        """Of all of them."""
        return torch.stack(self._scores)
