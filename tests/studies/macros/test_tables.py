"""Grids, tables and networks of the study of macros, against plain loops and against the library."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import mse_loss

from holdfast.errors import ArgumentError
from holdfast.rl.similarity import InnerStep, SimilarityMatrix, masp_penalty, meta_gradient, preconditioner, sinkhorn
from holdfast.studies.macros import deep, tables
from holdfast.studies.macros.arms import NAIVE, PRIMITIVES
from holdfast.studies.macros.deep import Networks
from holdfast.studies.macros.lanes import META, ROUNDS, TIE, Lanes, Setup, greedy
from holdfast.studies.macros.settings import DeepConfig, TableConfig
from holdfast.studies.macros.starts import averages, even_start
from holdfast.studies.macros.tables import OUTER, Tables
from holdfast.studies.macros.worlds import MOVES, Grid, World, closed_walks, junk_macros

GRID = Grid(side=4, length=2, junk=3, limit=12)
SEEDS = (0, 1)
SHORT, LONG = 36, 400
"""Closed walks of length 4 and 6 on the square lattice."""


def test_walks_lead_nowhere() -> None:
    assert len(closed_walks(4)) == SHORT
    assert len(closed_walks(6)) == LONG
    some, many = junk_macros(24), junk_macros(56)
    assert len(set(some)) == 24
    assert set(some).issubset(closed_walks(4))
    assert set(many).issuperset(closed_walks(4))
    assert len(set(many)) == 56
    for walk in many:
        assert [sum(MOVES[move][axis] for move in walk) for axis in (0, 1)] == [0, 0]
    with pytest.raises(ArgumentError, match="junk"):
        Grid(junk=437)


@pytest.mark.parametrize("walls", ["none", "row", "rooms"])
def test_a_world_is_what_its_moves_make_of_it(walls: str) -> None:
    grid = Grid(side=5, walls=walls, length=3, junk=4, limit=20)  # type: ignore[arg-type]
    world = World(grid)
    blocked = {
        "none": set[tuple[int, int]](),
        "row": {(2, 0), (2, 1), (2, 2), (2, 4)},
        "rooms": {(2, 0), (2, 2), (2, 4), (0, 2), (4, 2)},
    }[walls]
    for cell in range(25):
        for action, sequence in enumerate(grid.actions()):
            row, column = divmod(cell, 5)
            total, made = 0.0, 0
            for step, move in enumerate(sequence):
                assert world.path[(cell * world.n + action) * world.longest + step] == row * 5 + column
                assert world.primitive[action, step] == move
                there = row + MOVES[move][0], column + MOVES[move][1]
                if all(place in range(5) for place in there) and there not in blocked:
                    row, column = there
                made, end = step + 1, (row, column) == (4, 4)
                total += 0.97**step * (1.0 if end else -0.02)
                code = (cell * world.n + action) * world.longest + step
                assert (world.cell_of[code], world.action_of[code]) == (cell, action)
                assert world.after[code] == row * 5 + column
                assert float(world.reward[code]) == pytest.approx(total)
                assert float(world.discount[code]) == pytest.approx(0.0 if end else 0.97**made)
                if end:
                    break
            assert world.lasts[cell * world.n + action] == made
    assert world.best == pytest.approx(0.97**7 - 0.02 * (1 - 0.97**7) / 0.03), "eight moves, walls or not"
    assert world.worst == pytest.approx(-0.02 * sum(0.97**step for step in range(20)))


def test_a_goal_that_cannot_be_reached_is_refused() -> None:
    with pytest.raises(ArgumentError, match="goal"):
        World(Grid(side=5, walls="row", goal=(2, 0)))


def test_ties_are_broken_evenly() -> None:
    rows = torch.tensor([[1.0, 2.0, 2.0, -torch.inf, 2.0]], dtype=torch.float64).expand(9, -1)
    u = torch.linspace(0.05, 0.95, 9, dtype=torch.float64)
    assert greedy(rows, u).tolist() == [1, 1, 1, 2, 2, 2, 4, 4, 4]


SETUPS = {
    "primitives": PRIMITIVES.setup(World(GRID), SEEDS),
    "naive": NAIVE.setup(World(GRID), SEEDS),
    "steps": Setup(steps_too=True),
    "oracle": Setup(eta=0.5, sigma=averages(GRID.groups(), SEEDS)),
    "raw": Setup(eta=0.5, sigma=even_start(11, 0.5, SEEDS), learned="raw", meta_lr=1e-3),
    "sinkhorn": Setup(eta=1.0, sigma=even_start(11, 0.2, SEEDS), learned="sinkhorn", meta_lr=1e-2),
}


def played(steps: int, config: TableConfig) -> tuple[Lanes, Tables]:
    setups = list(SETUPS.values())
    lanes = Lanes(World(GRID), setups, SEEDS, config.steps, config.epsilon)
    learner = Tables(lanes, setups, config)
    with torch.no_grad():
        for step, u in zip(range(steps), lanes.draws(META + OUTER), strict=False):
            learner.step(step, u)
    return lanes, learner


def test_tables_learn_as_a_loop_does() -> None:
    """One agent a time, with a penalty and a meta-gradient of the library, from the same random numbers."""
    config = TableConfig(steps=203, meta_every=7)
    lanes, learner = played(203, config)
    world = lanes.world
    lanes_of_seeds = Lanes(world, list(SETUPS.values()), SEEDS, 203, 0.1)
    draws = [u for _, u in zip(range(203), lanes_of_seeds.draws(META + OUTER), strict=False)]
    for number, (arm, setup) in enumerate(SETUPS.items()):
        for place in range(len(SEEDS)):
            lane = number * len(SEEDS) + place
            q, weights = loop(world, setup, place, [u[:, lane] for u in draws], config)
            mine = lanes.q.view(lanes.number, world.cells, world.n)[lane]
            assert torch.equal(mine.isinf(), q.isinf())
            torch.testing.assert_close(mine.nan_to_num(), q.nan_to_num(), rtol=1e-9, atol=1e-9, msg=arm)
            if setup.learned:
                similarity = learner.similarities[number - 4]
                assert similarity.kind == setup.learned
                torch.testing.assert_close(similarity.weights[place].detach(), weights, rtol=1e-7, atol=1e-9)
                assert setup.sigma is not None
                assert not torch.allclose(similarity.matrix()[place], setup.sigma[place], atol=1e-4), "it has learned"


def loop(
    world: World, setup: Setup, place: int, draws: list[torch.Tensor], config: TableConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    grid, actions = world.grid, list(world.grid.actions())
    legal = 4 if setup.primitives else world.n
    q = torch.zeros(world.cells, world.n, dtype=torch.float64)
    q[:, legal:] = -math.inf
    weights = torch.zeros(0)
    if setup.sigma is not None:
        weights = setup.sigma[place].log() if setup.learned == "sinkhorn" else setup.sigma[place].clone()
    weights = weights.clone().requires_grad_(setup.learned is not None)
    adam = torch.optim.Adam([weights], lr=setup.meta_lr or 1.0)
    cell = time = left = 0
    stored: list[tuple[int, int, float, float, int]] = []
    steps: list[tuple[int, int, float, float, int]] = []
    pending: list[tuple[int, int, float, float, int]] = []
    recent: dict[int, list[tuple[int, int, float, float, int]]] = {}

    def carried_out(cell: int, sequence: tuple[int, ...], room: int) -> tuple[float, float, int, int]:
        total, factor, made = 0.0, 1.0, 0
        for move in sequence[:room]:
            row, column = (min(max(cell // 4 + MOVES[move][0], 0), 3), min(max(cell % 4 + MOVES[move][1], 0), 3))
            cell, made = row * 4 + column, made + 1
            total += factor * (1.0 if cell == 15 else -grid.cost)
            factor *= grid.discount
            if cell == 15:
                return total, 0.0, cell, made
        return total, factor, cell, made

    def target(reward: float, factor: float, after: int) -> torch.Tensor:
        return reward + factor * q[after].max()

    for step, u in enumerate(draws):
        if left == 0:
            best = (q[cell] == q[cell].max()).nonzero().flatten().tolist()
            action = best[int(u[TIE] * len(best))]
            if u[0] < config.epsilon:
                action = int(u[1] * legal)
            reward, factor, after, left = carried_out(cell, actions[action], grid.limit - time)
            newest = (cell, action, reward, factor, after)
            stored.append(newest)
            recent.setdefault(cell, []).append(newest)
            pending, here = [], cell
            for move in actions[action][:left]:
                there = carried_out(here, (move,), 1)
                pending.append((here, move, *there[:3]))
                here = there[2]
            time += left
            cell = after
            if factor == 0 or time >= grid.limit:
                cell = time = 0
        steps.append(pending.pop(0))
        chosen = newest if step % 2 == 0 else stored[int(u[3] * len(stored))]
        if step % 2 and setup.steps_too and u[4] < 0.5:
            chosen = steps[int(u[3] * len(steps))]
        left -= 1
        at, action, reward, factor, after = chosen
        old = q[at].clone()
        new = old.clone()
        new[action] -= config.lr * (old[action] - target(reward, factor, after))
        if setup.sigma is not None:
            row = old.clone().requires_grad_()
            sigma = sinkhorn(weights, ROUNDS) if setup.learned == "sinkhorn" else weights
            (gradient,) = torch.autograd.grad(masp_penalty(row[None], sigma.detach()), row)
            new -= config.lr * setup.eta * gradient
        q[at] = new
        if setup.learned:
            known = recent[at][-64:]
            # The ring's first place is that of the oldest but for what has been written over.
            outer = [known[int(number * len(known))] for number in u[META:]]
            assert len(recent[at]) <= 64
            targets = torch.stack([target(*transition[2:]) for transition in outer])
            taken = torch.tensor([transition[1] for transition in outer])
            moved = q[at].clone().requires_grad_()
            (g,) = torch.autograd.grad(0.5 * mse_loss(moved[taken], targets), moved)
            matrix = sinkhorn(weights, ROUNDS) if setup.learned == "sinkhorn" else (weights + weights.T) / 2
            deviation = torch.eye(world.n, dtype=torch.float64) - matrix
            surrogate = -2 * config.lr * setup.eta * (deviation @ old) @ (deviation @ g)
            (gradient,) = torch.autograd.grad(surrogate, weights)
            weights.grad = gradient if weights.grad is None else weights.grad + gradient
            if (step + 1) % config.meta_every == 0:
                adam.step()
                weights.grad = None
                if setup.learned == "raw":
                    with torch.no_grad():
                        weights.copy_(((weights + weights.T) / 2).clamp(min=0))
    return q, weights.detach()


def test_networks_take_the_meta_gradient_of_the_library() -> None:
    """One step of Adam on the similarity from the gradient that `meta_gradient` gives for a network of torch."""
    world = World(GRID)
    start = even_start(world.n, 0.3, SEEDS)
    setups = [Setup(), Setup(eta=0.3, sigma=start, learned="sinkhorn", meta_lr=1e-2)]
    config = DeepConfig(steps=200, width=8, batch=4)
    lanes = Lanes(world, setups, SEEDS, config.steps, 0.5)
    networks = Networks(lanes, setups, SEEDS, config)
    draws = lanes.draws(META + 2 * config.batch)
    for _, u in zip(range(40), draws, strict=False):
        lanes.decide(u)
        lanes.left -= 1
    u = next(draws)
    table = lanes.q.view(lanes.number, -1, world.n).clone()
    models = [network_of(networks.weights, lane) for lane in range(4)]
    networks.update(u)
    shown = lanes.q.view(lanes.number, -1, world.n)
    for lane in (0, 3):
        model = models[lane]
        adam = torch.optim.Adam(model.parameters(), lr=config.lr)
        places = u[META:, lane].view(2, config.batch)
        code, other = ((row * lanes.count[lane]).long() for row in places)
        code, other = lanes.stored[lane, code].long(), lanes.stored[lane, other].long()

        def error(q: torch.Tensor, code: torch.Tensor, table: torch.Tensor = table[lane]) -> torch.Tensor:
            target = world.reward[code] + world.discount[code] * table[world.after[code]].amax(1)
            return mse_loss(q.gather(1, world.action_of[code][:, None]).squeeze(1), target.float())

        similarity = SimilarityMatrix(world.n, start=start[lane % 2].float(), iterations=ROUNDS)
        seen = networks.seen[world.cell_of[code]]
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        q = model(seen)
        loss = error(q, code)
        if lane == 3:
            loss = loss + 0.3 * masp_penalty(q, similarity.matrix().detach())
        loss.backward()
        adam.step()
        torch.testing.assert_close(model(networks.seen).double(), shown[lane], rtol=1e-4, atol=1e-5)
        if lane == 3:
            inner = InnerStep(
                values=lambda parameters, model=model, seen=seen: torch.func.functional_call(
                    model, parameters, (seen,)
                ),
                before=before,
                after=dict(model.named_parameters()),
                lr=preconditioner(adam, model),
                eta=0.3,
            )
            meta_gradient(
                lambda parameters, model=model, other=other: error(
                    torch.func.functional_call(model, parameters, (networks.seen[world.cell_of[other]],)), other
                ),
                inner,
                similarity=similarity,
            )
            weights = networks.similarities[0].weights
            assert weights.grad is not None
            assert similarity.weights.grad is not None
            torch.testing.assert_close(weights.grad[1].float(), similarity.weights.grad, rtol=1e-3, atol=1e-8)


def network_of(weights: deep.Weights, lane: int) -> torch.nn.Sequential:
    layers: list[torch.nn.Module] = []
    for matrix, bias in zip(weights[::2], weights[1::2], strict=True):
        layer = torch.nn.Linear(matrix.shape[1], matrix.shape[2])
        with torch.no_grad():
            layer.weight.copy_(matrix[lane].T)
            layer.bias.copy_(bias[lane, 0])
        layers += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def test_a_seed_does_not_depend_on_the_others() -> None:
    config = TableConfig(steps=100, evaluations=5)
    plain = {arm: SETUPS[arm] for arm in ("primitives", "naive", "steps")}
    both, alone = (tables.learn(World(GRID), plain, seeds, config) for seeds in (SEEDS, SEEDS[1:]))
    for arm in plain:
        assert torch.equal(both[arm].scores[:, 1:], alone[arm].scores)
