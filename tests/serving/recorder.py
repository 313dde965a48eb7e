"""A stepper without a model: what it remembers of a session is all that it was asked, and it can be held up."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from holdfast.errors import ArgumentError, HoldfastError
from holdfast.models.action.domain import Continuous, Discrete, Domain, Vector
from holdfast.serving.stepper import Decided, Step

ARM = Domain(name="arm", observation=Vector(2), action=Continuous((-1.0, 1.0), (1.0, 3.0)), target_return=5.0)
MAZE = Domain(name="maze", observation=Vector(2), action=Discrete(3))

UNREADABLE = 13.0
"""As the first number of an observation."""


class Recorder:
    """Answers with numbers that depend on all that a session was asked.

    Arguments:
        domains: that sessions can be of.
    """

    def __init__(self, *domains: Domain) -> None:
        self.domains: Mapping[str, Domain] = {domain.name: domain for domain in domains or (ARM,)}
        self.gate = threading.Event()
        """While it is not set, no step is decided."""
        self.gate.set()
        self.entered = threading.Semaphore(0)
        """Released whenever a batch begins."""
        self.batches: list[int] = []

    def begin(self, domain: str, target_return: float | None) -> Any:
        """The target alone."""
        target = self.domains[domain].target_return if target_return is None else target_return
        if target is None:
            raise ArgumentError("target_return", "a number", "nothing")
        return (target,)

    def act(self, steps: Sequence[Step]) -> list[Decided | HoldfastError]:
        """All of them."""
        self.entered.release()
        assert self.gate.wait(60)
        self.batches.append(len(steps))
        return [self.decided(step) for step in steps]

    def decided(self, step: Step) -> Decided | HoldfastError:
        """One of them."""
        if step.observation[0] == UNREADABLE:
            return HoldfastError("unlucky")
        carried_out = None if step.carried_out is None else tuple(step.carried_out.tolist())
        asked = (tuple(step.observation.tolist()), step.reward, step.done, carried_out)
        return chosen(self.domains[step.domain], (*step.memory, asked)), (*step.memory, asked)


def chosen(domain: Domain, memory: Any) -> Any:
    """The action after all that is remembered."""
    number = len(memory) * 7 % 10
    if isinstance(domain.action, Discrete):
        return np.int64(number % 3)
    return np.array([number / 10, 1 + number / 5], np.float32)
