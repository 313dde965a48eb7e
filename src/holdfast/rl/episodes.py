"""What a policy remembers of the episodes in its slots, besides the state of its network."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """Of each slot. Nothing is changed in place: a step that fails leaves all of it as it was.

    Arguments:
        over: whether the next observation begins an episode.
        returns_to_go: what is still to be reached, in the environment's units.
        current: whether the last timestep is in the context: one whose decision was held is not.
        acted: whether the context ends with a decision, so that its action and reward are still to be read.
        ids: of that action.
        reward: that reward.
        rewarded: whether it is known.
        action: the last answer, in the environment's units.
        tokens: how many the slot's episode has read.
    """

    over: Bool[np.ndarray, " slots"]
    returns_to_go: Float64[np.ndarray, " slots"]
    current: Bool[np.ndarray, " slots"]
    acted: Bool[np.ndarray, " slots"]
    ids: Int64[np.ndarray, "slots dims"]
    reward: Float64[np.ndarray, " slots"]
    rewarded: Bool[np.ndarray, " slots"]
    action: Float64[np.ndarray, "slots dims"]
    tokens: Int64[np.ndarray, " slots"]

    @classmethod
    def before_the_first(cls, slots: int, dims: int) -> Episodes:
        """Nothing has begun.

        Arguments:
            slots: environments side by side.
            dims: dimensions of an action.
        """
        no, zero = np.zeros(slots, dtype=bool), np.zeros(slots)
        return cls(
            over=np.ones(slots, dtype=bool),
            returns_to_go=zero,
            current=no,
            acted=no,
            ids=np.zeros((slots, dims), dtype=np.int64),
            reward=zero,
            rewarded=no,
            action=np.zeros((slots, dims)),
            tokens=np.zeros(slots, dtype=np.int64),
        )

    def answered(
        self,
        begins: Bool[np.ndarray, " slots"],
        target: Float64[np.ndarray, " slots"],
        reward: Float64[np.ndarray, " slots"],
        known: Bool[np.ndarray, " slots"],
    ) -> Episodes:
        """After the environments' answers to the last actions.

        Arguments:
            begins: where an episode begins, so that the answer belongs to none.
            target: return to reach in it.
            reward: of the last step.
            known: where there is one.
        """
        belongs = self.current & ~begins
        return replace(
            self,
            over=np.zeros_like(self.over),
            returns_to_go=np.where(begins, target, self.returns_to_go - np.where(known, reward, 0.0)),
            current=belongs,
            acted=self.acted & ~begins,
            reward=np.where(belongs, np.where(known, reward, 0.0), self.reward),
            rewarded=np.where(belongs, known, self.rewarded & ~begins),
            tokens=np.where(begins, 0, self.tokens),
        )

    def decided(
        self,
        decides: Bool[np.ndarray, " slots"],
        idle: Bool[np.ndarray, " slots"],
        ids: Int64[np.ndarray, "slots dims"],
        action: Float64[np.ndarray, "slots dims"],
        tokens: Int64[np.ndarray, " slots"],
    ) -> Episodes:
        """After the decisions.

        Arguments:
            decides: where there was one.
            idle: where the episode is over.
            ids: of the actions.
            action: in the environment's units.
            tokens: how many were read.
        """
        return replace(
            self,
            over=idle,
            current=decides,
            acted=self.acted | decides,
            ids=np.where(decides[:, None], ids, self.ids),
            reward=np.where(decides, 0.0, self.reward),
            rewarded=self.rewarded & ~decides,
            action=np.where(decides[:, None], action, self.action),
            tokens=self.tokens + np.where(decides, tokens, 0),
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def of(cls, arrays: dict[str, Any]) -> Episodes:
        """Back from arrays by name."""
        return cls(**arrays)
