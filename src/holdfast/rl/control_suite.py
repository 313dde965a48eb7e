"""A task of the DeepMind Control Suite as an environment of Gymnasium."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
from jaxtyping import Float


class ControlSuiteEnv(gymnasium.Env[Any, Any]):
    """Observations are vectors: all entries of the suite's, in its order.

    Arguments:
        environment: of `dm_control.suite.load`.
    """

    def __init__(self, environment: Any) -> None:
        self.environment = environment
        width = sum(int(np.prod(spec.shape)) for spec in environment.observation_spec().values())
        bounds = environment.action_spec()
        self.observation_space = gymnasium.spaces.Box(-math.inf, math.inf, (width,), np.float32)
        self.action_space = gymnasium.spaces.Box(
            np.broadcast_to(bounds.minimum, bounds.shape).astype(np.float32),
            np.broadcast_to(bounds.maximum, bounds.shape).astype(np.float32),
            dtype=np.float32,
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float[np.ndarray, " width"], dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        if seed is not None:
            self.environment.task.random.seed(seed)
        return self._vector(self.environment.reset()), {}

    def step(self, action: Any) -> tuple[Float[np.ndarray, " width"], float, bool, bool, dict[str, Any]]:
        """A step; an end with a discount of 0 belongs to the task, any other to its limit of time."""
        now = self.environment.step(np.asarray(action, np.float64))
        last, ended = bool(now.last()), now.discount == 0
        return self._vector(now), float(now.reward or 0.0), last and ended, last and not ended, {}

    def close(self) -> None:
        """Free the simulator."""
        self.environment.close()

    @staticmethod
    def _vector(now: Any) -> Float[np.ndarray, " width"]:
        return np.concatenate([np.ravel(part) for part in now.observation.values()], dtype=np.float32)
