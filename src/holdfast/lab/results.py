"""The results of a study, as claims and figures read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast.errors import HoldfastError
from holdfast.lab.trial import Outcome, Record, Scalar, Trial, check_agrees


class ResultsError(HoldfastError):
    """A query for results that has no single answer."""


class Values(dict[int, float]):
    """A metric by seed. Where there are none, `missing` says why."""

    missing: str = ""


@dataclass(frozen=True)
class Failure:
    """A trial that did not finish, with the log of its last attempt."""

    key: str
    trial: Trial[Any]
    reason: str
    log: str


@dataclass(frozen=True)
class Results:
    """Everything a study's trials measured, as tidy tables.

    Arguments:
        config: the study's configuration.
        outcomes: the finished trials with what they measured.
        failures: the trials that did not finish.
    """

    config: Any
    outcomes: Sequence[tuple[Trial[Any], Outcome]]
    failures: Sequence[Failure] = field(default_factory=tuple)

    @property
    def records(self) -> list[Record]:
        """All records, each with its trial's labels and seed.

        Errors:
            ArgumentError: a record says another seed or label than its trial.
        """
        return [_labelled(trial, record) for trial, outcome in self.outcomes for record in outcome.records]

    def where(self, **labels: Scalar) -> list[Record]:
        """Records that carry all the given labels, for example `where(arm="plain", n=1024)`."""
        return _select(self.records, labels)

    def curve(self, name: str, **labels: Scalar) -> list[Record]:
        """Rows of a named curve that carry all the given labels."""
        rows = [_labelled(trial, row) for trial, outcome in self.outcomes for row in outcome.curves.get(name, ())]
        return _select(rows, labels)

    def by_seed(self, metric: str, **labels: Scalar) -> Values:
        """A metric by seed: what the tests of `holdfast.lab.verdict` take.

        Arguments:
            metric: the metric's column.
            labels: enough labels to leave one record a seed.

        Returns:
            The values, ordered by seed; empty where no record fits, which the tests call *inconclusive*, with
            the reason from `missing`.

        Errors:
            ResultsError: more than one record a seed fits.
        """
        values: dict[int, float] = {}
        for record in self.where(**labels):
            value = record.get(metric)
            if value is None:
                continue
            seed = record.get("seed")
            if not isinstance(seed, int) or isinstance(value, str):
                raise ResultsError(f"{metric}: expected a number and a whole-number seed, got {record!r}")
            if seed in values:
                raise ResultsError(
                    f"{metric}: more than one record has seed {seed} and labels {labels!r}; name more labels"
                )
            values[seed] = float(value)
        found = Values(sorted(values.items()))
        if not found:
            found.missing = self._missing(metric, labels)
        return found

    def _missing(self, metric: str, labels: Mapping[str, Scalar]) -> str:
        """Why no record fits, with what there is instead."""
        records = self.records
        if not records:
            return "no trial has finished"
        columns = sorted({name for record in records for name in record})
        for name in (metric, *labels):
            if name not in columns:
                return f"no record has a column {name!r}; there are: {', '.join(columns)}"
        for name, value in labels.items():
            levels = self.levels(name)
            if value not in levels:
                return f"no record has {name} = {value!r}; there are: {', '.join(map(repr, levels))}"
        wanted = ", ".join(f"{name} = {value!r}" for name, value in labels.items())
        return f"no record has {metric!r} with {wanted}"

    def levels(self, label: str, **labels: Scalar) -> list[Any]:
        """The distinct values of a label among the records, sorted (numbers before text)."""
        found = {record[label] for record in self.where(**labels) if record.get(label) is not None}
        return sorted(found, key=lambda value: (isinstance(value, str), value))


def _labelled(trial: Trial[Any], record: Record) -> Record:
    check_agrees(trial, record, "a record")
    base: dict[str, Scalar] = dict(trial.labels)
    if not isinstance(trial.seed, tuple):
        base["seed"] = trial.seed
    return {**base, **record}


def _select(records: Sequence[Record], labels: Mapping[str, Scalar]) -> list[Record]:
    return [
        record for record in records if all(name in record and record[name] == value for name, value in labels.items())
    ]
