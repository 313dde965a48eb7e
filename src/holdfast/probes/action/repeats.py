"""How often an action is the same one as before, in data and in episodes of a policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from holdfast.models.action.discretise import Vocabulary
from holdfast.models.action.domain import Continuous, Domain
from holdfast.rl.evaluate import Acting

if TYPE_CHECKING:
    import gymnasium


def repeats(ids: Int64[Tensor, "time dims"]) -> tuple[int, int]:
    """Numbers of actions in the bin of the one before, and of how many.

    Arguments:
        ids: of the actions of one episode, in their order.
    """
    same = ids[1:] == ids[:-1]
    return int(same.sum()), same.numel()


class Recorder:
    """A policy that acts as it did, and whose repeated actions are counted.

    Arguments:
        policy: acts.
        environments: that it acts in.
        episodes: in all; each slot's share of them is counted.
        domain: of the actions.
        ids: of its vocabulary.
    """

    def __init__(
        self,
        policy: Acting,
        environments: gymnasium.vector.VectorEnv[Any, Any, Any],
        episodes: int,
        domain: Domain,
        ids: Vocabulary,
    ) -> None:
        self._policy, self._domain, self._ids = policy, domain, ids
        # Whoever evaluates looks there for how the policy thinks that environments begin anew.
        self.config = getattr(policy, "config", None)
        mode = environments.metadata.get("autoreset_mode")
        self._idle_after_end = getattr(mode, "value", None) == "NextStep"
        self._quota = episodes // environments.num_envs
        self._counted: list[tuple[int, int]] = []
        self._taken: list[list[Tensor]] = [[] for _ in range(environments.num_envs)]
        self._ended = [0] * environments.num_envs

    def reset(self) -> None:
        """Forget all episodes."""
        self._policy.reset()

    def act(self, observation: Any, reward: Any, done: Any) -> Any:
        """The policy's actions."""
        action = self._policy.act(observation, reward, done)
        chosen = np.asarray(action.cpu() if isinstance(action, Tensor) else action)
        rows = chosen.reshape(len(self._taken), -1)
        if isinstance(self._domain.action, Continuous):
            rows = np.clip(rows, self._domain.action.low, self._domain.action.high)
        ids = self._ids.ids(torch.from_numpy(np.ascontiguousarray(rows)), self._domain.action)
        for slot, taken in enumerate(self._taken):
            over = done is not None and bool(done[slot])
            if over:
                self._end(slot)
            if not (over and self._idle_after_end):
                taken.append(ids[slot])
        return action

    def counted(self) -> list[tuple[int, int]]:
        """Of each episode, as `repeats` counts them; to be asked when all have ended.

        Nobody asks the policy what to do after the end of the last one, so its end was not seen.
        """
        for slot, ended in enumerate(self._ended):
            if ended < self._quota:
                self._end(slot)
        return self._counted

    def _end(self, slot: int) -> None:
        taken = self._taken[slot]
        if self._ended[slot] < self._quota and taken:
            self._counted.append(repeats(torch.stack(taken)))
        self._ended[slot] += 1
        taken.clear()
