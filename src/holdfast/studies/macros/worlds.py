"""Grids with a goal, and macro-actions in them: useful ones that repeat a move, junk ones that lead nowhere.

A world is a table: what an action does in a cell follows from both, but for the time limit, which may end a macro
early. So a transition is a number, its code: (cell, action, primitive steps that were made).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from holdfast.errors import ArgumentError

if TYPE_CHECKING:
    from holdfast.rl.macros import Macros

Walls = Literal["none", "row", "rooms"]

MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))
NAMES = ("up", "down", "left", "right")
SUBSET = 7
"""Seed of which closed walks are taken where not all are: a part of the protocol, and no seed of a trial."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A grid, and the macro-actions in it.

    Arguments:
        side: cells a side.
        walls: `row`: the middle row is blocked but for the last column but one; `rooms`: four, each with two doors.
        goal: row and column, counted from the end where negative; play starts at (0, 0).
        length: of the macros that repeat a move.
        junk: number of macros that end where they began.
        limit: primitive steps of an episode.
        cost: of a primitive step; the one that enters the goal is worth 1 instead.
        discount: of a primitive step.

    Errors:
        ArgumentError: more junk than there are closed walks of length 4 and 6.
    """

    side: int = 13
    walls: Walls = "none"
    goal: tuple[int, int] = (-1, -1)
    length: int = 4
    junk: int = 24
    limit: int = 120
    cost: float = 0.02
    discount: float = 0.97

    def __post_init__(self) -> None:
        most = len(closed_walks(4)) + len(closed_walks(6))
        if not 0 <= self.junk <= most:
            raise ArgumentError("junk", f"a number from 0 to {most}", self.junk)

    def actions(self) -> Macros:
        """Moves, each of them repeated, junk."""
        from holdfast.rl.macros import Macros, repeat

        return repeat(len(MOVES), self.length) | Macros(len(MOVES), junk_macros(self.junk), NAMES)

    def groups(self) -> tuple[int, ...]:
        """The group of each action: each useful one its own, all junk the same, for it has the same net effect."""
        useful = 2 * len(MOVES)
        return (*range(useful), *[useful] * self.junk)


def closed_walks(length: int) -> list[tuple[int, ...]]:
    """All sequences of moves that end where they began, if no wall is in the way, in lexicographic order."""
    walks = itertools.product(range(len(MOVES)), repeat=length)
    return [walk for walk in walks if walk.count(0) == walk.count(1) and walk.count(2) == walk.count(3)]


def junk_macros(count: int) -> tuple[tuple[int, ...], ...]:
    """Closed walks: of length 4, and where these do not suffice of length 6, a random part of them, always the same."""
    import numpy as np

    rng = np.random.default_rng(SUBSET)
    chosen: list[tuple[int, ...]] = []
    for length in (4, 6):
        walks, wanted = closed_walks(length), count - len(chosen)
        if wanted >= len(walks):
            chosen += walks
        elif wanted > 0:
            chosen += [walks[i] for i in sorted(rng.choice(len(walks), wanted, replace=False).tolist())]
    return tuple(chosen)


class World:
    """What each action does in each cell of a grid.

    Arguments:
        grid: the grid.
    """

    def __init__(self, grid: Grid) -> None:
        import torch

        actions = list(grid.actions())
        self.grid, self.n, self.longest = grid, len(actions), max(map(len, actions))
        self.cells = grid.side**2
        moves = _moves(grid)
        goal = (grid.goal[0] % grid.side) * grid.side + grid.goal[1] % grid.side
        shape = (self.cells, self.n, self.longest)
        after, path = (torch.zeros(shape, dtype=torch.long) for _ in range(2))
        reward, discount = (torch.zeros(shape, dtype=torch.float64) for _ in range(2))
        lasts = torch.zeros(self.cells, self.n, dtype=torch.long)
        for start, (action, sequence) in itertools.product(range(self.cells), enumerate(actions)):
            cell, total, factor = start, 0.0, 1.0
            for step, primitive in enumerate(sequence):
                path[start, action, step] = cell
                cell = moves[cell][primitive]
                total += factor * (1.0 if cell == goal else -grid.cost)
                factor *= grid.discount
                place = (start, action, step)
                after[place], reward[place] = cell, total
                discount[place] = 0.0 if cell == goal else factor
                lasts[start, action] = step + 1
                if cell == goal:
                    break
        code = torch.arange(after.numel())
        self.after, self.reward, self.discount = after.flatten(), reward.flatten(), discount.flatten()
        """By code: the cell that is reached, the discounted reward, and the discount of its value (0: the end)."""
        self.cell_of, self.action_of = code // (self.n * self.longest), code // self.longest % self.n
        self.lasts = lasts.flatten()
        """By cell · n + action: primitive steps until the macro or the episode ends, the time limit apart."""
        self.path = path.flatten()
        """By code, with the number of steps before in place of those made: the cell that a primitive step begins in."""
        self.primitive = torch.tensor([[*sequence, *[0] * (self.longest - len(sequence))] for sequence in actions])
        """By action and number of the step: the move."""
        steps = _distance(moves, goal)
        lost = (1 - grid.discount ** (steps - 1)) / (1 - grid.discount) * grid.cost
        self.best = grid.discount ** (steps - 1) - lost
        """Return of the shortest way."""
        self.worst = -grid.cost * (1 - grid.discount**grid.limit) / (1 - grid.discount)
        """Return of never reaching the goal."""


def _moves(grid: Grid) -> list[list[int]]:
    """The cell after each move from each cell; who bumps into something stays."""
    side, middle = grid.side, grid.side // 2
    doors = {(middle, 1), (middle, side - 2), (1, middle), (side - 2, middle)}

    def free(row: int, column: int) -> bool:
        if not (0 <= row < side and 0 <= column < side):
            return False
        if grid.walls == "row":
            return row != middle or column == side - 2
        return grid.walls == "none" or middle not in (row, column) or (row, column) in doors

    table = []
    for row, column in itertools.product(range(side), repeat=2):
        after = [(row + down, column + right) for down, right in MOVES]
        table.append([r * side + c if free(r, c) else row * side + column for r, c in after])
    return table


def _distance(moves: list[list[int]], goal: int) -> int:
    """Moves of the shortest way from cell 0.

    Errors:
        ArgumentError: there is none.
    """
    reached, edge, steps = {0}, {0}, 0
    while goal not in reached:
        edge = {after for cell in edge for after in moves[cell]} - reached
        if not edge:
            raise ArgumentError("goal", "a cell that can be reached", f"cell {goal}")
        reached |= edge
        steps += 1
    return steps
