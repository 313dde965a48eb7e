"""What a vector of environments did in one step, told alike in each of Gymnasium's ways of beginning anew.

A decision is an action or a macro of several. NEXT_STEP: the step after an end only begins the next episode and is no
decision. SAME_STEP: the observation is the next episode's, that of the end is in `info["final_obs"]`. DISABLED: who
steps the environments resets those that ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from holdfast.errors import ArgumentError, require

if TYPE_CHECKING:
    import gymnasium


@dataclass(frozen=True)
class Decisions:
    """One decision in each slot.

    Arguments:
        observations: that it was made on.
        actions: that were chosen.
        rewards: for all primitive steps that it took, discounted to its first.
        durations: how many these were.
        terminated: whether the episode came to its end.
        truncated: whether it was cut off there.
        successors: what was observed then; at an end what the episode ended with.
        made: slots in which a decision was made at all.
    """

    observations: Shaped[np.ndarray, "slots ..."]
    actions: Int[np.ndarray, " slots"]
    rewards: Float[np.ndarray, " slots"]
    durations: Int[np.ndarray, " slots"]
    terminated: Bool[np.ndarray, " slots"]
    truncated: Bool[np.ndarray, " slots"]
    successors: Shaped[np.ndarray, "slots ..."]
    made: Bool[np.ndarray, " slots"]


class Slots:
    """Steps a vector of environments, and knows which of them have just ended.

    Macros are wrapped around each environment before they are put into the vector. Around the vector they would run
    across an end, or make others wait for a decision.

    Arguments:
        environments: a vector of Gymnasium's with ids as actions.

    Errors:
        ArgumentError: the actions are no ids, or the vector does not say how it begins anew.
        MissingExtraError: gymnasium is not installed.
    """

    def __init__(self, environments: gymnasium.vector.VectorEnv[Any, Any, Any]) -> None:
        gym = require("gymnasium", "macros")
        space = getattr(environments, "single_action_space", None)
        if not isinstance(space, gym.spaces.Discrete) or space.start != 0:
            raise ArgumentError("environments", "a vector of environments with actions Discrete(n)", repr(space))
        mode = environments.metadata.get("autoreset_mode")
        if mode not in list(gym.vector.AutoresetMode):
            raise ArgumentError("environments", "an autoreset_mode of Gymnasium in their metadata", repr(mode))
        self.environments, self.mode, self.number = environments, str(mode.value), environments.num_envs
        self.observations: Shaped[np.ndarray, "slots ..."] = np.empty(0)
        self.ended = np.zeros(self.number, bool)
        """Slots whose next step does nothing but begin an episode (NEXT_STEP)."""
        self.info: dict[str, Any] = {}
        """What the last step told besides."""

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode in every slot."""
        observations, self.info = self.environments.reset(seed=seed)
        self.observations = np.array(observations)
        self.ended = np.zeros(self.number, bool)

    def play_again(self, states: tuple[dict[str, Any], ...]) -> None:
        """Put environments back to where they were; needs `PlayedEpisodes` around each, and DISABLED mode.

        Arguments:
            states: what each one's `played` returned.

        Errors:
            ArgumentError: another number of environments.
        """
        if len(states) != self.number or self.mode != "Disabled":
            raise ArgumentError("states", f"those of {self.number} environments in DISABLED mode", f"{len(states)}")
        calls: Any = self.environments
        self.observations = np.stack([np.asarray(seen) for seen in calls.call("play_again", states)])

    def step(self, actions: Int[np.ndarray, " slots"]) -> Decisions:
        """Take an action, or run a macro, in every slot.

        Arguments:
            actions: ids; that of a slot which only begins an episode is passed over.

        Errors:
            ArgumentError: a reward is no finite number.
        """
        before, made = self.observations, ~self.ended
        after, rewards, terminated, truncated, info = self.environments.step(actions)
        observations, over = np.array(after), np.asarray(terminated | truncated) & made
        rewards = np.asarray(rewards, np.float64)
        if not np.isfinite(rewards[made]).all():
            raise ArgumentError("environments", "finite rewards", repr(rewards))
        successors, durations = observations, _durations(info, self.number)
        if over.any() and self.mode == "SameStep":
            final = info.get("final_obs")
            if final is None:
                raise ArgumentError("environments", 'info["final_obs"] where an episode ends in SAME_STEP mode', "none")
            durations = np.where(over, _durations(info.get("final_info", {}), self.number), durations)
            successors = observations.copy()
            for slot in np.flatnonzero(over):
                successors[slot] = final[slot]
        self.ended = over if self.mode == "NextStep" else np.zeros(self.number, bool)
        self.info = info
        if over.any() and self.mode == "Disabled":
            begun, _ = self.environments.reset(options={"reset_mask": over.copy()})
            observations = np.array(begun)
        self.observations = observations
        return Decisions(
            before,
            np.asarray(actions, np.int64),
            rewards,
            durations,
            np.asarray(terminated) & made,
            np.asarray(truncated) & made,
            successors,
            made,
        )


def _durations(info: dict[str, Any], slots: int) -> Int[np.ndarray, " slots"]:
    """Primitive steps of each decision, as `MacroActions` tells them; 1 where it tells none."""
    macro = info.get("macro")
    if not isinstance(macro, dict) or "executed" not in macro:
        return np.ones(slots, np.int64)
    executed = np.asarray(macro["executed"]).astype(np.int64)
    told = np.asarray(macro.get("_executed", np.ones(slots, bool)), bool)
    return np.where(told, executed, 1)
