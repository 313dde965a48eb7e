"""Prioritised replay of n-step decisions that last several primitive steps each.

Every observation is kept once, in the order in which it came; the transition that begins at it lies in the same place,
and names the place of the observation that it is bootstrapped from. That one is always the younger of the two, so that
a transition whose observation is still there is whole.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from holdfast.errors import ArgumentError, count_of
from holdfast.rl.rainbow.sum_tree import SumTree

if TYPE_CHECKING:
    from holdfast.rl.macro_actions import Decisions


@dataclass(frozen=True)
class Batch:
    """Transitions to learn from.

    Arguments:
        observations: that decisions were made on.
        actions: that were chosen.
        returns: R = Σ γ^(durations before) R_i over n decisions, or as many as there were until the end.
        discounts: D: γ^(primitive steps of these decisions), or 0 where the episode came to its end.
        successors: observations that they are bootstrapped from.
        weights: of importance, at most 1.
        numbers: places in the replay.
    """

    observations: Shaped[Tensor, "batch ..."]
    actions: Int[Tensor, " batch"]
    returns: Float[Tensor, " batch"]
    discounts: Float[Tensor, " batch"]
    successors: Shaped[Tensor, "batch ..."]
    weights: Float[Tensor, " batch"]
    numbers: Int[np.ndarray, " batch"]


class Replay:
    """The last decisions of all slots.

    Arguments:
        capacity: observations that are kept.
        slots: environments whose decisions are interleaved.
        n_step: decisions whose rewards are added up.
        discount: γ, of a primitive step.
        exponent: α, of priorities (Schaul et al. 2016).
        seed: of what is drawn.

    Errors:
        ArgumentError: a setting is out of range, or the capacity too small for the decisions that are pending.
    """

    def __init__(
        self,
        capacity: int,
        slots: int,
        *,
        n_step: int = 3,
        discount: float = 0.99,
        exponent: float = 0.5,
        seed: int = 0,
    ) -> None:
        count_of("slots", slots, least=1)
        count_of("n_step", n_step, least=1)
        # A slot has n decisions pending, and an episode's last observation may follow on any of them.
        count_of("capacity", capacity, least=2 * slots * (n_step + 2))
        if not 0 <= discount <= 1:
            raise ArgumentError("discount", "a number from 0 to 1", discount)
        if not 0 <= exponent <= 1:
            raise ArgumentError("exponent", "a number from 0 to 1", exponent)
        self.capacity, self.n_step, self.discount, self.exponent = capacity, n_step, discount, exponent
        self.tree = SumTree(capacity)
        self.rng = np.random.default_rng([seed, 1])
        self.count = 0
        """Observations that were ever kept."""
        self.transitions = 0
        """Transitions that were ever whole."""
        self.highest = 1.0
        """The highest priority yet, before the exponent: new transitions have it."""
        self._observations: Shaped[np.ndarray, "capacity ..."] | None = None
        self._actions = np.zeros(capacity, np.int64)
        self._returns = np.zeros(capacity, np.float32)
        self._discounts = np.zeros(capacity, np.float32)
        self._successors = np.zeros(capacity, np.int64)
        # Of each slot's pending decisions: place, reward, duration.
        self._pending: list[deque[tuple[int, float, int]]] = [deque() for _ in range(slots)]

    def add(
        self,
        observations: Shaped[np.ndarray, "slots ..."],
        actions: Int[np.ndarray, " slots"],
        decisions: Decisions,
    ) -> None:
        """Keep what was decided, and finish the transitions that it completes.

        A transition is whole when the observation after its n-th decision is kept, which is when the next decision is
        made on it, or the episode ends. Where no decision was made, nothing is kept.

        Arguments:
            observations: that decisions were made on.
            actions: that were chosen.
            decisions: what came of them.
        """
        for slot in np.flatnonzero(decisions.made):
            pending = self._pending[slot]
            place = self._keep(observations[slot])
            self._actions[place] = actions[slot]
            if len(pending) == self.n_step:
                self._finish(pending, place)
            pending.append((place, float(decisions.reward[slot]), int(decisions.executed[slot])))
            if decisions.terminated[slot]:
                while pending:
                    self._finish(pending, None)
            elif decisions.truncated[slot]:
                last = self._keep(decisions.observation[slot])
                while pending:
                    self._finish(pending, last)

    def _keep(self, observation: Shaped[np.ndarray, "*shape"]) -> int:
        """Put an observation into the place of the oldest one, whose transition is gone with it."""
        if self._observations is None:
            self._observations = np.zeros((self.capacity, *observation.shape), observation.dtype)
        place = self.count % self.capacity
        self._observations[place] = observation
        if self.count >= self.capacity:
            self.tree.update(np.array([place]), np.zeros(1))
        self.count += 1
        return place

    def _finish(self, pending: deque[tuple[int, float, int]], successor: int | None) -> None:
        """Make the oldest of the pending decisions a transition.

        Arguments:
            pending: decisions of a slot; the oldest is taken out.
            successor: place of the observation after all of them; `None`: there the episode came to its end.
        """
        total, passed = 0.0, 0
        for _, reward, duration in pending:
            total += self.discount**passed * reward
            passed += duration
        place, _, _ = pending.popleft()
        self._returns[place] = total
        self._discounts[place] = 0.0 if successor is None else self.discount**passed
        self._successors[place] = place if successor is None else successor
        self.tree.update(np.array([place]), np.array([self.highest**self.exponent]))
        self.transitions += 1

    def sample(self, size: int, importance: float, device: torch.device | str = "cpu") -> Batch:
        """Draw transitions in proportion to their priorities.

        Arguments:
            size: how many.
            importance: β, the exponent of their weights.
            device: where they are wanted.

        Errors:
            ArgumentError: no transition is whole yet.
        """
        if not self.transitions:
            raise ArgumentError("replay", "a transition that is whole", "none yet")
        numbers = self.tree.sample(size, self.rng)
        priorities = self.tree[numbers]
        weights = (priorities / priorities.min()) ** -importance
        return self.batch(numbers, weights, device)

    def sample_uniformly(self, size: int, rng: np.random.Generator, device: torch.device | str = "cpu") -> Batch:
        """Draw transitions, all that are whole alike, as a second batch to judge an update by.

        Arguments:
            size: how many.
            rng: draws, so that the order of other batches is not disturbed.
            device: where they are wanted.

        Errors:
            ArgumentError: no transition is whole yet.
        """
        if not self.transitions:
            raise ArgumentError("replay", "a transition that is whole", "none yet")
        chosen: list[int] = []
        while len(chosen) < size:
            drawn = rng.integers(min(self.count, self.capacity), size=size)
            chosen += drawn[self.tree[drawn] > 0].tolist()
        return self.batch(np.array(chosen[:size]), np.ones(size), device)

    def batch(
        self, numbers: Int[np.ndarray, " n"], weights: Float[np.ndarray, " n"], device: torch.device | str
    ) -> Batch:
        """The transitions in some places.

        Arguments:
            numbers: places, each of a transition that is whole.
            weights: of importance.
            device: where they are wanted.
        """
        assert self._observations is not None
        successors = self._successors[numbers]

        def tensor(values: Shaped[np.ndarray, "n ..."]) -> Tensor:
            return torch.from_numpy(values).to(device)

        return Batch(
            tensor(self._observations[numbers]),
            tensor(self._actions[numbers]),
            tensor(self._returns[numbers]),
            tensor(self._discounts[numbers]),
            tensor(self._observations[successors]),
            tensor(weights.astype(np.float32)),
            numbers,
        )

    def update(self, numbers: Int[np.ndarray, " n"], errors: Float[np.ndarray, " n"]) -> None:
        """Set priorities from the losses of a batch.

        Arguments:
            numbers: places that the batch is from.
            errors: positive.
        """
        self.highest = max(self.highest, float(errors.max()))
        self.tree.update(numbers, errors.astype(np.float64) ** self.exponent)

    def state_dict(self) -> dict[str, Any]:
        """All of it, as tensors and plain values."""
        filled = min(self.count, self.capacity)
        arrays = {name: torch.from_numpy(values[:filled]) for name, values in self._arrays().items()}
        observations = None if self._observations is None else torch.from_numpy(self._observations[:filled])
        return {
            "capacity": self.capacity,
            "slots": len(self._pending),
            "count": self.count,
            "transitions": self.transitions,
            "highest": self.highest,
            "rng": self.rng.bit_generator.state,
            "pending": [[list(entry) for entry in slot] for slot in self._pending],
            "priorities": torch.from_numpy(self.tree[np.arange(filled)]),
            "observations": observations,
            **arrays,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned.

        Errors:
            ArgumentError: it is of another replay, such as one that keeps no discount for each transition.
        """
        expected = self.state_dict()
        if state.keys() != expected.keys():
            missing = ", ".join(sorted(expected.keys() ^ state.keys()))
            raise ArgumentError("state", "what a replay of this kind has kept", f"a difference in {missing}")
        for name in ("capacity", "slots"):
            if state[name] != expected[name]:
                raise ArgumentError("state", f"{name} {expected[name]}", state[name])
        filled = min(state["count"], self.capacity)
        if state["observations"] is not None:
            observations = state["observations"].numpy()
            self._observations = np.zeros((self.capacity, *observations.shape[1:]), observations.dtype)
            self._observations[:filled] = observations
        for name, values in self._arrays().items():
            values[:filled] = state[name].numpy()
        self.count, self.transitions, self.highest = state["count"], state["transitions"], state["highest"]
        self.rng.bit_generator.state = state["rng"]
        self._pending = [
            deque((int(place), float(reward), int(duration)) for place, reward, duration in slot)
            for slot in state["pending"]
        ]
        self.tree = SumTree(self.capacity)
        self.tree.update(np.arange(filled), state["priorities"].numpy())

    def _arrays(self) -> dict[str, Shaped[np.ndarray, " capacity"]]:
        """What is kept of each transition besides its observation."""
        return {
            "actions": self._actions,
            "returns": self._returns,
            "discounts": self._discounts,
            "successors": self._successors,
        }
