"""The results of a study, as claims and figures read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast.errors import HoldfastError
from holdfast.lab.trial import PART, Outcome, Record, Scalar, Trial, check_agrees


class ResultsError(HoldfastError):
    """A query for results that has no single answer."""


class Values(dict[int, float]):
    """A metric by seed.

    Arguments:
        values: by seed.
        missing: why there are none.
        failed: seeds that should be here and failed, with the reason.
    """

    def __init__(
        self, values: Mapping[int, float] | None = None, *, missing: str = "", failed: Mapping[int, str] | None = None
    ) -> None:
        super().__init__(values or {})
        self.missing = missing
        self.failed = dict(failed or {})

    @classmethod
    def of(cls, function: Callable[..., float], *tables: Values) -> Values:
        """A number that is computed from several metrics, seed by seed.

        Arguments:
            function: takes a value of each table, in their order.
            tables: at least one. A seed that is not in all of them counts as failed.
        """
        seeds = sorted(set().union(*tables))
        failed = {seed: reason for table in tables for seed, reason in table.failed.items()}
        for seed in seeds:
            if any(seed not in table for table in tables):
                failed.setdefault(seed, "some of its values are missing")
        values = {seed: function(*(table[seed] for table in tables)) for seed in seeds if seed not in failed}
        return cls(values, missing=next((table.missing for table in tables if table.missing), ""), failed=failed)


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
            The values, ordered by seed, with the seeds whose trials failed; empty where no record fits, which the
            tests call *inconclusive*, with the reason from `missing`.

        Errors:
            ResultsError: more than one record a seed fits.
        """
        values: dict[int, float] = {}
        parts: set[Scalar] = set()
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
            parts.add(record.get(PART))
        # Without the label, a failure in another part than the metric's is none of its business.
        known = labels | {PART: parts.pop()} if len(parts) == 1 else labels
        failed = {seed: reason for seed, reason in self.failed(**known).items() if seed not in values}
        missing = "" if values else self._missing(metric, labels)
        return Values(dict(sorted(values.items())), missing=missing, failed=failed)

    def failed(self, **labels: Scalar) -> dict[int, str]:
        """Seeds of the failed trials that could have had records with the labels, with the reason."""
        failed: dict[int, str] = {}
        for failure in self.failures:
            fixed = failure.trial.labels
            if all(name not in fixed or fixed[name] == value for name, value in labels.items()):
                failed |= dict.fromkeys(failure.trial.seeds, failure.reason)
        return dict(sorted(failed.items()))

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
