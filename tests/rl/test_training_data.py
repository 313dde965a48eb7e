"""`holdfast train action` from its data to a policy that acts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.errors import ArgumentError
from holdfast.models.action.checkpoint import load_model
from holdfast.models.action.domain import Continuous, Domain, Vector
from holdfast.models.action.recipe import ActionDataRecipe, ActionOptimisationRecipe, ActionRecipe
from holdfast.models.action.trajectories import Trajectories, Trajectory, write_episode_files, write_lerobot
from holdfast.rl.evaluate import evaluate
from holdfast.rl.stepping import Policy, PolicyConfig
from holdfast.rl.training_data import read_training_data, source_of
from tests.command_line import ask

SMALL = ("--layers", 1, "--dim", 16, "--heads", 2, "--batch", 4, "--context", 8, "--device", "cpu", "--episodes", 2)


def hand(target: float | None = None) -> Trajectories:
    """Four trajectories with the returns 0, 10, 20 and 30."""
    rng = np.random.default_rng(0)
    domain = Domain(
        name="hand", observation=Vector(3), action=Continuous((-1.0, 0.0), (1.0, 2.0)), target_return=target
    )
    items = [
        Trajectory(
            observations=rng.standard_normal((12, 3)).astype(np.float32),
            actions=rng.uniform((-1, 0), (1, 2), (12, 2)).astype(np.float32),
            rewards=np.full(12, 10 * number / 12, np.float32),
            terminated=True,
        )
        for number in range(4)
    ]
    return Trajectories.of(domain, items)


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    """The same trajectories in the forms that are read."""
    write_episode_files(hand(), tmp_path / "files", kind="npz")
    found = {"files": str(tmp_path / "files")}
    if pytest.importorskip("pyarrow"):
        write_lerobot(hand(), tmp_path / "lerobot", fps=10)
        found["lerobot"] = str(tmp_path / "lerobot")
    return found


def test_every_form_is_read_and_given_a_target(places):
    for place in places.values():
        (data,) = read_training_data(ActionDataRecipe(data=(place,), target_quantile=0.5))
        assert data.domain.name == "hand"
        assert data.domain.target_return == pytest.approx(15.0, rel=1e-5)
        assert len(data) == 4
    (data,) = read_training_data(ActionDataRecipe(data=(places["files"],)), returns=False)
    assert data.domain.target_return is None


def test_a_target_that_data_name_is_kept(tmp_path):
    write_episode_files(hand(target=99.0), tmp_path / "files", kind="npz")
    (data,) = read_training_data(ActionDataRecipe(data=(str(tmp_path / "files"),)))
    assert data.domain.target_return == 99.0


def test_experts_are_collected_the_same_way_twice_and_masked_where_asked():
    recipe = ActionRecipe(data=ActionDataRecipe(control=("pendulum", "cart-pole-masked"), episodes=2, context=8))
    one, two = (source_of(recipe, read_training_data(recipe.data)) for _ in range(2))
    assert one.fingerprint == two.fingerprint
    assert set(one.domains) == {"pendulum", "cart-pole-masked"}
    masked = next(batch for number in range(2) if (batch := one.batch(number, 3)).domain.name == "cart-pole-masked")
    assert not masked.observation[..., [1, 3]].any()
    assert masked.observation[..., [0, 2]].any()
    other = replace(recipe, optimisation=ActionOptimisationRecipe(seed=1))
    assert source_of(other, read_training_data(other.data)).fingerprint != one.fingerprint


def test_a_policy_is_trained_resumed_and_acts(tmp_path):
    words = ("train", "action", "--control", "pendulum", "cart-pole", *SMALL, "--steps", 3, "--accumulate", 2)
    status, out, err = ask(*words, cwd=tmp_path)
    assert status == 0, err
    assert "nats a dimension of an action on validation data (cart-pole " in out
    assert "2 domains with" in err
    status, _, err = ask("train", "action", "--resume", "--json", "--output", "action-model", cwd=tmp_path)
    assert status == 0, err
    model = load_model(tmp_path / "action-model" / "policy.safetensors")
    import gymnasium

    environments = gymnasium.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync")
    mode = environments.metadata["autoreset_mode"]
    acting = Policy(model, PolicyConfig(domain="cart-pole", slots=2, autoreset=mode))
    scores = evaluate(acting, environments, 2, seed=0)
    assert len(scores.returns) == 2
    assert min(scores.returns) >= 8  # no episode of it is shorter


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--data: expected trajectories, or tasks with --control, got neither"),
        (("--data", "nowhere"), "--data: expected one with .hdf5 or .npz files, got nowhere"),
        (("--data", "minari:no/such-v0"), "--data: expected a dataset"),
        (("--control", "juggling"), "--control: expected some of pendulum, mountain-car, cart-pole, acrobot"),
        (
            ("--control", "cart-pole", "--dim", "9", "--backbone", "schedule"),
            "--dim: expected a multiple of the 4 heads",
        ),
        (("--control", "cart-pole", "--held-out", "0"), "--held-out: expected a share above 0 and below 1"),
        (("--control", "cart-pole", "--bins", "1"), "--bins: expected a whole number of at least 2, got 1"),
        (("--control", "cart-pole", "--output", "full"), "--output: expected a new or an empty folder"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, words: tuple[str, ...], message: str, monkeypatch: Any) -> None:
    if "minari:no/such-v0" in words:
        pytest.importorskip("minari")
        monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    status, _, err = ask("train", "action", "--episodes", 2, *words, cwd=tmp_path)
    assert status == 2, err
    assert message in err.splitlines()[-1]
    assert not (tmp_path / "action-model").exists()


def test_domains_that_cannot_be_told_a_return_are_refused_by_name(tmp_path):
    data = hand()
    unrewarded = [replace(item, rewards=None) for item in data.items]
    write_lerobot(Trajectories.of(data.domain, unrewarded), tmp_path / "data", fps=10)
    recipe = ActionRecipe(data=ActionDataRecipe(data=(str(tmp_path / "data"),)))
    with pytest.raises(ArgumentError, match="returns of domain hand: expected known in every trajectory"):
        source_of(recipe, read_training_data(recipe.data))
    imitating = replace(recipe, model=replace(recipe.model, returns=False))
    batch = source_of(imitating, read_training_data(imitating.data, returns=False)).batch(0, 2)
    assert batch.reward is None


def test_the_command_of_an_account_is_one_that_is_understood(tmp_path):
    recipe = ActionRecipe(data=ActionDataRecipe(control=("pendulum", "acrobot"), validation_windows=None))
    assert "--control pendulum acrobot" in recipe.command
    assert ActionRecipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
