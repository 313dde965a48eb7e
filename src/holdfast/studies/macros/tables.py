"""Semi-Markov Q-learning on tables, with the similarity penalty and its learning.

A lane makes one update in each primitive step: at even steps of its newest transition, at odd ones of one drawn from
all that it has stored. Both terms come from the same row of the table,

    Q(s) ← Q(s) - lr 2η MᵀM Q(s) - lr (Q(s,a) - R - D max_b Q(s',b)) e_a,   M = I - Σ

and a similarity that is learned takes the meta-gradient through it (see `holdfast.rl.similarity.meta`), with other
transitions of the same cell as other batch: on a table nothing else tells what the penalty has moved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from holdfast.studies.macros.lanes import META, REPLAY, SUB, Course, Evaluations, Lanes, Setup, Similarities, courses
from holdfast.studies.macros.settings import TableConfig
from holdfast.studies.macros.worlds import World

REMEMBERED = 64
"""Transitions of a cell that those of the outer loss are drawn from."""
OUTER = 4
"""Transitions of the outer loss."""


class Tables:
    """Tables of all lanes.

    Arguments:
        lanes: who plays, by these tables.
        setups: of the arms.
        config: how they learn.
    """

    def __init__(self, lanes: Lanes, setups: Sequence[Setup], config: TableConfig) -> None:
        self.lanes, self.config, self.world = lanes, config, lanes.world
        n, each = lanes.world.n, lanes.number // lanes.arms
        self.steps_too = [slice(arm * each, (arm + 1) * each) for arm, setup in enumerate(setups) if setup.steps_too]
        self.made = torch.zeros(len(self.steps_too), each, config.steps, dtype=torch.int32)
        """Codes of all primitive steps of these arms."""
        self.similarities = [Similarities(setup) for setup in setups if setup.learned]
        strength = [[2 * config.lr * setup.eta] for setup in setups if setup.sigma is not None]
        self.strength = torch.tensor(strength, dtype=torch.float64).repeat_interleave(each, 0)
        self.normal = torch.zeros(lanes.number - lanes.first_fixed, n, n, dtype=torch.float64)
        """MᵀM of the lanes with a penalty."""
        fixed = [setup.sigma for setup in setups if setup.sigma is not None and not setup.learned]
        if fixed:
            deviation = torch.eye(n, dtype=torch.float64) - torch.cat(fixed)
            self.normal[: len(deviation)] = deviation.mT @ deviation
        self.deviation = torch.zeros(lanes.number - lanes.first_learned, n, n, dtype=torch.float64)
        """M of the lanes whose similarity is learned."""
        self.gradient = torch.zeros_like(self.deviation)
        self.recent = torch.zeros(len(self.deviation), self.world.cells, REMEMBERED, dtype=torch.int32)
        self.seen = torch.zeros(len(self.deviation), self.world.cells, dtype=torch.long)
        self._renew()

    def step(self, step: int, u: Float64[Tensor, "numbers lanes"]) -> None:
        """Play a primitive step, and make an update in each lane.

        Arguments:
            step: number of the step.
            u: its random numbers.
        """
        lanes, world, lr = self.lanes, self.world, self.config.lr
        self._remember(lanes.decide(u))
        code = lanes.newest
        if step % 2:
            code = lanes.stored[lanes.lane, (u[REPLAY] * lanes.count).long()].long()
        for number, of_arm in enumerate(self.steps_too):
            code = self._primitive_step(number, of_arm, step, code, u)
        lanes.left -= 1
        cell, action = world.cell_of[code], world.action_of[code].unsqueeze(1)
        place = lanes.base + cell
        row = lanes.q[place]
        error = row.gather(1, action).squeeze(1) - self._target(code, lanes.base)
        after = row.scatter_add(1, action, -lr * error.unsqueeze(1))
        if len(self.normal):
            old = row[lanes.first_fixed :].unsqueeze(2)
            after[lanes.first_fixed :] -= self.strength * torch.bmm(self.normal, old).squeeze(2)
        lanes.q[place] = after
        if self.similarities:
            self._learn_from(row[lanes.first_learned :], cell[lanes.first_learned :], u)
            if (step + 1) % self.config.meta_every == 0:
                gradients = self.gradient.chunk(len(self.similarities))
                for similarity, gradient in zip(self.similarities, gradients, strict=True):
                    similarity.step(gradient)
                self.gradient.zero_()
                self._renew()

    def _remember(self, deciding: Int64[Tensor, " deciding"]) -> None:
        """Keep the decisions of lanes whose similarity is learned by the cell that they were taken in."""
        learned = deciding[deciding >= self.lanes.first_learned]
        code = self.lanes.newest[learned]
        place = learned - self.lanes.first_learned, self.world.cell_of[code]
        self.recent[(*place, self.seen[place] % REMEMBERED)] = code.int()
        self.seen[place] += 1

    def _primitive_step(
        self,
        number: int,
        of_arm: slice,
        step: int,
        code: Int64[Tensor, " lanes"],
        u: Float64[Tensor, "numbers lanes"],
    ) -> Int64[Tensor, " lanes"]:
        """Store the primitive step of now; half of the draws from the replay are from those.

        A decision still is learned from at once, and primitive steps, of which there are more than decisions, do not
        dilute the replay of these.

        Arguments:
            number: of the arm among those that do so.
            of_arm: its lanes.
            step: number of the step.
            code: what all lanes would learn from.
            u: random numbers of the step.

        Returns:
            What they learn from.
        """
        world, newest = self.world, self.lanes.newest[of_arm]
        before = newest % world.longest + 1 - self.lanes.left[of_arm]
        cell = world.path[newest - newest % world.longest + before]
        primitive = world.primitive[world.action_of[newest], before]
        self.made[number, :, step] = ((cell * world.n + primitive) * world.longest).int()
        if step % 2 == 0:
            return code
        drawn = (u[REPLAY, of_arm] * (step + 1)).long()
        made = self.made[number, torch.arange(len(drawn)), drawn].long()
        code = code.clone()
        code[of_arm] = torch.where(u[SUB, of_arm] < 0.5, made, code[of_arm])
        return code

    def _target(self, code: Int64[Tensor, "*shape"], base: Int64[Tensor, " lanes"]) -> Float64[Tensor, "*shape"]:
        """R + D max_b Q(s',b)."""
        world = self.world
        return world.reward[code] + world.discount[code] * self.lanes.q[base + world.after[code]].amax(-1)

    def _learn_from(
        self,
        q: Float64[Tensor, "learned n"],
        cell: Int64[Tensor, " learned"],
        u: Float64[Tensor, "numbers lanes"],
    ) -> None:
        """Add the meta-gradient of the update that was just made: 2 η (ṙ qᵀ + r q̇ᵀ), q̇ = lr g'.

        Arguments:
            q: rows before it.
            cell: their cells.
            u: random numbers of the step.
        """
        lanes, world = self.lanes, self.world
        lane, base = lanes.lane[: len(q)], lanes.base[lanes.first_learned :]
        known = self.seen[lane, cell].clamp(max=REMEMBERED)
        drawn = (u[META:, lanes.first_learned :] * known).long()
        code = self.recent[lane, cell, drawn].long()
        action = world.action_of[code].T
        errors = lanes.q[base + cell].gather(1, action) - self._target(code, base).T
        change = torch.zeros_like(q).scatter_add(1, action, errors * self.strength[-len(q) :] / OUTER)
        both = torch.stack((q, change), 2)
        residuals = torch.bmm(self.deviation, both)
        self.gradient.baddbmm_(residuals.flip(2), both.mT)

    def _renew(self) -> None:
        """M and MᵀM of similarities that have changed."""
        if self.similarities:
            sigma = torch.cat([similarity.matrix().detach() for similarity in self.similarities])
            self.deviation = torch.eye(self.world.n, dtype=torch.float64) - sigma
            self.normal[len(self.normal) - len(sigma) :] = self.deviation.mT @ self.deviation


@torch.no_grad()
def learn(
    world: World, setups: Mapping[str, Setup], seeds: Sequence[int], config: TableConfig, *stream: int
) -> dict[str, Course]:
    """Learn a table for each arm and seed.

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
    tables, evaluations = Tables(lanes, in_order, config), Evaluations(lanes, config.evaluations)
    for step, u in enumerate(lanes.draws(META + OUTER)):
        tables.step(step, u)
        evaluations.after(step + 1)
    return courses(setups, order, evaluations.scores(), tables.similarities)
