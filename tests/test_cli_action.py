"""`holdfast probe control-latency` and `holdfast probe copycat`, as a user meets them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.errors import ArgumentError
from holdfast.models.action.checkpoint import save_model
from holdfast.models.action.domain import Discrete
from holdfast.models.action.trajectories import Trajectories, write_episode_files
from tests.command_line import ask
from tests.models.action import tiny
from tests.probes.action.test_copycat import trajectories

POLICY = """
class Mine:
    def act(self, observation):
        return observation

def make():
    return Mine(), 3

def nothing():
    return Mine()

def broken():
    raise RuntimeError("no robot")
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_model(tiny.model(tiny.BACKBONES["mlstm"]), tmp_path / "policy.safetensors")
    return tmp_path / "policy.safetensors"


def test_control_latency_gives_table_json_and_picture(tmp_path: Path, model: Path) -> None:
    words = ("probe", "control-latency", model, "--lengths", 3, 20, "--rounds", 7)
    status, out, err = ask(*words, "--domain", "maze", "--explain", "--plot", "out.png", cwd=tmp_path)
    assert status == 0, err
    assert "a transformer of this size" in out
    assert "timesteps  median ms" in out
    assert "rate of control that is held" in out
    assert (tmp_path / "out.png").stat().st_size > 5000
    status, out, err = ask(*words, "--json", "--batches", 1, 2, "--no-compare", cwd=tmp_path)
    assert status == 0, err
    assert [part["batch"] for part in json.loads(out)["policy"]] == [1, 2]
    assert json.loads(out)["rival"] == []


def test_control_latency_takes_any_policy(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(POLICY, encoding="utf-8")
    words = ("probe", "control-latency", "mine.py:make", "--lengths", 10, 30, "--rounds", 9)
    status, out, err = ask(*words, cwd=tmp_path)
    assert status == 0, err
    assert "9 steps at each length" in out
    assert "nothing is known of such a policy" in out


def test_copycat_looks_at_data_and_lets_a_policy_act(tmp_path: Path) -> None:
    pytest.importorskip("gymnasium")
    data = trajectories("independent", seed=0, space="discrete", number=6, time=15)
    write_episode_files(data, tmp_path / "data", kind="npz")
    status, out, err = ask("probe", "copycat", tmp_path / "data", "--json", cwd=tmp_path)
    assert status == 0, err
    assert json.loads(out)["steps"] == 90
    domain = replace(tiny.MAZE, name="made-up", observation=data.domain.observation, action=Discrete(5))
    save_model(tiny.model(tiny.BACKBONES["mlstm"], domains=(domain,), image=None), tmp_path / "policy.safetensors")
    words = ("probe", "copycat", tmp_path / "data", "--policy", "policy.safetensors", "--environment", "Nowhere-v9")
    status, _, err = ask(*words, cwd=tmp_path)
    assert status == 2
    assert "target_return" in err or "--environment: expected the id" in err


def test_both_probes_have_something_to_look_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--lengths", 3, 9, "--rounds", 7, "--no-compare", "--json")
    status, out, err = ask("probe", "control-latency", *words, cwd=tmp_path)
    assert status == 0, err
    assert json.loads(out)["policy"][0]["parameters"] == 57_288

    def seen(data: Trajectories, *_: object, **__: object) -> None:
        raise ArgumentError("data", "anything else", f"{len(data.items)} episodes of {data.domain.name}")

    monkeypatch.setattr("holdfast.probes.action.probe_copycat", seen)
    assert "got 20 episodes of pendulum" in ask("probe", "copycat", cwd=tmp_path)[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("control-latency", "gone.safetensors"), "TARGET: expected the file of an action model"),
        (("control-latency", "policy.safetensors", "--rounds", 3), "--rounds: expected a whole number of at least 7"),
        (("copycat", "nowhere"), "TARGET: expected a folder of trajectories, or a dataset of Minari that is on this"),
        (("control-latency", "policy.safetensors", "--device", "nowhere"), "--device: expected a device of PyTorch"),
        (("control-latency", "policy.safetensors", "--domain", "nowhere"), "--domain: expected one of arm, maze, game"),
        (("control-latency", "policy.safetensors", "--lengths", 5), "lengths: expected at least two"),
        (("control-latency", "mine.py:make", "--batches", 2), "--batches: expected an action model"),
        (("control-latency", "mine.py:nothing"), "TARGET: expected a function without arguments that returns a policy"),
        (("control-latency", "mine.py:broken"), "RuntimeError: no robot"),
        (("control-latency", "mine.py:make", "--json", "--explain"), "--explain: expected a report for people"),
        (("copycat", "./gone"), "TARGET: expected trajectories, got ./gone, which is no folder"),
        (("copycat", ".", "--bins", 1), "--bins: expected a whole number of at least 2"),
        (("copycat", ".", "--policy", "policy.safetensors"), "--environment: expected --policy and --environment"),
        (("copycat", "empty"), "folder: expected one with .hdf5 or .npz files"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, model: Path, words: tuple[object, ...], message: str) -> None:
    (tmp_path / "mine.py").write_text(POLICY, encoding="utf-8")
    (tmp_path / "empty").mkdir()
    status, _, err = ask("probe", *words, cwd=tmp_path)
    assert status == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
