"""Dark rooms: a grid whose goal cannot be seen, and learners who look for it and then remember where it is.

An agent sees where it is and nothing else, moves to one of four sides or stays, and has a reward of 1 for each step
that ends on the goal. An episode begins in the corner, and a history is several episodes with the same goal, one after
the other: whoever remembers the first one does better in the next.

Source: the task is that of arXiv 2210.14215, used in arXiv 2410.22391; the learners here are scripted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64

MOVES = np.array([(0, 1), (1, 0), (0, -1), (-1, 0), (0, 0)])
"""What the actions 0 to 4 do to a position."""

STAY = 4

Deciding = Callable[[Float[np.ndarray, "rooms cells"], Float[np.ndarray, " rooms"] | None], Int64[np.ndarray, " rooms"]]
"""From what is seen in each room, and the rewards in answer to the last actions, to the next actions."""


@dataclass(frozen=True, kw_only=True)
class Rooms:
    """Shape of the rooms and of histories.

    Arguments:
        size: cells of a side.
        steps: of an episode.
        episodes: of a history.
    """

    size: int = 5
    steps: int = 20
    episodes: int = 4

    @property
    def goals(self) -> Int64[np.ndarray, "goals 2"]:
        """All cells but the corner where episodes begin."""
        cells = [(x, y) for x in range(self.size) for y in range(self.size)]
        return np.array(cells[1:])

    def seen(self, place: Int64[np.ndarray, "*rooms 2"]) -> Float[np.ndarray, "*rooms cells"]:
        """A position as a vector that is 1 at its cell and 0 at all others."""
        return np.asarray(np.eye(self.size**2, dtype=np.float32)[place[..., 0] * self.size + place[..., 1]])

    def moved(
        self, place: Int64[np.ndarray, "*rooms 2"], action: Int64[np.ndarray, "*rooms"]
    ) -> Int64[np.ndarray, "*rooms 2"]:
        """Where an action leads: walls hold."""
        return np.asarray(np.clip(place + MOVES[action], 0, self.size - 1))

    def best(self, goal: Int64[np.ndarray, " 2"]) -> int:
        """The greatest return of an episode: whoever goes straight has a reward from the step on that arrives."""
        return max(0, self.steps - int(goal.sum()) + 1)


class History(NamedTuple):
    """What a learner has seen, done and got, over all episodes."""

    places: Int64[np.ndarray, "time 2"]
    actions: Int64[np.ndarray, " time"]
    rewards: Float[np.ndarray, " time"]


def learner_history(rooms: Rooms, goal: Int64[np.ndarray, " 2"], rng: np.random.Generator) -> History:
    """A learner goes to cells it has not been in until it finds the goal, then straight there in every episode.

    Of several cells next to it that are new it takes one at random; where there is none it goes toward the nearest one.

    Arguments:
        rooms: shape of the room.
        goal: its goal.
        rng: draws.
    """
    known = np.zeros((rooms.size, rooms.size), bool)
    found = False
    places, actions, rewards = [], [], []
    for _ in range(rooms.episodes):
        place = np.zeros(2, np.int64)
        for _ in range(rooms.steps):
            known[tuple(place)] = True
            action = _toward(place, goal, rng) if found else _explored(rooms, place, known, rng)
            places.append(place)
            actions.append(action)
            place = rooms.moved(place, np.array(action))
            found |= bool((place == goal).all())
            rewards.append(float((place == goal).all()))
    return History(np.array(places), np.array(actions), np.array(rewards, np.float32))


def _toward(place: Int64[np.ndarray, " 2"], goal: Int64[np.ndarray, " 2"], rng: np.random.Generator) -> int:
    """A step of a shortest path."""
    here = np.abs(goal - place).sum()
    nearer = [move for move in range(STAY) if np.abs(goal - place - MOVES[move]).sum() < here]
    return int(rng.choice(nearer)) if nearer else STAY


def _explored(rooms: Rooms, place: Int64[np.ndarray, " 2"], known: np.ndarray, rng: np.random.Generator) -> int:
    """A step to the nearest cell that is new, or to one of them."""
    new = np.argwhere(~known)
    if not len(new):
        return STAY
    distance = np.abs(new - place).sum(1)
    return _toward(place, rng.choice(new[distance == distance.min()]), rng)


def returns_of(
    rooms: Rooms, goals: Int64[np.ndarray, "rooms 2"], decide: Deciding
) -> Float[np.ndarray, "rooms episodes"]:
    """Let somebody act in rooms side by side, for all episodes without forgetting between them.

    Arguments:
        rooms: shape of the rooms.
        goals: one a room.
        decide: who acts.

    Returns:
        Sum of the rewards of each episode.
    """
    returns = np.zeros((len(goals), rooms.episodes))
    reward: Float[np.ndarray, " rooms"] | None = None
    for episode in range(rooms.episodes):
        place = np.zeros_like(goals)
        for _ in range(rooms.steps):
            place = rooms.moved(place, decide(rooms.seen(place), reward))
            reward = (place == goals).all(1).astype(np.float32)
            returns[:, episode] += reward
    return returns
