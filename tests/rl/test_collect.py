from __future__ import annotations

import numpy as np
import pytest

from holdfast.errors import ArgumentError, MissingExtraError
from holdfast.rl import simulators
from holdfast.rl.collect import Bursts, collect, random_expert
from tests.models.action.trajectories.episodes import assert_same

gymnasium = pytest.importorskip("gymnasium")


class Line(gymnasium.Env):
    """A place on a line that actions move, shown in an array that is used again."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))

    def __init__(self, space=None, steps: int = 30) -> None:
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,)) if space is None else space
        self.place, self.steps = np.zeros(1), steps

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place[:], self.number = self.np_random.normal(), 0
        return self.place, {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.number += 1
        self.place += action
        return self.place, -float(abs(self.place[0])), abs(self.place[0]) < 1e-6, self.number == self.steps, {}


def home(place):
    """Straight to 0, over the bounds where it is far."""
    return -3 * place


def test_an_episode_is_kept_whole():
    item = collect(Line(), lambda place: -place / 2, 1, seed=4)[0]
    assert len(item.observations) == len(item) + 1
    assert item.observations.dtype == item.rewards.dtype == np.float32
    np.testing.assert_allclose(item.observations[1:, 0], item.observations[:-1, 0] + item.actions[:, 0], atol=1e-6)
    np.testing.assert_allclose(item.rewards, -np.abs(item.observations[1:, 0]), rtol=1e-6)
    assert item.labels is None
    assert (item.terminated, item.truncated) == (True, False)
    assert (collect(Line(), home, 1, seed=4)[0].terminated, len(collect(Line(), home, 1, seed=4)[0])) == (False, 30)


def test_actions_over_the_bounds_are_moved_to_them():
    item = collect(Line(), home, 1, seed=4)[0]
    assert np.abs(item.actions).max() == 1


def test_bursts_disturb_some_episodes_and_labels_stay_clean():
    bursts = Bursts(share=0.5, rate=0.2, longest=3)
    items = collect(Line(), home, 200, seed=0, bursts=bursts)
    disturbed = [item for item in items if item.labels is not None]
    assert 0.35 < len(disturbed) / 200 < 0.65  # six standard errors are 0.21; some have no burst
    shares = []
    for item in disturbed:
        wanted = np.clip(-3 * item.observations[:-1], -1, 1)
        np.testing.assert_allclose(item.labels, wanted, atol=1e-5)
        shares.append(np.mean(item.actions != item.labels))
    # A burst of 2 steps on average comes after 5 steps of the expert, but for that it begins in one of them.
    assert np.mean(shares) == pytest.approx(2 / (2 + 1 / 0.2 - 1), abs=0.1)
    lengths = [
        len(run)
        for item in disturbed
        for run in "".join("x" if a != b else " " for a, b in zip(item.actions, item.labels, strict=True)).split()
    ]
    assert max(lengths) >= 3


def test_the_same_seed_gives_the_same_episodes_whatever_came_before():
    environment, bursts = Line(), Bursts(share=1.0)
    first = collect(environment, home, 3, seed=7, bursts=bursts)
    again = collect(environment, home, 2, seed=8, bursts=bursts)
    for one, other in zip(first[1:], again, strict=True):
        assert_same(one, other)


def test_what_is_kept_may_differ_from_what_the_expert_sees():
    item = collect(Line(), home, 1, seed=4, observe=lambda place: np.array([place[0] > 0, 7.0]), task="sign")[0]
    assert item.task == "sign"
    assert set(item.observations[:, 0]) <= {0.0, 1.0}
    assert (item.observations[:, 1] == 7).all()


class Switch(Line):
    def __init__(self, space) -> None:
        super().__init__(space, steps=10)


@pytest.mark.parametrize(
    "space",
    [
        gymnasium.spaces.Discrete(3, start=1),
        gymnasium.spaces.MultiDiscrete([2, 2]),
        gymnasium.spaces.Box(-np.inf, np.inf, (1,)),
        gymnasium.spaces.Box(-1, 1, (2, 2)),
    ],
)
def test_actions_that_no_policy_of_ours_has_are_refused(space):
    with pytest.raises(ArgumentError, match="environment: expected actions that are bounded vectors, or ids from 0"):
        collect(Switch(space), home, 1, seed=0)


def test_ids_are_disturbed_by_ids():
    items = collect(
        Switch(gymnasium.spaces.Discrete(3)), lambda place: 2, 20, seed=0, bursts=Bursts(share=1.0, rate=0.5)
    )
    actions = np.concatenate([item.actions for item in items])
    assert actions.shape[1] == 1
    assert set(actions.ravel()) == {0, 1, 2}
    assert all((item.learnt == 2).all() for item in items)


def test_an_expert_that_is_lost_is_refused():
    with pytest.raises(ArgumentError, match="expert: expected finite actions"):
        collect(Line(), lambda place: place * np.nan, 1, seed=0)


@pytest.mark.parametrize("changes", [{"share": 1.1}, {"rate": -0.1}, {"longest": 0}])
def test_settings_out_of_range_are_named(changes):
    with pytest.raises(ArgumentError, match=f"^{next(iter(changes))}: expected"):
        Bursts(**changes)


def test_a_game_of_atari_is_collected_as_small_grey_pictures():
    pytest.importorskip("ale_py")
    environment = simulators.atari("Pong", max_episode_steps=12)
    items = [collect(environment, random_expert(environment, 0), 1, seed=1)[0] for _ in range(2)]
    assert items[0].observations.shape == (13, 1, 64, 64)
    assert items[0].observations.dtype == np.uint8
    assert items[0].observations.std() > 0
    assert (items[0].terminated, items[0].truncated) == (False, True)
    assert environment.action_space.n == 18
    assert_same(*items)
    with pytest.raises(ArgumentError, match="game: expected a game of the Arcade Learning Environment, got Nope"):
        simulators.atari("Nope")


@pytest.mark.parametrize(
    ("package", "make"),
    [
        ("metaworld", lambda: simulators.metaworld("reach-v3", seed=0)),
        ("dm-control", lambda: simulators.dm_control("cartpole", "swingup")),
    ],
)
def test_simulators_of_other_versions_are_refused_with_the_command(monkeypatch, package, make):
    monkeypatch.setenv("MUJOCO_GL", "egl")
    versions = {**simulators.PINS, "mujoco": "4.0.0"}
    monkeypatch.setattr("importlib.metadata.version", versions.__getitem__)
    with pytest.raises(MissingExtraError, match=r"needs mujoco 3.3.0 \(here: 4.0.0\): .*pip install 'mujoco==3.3.0'"):
        make()


def test_metaworld_and_the_control_suite_where_they_are_installed():
    pytest.importorskip("metaworld")
    environment, expert = simulators.metaworld("reach-v3", seed=0, steps=60)
    item = collect(environment, expert, 1, seed=0)[0]
    assert item.observations.shape == (61, 39)
    assert np.abs(item.actions).max() <= 1
    suite = simulators.dm_control("cartpole", "swingup")
    items = [collect(suite, random_expert(suite, 0), 1, seed=3)[0] for _ in range(2)]
    assert items[0].observations.shape == (1001, 5)
    assert (items[0].terminated, items[0].truncated) == (False, True)
    assert_same(*items)
