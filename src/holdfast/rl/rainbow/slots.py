"""Environments side by side, with macro-actions inside each, and what is seen in them before the next decision."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from jaxtyping import Bool, Int, Shaped

from holdfast.errors import ArgumentError
from holdfast.rl.macro_actions import WRAPPED, Decisions, decisions


class Slots:
    """Steps a vector of environments, in whichever of Gymnasium's modes they begin anew.

    Arguments:
        environments: from `macro_vector_env`; a list without macros makes an agent of primitive actions.

    Errors:
        ArgumentError: there are no macro-actions inside, or the observation is no array.
    """

    def __init__(self, environments: gymnasium.vector.VectorEnv[Any, Any, Any]) -> None:
        if WRAPPED not in environments.metadata:
            raise ArgumentError(
                "environments", "MacroActions inside each environment (see macro_vector_env)", repr(environments)
            )
        space = environments.single_observation_space
        if not isinstance(space, gymnasium.spaces.Box):
            raise ArgumentError("environments", "observations that are a Box", repr(space))
        self.environments, self.number = environments, environments.num_envs
        self.observations: Shaped[np.ndarray, "slots ..."] = np.empty(0)
        """What the next decisions are made on."""
        self.info: dict[str, Any] = {}
        """What the last step told."""

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode in every slot."""
        observations, self.info = self.environments.reset(seed=seed)
        self.observations = np.array(observations)

    def step(self, actions: Int[np.ndarray, " slots"]) -> Decisions:
        """Carry out an action in every slot. Where one ends in DISABLED mode, the next episode is begun.

        Arguments:
            actions: ids; that of a slot which only begins an episode is passed over.
        """
        answer = self.environments.step(actions)
        made, self.info = decisions(self.environments, answer), answer[-1]
        observations = answer[0]
        over: Bool[np.ndarray, " slots"] = made.terminated | made.truncated
        if over.any() and self.environments.metadata["autoreset_mode"] == gymnasium.vector.AutoresetMode.DISABLED:
            observations, _ = self.environments.reset(options={"reset_mask": over.copy()})
        self.observations = np.array(observations)
        return made

    def played(self) -> list[dict[str, Any]]:
        """What `play_again` needs."""
        calls: Any = self.environments
        return list(calls.call("played"))

    def play_again(self, states: tuple[dict[str, Any], ...]) -> None:
        """Put environments back to where they were; needs `PlayedEpisodes` inside each, and DISABLED mode.

        Arguments:
            states: what each one's `played` returned.

        Errors:
            ArgumentError: another number of environments.
        """
        if len(states) != self.number:
            raise ArgumentError("states", f"those of {self.number} environments", f"{len(states)}")
        calls: Any = self.environments
        self.observations = np.stack([np.asarray(seen) for seen in calls.call("play_again", states)])
