"""One unit of work: a trial with its configuration, and the outcome that it measures."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

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

MAX_BITS = 14_000
"""Of a whole number in a result: Python itself neither writes nor reads more than 4,300 digits."""

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

    @property
    def title(self) -> str:
        """What a person calls it, beside the study's name: `arm=new seed 1`."""
        labels = (f"{name}={value}" for name, value in self.told_labels.items())
        return " ".join([*labels, "seed", *map(str, self.seeds)])


def check_decorated(argument: str, config: object) -> None:
    """Without the decorator a subclass's settings are no fields: they would be missing from a trial's identity."""
    if "__dataclass_fields__" not in vars(type(config)):
        raise ArgumentError(argument, "a class decorated with @dataclass(frozen=True)", type(config).__name__)


@dataclass(frozen=True)
class Outcome:
    """What a trial measured.

    Arguments:
        records: final numbers as a tidy table. Each gets the trial's labels and seed; of a trial with many seeds it
            must say its own `seed`, and every seed must have a record.
        curves: named tidy tables of everything longer: learning curves, per-row statistics.
    """

    records: Sequence[Record]
    curves: Mapping[str, Sequence[Record]] = field(default_factory=dict)


RunResult: TypeAlias = "Outcome | Record | Sequence[Record]"
"""What `run` may return: an `Outcome`, a list of records, or one record such as `{"accuracy": 0.9}`."""


def as_outcome(result: object, trial: Trial[Any] | None = None) -> Outcome:
    """What `run` returned, as an `Outcome` of plain Python numbers and text: what the store gives back unchanged.

    Arguments:
        result: what `run` returned.
        trial: what it was given. Without it nothing is known about seeds and labels.

    Errors:
        ArgumentError: it is something else, there is nothing in it, a value cannot be stored, or it does not agree
            with the trial's seed or labels.
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
    if not isinstance(result.curves, Mapping):
        raise ArgumentError("the result of run", "curves as a mapping from name to rows", result.curves)
    records = tuple(_plain(row, "a record") for row in result.records)
    curves = {}
    for name, rows in result.curves.items():
        where = f"curve {name!r}"
        curves[_text(name, where, "a name")] = tuple(_plain(row, where) for row in rows)
    if trial is not None:
        for where, rows in (("a record", records), *((f"curve {name!r}", rows) for name, rows in curves.items())):
            for row in rows:
                check_agrees(trial, row, where)
        _check_seeds(trial, records)
    return Outcome(records, curves)


def check_agrees(trial: Trial[Any], row: Record, where: str) -> None:
    """A row may repeat the seed and labels of its trial, but not change them.

    Errors:
        ArgumentError: it does, or it has no seed and the trial has many.
    """
    for name, value in trial.labels.items():
        if name in row and row[name] != value and not row[name] != row[name] != value != value:
            expected = f"the trial's label {value!r}, or no such column"
            raise ArgumentError(f"{where}, column {name!r}", expected, repr(row[name]))
    many = isinstance(trial.seed, tuple)
    seed = row.get("seed", None if many else trial.seed)
    if seed not in trial.seeds or isinstance(seed, bool | float):
        expected = f"one of the trial's seeds {trial.seed}" if many else f"the trial's seed {trial.seed}"
        raise ArgumentError(f"{where}, column 'seed'", expected, repr(seed) if "seed" in row else "no such column")


def _check_seeds(trial: Trial[Any], records: Sequence[Record]) -> None:
    """One seed that is left out of many would be missing from every verdict, and nobody would know."""
    missing = set(trial.seeds) - {record.get("seed", trial.seeds[0]) for record in records}
    if missing:
        raise ArgumentError("the result of run", "a record for each seed", f"none for seed {min(missing)}")


def _plain(row: object, where: str) -> dict[str, Scalar]:
    if not isinstance(row, Mapping) or not row:
        raise ArgumentError(where, "a mapping from column to value", row)
    if PART in row:
        raise ArgumentError(where, f"no column {PART!r}, which the lab adds", row)
    return {_text(name, where, "a column"): _scalar(value, f"{where}, column {name!r}") for name, value in row.items()}


def _scalar(value: object, where: str) -> Scalar:
    """A value of exactly one of the five plain types."""
    item = getattr(value, "item", None)  # zero-dimensional arrays and tensors
    if callable(item):
        with contextlib.suppress(TypeError, ValueError, RuntimeError):  # more than one element
            value = item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if int(value).bit_length() > MAX_BITS:
            raise ArgumentError(where, f"a whole number of at most {MAX_BITS} bits", "a larger one")
        return int.__pos__(value)  # the number itself, whatever its class says of it
    if isinstance(value, float):
        return float.__pos__(value)
    if isinstance(value, str):
        return _text(value, where, "a value")
    raise ArgumentError(where, "a number or text", value)


def _text(text: object, where: str, what: str) -> str:
    """Text of the plain type, which other programs can read, too."""
    if not isinstance(text, str):
        raise ArgumentError(where, f"{what} that is text", text)
    plain = str.__str__(text)
    try:
        plain.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ArgumentError(where, f"{what} of whole Unicode letters", ascii(plain)[:100]) from error
    return plain
