"""One unit of work: a trial with its configuration, and the outcome that it measures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar

from holdfast.errors import ArgumentError

SCALES = ("quick", "laptop", "gpu", "paper")
"""Sizes that a study may have, the smallest first."""

Scalar: TypeAlias = "str | int | float | bool | None"
Record: TypeAlias = Mapping[str, Scalar]
"""One row of a tidy table: labels (`arm`, `n`, ...) and metrics (`accuracy`, ...) side by side."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base of a study's configuration: a frozen dataclass, one instance a scale.

    Arguments:
        seeds: how many seeds to run.
        first_seed: the first of them. Choose settings on some seeds, then judge on fresh ones.
    """

    seeds: int = 5
    first_seed: int = 0

    @property
    def seed_range(self) -> range:
        """The seeds as a range."""
        return range(self.first_seed, self.first_seed + self.seeds)


PART = "part"
"""Label that the lab gives to every trial of a study: the name of its part."""

MAIN = "main"
"""Name of the only part of a study that is given in the short form."""

C = TypeVar("C")


@dataclass(frozen=True)
class Trial(Generic[C]):
    """One independent unit of work. A trial is data: its result depends on nothing else.

    Arguments:
        seed: the seed, or several where one tensor program trains many seeds at once.
        config: a frozen dataclass with all settings that the trial reads: the study's configuration or a part of it.
            How many seeds the study has is not part of a trial's identity, so that more can be added later.
        labels: what tells this trial from the study's others, for example `{"arm": "adam"}`; copied to its records.
        cost: relative length, for the progress bar; long trials start first.
        gpu: share of a GPU that it needs, 0 to 1; 0 runs on the CPU.
    """

    seed: int | tuple[int, ...]
    config: C
    labels: Mapping[str, Scalar] = field(default_factory=dict)
    cost: float = 1.0
    gpu: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.seed, tuple) and not self.seed:
            raise ArgumentError("Trial.seed", "at least one seed", self.seed)
        if not all(isinstance(seed, int) for seed in self.seeds):
            raise ArgumentError("Trial.seed", "a whole number or a tuple of them", repr(self.seed))
        if not dataclasses.is_dataclass(self.config) or isinstance(self.config, type):
            raise ArgumentError("Trial.config", "an instance of a dataclass", type(self.config).__name__)
        check_decorated("Trial.config", self.config)
        for name, value in self.labels.items():
            if not (value is None or isinstance(value, str | int | float)):
                raise ArgumentError(f"Trial.labels[{name!r}]", "text or a number", value)
        if not 0 <= self.gpu <= 1:
            raise ArgumentError("Trial.gpu", "a share between 0 and 1", self.gpu)
        if not self.cost > 0:
            raise ArgumentError("Trial.cost", "a positive number", self.cost)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The trial's seeds, one or many."""
        return self.seed if isinstance(self.seed, tuple) else (self.seed,)

    @property
    def told_labels(self) -> dict[str, Scalar]:
        """The labels that tell a person something: without the part where a study has no other."""
        return {name: value for name, value in self.labels.items() if (name, value) != (PART, MAIN)}


def check_decorated(argument: str, config: object) -> None:
    """Without the decorator a subclass's settings are no fields: they would be missing from a trial's identity."""
    if "__dataclass_fields__" not in vars(type(config)):
        raise ArgumentError(argument, "a class decorated with @dataclass(frozen=True)", type(config).__name__)


@dataclass(frozen=True)
class Outcome:
    """What a trial measured.

    Arguments:
        records: final numbers as a tidy table; a record without `seed` gets the trial's.
        curves: named tidy tables of everything longer: learning curves, per-row statistics.
    """

    records: Sequence[Record]
    curves: Mapping[str, Sequence[Record]] = field(default_factory=dict)


RunResult: TypeAlias = "Outcome | Record | Sequence[Record]"
"""What `run` may return: an `Outcome`, a list of records, or one record such as `{"accuracy": 0.9}`."""


def as_outcome(result: object) -> Outcome:
    """What `run` returned, as an `Outcome` of plain Python numbers and text.

    Errors:
        ArgumentError: it is something else, or there is nothing in it, or it says itself which part it is of.
    """
    expected = "an Outcome, a record such as {'accuracy': 0.9}, or a list of records"
    if isinstance(result, Mapping):
        result = Outcome([result])
    elif isinstance(result, list | tuple):
        result = Outcome(result)
    if not isinstance(result, Outcome):
        raise ArgumentError("the result of run", expected, result)
    if not result.records:
        raise ArgumentError("the result of run", expected, "no record")
    return Outcome(
        tuple(_plain(row, "a record") for row in result.records),
        {name: tuple(_plain(row, f"curve {name!r}") for row in rows) for name, rows in result.curves.items()},
    )


def _plain(row: object, where: str) -> dict[str, Scalar]:
    if not isinstance(row, Mapping) or not row:
        raise ArgumentError(where, "a mapping from column to value", row)
    if PART in row:
        raise ArgumentError(where, f"no column {PART!r}, which the lab adds", row)
    plain: dict[str, Scalar] = {}
    for name, value in row.items():
        item = getattr(value, "item", None)  # zero-dimensional arrays and tensors
        try:
            scalar = item() if callable(item) else value
        except (TypeError, ValueError, RuntimeError):  # more than one element
            scalar = value
        if not (scalar is None or isinstance(scalar, str | int | float)):
            raise ArgumentError(f"{where}, column {name!r}", "a number or text", scalar)
        plain[str(name)] = scalar
    return plain
