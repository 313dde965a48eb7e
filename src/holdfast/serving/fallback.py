"""What is answered where the model's own action comes too late."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from holdfast.errors import ArgumentError
from holdfast.models.action.domain import Continuous, Domain


@dataclass(frozen=True)
class Fallback:
    """A rule, as words on the command line say it.

    Arguments:
        rule: `hold`: the last action once more, and at the first step as `zero`; `zero`: 0 in every dimension, or what
            is nearest to it within the bounds, and the id 0; or numbers with commas between them: that action.

    Errors:
        ArgumentError: it is none of these.
    """

    rule: str = "hold"

    def __post_init__(self) -> None:
        if self.rule not in ("hold", "zero"):
            try:
                numbers = [float(word) for word in self.rule.split(",")]
            except ValueError:
                numbers = [math.nan]
            if not all(map(math.isfinite, numbers)):
                raise ArgumentError("fallback", "hold, zero, or finite numbers with commas between them", self.rule)

    def check(self, domains: Iterable[Domain]) -> None:
        """Refuse an action that is none of a domain.

        Errors:
            ArgumentError: there is such a domain.
        """
        for domain in domains:
            space, action = domain.action, self.action(domain, None)
            if isinstance(space, Continuous):
                fits = len(action) == space.dims and bool(((action >= space.low) & (action <= space.high)).all())
                expected = f"{space.dims} numbers from {space.low} to {space.high}"
            else:
                fits = len(action) == 1 and float(action[0]) in range(space.n)
                expected = f"an id below {space.n}"
            if not fits:
                raise ArgumentError("fallback", f"{expected}, as domain {domain.name} has", self.rule)

    def action(self, domain: Domain, last: np.ndarray | int | None) -> np.ndarray:
        """The action, of shape (dims,); an id as a number.

        Arguments:
            domain: of the session.
            last: the last answer; `None`: there is none.
        """
        space = domain.action
        if self.rule not in ("hold", "zero"):
            return np.array([float(word) for word in self.rule.split(",")])
        if self.rule == "hold" and last is not None:
            return np.reshape(np.asarray(last, np.float64), -1)
        return np.clip(0.0, space.low, space.high) if isinstance(space, Continuous) else np.zeros(1)
