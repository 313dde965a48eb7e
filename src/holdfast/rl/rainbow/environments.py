"""Environments for Rainbow by their id: MinAtar, the Arcade Learning Environment, stable-retro, and Gymnasium's own.

What is wrapped around a game counts primitive steps: frame skip, life loss, time limit and clipped rewards lie below
macros, and so do the statistics of whole games, whose returns are neither clipped nor discounted.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.errors import ArgumentError, require
from holdfast.rl.rainbow.settings import ATARI, CLASSIC, MINATAR, RainbowSettings

if TYPE_CHECKING:
    import gymnasium

EXTRA, RETRO = "macros", "retro"
"""What brings Gymnasium, MinAtar and ALE; and what brings stable-retro."""

FRAME_SKIP = 4
"""Frames of an action on pictures."""

CONSOLES = r"-(32x|Atari2600|GameGear|Gb|GbAdvance|GbColor|Genesis|Nes|PCEngine|Saturn|SCD|Sms|Snes)(-v\d+)?$"
"""How the names of stable-retro's games end: they are known without `retro/` before them too."""

MINATAR_LIMIT, ATARI_LIMIT = 5_000, 27_000
"""Primitive steps after which a game is cut off; MinAtar's have no limit of their own, and may go on for ever."""


def settings_for(env: str) -> RainbowSettings:
    """Settings that suit an environment.

    Arguments:
        env: its id.
    """
    if env.startswith("MinAtar/"):
        return MINATAR
    return ATARI if _family(env) in ("ale", "retro") else CLASSIC


def make_environment(env: str, *, seed: int, slot: int = 0, time_limit: int | None = None) -> gymnasium.Env[Any, Any]:
    """One environment of primitive actions, whose episodes can be played again.

    Arguments:
        env: such as `MinAtar/Breakout-v1`, `ALE/Breakout-v5`, `retro/Airstriker-Genesis-v0`, or an id of Gymnasium's.
        seed: of all episodes.
        slot: number of the environment among several with the same seed.
        time_limit: primitive steps after which a game is cut off, instead of those of the game.

    Errors:
        ArgumentError: there is no such environment, it has no ROM, or its actions are no ids.
        MissingExtraError: its package is not installed.
    """
    from holdfast.rl.rainbow.played_episodes import PlayedEpisodes

    gym = require("gymnasium", EXTRA)
    made = _MAKERS[_family(env)](env, time_limit)
    if not isinstance(made.action_space, gym.spaces.Discrete):
        raise ArgumentError("--env", "an environment whose actions are Discrete(n)", repr(made.action_space))
    if not isinstance(made.observation_space, gym.spaces.Box):
        raise ArgumentError("--env", "an environment whose observation is a Box", repr(made.observation_space))
    return PlayedEpisodes(made, seed, slot)


def _family(env: str) -> str:
    prefix = env.partition("/")[0]
    if prefix == env and re.search(CONSOLES, env):
        return "retro"
    return {"MinAtar": "minatar", "ALE": "ale", "retro": "retro"}.get(prefix, "gymnasium")


def _minatar(env: str, limit: int | None) -> gymnasium.Env[Any, Any]:
    gym, wrappers = require("gymnasium", EXTRA), require("gymnasium.wrappers", EXTRA)
    games = require("minatar.gym", EXTRA)
    if "MinAtar/Breakout-v1" not in gym.registry:
        games.register_envs()
    made = _made(env, disable_env_checker=True)

    class Forgetful(gym.Wrapper):  # type: ignore[misc, name-defined]
        """A sticky action repeats the last one, and that of the episode before is not of this one."""

        def reset(self, **options: Any) -> Any:
            self.unwrapped.game.last_action = 0
            return self.env.reset(**options)

    limited = wrappers.TimeLimit(Forgetful(made), limit or MINATAR_LIMIT)
    statistics: gymnasium.Env[Any, Any] = wrappers.RecordEpisodeStatistics(limited)
    return statistics


def _ale(env: str, limit: int | None) -> gymnasium.Env[Any, Any]:
    from holdfast.rl.rainbow.played_episodes import EpisodicLife

    gym, wrappers, ale_py = require("gymnasium", EXTRA), require("gymnasium.wrappers", EXTRA), require("ale_py", EXTRA)
    require("cv2", EXTRA)
    gym.register_envs(ale_py)
    made = _made(
        env,
        frameskip=1,  # the wrapper skips, and takes the maximum of the last two frames
        repeat_action_probability=0.25,
        full_action_space=False,
        max_num_frames_per_episode=FRAME_SKIP * (limit or ATARI_LIMIT),
        disable_env_checker=True,
    )
    seen = wrappers.RecordEpisodeStatistics(wrappers.AtariPreprocessing(made, noop_max=30, frame_skip=FRAME_SKIP))
    clipped = wrappers.TransformReward(EpisodicLife(seen), np.sign)
    stacked: gymnasium.Env[Any, Any] = wrappers.FrameStackObservation(clipped, 4)
    return stacked


def _retro(env: str, limit: int | None) -> gymnasium.Env[Any, Any]:
    wrappers, retro = require("gymnasium.wrappers", EXTRA), require("stable_retro", RETRO)
    require("cv2", EXTRA)
    game = env.removeprefix("retro/")
    try:
        # Any other way of rendering opens a window.
        made = retro.make(game, use_restricted_actions=retro.Actions.DISCRETE, render_mode="rgb_array")
    except FileNotFoundError as error:
        known = game in retro.data.list_games(retro.data.Integrations.ALL)
        if not known:
            raise ArgumentError("--env", "retro/ and a game of stable-retro", env) from error
        ask = f"your own ROM of {game}, imported with  python -m stable_retro.import FOLDER"
        raise ArgumentError("--env", ask, "none: stable-retro ships without it") from error
    except RuntimeError as error:
        raise ArgumentError("--env", "one game of stable-retro at a time in a process", f"{env} ({error})") from error
    skipped = wrappers.MaxAndSkipObservation(made, FRAME_SKIP)
    limited = wrappers.RecordEpisodeStatistics(wrappers.TimeLimit(skipped, limit or ATARI_LIMIT))
    small = wrappers.ResizeObservation(wrappers.GrayscaleObservation(limited), (84, 84))
    clipped = wrappers.TransformReward(small, np.sign)
    stacked: gymnasium.Env[Any, Any] = wrappers.FrameStackObservation(clipped, 4)
    return stacked


def _gymnasium(env: str, limit: int | None) -> gymnasium.Env[Any, Any]:
    made = _made(env) if limit is None else _made(env, max_episode_steps=limit)
    statistics: gymnasium.Env[Any, Any] = require("gymnasium.wrappers", EXTRA).RecordEpisodeStatistics(made)
    return statistics


def _made(env: str, **options: Any) -> gymnasium.Env[Any, Any]:
    """By Gymnasium, whose errors of many lines become one."""
    gym = require("gymnasium", EXTRA)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of older versions of the same game
        try:
            made: gymnasium.Env[Any, Any] = gym.make(env, **options)
        except gym.error.Error as error:
            expected = "MinAtar/Breakout-v1, ALE/Breakout-v5, retro/Airstriker-Genesis-v0, or an id of Gymnasium's"
            raise ArgumentError("--env", expected, f"{env} ({str(error).splitlines()[0]})") from error
    return made


_MAKERS: dict[str, Callable[[str, int | None], gymnasium.Env[Any, Any]]] = {
    "minatar": _minatar,
    "ale": _ale,
    "retro": _retro,
    "gymnasium": _gymnasium,
}
