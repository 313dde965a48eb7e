"""How a check is done, and what of the user's it may use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.errors import ArgumentError, count_of


@dataclass(frozen=True, kw_only=True)
class CheckSettings:
    """What is the same for all probes of a check.

    Arguments:
        budget_s: seconds for all of them together.
        seed: of everything that is drawn.
        device: where models run.
        text: a file for language models to read; unless given, source of Python's standard library.
        data: a function without arguments that returns a loader, or inputs and targets, for a network of one's own.
        optimizer: that of the network's training: adam, adamw, sgd or rmsprop.
        peak: the highest learning rate of its training.
        current: the learning rate that training has come to.
        demonstrations: trajectories that a policy was trained on.
        second: the log of another agent's Q values in the same states, trained alike with another seed: a file.
    """

    budget_s: float = 300.0
    seed: int = 0
    device: str = "cpu"
    text: Path | None = None
    data: Callable[[], Any] | None = None
    optimizer: str = "adam"
    peak: float | None = None
    current: float | None = None
    demonstrations: str | None = None
    second: Path | None = None

    def __post_init__(self) -> None:
        if not self.budget_s > 0:
            raise ArgumentError("budget_s", "more than 0 seconds", self.budget_s)
        count_of("seed", self.seed)
