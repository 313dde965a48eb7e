from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from holdfast.errors import ArgumentError
from holdfast.models.action.domain import Continuous, Discrete, Image, Vector
from holdfast.models.action.trajectories import Trajectories, read_minari, write_minari
from tests.models.action.trajectories.episodes import ARM, GAME, GRID, assert_same, episode

minari = pytest.importorskip("minari")
pytest.importorskip("h5py")
from gymnasium import spaces  # noqa: E402
from minari.data_collector import EpisodeBuffer  # noqa: E402

# Minari recommends to whoever publishes data to say more of them.
pytestmark = pytest.mark.filterwarnings("ignore:.*(is set to None|env_spec is None):UserWarning")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("domain", [ARM, GRID, GAME], ids=lambda domain: domain.name)
def test_a_round_trip_keeps_everything(domain, place):
    items = [
        episode(domain, 5, 0, task="a"),
        episode(domain, 4, 1, task="b", terminated=False, truncated=True, labels=episode(domain, 4, 9).actions),
        episode(domain, 6, 2, terminated=False, remaining=2.5),
    ]
    write_minari(Trajectories.of(domain, items), "test/own-v0", author={"the tests"})
    assert (place / "test/own-v0").is_dir()
    read = read_minari("test/own-v0")
    assert read.domain == domain
    for mine, theirs in zip(items, read.items, strict=True):
        assert_same(mine, theirs)
    assert minari.load_dataset("test/own-v0").total_steps == 15


def test_a_relative_place_is_refused(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("MINARI_DATASETS_PATH", "datasets")
    with pytest.raises(ArgumentError, match="MINARI_DATASETS_PATH: expected an absolute path, got datasets"):
        write_minari(Trajectories.of(ARM, [episode(ARM, 3, 0)]), "test/own-v0")
    assert not list(place.iterdir())


def write(dataset_id, observations, actions, observation_space, action_space):
    steps = len(actions)
    buffer = EpisodeBuffer(
        observations=observations,
        actions=actions,
        rewards=np.arange(steps, dtype=float),
        terminations=np.zeros(steps, bool),
        truncations=np.arange(steps) == steps - 1,
        infos={},
    )
    minari.create_dataset_from_buffers(
        dataset_id, [buffer], observation_space=observation_space, action_space=action_space, jpeg_encoding=False
    )


BOX = spaces.Box(-1, 1, (2,), np.float64)


def test_a_dataset_of_others_says_its_domain_by_its_spaces():
    write("other/vector-v0", np.ones((4, 2)), np.array([0, 2, 1]), BOX, spaces.Discrete(3))
    read = read_minari("other/vector-v0")
    assert (read.domain.name, read.domain.observation, read.domain.action) == (
        "other/vector-v0",
        Vector(2),
        Discrete(3),
    )
    (item,) = read.items
    assert (item.terminated, item.truncated, item.total_return) == (False, True, 3.0)
    assert item.observations.dtype == np.float32
    assert len(item.observations) == 4
    named = dataclasses.replace(read.domain, name="mine", reward_scale=5.0)
    assert read_minari("other/vector-v0", named).domain == named


def test_pictures_get_their_channels_first_and_bounds_are_kept():
    pictures = np.random.default_rng(0).integers(256, size=(3, 8, 6, 3), dtype=np.uint8)
    low, high = np.array([-2, 0], np.float32), np.array([2, 1], np.float32)
    write("other/game-v0", pictures, np.ones((2, 2), np.float32), spaces.Box(0, 255, (8, 6, 3), np.uint8),
          spaces.Box(low, high))  # fmt: skip
    read = read_minari("other/game-v0")
    assert read.domain.observation == Image(3, 8, 6)
    assert read.domain.action == Continuous((-2.0, 0.0), (2.0, 1.0))
    np.testing.assert_array_equal(read.items[0].observations, np.moveaxis(pictures, -1, 1))


def test_dictionaries_become_a_vector():
    space = spaces.Dict({"goal": BOX, "arm": spaces.Dict({"turn": BOX, "place": BOX})})
    parts = {"goal": np.full((3, 2), 3.0), "arm": {"turn": np.full((3, 2), 2.0), "place": np.full((3, 2), 1.0)}}
    write("other/dict-v0", parts, np.zeros(2, int), space, spaces.Discrete(2))
    assert read_minari("other/dict-v0").items[0].observations[0].tolist() == [1, 1, 2, 2, 3, 3]
    chosen = read_minari("other/dict-v0", observation_keys=["goal"])
    assert chosen.items[0].observations.shape == (3, 2)
    with pytest.raises(ArgumentError, match="observation_keys: expected some of arm, goal, got aim"):
        read_minari("other/dict-v0", observation_keys=["aim"])


@pytest.mark.parametrize(
    ("space", "actions", "message"),
    [
        (spaces.Discrete(3, start=1), np.array([1, 2]), "ids from 0 on"),
        (spaces.MultiDiscrete([2, 2]), np.zeros((2, 2), int), "bounded vectors, or ids"),
        (spaces.Box(-np.inf, np.inf, (1,)), np.zeros((2, 1), np.float32), "bounds of action dimension 0"),
    ],
)
def test_actions_that_no_policy_of_ours_has_are_refused(space, actions, message):
    write("other/odd-v0", np.ones((3, 2)), actions, BOX, space)
    with pytest.raises(ArgumentError, match=message):
        read_minari("other/odd-v0")


def test_a_dataset_that_is_not_here_or_already_here_is_said():
    with pytest.raises(
        ArgumentError, match=r"dataset_id: expected a dataset .*minari download no/such-v0.* got no/such-v0"
    ):
        read_minari("no/such-v0")
    data = Trajectories.of(GRID, [episode(GRID, 3)])
    write_minari(data, "test/twice-v0")
    with pytest.raises(ArgumentError, match="dataset_id: expected a new dataset"):
        write_minari(data, "test/twice-v0")


@pytest.mark.parametrize("fields", [{"last": False}, {"rewards": None}])
def test_what_minari_wants_has_to_be_there(fields):
    with pytest.raises(ArgumentError, match="data: expected trajectories with rewards and the observation after"):
        write_minari(Trajectories.of(GRID, [episode(GRID, 3, **fields)]), "test/lacks-v0")
