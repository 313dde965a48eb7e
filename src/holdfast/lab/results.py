"""The results of a study, as claims and figures read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from holdfast.errors import HoldfastError, missing_line
from holdfast.lab.trial import PART, Outcome, Record, Scalar, Trial, check_agrees

T = TypeVar("T")


class ResultsError(HoldfastError):
    """A query for results that has no single answer."""


class LeftOut(HoldfastError):
    """A query that results which a run left out could have answered otherwise.

    Arguments:
        parts: the parts that they belong to.
        lacking: what some of them need that is not installed, and what to give pip for it.
    """

    def __init__(self, parts: Iterable[str], lacking: Mapping[str, Mapping[str, str]] | None = None) -> None:
        self.parts = tuple(dict.fromkeys(parts))
        lacking = {name: lacking[name] for name in self.parts if name in lacking} if lacking else {}
        reasons = []
        if chosen := [name for name in self.parts if name not in lacking]:
            reasons.append(f"{_parts(chosen)}, which --only leaves out")
        if lacking:
            reasons.append(f"{_parts(list(lacking))}: {missing_line(*lacking.values())}")
        super().__init__(f"needs {', and '.join(reasons)}")


def _parts(names: Sequence[str]) -> str:
    return f"part{'s' * (len(names) > 1)} {', '.join(names)}"


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
    """A trial without a result.

    Arguments:
        key: of the trial.
        trial: the trial.
        reason: why it has none.
        log: of its last attempt.
        attempted: whether there was one; otherwise it is not computed yet.
    """

    key: str
    trial: Trial[Any]
    reason: str
    log: str
    attempted: bool = True


@dataclass(frozen=True)
class Results:
    """Everything a study's trials measured, as tidy tables.

    Where a run left trials out, nothing is told of fewer records than there should be: a query that one of them could
    have had a part in raises `LeftOut`.

    Arguments:
        config: the study's configuration.
        outcomes: the finished trials with what they measured.
        failures: the trials that did not finish.
        left_out: trials of parts that the run left out, and that have no result.
        lacking: by part, what it needs and is not installed, where that is why it was left out.
        asked: by its key, whether somebody who asked for rows of a failed trial has also asked for failures.
    """

    config: Any
    outcomes: Sequence[tuple[Trial[Any], Outcome]]
    failures: Sequence[Failure] = field(default_factory=tuple)
    left_out: Sequence[Trial[Any]] = field(default_factory=tuple)
    lacking: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    asked: dict[str, bool] = field(default_factory=dict, compare=False, repr=False)

    def guarded(self) -> Results:
        """The same for a claim or a figure, which reads more than it asks for by name.

        A look at `outcomes` and `failures` raises, too, if something is left out. What is asked is noted for
        `unnoticed`.
        """
        if not self.left_out:
            asked: dict[str, bool] = {}
            keys = [failure.key for failure in self.failures]
            return replace(self, outcomes=_Watched(self.outcomes, keys, asked), asked=asked)
        return replace(
            self,
            outcomes=_Guarded(self.outcomes, self._refused(self.left_out)),
            failures=_Guarded(self.failures, self._refused(self.left_out)),
            asked={},
        )

    def unnoticed(self) -> dict[int, str]:
        """Seeds whose rows were asked for by `where` or `curve` and lost, while nobody asked what has failed."""
        return {
            seed: failure.reason
            for failure in _inside(self.failures)
            if self.asked.get(failure.key) is False
            for seed in failure.trial.seeds
        }

    @property
    def records(self) -> list[Record]:
        """All records, each with its trial's labels and seed.

        Errors:
            ArgumentError: a record says another seed or label than its trial.
            LeftOut: the run left something out.
        """
        return self.where()

    def where(self, **labels: Scalar) -> list[Record]:
        """Records that carry all the given labels, for example `where(arm="plain", n=1024)`.

        Errors:
            LeftOut: a trial that could have some was left out. So is it with all that is asked of results.
        """
        self._note(labels, False)
        return [row for _, row in self._rows(labels)]

    def curve(self, name: str, **labels: Scalar) -> list[Record]:
        """Rows of a named curve that carry all the given labels."""
        self._note(labels, False)
        return [row for _, row in self._rows(labels, name)]

    def by_seed(self, metric: str, **labels: Scalar) -> Values:
        """A metric by seed: what the tests of `holdfast.lab.verdict` take.

        Arguments:
            metric: the metric's column.
            labels: enough labels to leave one record a seed.

        Returns:
            The values, ordered by seed, with the seeds whose trials failed, or finished without the value that others
            with the same labels have; empty where no record fits, which the tests call *inconclusive*, with the
            reason from `missing`.

        Errors:
            ResultsError: more than one record a seed fits.
        """
        values: dict[int, float] = {}
        nothing: dict[int, str] = {}
        kinds: set[frozenset[tuple[str, Scalar]]] = set()
        for trial, record in self._rows(labels):
            value, seed = record.get(metric), record.get("seed")
            if metric in record:
                kinds.add(frozenset(trial.labels.items()))
            if value is None:
                if metric in record and isinstance(seed, int):
                    nothing[seed] = f"{metric} is None"
                continue
            if not isinstance(seed, int) or isinstance(value, str):
                raise ResultsError(f"{metric}: expected a number and a whole-number seed, got {record!r}")
            if seed in values:
                raise ResultsError(
                    f"{metric}: more than one record has seed {seed} and labels {labels!r}; name more labels"
                )
            values[seed] = float(value)
        for trial, _ in _inside(self.outcomes):
            if frozenset(trial.labels.items()) in kinds:  # one that lacks what its like have
                for seed in trial.seeds:
                    nothing.setdefault(seed, f"no record with {_told(metric, labels)}")
        # Without the label, a failure in another part than the metric's is none of its business.
        parts = {dict(kind).get(PART) for kind in kinds}
        known = labels | {PART: parts.pop()} if len(parts) == 1 else labels
        lost = {seed: why for seed, why in (nothing | self.failed(**known)).items() if seed not in values}
        missing = "" if values else next(iter(nothing.values()), "") or self._missing(metric, labels)
        return Values(dict(sorted(values.items())), missing=missing, failed=dict(sorted(lost.items())))

    def failed(self, **labels: Scalar) -> dict[int, str]:
        """Seeds of the failed trials that could have had records with the labels, with the reason."""
        self._check_complete(labels)
        self._note(labels, True)
        failed: dict[int, str] = {}
        for failure in _inside(self.failures):
            if _could_have(failure.trial, labels):
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
        return f"no record with {_told(metric, labels)}"

    def levels(self, label: str, **labels: Scalar) -> list[Any]:
        """The distinct values of a label among the records, sorted (numbers before text)."""
        levels = {record[label] for record in self.where(**labels) if record.get(label) is not None}
        return sorted(levels, key=lambda value: (isinstance(value, str), value))

    def _rows(self, labels: Mapping[str, Scalar], curve: str | None = None) -> Iterator[tuple[Trial[Any], Record]]:
        """Rows of the records or of a curve that carry the labels, each with its trial."""
        self._check_complete(labels)
        for trial, outcome in _inside(self.outcomes):
            if not _could_have(trial, labels):
                continue
            for row in outcome.records if curve is None else outcome.curves.get(curve, ()):
                labelled = _labelled(trial, row)
                if all(name in labelled and labelled[name] == value for name, value in labels.items()):
                    yield trial, labelled

    def _note(self, labels: Mapping[str, Scalar], noticed: bool) -> None:
        for failure in _inside(self.failures):
            if _could_have(failure.trial, labels):
                self.asked[failure.key] = noticed or self.asked.get(failure.key, False)

    def _check_complete(self, labels: Mapping[str, Scalar]) -> None:
        """Nothing that was left out could have rows with these labels.

        Errors:
            LeftOut: something could.
        """
        if trials := [trial for trial in self.left_out if _could_have(trial, labels)]:
            raise self._refused(trials)

    def _refused(self, trials: Sequence[Trial[Any]]) -> LeftOut:
        return LeftOut([str(trial.labels.get(PART)) for trial in trials], self.lacking)


def _could_have(trial: Trial[Any], labels: Mapping[str, Scalar]) -> bool:
    """Whether rows of a trial could carry the labels: rows may add to those of their trial, but not change them."""
    return all(
        value in trial.seeds if name == "seed" else name not in trial.labels or trial.labels[name] == value
        for name, value in labels.items()
    )


class _Guarded(Sequence[T]):
    """What is there of a list of which something was left out: looking at it raises."""

    def __init__(self, items: Sequence[T], left_out: LeftOut) -> None:
        self.items = items
        self._left_out = left_out

    def __len__(self) -> int:
        raise self._left_out

    def __getitem__(self, index: Any) -> Any:
        raise self._left_out


class _Watched(Sequence[T]):
    """What is there of a list from which failed trials are missing: who looks at it has asked for their rows."""

    def __init__(self, items: Sequence[T], keys: Sequence[str], asked: dict[str, bool]) -> None:
        self.items = items
        self._keys = keys
        self._asked = asked

    def _look(self) -> Sequence[T]:
        for key in self._keys:
            self._asked.setdefault(key, False)
        return self.items

    def __len__(self) -> int:
        return len(self._look())

    def __getitem__(self, index: Any) -> Any:
        return self._look()[index]


def _inside(items: Sequence[T]) -> Sequence[T]:
    return items.items if isinstance(items, _Guarded | _Watched) else items


def _told(metric: str, labels: Mapping[str, Scalar]) -> str:
    return ", ".join([metric, *(f"{name} = {value!r}" for name, value in labels.items())])


def _labelled(trial: Trial[Any], record: Record) -> Record:
    check_agrees(trial, record, "a record")
    base: dict[str, Scalar] = dict(trial.labels)
    if not isinstance(trial.seed, tuple):
        base["seed"] = trial.seed
    return {**base, **record}
