"""A run that is killed goes on as if nothing had been; a penalty of strength 0 is none."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from holdfast.errors import ArgumentError
from tests.command_line import ask

pytest.importorskip("gymnasium")

from holdfast.rl.rainbow import checkpoint
from holdfast.rl.rainbow.recipe import LearningRecipe, PlayRecipe, RainbowRecipe
from holdfast.rl.rainbow.train import Run, load_agent, make_slots, train

WORDS = (
    *("--env", "CartPole-v1", "--steps", 700, "--slots", 2, "--macros", "repeat:2", "random:2:2:3"),
    *(
        "--hidden",
        24,
        "--learning-starts",
        100,
        "--train-every",
        2,
        "--capacity",
        400,
        "--eta",
        0.3,
        "--meta",
        "--meta-every",
        4,
    ),
    *("--epsilon-start", 0.5, "--epsilon-steps", 300, "--log-every", 50, "--save-every", 100, "--seed", 3),
)


def holdfast(*words: object, cwd: Path) -> subprocess.Popen[str]:
    """Start a training in a process of its own."""
    command = [sys.executable, "-m", "holdfast", "train", "rainbow", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=cwd, env=environment, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def account(folder: Path) -> dict:
    return json.loads((folder / "training.json").read_text(encoding="utf-8"))


def equal(mine: object, other: object) -> bool:
    if isinstance(mine, torch.Tensor):
        return torch.equal(mine, other)
    if isinstance(mine, dict):
        return mine.keys() == other.keys() and all(equal(mine[name], other[name]) for name in mine)
    if isinstance(mine, list):
        return len(mine) == len(other) and all(map(equal, mine, other))
    return mine == other


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As the process that is killed has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("unchecked", "one_thread")
def test_a_killed_run_goes_on_exactly(tmp_path: Path) -> None:
    killed = holdfast(*WORDS, "--output", "killed", cwd=tmp_path)
    checkpoints, begun = tmp_path / "killed/checkpoints", time.monotonic()
    while len(list(checkpoints.glob("checkpoint-*/complete.json"))) == 0 and time.monotonic() - begun < 100:
        time.sleep(0.005)
    killed.kill()
    killed.communicate()
    assert killed.returncode == -9, "it was done before it could be killed"
    assert ask("train", "rainbow", *WORDS, "--output", "whole", cwd=tmp_path)[0] == 0
    (tmp_path / "killed/checkpoints/checkpoint-99999").mkdir()  # one that was being written
    status, _, words = ask("train", "rainbow", "--output", "killed", "--resume", cwd=tmp_path)
    assert status == 0, words
    assert "half-written" in words
    one, other = (account(tmp_path / name) for name in ("whole", "killed"))
    assert one["updates"] >= 300
    assert len(one["curve"]) >= 13
    assert one["curve"][-1]["penalty"] > 0
    for name in ("curve", "games", "decisions", "updates", "score"):
        assert one[name] == other[name], name
    one, other = (torch.load(tmp_path / name / "agent.pt", weights_only=True) for name in ("whole", "killed"))
    assert equal(one, other)


def losses(updates: int, **settings: object) -> list[float]:
    """Of the first updates."""
    play = PlayRecipe(env="CartPole-v1", steps=1200, macros=("repeat:2",))
    learning = LearningRecipe(hidden=8, batch=8, learning_starts=100, **settings)
    recipe = RainbowRecipe(play=play, learning=learning)
    slots, actions = make_slots(recipe)
    run, seen = Run(recipe, slots, actions, "cpu"), []
    slots.reset()
    update = run.agent.update
    run.agent.update = lambda *arguments: (done := update(*arguments), seen.append(float(done.loss)))[0]
    while len(seen) < updates:
        run.play_and_learn()
    return seen[:updates]


@pytest.mark.usefixtures("unchecked")
def test_a_penalty_of_strength_zero_changes_no_bit() -> None:
    base = losses(1000)
    assert base == losses(1000, eta=0.0, similarity="raw", start=0.3, meta_every=1, meta_lr=0.1)
    little = losses(20, eta=1e-3)
    assert base[:20] != little
    assert base[0] == little[0], "the penalty is no part of the loss that is told, and came before the first update"


def test_a_run_with_other_settings_is_not_gone_on_with(tmp_path: Path) -> None:
    recipe = RainbowRecipe(play=PlayRecipe(env="CartPole-v1", steps=20))
    report = train(recipe, tmp_path / "run", quiet=True)
    assert train(recipe, tmp_path / "run", resume=True, quiet=True) == json.loads(json.dumps(report))
    other = RainbowRecipe(play=PlayRecipe(env="CartPole-v1", steps=20, macros=("repeat:2",)))
    with pytest.raises(ArgumentError, match="--macros"):
        train(other, tmp_path / "run", resume=True, quiet=True)
    with pytest.raises(ArgumentError, match="--resume to go on"):
        train(recipe, tmp_path / "run", quiet=True)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", {"agent": {}}, [1]])
def test_a_checkpoint_that_is_none_is_refused(tmp_path: Path, content: object) -> None:
    if isinstance(content, bytes):
        (tmp_path / checkpoint.STATE).write_bytes(content)
    else:
        torch.save(content, tmp_path / checkpoint.STATE)
    recipe = RainbowRecipe(play=PlayRecipe(env="CartPole-v1"), learning=LearningRecipe(hidden=8))
    slots, actions = make_slots(recipe)
    run = Run(recipe, slots, actions, "cpu")
    with pytest.raises(ArgumentError, match="--resume: expected a checkpoint"):
        checkpoint.load(tmp_path, (run.agent, run.replay, slots))


def test_what_was_learned_is_carried_on(tmp_path: Path) -> None:
    play = PlayRecipe(env="CartPole-v1", steps=120, macros=("repeat:2",))
    learning = LearningRecipe(hidden=8, learning_starts=100, batch=4, eta=0.2, meta=True, meta_every=2)
    report = train(RainbowRecipe(play=play, learning=learning), tmp_path / "first", quiet=True)
    assert report["curve"][-1]["similarity"]["smallest_row"] == pytest.approx(1, abs=1e-4)
    agent = load_agent(tmp_path / "first")
    seen = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    assert (agent.greedy(seen) == agent.greedy(seen)).all()
    kept = torch.load(tmp_path / "first/agent.pt", weights_only=True)
    assert all(torch.equal(kept["network"][name], value) for name, value in agent.network.named_parameters())
    file = str(tmp_path / "first/similarity.npz")
    transferred = dataclasses.replace(learning, meta=False, similarity=file)
    slots, actions = make_slots(RainbowRecipe(play=play, learning=transferred))
    run = Run(RainbowRecipe(play=play, learning=transferred), slots, actions, "cpu")
    assert run.agent.similarity is not None
    assert run.agent.similarity.kind == "frozen"
    learned = report["curve"][-1]["similarity"]["diagonal"]
    assert run.agent.similarity.statistics()["diagonal"] == pytest.approx(learned, abs=1e-4)
    with pytest.raises(ArgumentError, match="--meta"):
        dataclasses.replace(transferred, meta=True).settings("CartPole-v1")
    with pytest.raises(ArgumentError, match="--similarity"):
        dataclasses.replace(transferred, similarity="nowhere.npz").settings("CartPole-v1")
    other = dataclasses.replace(play, macros=("repeat:3",))
    slots, actions = make_slots(RainbowRecipe(play=other, learning=transferred))
    with pytest.raises(ArgumentError, match="action"):
        Run(RainbowRecipe(play=other, learning=transferred), slots, actions, "cpu")
    with pytest.raises(ArgumentError, match="folder"):
        load_agent(tmp_path)
