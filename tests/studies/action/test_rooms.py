"""Dark rooms and their scripted learners."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.studies.action.rooms import MOVES, STAY, Rooms, learner_history, returns_of

ROOMS = Rooms(size=4, steps=20, episodes=3)


def test_goals_are_all_cells_but_the_corner() -> None:
    goals = {tuple(goal) for goal in ROOMS.goals}
    assert goals == {(x, y) for x in range(4) for y in range(4)} - {(0, 0)}


def test_walls_hold() -> None:
    corners = np.array([(0, 0), (3, 3)])
    np.testing.assert_array_equal(ROOMS.moved(corners, np.array([2, 0])), corners)
    np.testing.assert_array_equal(ROOMS.moved(corners, np.array([0, 2])), [(0, 1), (3, 2)])
    np.testing.assert_array_equal(ROOMS.moved(corners, np.array([STAY, STAY])), corners)


def test_what_is_seen_is_the_cell_alone() -> None:
    cells = ROOMS.seen(np.array([(x, y) for x in range(4) for y in range(4)]))
    np.testing.assert_array_equal(cells, np.eye(16))


@pytest.mark.parametrize("seed", range(3))
def test_a_learner_finds_every_goal_and_goes_straight_there_from_then_on(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for goal in ROOMS.goals:
        places, actions, rewards = learner_history(ROOMS, goal, rng)
        returns = rewards.reshape(3, 20).sum(1)
        assert returns[-1] == ROOMS.best(goal)
        first = int(np.argmax(rewards))
        assert rewards[first] == 1
        walked = [tuple(place) for place in places[: min(first + 1, 20)]]
        assert len(set(walked)) >= 0.7 * len(walked), "it looks where it has not been"
        inside = np.arange(60) % 20 < 19
        after = ROOMS.moved(places, actions)
        np.testing.assert_array_equal(after[:-1][inside[:-1]], places[1:][inside[:-1]])
        np.testing.assert_array_equal(rewards, (after == goal).all(1))


def test_returns_of_who_knows_the_goal_and_of_who_stays() -> None:
    goals = ROOMS.goals
    where = {"rewards": []}

    def straight(seen: np.ndarray, reward: np.ndarray | None) -> np.ndarray:
        where["rewards"].append(reward)
        place = np.stack(np.divmod(seen.argmax(1), 4), 1)
        gaps = np.abs(goals[:, None] - np.clip(place[:, None] + MOVES, 0, 3)).sum(-1)
        return np.asarray(gaps.argmin(1))

    best = np.array([ROOMS.best(goal) for goal in goals])
    np.testing.assert_array_equal(returns_of(ROOMS, goals, straight), np.repeat(best[:, None], 3, 1))
    assert where["rewards"][0] is None
    assert sum(np.sum(reward) for reward in where["rewards"][1:]) + len(goals) == 3 * best.sum()
    idle = returns_of(ROOMS, goals, lambda seen, reward: np.full(len(goals), STAY))
    assert not idle.any()
