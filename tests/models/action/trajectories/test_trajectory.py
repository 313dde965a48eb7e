from __future__ import annotations

import dataclasses
import math
import warnings

import numpy as np
import pytest

from holdfast.errors import ArgumentError
from holdfast.models.action.domain import Continuous, Domain, Vector
from holdfast.models.action.trajectories import Trajectories, Trajectory
from holdfast.models.action.trajectories.trajectory import channels_first
from tests.models.action.trajectories.episodes import ARM, GAME, GRID, episode

REWARDS = np.array([1.0, -2.0, 0.5], np.float32)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"terminated": True}, [-0.5, -1.5, 0.5]),
        ({"terminated": False, "truncated": True}, [-0.5, -1.5, 0.5]),
        ({"terminated": False}, [math.nan] * 3),
        ({"terminated": False, "remaining": 10.0}, [9.5, 8.5, 10.5]),
        ({"rewards": None}, [math.nan] * 3),
    ],
)
def test_returns_to_go_end_where_the_episode_does(fields, expected):
    item = episode(ARM, 3, **{"rewards": REWARDS, **fields})
    np.testing.assert_array_equal(item.returns_to_go(), expected)
    np.testing.assert_array_equal(item.total_return, expected[0])


def test_returns_to_go_of_long_episodes_are_summed_in_float64():
    rewards = np.full(100_000, 0.1, np.float32)
    item = episode(GRID, 100_000, rewards=rewards)
    assert item.returns_to_go()[0] == pytest.approx(100_000 * float(np.float32(0.1)), rel=1e-9)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"observations": np.zeros((6, 3))}, "observations: expected 4 or 5, for 4 actions, got 6"),
        ({"rewards": np.zeros(3)}, "rewards: expected 4, one for each action, got 3"),
        ({"labels": np.zeros((5, 2))}, "labels: expected 4"),
    ],
)
def test_lengths_have_to_fit(fields, message):
    whole = {"observations": np.zeros((4, 3)), "actions": np.zeros((4, 2)), "rewards": np.zeros(4)}
    with pytest.raises(ArgumentError, match=message):
        Trajectory(**{**whole, **fields})


def with_number(values: np.ndarray, place: tuple[int, ...], number: float) -> np.ndarray:
    changed = values.astype(np.float32)
    changed[place] = number
    return changed


@pytest.mark.parametrize(
    ("domain", "field", "place", "number", "message"),
    [
        (ARM, "actions", (3, 1), math.nan, "action nan at step 3 of trajectory 1 of domain arm"),
        (ARM, "labels", (2, 0), math.inf, "label inf at step 2 of trajectory 1 of domain arm"),
        (ARM, "observations", (5, 2), math.nan, "observation nan at step 5 of trajectory 1 of domain arm"),
        (ARM, "rewards", (0,), -math.inf, "reward -inf at step 0 of trajectory 1 of domain arm"),
        (GRID, "actions", (4,), 4, "action 4.0 at step 4 of trajectory 1 of domain grid"),
        (GRID, "actions", (1,), -1, "action -1.0 at step 1"),
        (GRID, "actions", (1,), 0.5, "action 0.5 at step 1"),
        (GRID, "actions", (1,), math.nan, "action nan at step 1"),
    ],
)
def test_a_number_that_ruins_training_is_named(domain, field, place, number, message):
    good = episode(domain, 5)
    good = dataclasses.replace(good, labels=good.actions)
    bad = dataclasses.replace(good, **{field: with_number(getattr(good, field), place, number)})
    with pytest.raises(ArgumentError, match=message):
        Trajectories.of(domain, [good, bad])


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([episode(GRID, 5)], r"observations of trajectory 0 of domain arm: expected shape \(3,\), got shape \(2,\)"),
        (
            [Trajectory(observations=np.zeros((4, 3)), actions=np.zeros(4), rewards=np.zeros(4))],
            "actions of trajectory 0 of domain arm: expected 2 numbers a step",
        ),
        ([], "expected one of 2 steps or more, got none"),
        ([episode(ARM, 0), episode(ARM, 1)], "got 2 trajectories, all of them empty or of one step"),
        ([episode(ARM, 4), episode(ARM, 4, rewards=None)], "rewards of domain arm: expected in all .* got in 1"),
    ],
)
def test_what_does_not_fit_the_domain_is_refused_by_its_name(items, message):
    with pytest.raises(ArgumentError, match=message):
        Trajectories.of(ARM, items)


def test_bytes_and_floats_do_not_mix():
    floats = dataclasses.replace(episode(GAME, 3), observations=np.zeros((3, 1, 8, 6), np.float32))
    with pytest.raises(ArgumentError, match="domain game: expected bytes in all"):
        Trajectories.of(GAME, [episode(GAME, 3), floats])


def test_short_trajectories_are_left_out_and_counted():
    data = Trajectories.of(ARM, [episode(ARM, 1), episode(ARM, 4), episode(ARM, 0), episode(ARM, 2)])
    assert (len(data), data.transitions, data.census.left_out, data.census.trajectories) == (2, 6, 2, 4)
    assert data.census.transitions == 6


@pytest.mark.parametrize(("outside", "warned"), [(1, False), (2, True)])
def test_actions_out_of_bounds_are_counted_and_warned_of_above_a_thousandth(outside, warned):
    item = episode(ARM, 500)  # of two dimensions: 1000 numbers
    item.actions[:outside, 0] = 2.1
    item.actions[outside, 0] = 2.0 + 1e-7  # on the bound, but for rounding
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = Trajectories.of(ARM, [item])
    assert data.census.out_of_bounds_share == outside / 1000
    assert len(caught) == warned
    if warned:
        assert "domain arm: 0.20% of the numbers of its actions" in str(caught[0].message)


def test_the_target_is_a_quantile_of_clean_returns():
    clean = [episode(GRID, 2, rewards=np.array([0.0, total])) for total in (10.0, 20.0, 30.0, 40.0, 50.0)]
    disturbed = dataclasses.replace(episode(GRID, 2, rewards=np.array([0.0, 1000.0])), labels=np.zeros(2, int))
    data = Trajectories.of(GRID, [disturbed, *clean])
    assert data.with_target().domain.target_return == 20
    assert data.with_target(1.0).domain.target_return == 50
    assert data.domain.target_return == 3
    with pytest.raises(ArgumentError, match="domain grid: expected a trajectory of known return"):
        Trajectories.of(GRID, [disturbed]).with_target()


def test_other_bounds_are_looked_at_anew():
    data = Trajectories.of(ARM, [episode(ARM, 50)])
    narrow = Domain(name="narrow", observation=Vector(3), action=Continuous((-2.0, 0.4), (2.0, 0.6)))
    with pytest.warns(UserWarning, match="domain narrow: .* outside"):
        assert data.with_domain(narrow).census.out_of_bounds > 0


def test_channels_come_first_from_either_side():
    pictures = np.arange(2 * 5 * 4 * 3, dtype=np.uint8).reshape(2, 5, 4, 3)
    first = channels_first(pictures)
    assert first.shape == (2, 3, 5, 4)
    np.testing.assert_array_equal(first[:, 1], pictures[..., 1])
    assert channels_first(np.zeros((2, 3, 8, 6), np.uint8)).shape == (2, 3, 8, 6)
    with pytest.raises(ArgumentError, match="1, 3 or 4 channels"):
        channels_first(np.zeros((2, 8, 8, 8), np.uint8))
