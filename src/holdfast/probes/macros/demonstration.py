"""An agent with many useless macros, and its values: for whoever wants to see the probe at work."""

from __future__ import annotations

import itertools

import numpy as np

from holdfast.probes.macros.logged import LoggedValues, logged_values
from holdfast.rl.macros import Macros

SIDE, LENGTH, LOOPS = 13, 4, 24
STEP, GAMMA = -0.02, 0.99
EPISODES, DECISIONS = 40, 50
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))
NAMES = ("UP", "DOWN", "LEFT", "RIGHT")


def loops_on_a_grid(seed: int = 0) -> tuple[LoggedValues, Macros]:
    """A grid without walls, 32 actions: four moves, each of them four times, and 24 walks that come back at once.

    The agent knows the exact values, by value iteration of the semi-Markov process, and plays at random.

    Arguments:
        seed: of the choice of walks, and of the play.

    Returns:
        Values in the states of 40 episodes with the actions taken, and the list of actions.
    """
    rng = np.random.default_rng(seed)
    walks = [walk for walk in itertools.product(range(4), repeat=LENGTH) if _closed(walk)]
    chosen = sorted(rng.choice(len(walks), LOOPS, replace=False).tolist())
    repeats = tuple((move,) * LENGTH for move in range(4))
    macros = Macros(4, repeats + tuple(walks[number] for number in chosen), NAMES)
    after, reward, discount = _outcomes(macros)
    values = np.zeros(SIDE * SIDE)
    goal = SIDE * SIDE - 1
    for _ in range(10 * SIDE):  # each sweep reaches one decision further, and a shortest way has fewer
        values = (reward + discount * values[after]).max(1)
        values[goal] = 0.0
    q = reward + discount * values[after]
    states, actions, episodes = [], [], []
    for episode in range(EPISODES):
        state = int(rng.integers(goal))
        for _ in range(DECISIONS):
            action = int(rng.integers(len(macros)))
            states.append(state)
            actions.append(action)
            episodes.append(episode)
            state = int(after[state, action])
            if state == goal:
                break
    return logged_values(q[states], action=actions, episode=episodes), macros


def _outcomes(macros: Macros) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cell, discounted reward and discount after each action in each cell; a macro stops at the goal."""
    shape = (SIDE * SIDE, len(macros))
    after, reward, discount = np.zeros(shape, dtype=int), np.zeros(shape), np.ones(shape)
    goal = (SIDE - 1, SIDE - 1)
    for cell, action in itertools.product(range(SIDE * SIDE), range(len(macros))):
        row, column = divmod(cell, SIDE)
        for move in macros[action]:
            if (row, column) == goal:
                break
            reward[cell, action] += discount[cell, action] * STEP
            discount[cell, action] *= GAMMA
            row = min(max(row + MOVES[move][0], 0), SIDE - 1)
            column = min(max(column + MOVES[move][1], 0), SIDE - 1)
        after[cell, action] = row * SIDE + column
    return after, reward, discount


def _closed(walk: tuple[int, ...]) -> bool:
    """Whether it comes back, where no wall is in the way."""
    return walk.count(0) == walk.count(1) and walk.count(2) == walk.count(3)
