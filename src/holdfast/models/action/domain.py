"""What a domain is: how observations look, which actions there are, and the scale of its rewards."""

from __future__ import annotations

import math
from dataclasses import dataclass

from holdfast.errors import ArgumentError, count_of


@dataclass(frozen=True)
class Continuous:
    """Actions that are vectors within bounds.

    Arguments:
        low: least value of each dimension, in the environment's units.
        high: greatest value of each dimension.

    Errors:
        ArgumentError: no dimension, as many of one as not of the other, or bounds that are infinite or enclose nothing.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.low or len(self.low) != len(self.high):
            raise ArgumentError("high", f"{max(len(self.low), 1)} bounds, as low has", f"{len(self.high)}")
        for dimension, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ArgumentError(f"bounds of action dimension {dimension}", "finite, low < high", f"{low}, {high}")

    @property
    def dims(self) -> int:
        """Numbers that an action consists of."""
        return len(self.low)


@dataclass(frozen=True)
class Discrete:
    """Actions that are one of the ids 0 to n - 1.

    Arguments:
        n: how many.
    """

    n: int

    def __post_init__(self) -> None:
        count_of("n", self.n, least=1)

    @property
    def dims(self) -> int:
        """Numbers that an action consists of: its id."""
        return 1


ActionSpace = Continuous | Discrete


@dataclass(frozen=True)
class Vector:
    """Observations that are vectors.

    Arguments:
        width: numbers of an observation.
        slots: place of each of them in the vector that all domains share, so that what means the same stands at the
            same place; `None`: the first places.

    Errors:
        ArgumentError: two numbers in one place, or not one place for each.
    """

    width: int
    slots: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        count_of("width", self.width, least=1)
        if self.slots is not None:
            for slot in self.slots:
                count_of("slots", slot)
            if len(set(self.slots)) != len(self.slots) or len(self.slots) != self.width:
                raise ArgumentError("slots", f"{self.width} different places", repr(self.slots))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an observation."""
        return (self.width,)

    @property
    def reach(self) -> int:
        """Width that the shared vector has at least."""
        return self.width if self.slots is None else max(self.slots) + 1


@dataclass(frozen=True)
class Image:
    """Observations that are pictures: bytes from 0 to 255, or floats from 0 to 1.

    Arguments:
        channels: colours.
        height: pixels.
        width: pixels.
    """

    channels: int = 3
    height: int = 64
    width: int = 64

    def __post_init__(self) -> None:
        for name in ("channels", "height", "width"):
            count_of(name, getattr(self, name), least=1)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an observation."""
        return (self.channels, self.height, self.width)


Observation = Vector | Image


@dataclass(frozen=True, kw_only=True)
class Domain:
    """Tasks that share observations, actions and the scale of rewards.

    Arguments:
        name: unique among those of a model.
        observation: what they look like.
        action: what can be done.
        reward_scale: rewards and returns-to-go are divided by it before the model reads them.
        target_return: what a policy is to reach in an episode, in the environment's units; `None`: not known, and
            whoever conditions on returns has to say it.

    Errors:
        ArgumentError: no name, a scale that is no positive number, a target that is not finite.
    """

    name: str
    observation: Observation
    action: ActionSpace
    reward_scale: float = 1.0
    target_return: float | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ArgumentError("name", "a name of the domain", repr(self.name))
        if not (math.isfinite(self.reward_scale) and self.reward_scale > 0):
            raise ArgumentError(f"reward_scale of {self.name}", "a positive number", self.reward_scale)
        if self.target_return is not None and not math.isfinite(self.target_return):
            raise ArgumentError(f"target_return of {self.name}", "a finite number or None", self.target_return)
