"""Environments by their id, and episodes that are played again to the same place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from holdfast.errors import ArgumentError
from tests.command_line import ask

gymnasium = pytest.importorskip("gymnasium")

from holdfast.rl.rainbow.environments import make_environment, settings_for  # noqa: E402
from holdfast.rl.rainbow.settings import ATARI, CLASSIC, MINATAR  # noqa: E402

MODULES = {"MinAtar": ("minatar",), "ALE": ("ale_py", "cv2"), "retro": ("stable_retro", "cv2")}
AIRSTRIKER = "retro/Airstriker-Genesis-v0"


def needs(env: str) -> None:
    for module in MODULES.get(env.partition("/")[0], ()):
        pytest.importorskip(module)


def play(env: gymnasium.Env, rng: np.random.Generator, steps: int) -> list[tuple]:
    seen = []
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(int(rng.integers(env.action_space.n)))
        seen.append((np.array(observation), float(reward), terminated, truncated))
        if terminated or truncated:
            observation, _ = env.reset()
            seen.append((np.array(observation), 0.0, False, False))
    return seen


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize(
    ("env", "shape"),
    [
        ("CartPole-v1", (4,)),
        *((f"MinAtar/{game}-v1", None) for game in ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")),
        ("ALE/Breakout-v5", (4, 84, 84)),
    ],
)
def test_an_episode_is_played_again_to_the_same_place(env: str, shape: tuple[int, ...] | None) -> None:
    needs(env)
    first = make_environment(env, seed=3, slot=1)
    assert shape is None or first.observation_space.shape == shape
    first.reset()
    steps = 230 if "ALE" in env else 300  # of Breakout on ALE, some lives are lost by then
    before = play(first, np.random.default_rng(0), steps)
    state = first.played()
    if "ALE" in env:
        assert -1 in state["played"], "no life was lost within a game"
    second = make_environment(env, seed=3, slot=1)
    assert np.array_equal(second.play_again(({}, state)), before[-1][0])
    pairs = zip(*(play(each, np.random.default_rng(1), 100) for each in (first, second)), strict=True)
    assert all(np.array_equal(one[0], other[0]) and one[1:] == other[1:] for one, other in pairs)
    other = make_environment(env, seed=3, slot=0)
    other.reset()
    after = play(other, np.random.default_rng(0), 100)
    assert "Freeway" in env or any(not np.array_equal(a[0], b[0]) for a, b in zip(before, after, strict=False))


@pytest.mark.filterwarnings("ignore:.*")
def test_a_lost_life_ends_an_episode_but_no_game() -> None:
    needs("ALE/Breakout-v5")
    env = make_environment("ALE/Breakout-v5", seed=0)
    env.reset()
    rng, ends, games = np.random.default_rng(0), 0, []
    while not games:
        *_, terminated, truncated, info = env.step(int(rng.integers(4)))
        if terminated or truncated:
            ends += 1
            games += [info["episode"]["r"]] if "episode" in info else []
            env.reset()
    assert ends == 5, "Breakout has five lives"


def test_settings_suit_the_environment() -> None:
    assert settings_for("MinAtar/Breakout-v1") == MINATAR
    assert settings_for("ALE/Breakout-v5") == settings_for(AIRSTRIKER) == ATARI
    assert settings_for("CartPole-v1") == CLASSIC
    assert (ATARI.lr, ATARI.adam_eps, ATARI.learning_starts, ATARI.target_every) == (6.25e-5, 1.5e-4, 80_000, 8_000)


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("env", ["ALE/Nothing-v5", "MinAtar/Nothing-v1", "Nowhere-v9", "Pendulum-v1", "retro/Nothing"])
def test_what_is_no_such_environment_is_one_line(env: str) -> None:
    needs(env)
    with pytest.raises(ArgumentError, match="--env: expected") as caught:
        make_environment(env, seed=0)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("env", ["ALE/Breakout-v5", "MinAtar/Breakout-v1", AIRSTRIKER])
def test_five_hundred_steps_from_the_command_line(env: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a display and without a network."""
    import socket

    needs(env)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was asked for"))
    words = ("--env", env, "--steps", 500, "--learning-starts", 460, "--batch", 4, "--hidden", 16, "--capacity", 600)
    macros = ("--macros", "random:6:2:5", "--eta", 0.1, "--meta", "--meta-every", 5)
    status, out, err = ask("train", "rainbow", *words, *macros, "--output", "run", cwd=tmp_path)
    assert status == 0, err
    steps = int(out.partition(" primitive steps")[0].rpartition(" ")[2])
    assert 500 <= steps < 500 + 5, "a macro may go on beyond"
    assert "10 updates" in out or "11 updates" in out
    assert (tmp_path / "run/agent.pt").is_file()


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("prefix", ["", "retro/"])
def test_a_game_without_its_rom_says_how_to_supply_it(tmp_path: Path, prefix: str) -> None:
    needs(AIRSTRIKER)
    game = f"{prefix}StreetFighterIISpecialChampionEdition-Genesis-v0"
    status, out, err = ask("train", "rainbow", "--env", game, "--output", "run", cwd=tmp_path)
    assert (status, out) == (2, "")
    assert "python -m stable_retro.import" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--macros", "twice:3"), "--macros: expected repeat:2,4"),
        (("--eta", -1), "--eta: expected"),
        (("--meta",), "--meta: expected a penalty"),
        (("--slots", 0), "--slots"),
        (("--env", AIRSTRIKER, "--slots", 2), "--slots: expected 1 for a game of stable-retro"),
        (("--discount", 1.5), "--discount"),
        (("--capacity", 5), "capacity"),
    ],
)
def test_a_mistake_is_one_line(words: tuple, expected: str, tmp_path: Path) -> None:
    status, _, err = ask("train", "rainbow", "--env", "CartPole-v1", "--output", "run", *words, cwd=tmp_path)
    assert status == 2
    assert expected in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()
