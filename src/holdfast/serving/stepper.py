"""Steps of many sessions at once: those that fit together become one batch of the policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from holdfast.errors import ArgumentError, HoldfastError
from holdfast.models.action.domain import Domain
from holdfast.models.action.model import ActionModel
from holdfast.rl.memory import Memory, joined
from holdfast.rl.stepping import Policy, PolicyConfig


@dataclass(frozen=True, kw_only=True)
class Step:
    """What the model is asked.

    Arguments:
        domain: of the session.
        memory: what it remembers of the session.
        observation: of the domain's shape.
        reward: that answered the last action; `None`: it is not known.
        done: whether the last action ended its episode.
        carried_out: the last action, where it was not the one that the model chose.
    """

    domain: str
    memory: Any
    observation: np.ndarray
    reward: float | None
    done: bool
    carried_out: np.ndarray | None = None


Decided = tuple[Any, Any]
"""The action, an array or an id, and the memory after it."""


class Stepper(Protocol):
    """What decides; one thread at a time calls `act`."""

    domains: Mapping[str, Domain]

    def begin(self, domain: str, target_return: float | None) -> Any:
        """The memory of a session that begins."""

    def act(self, steps: Sequence[Step]) -> list[Decided | HoldfastError]:
        """Decide all steps, which are of different sessions. One that fails does not harm the others."""


class PolicyStepper:
    """Steps by a `Policy`, many sessions at once where the state of the model's backbone is of constant size.

    What grows with the number of tokens, such as a cache of keys and values, is stepped one session at a time: to copy
    it into a batch and back would cost more than the batch saves.

    Arguments:
        model: a trained model.
    """

    def __init__(self, model: ActionModel) -> None:
        self.model = model
        self.domains: Mapping[str, Domain] = {domain.name: domain for domain in model.config.domains}
        self._policies: dict[tuple[str, int], Policy] = {}
        self._initial = {
            name: replace(self._policy(name, 1).memory, target=np.full(1, np.nan)) for name in self.domains
        }

    def begin(self, domain: str, target_return: float | None) -> Memory:
        """The memory of a session that begins.

        Arguments:
            domain: name of the session's domain.
            target_return: to reach in an episode; `None`: the domain's.

        Errors:
            ArgumentError: the model reads returns-to-go, and no target is known.
        """
        target = self.domains[domain].target_return if target_return is None else target_return
        if target is None and self.model.config.returns:
            raise ArgumentError("target_return", f"a number, since domain {domain} has none", "nothing")
        return replace(self._initial[domain], target=np.full(1, 0.0 if target is None else target))

    def act(self, steps: Sequence[Step]) -> list[Decided | HoldfastError]:
        """Decide all steps; an error stands in the place of a step that the model could not read."""
        outcomes: list[Decided | HoldfastError | None] = [None] * len(steps)
        groups: dict[tuple[Any, ...], list[int]] = {}
        for place, step in enumerate(steps):
            # Rows that read different tokens would have to be masked, which costs more than a batch of their own; and
            # bytes beside floats would become floats.
            begins = step.done or bool(step.memory.episodes.over[0])
            alike: tuple[Any, ...] = (step.domain, begins, step.reward is None, step.observation.dtype)
            groups.setdefault(alike if step.memory.joinable else (place,), []).append(place)
        for places in groups.values():
            for place, outcome in zip(places, self._together([steps[place] for place in places]), strict=True):
                outcomes[place] = outcome
        return [outcome for outcome in outcomes if outcome is not None]

    def _together(self, steps: Sequence[Step]) -> list[Decided | HoldfastError]:
        """Steps that read the same tokens."""
        try:
            return list(self._batch(steps))
        except HoldfastError as error:
            if len(steps) == 1:
                return [error]
        return [outcome for step in steps for outcome in self._together([step])]

    def _batch(self, steps: Sequence[Step]) -> list[Decided]:
        policy, before = self._policy(steps[0].domain, len(steps)), joined([step.memory for step in steps])
        taken = None
        if self.model.config.past_actions and any(step.carried_out is not None for step in steps):
            own = before.episodes.action
            taken = np.stack(
                [
                    own[row] if step.carried_out is None else np.reshape(step.carried_out, -1)
                    for row, step in enumerate(steps)
                ]
            )
        with torch.inference_mode():
            policy.memory = before
            actions = policy.act(
                np.stack([step.observation for step in steps]),
                np.array([0.0 if step.reward is None else step.reward for step in steps]),
                np.array([step.done for step in steps]),
                known=np.array([step.reward is not None for step in steps]),
                taken=taken,
            )
            return list(zip(actions, policy.memory.parted(), strict=True))

    def _policy(self, domain: str, slots: int) -> Policy:
        """A policy of so many slots."""
        if (domain, slots) not in self._policies:
            # A target of its own stands in each memory.
            config = PolicyConfig(domain=domain, slots=slots, autoreset="same_step", target_return=0.0)
            with torch.inference_mode():
                self._policies[domain, slots] = Policy(self.model, config)
        return self._policies[domain, slots]
