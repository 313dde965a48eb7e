"""Environments that need a simulator, ready for `collect`: Meta-World with its scripted experts, DMControl, Atari.

MuJoCo draws nothing here: where MUJOCO_GL is not set, it is set to `disable`, so that it runs without a screen.
"""

from __future__ import annotations

import importlib.metadata
import os
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8

from holdfast.errors import ArgumentError, MissingExtraError, count_of, require
from holdfast.rl.collect import Expert

if TYPE_CHECKING:
    import gymnasium

PINS = {"mujoco": "3.3.0", "metaworld": "3.1.1", "dm-control": "1.0.28"}
"""The versions that work with each other; newer ones of MuJoCo break both of the others."""


def metaworld(task: str, *, seed: int, steps: int = 200) -> tuple[gymnasium.Env[Any, Any], Expert]:
    """A task of Meta-World and its scripted expert, which overshoots the bounds of actions.

    An episode ends by its limit of time alone; `info["success"]` says whether the goal was reached.

    Arguments:
        task: such as `reach-v3`.
        seed: of the goals and places of all episodes, in their order; seeds of `reset` change nothing.
        steps: of an episode; Meta-World has 500, the published experiments 200.

    Errors:
        ArgumentError: there is no such task.
        MissingExtraError: metaworld is not installed, or with another MuJoCo.
    """
    count_of("steps", steps, least=1)
    _check_pins("metaworld")
    policies = require("metaworld.policies", "metaworld").ENV_POLICY_MAP
    if task not in policies:
        raise ArgumentError("task", f"one of {', '.join(sorted(policies))}", task)
    environment: gymnasium.Env[Any, Any] = require("gymnasium", "metaworld").make(
        "Meta-World/MT1", env_name=task, seed=seed, max_episode_steps=steps, disable_env_checker=True
    )
    policy = policies[task]()

    def expert(observation: Float[np.ndarray, " 39"]) -> Float[np.ndarray, " 4"]:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Constant")  # it says in each such step that it overshoots
            return np.asarray(policy.get_action(observation.astype(np.float64)))

    return environment, expert


def dm_control(domain: str, task: str) -> gymnasium.Env[Any, Any]:
    """A task of the DeepMind Control Suite; its observation is one vector, in the suite's order.

    Arguments:
        domain: such as `cartpole`.
        task: such as `swingup`.

    Errors:
        ArgumentError: there is no such task.
        MissingExtraError: dm_control is not installed, or with another MuJoCo.
    """
    _check_pins("dm-control")
    suite = require("dm_control.suite", "metaworld")
    if (domain, task) not in suite.ALL_TASKS:
        known = ", ".join(sorted(f"{name} {of}" for name, of in suite.ALL_TASKS))
        raise ArgumentError("task", f"one of {known}", f"{domain} {task}")
    require("gymnasium", "metaworld")
    from holdfast.rl.control_suite import ControlSuiteEnv

    return ControlSuiteEnv(suite.load(domain, task))


def atari(game: str, *, size: int = 64, clip_rewards: bool = True, **options: Any) -> gymnasium.Env[Any, Any]:
    """An Atari game as the published experiments have it: one grey picture of four frames, all 18 actions.

    Arguments:
        game: such as `Pong`.
        size: height and width of the picture.
        clip_rewards: whether a reward is its sign.
        options: of `gymnasium.make`; by default no action is repeated at random.

    Errors:
        ArgumentError: there is no such game.
        MissingExtraError: ale_py or pillow is not installed.
    """
    count_of("size", size, least=8)
    gym, ale_py = require("gymnasium", "rl"), require("ale_py", "rl")
    images, wrappers = require("PIL.Image", "rl"), require("gymnasium.wrappers", "rl")
    gym.register_envs(ale_py)
    settings = {"frameskip": 4, "repeat_action_probability": 0.0, "full_action_space": True, **options}
    try:
        environment = gym.make(f"ALE/{game}-v5", obs_type="grayscale", **settings)
    except gym.error.UnregisteredEnv as error:
        raise ArgumentError("game", "a game of the Arcade Learning Environment", game) from error

    def shrink(picture: UInt8[np.ndarray, "height width"]) -> UInt8[np.ndarray, "size size 1"]:
        small = images.fromarray(picture).resize((size, size), images.Resampling.BOX)
        return np.asarray(small)[..., None]

    space = gym.spaces.Box(0, 255, (size, size, 1), np.uint8)
    seen: gymnasium.Env[Any, Any] = wrappers.TransformObservation(environment, shrink, space)
    if clip_rewards:
        seen = wrappers.TransformReward(seen, np.sign)
    return seen


def _check_pins(package: str) -> None:
    """Refuse versions that are known to break each other before they do, and set MuJoCo to draw nothing.

    Errors:
        MissingExtraError: with the command that installs the right ones.
    """
    os.environ.setdefault("MUJOCO_GL", "disable")
    wrong = []
    for name in ("mujoco", package):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = "none"
        if version != PINS[name]:
            wrong.append(f"{name} {PINS[name]} (here: {version})")
    if wrong:
        pins = " ".join(f"'{name}=={version}'" for name, version in PINS.items())
        raise MissingExtraError(f"needs {' and '.join(wrong)}: in a new environment  pip install {pins} gymnasium")
