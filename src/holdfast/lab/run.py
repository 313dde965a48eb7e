"""Runs studies: computes what the store lacks, judges the claims, and tells a listener how it goes."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.errors import ArgumentError
from holdfast.lab import settings
from holdfast.lab.depfile import Depfile, Files
from holdfast.lab.engines import Engine, Failed, Finished, Progress, Task
from holdfast.lab.environment import git_commit
from holdfast.lab.identity import identity, key_of
from holdfast.lab.locate import FunctionRef, modules_with, source_of
from holdfast.lab.results import Failure, Results
from holdfast.lab.store import Lock, Store, Stored
from holdfast.lab.study import Part, Study
from holdfast.lab.trial import PART, SCALES, Config, Outcome, Trial
from holdfast.lab.verdict import Claim, Evidence, Verdict, judge, needs_scale, unusable

DEPFILE = "depfile"
"""Name in a trial's environment under which it is stored what the result depends on."""


class Listener:
    """Hears how a run goes, and does nothing; `holdfast.lab.progress_bar` shows it to a person."""

    def planned(self, study: str, trials: Sequence[Trial[Any]]) -> None:
        """A study has these trials."""

    def reused(self, study: str, trial: Trial[Any]) -> None:
        """A trial's result was already in the store."""

    def advanced(self, study: str, trial: Trial[Any], fraction: float, metrics: Mapping[str, float]) -> None:
        """A running trial is this far."""

    def finished(self, study: str, trial: Trial[Any], outcome: Outcome) -> None:
        """A trial was computed and stored."""

    def failed(self, study: str, trial: Trial[Any], reason: str) -> None:
        """A trial ended without a result."""


@dataclass(frozen=True)
class Job:
    """A study with the configuration to run it in.

    Arguments:
        study: the study.
        scale: the scale whose configuration was taken.
        config: that configuration, perhaps with settings changed.
    """

    study: Study[Any]
    scale: str
    config: Any

    @classmethod
    def of(
        cls,
        study: Study[Any],
        scale: str,
        *,
        config: Any = None,
        changes: Mapping[str, Any] | None = None,
        seeds: int | None = None,
    ) -> Job:
        """A job at one of the study's scales.

        Arguments:
            study: the study.
            scale: one of the scales that the study has.
            config: the whole configuration; by default that of the scale.
            changes: settings to change in it, by dotted name.
            seeds: number of seeds, if not the configuration's own.

        Errors:
            ArgumentError: the study has no such scale or setting, or the number of seeds is below one.
        """
        if scale not in study.scales:
            raise ArgumentError("scale", f"a scale that {study.name} has ({', '.join(study.scales)})", scale)
        config = settings.apply(study.scales[scale] if config is None else config, changes or {})
        if seeds is not None:
            config = dataclasses.replace(config, seeds=seeds)
        if config.seeds < 1:
            raise ArgumentError("seeds", "at least 1", config.seeds)
        return cls(study, scale, config)

    @property
    def overrides(self) -> dict[str, Any]:
        """Settings that differ from those of the scale."""
        return settings.overrides(self.config, self.study.scales[self.scale])


@dataclass(frozen=True)
class StudyRun:
    """What came of a job.

    Arguments:
        job: the job.
        results: what the trials measured, failures included.
        verdicts: one for each claim.
        environments: the distinct machines and versions that the results come from.
        computed: number of trials computed by this run; the others were in the store.
    """

    job: Job
    results: Results
    verdicts: Sequence[Verdict]
    environments: Sequence[Mapping[str, Any]]
    computed: int


@dataclass
class _Item:
    """A trial on its way through a run."""

    study: str
    trial: Trial[Any]
    document: dict[str, Any]
    key: str
    run: FunctionRef
    commit: str | None
    stored: Stored | None = None
    missing: str = "not computed yet"
    failure: tuple[str, str] | None = None
    computed: bool = False
    lock: Lock | None = field(default=None, repr=False)

    @property
    def part(self) -> str:
        """Study and part, as one text."""
        return f"{self.study}/{self.trial.labels[PART]}"

    def look_up(self, store: Store, files: Files) -> None:
        """Take the trial's result from the store, if its code and data are still what they were."""
        stored = store.load(self.study, self.document)
        change = None if stored is None else _change(stored, self, files)
        self.stored = None if change else stored
        self.missing = change or "not computed yet"


def run(jobs: Sequence[Job], store: Store, engine: Engine, listener: Listener | None = None) -> list[StudyRun]:
    """Run studies into a store: compute the trials that it lacks, then judge every claim.

    Several runs may share a store: a trial that another run computes at the same time is waited for, not repeated.

    Arguments:
        jobs: what to run.
        store: where results are, and go.
        engine: where trials are computed.
        listener: hears how it goes.

    Returns:
        One entry a job, in order. Failed trials are in `results.failures`.

    Errors:
        StoreError: the store cannot be written.
        EngineError: the engine cannot work.
    """
    listener = listener or Listener()
    store.check_writable()
    plans = [_plan(job) for job in jobs]
    for job, plan in zip(jobs, plans, strict=True):
        listener.planned(job.study.name, [item.trial for item in plan])
        store.remember(job.study.name, job.scale, job.overrides, source_of(job.study))
    unique = {item.key: item for plan in plans for item in plan}
    files = Files()
    for item in unique.values():
        item.look_up(store, files)
        if item.stored is not None:
            listener.reused(item.study, item.trial)
    missing = [item for item in unique.values() if item.stored is None]
    if missing:
        _compute(_in_order(missing), unique, store, files, engine, listener)
        _check_again(unique.values())
    return [_conclude(job, [unique[item.key] for item in plan]) for job, plan in zip(jobs, plans, strict=True)]


@dataclass(frozen=True)
class Forecast:
    """What a run would do with a trial.

    Arguments:
        study: name of the study.
        trial: the trial.
        reason: why it would be computed; `None` if its result would be taken from the store.
    """

    study: str
    trial: Trial[Any]
    reason: str | None


def forecast(jobs: Sequence[Job], store: Store) -> list[Forecast]:
    """What `run` would do, without doing it."""
    unique = {item.key: item for job in jobs for item in _plan(job)}
    files = Files()
    for item in unique.values():
        item.look_up(store, files)
    return [Forecast(item.study, item.trial, item.missing if item.stored is None else None) for item in unique.values()]


def collect(jobs: Sequence[Job], store: Store) -> list[StudyRun]:
    """Judge what a store already holds, without computing anything.

    Trials that are missing count as failures.
    """
    runs = []
    files = Files()
    for job in jobs:
        plan = _plan(job)
        for item in plan:
            item.look_up(store, files)
            if item.stored is None:
                item.failure = store.load_failure(item.study, item.document) or (item.missing, "")
        runs.append(_conclude(job, plan))
    return runs


def _plan(job: Job) -> list[_Item]:
    """The trials of all parts.

    Errors:
        ArgumentError: there is none, or two that nothing tells apart.
    """
    study = job.study
    items = {}
    for part in study.parts:
        for item in _plan_part(study, part, job.config):
            if item.key in items:
                expected = "trials that differ in seed, labels or config"
                raise ArgumentError(f"trials of {study.name}", expected, f"{item.trial} twice")
            items[item.key] = item
    if not items:
        raise ArgumentError(f"trials of {study.name}", "at least one trial", "none")
    return list(items.values())


def _plan_part(study: Study[Any], part: Part[Any], config: Any) -> Iterator[_Item]:
    reference = FunctionRef.of(part.run)
    at_home = {reference.module, *modules_with(study)}
    source = reference.file or getattr(sys.modules.get(reference.module), "__file__", None)
    commit = git_commit(Path(source).resolve().parent) if source else None
    for trial in part.labelled_trials(config):
        if isinstance(trial.config, Config):
            # How many seeds the study has is no part of a trial: `run` sees only its own.
            settings = dataclasses.replace(trial.config, seeds=len(trial.seeds), first_seed=trial.seeds[0])
            trial = dataclasses.replace(trial, config=settings)
        document = identity(study.name, trial, at_home)
        yield _Item(study.name, trial, document, key_of(document), reference, commit)


def _in_order(items: Sequence[_Item]) -> list[_Item]:
    """Long trials first, and those of a part one after another: a worker computes trials of one part only."""
    longest: dict[str, float] = {}
    for item in items:
        longest[item.part] = max(item.trial.cost, longest.get(item.part, 0.0))
    return sorted(items, key=lambda item: (-longest[item.part], item.part, -item.trial.cost))


def _change(stored: Stored, item: _Item, files: Files) -> str | None:
    """What has changed since a result was computed, or `None`."""
    try:
        depfile = Depfile.from_json(stored.environment[DEPFILE])
    except (KeyError, TypeError, AttributeError):
        return "its result does not say what it depends on"
    return files.changed(depfile, item.run)


def _check_again(items: Iterable[_Item]) -> None:
    """What was edited while the run went on is judged neither as it was nor as it is."""
    files = Files()
    for item in items:
        if item.stored is not None and (change := _change(item.stored, item, files)):
            item.stored, item.computed = None, False
            item.failure = (f"{change} it was computed; run it again" if change.endswith("since") else change, "")


def _compute(
    missing: list[_Item],
    items: Mapping[str, _Item],
    store: Store,
    files: Files,
    engine: Engine,
    listener: Listener,
) -> None:
    """Compute what is missing. `files` are what the plan was made with: no other code's results are stored."""
    tasks = _claim(missing, store, files, listener)
    try:
        for event in engine.map(tasks):
            item = items[event.task.key]
            if isinstance(event, Progress):
                listener.advanced(item.study, item.trial, event.fraction, event.metrics)
            elif isinstance(event, Finished) and (change := files.changed(event.depfile, item.run)):
                reason = f"the worker had other code than this process: {change}"
                store.save_failure(item.study, item.document, reason, "")
                item.failure = (reason, "")
                _release(item)
                listener.failed(item.study, item.trial, reason)
            elif isinstance(event, Finished):
                environment = {**event.environment, "commit": item.commit, DEPFILE: event.depfile.to_json()}
                item.stored = store.save(item.study, item.document, event.outcome, environment)
                item.computed = True
                _release(item)
                listener.finished(item.study, item.trial, item.stored.outcome)
            elif isinstance(event, Failed):
                store.save_failure(item.study, item.document, event.reason, event.log)
                item.failure = (event.reason, event.log)
                _release(item)
                listener.failed(item.study, item.trial, event.reason)
    finally:
        for item in missing:
            _release(item)


def _claim(missing: Sequence[_Item], store: Store, files: Files, listener: Listener) -> Iterator[Task | None]:
    """Tasks whose lock this run holds; `None` while all that is left is computed by other runs."""
    waiting = list(missing)
    while waiting:
        busy: list[_Item] = []
        for item in waiting:
            lock = store.try_lock(item.key)
            if lock is None:
                busy.append(item)
                continue
            item.lock = lock
            item.look_up(store, files)
            if item.stored is not None:  # another run has finished it meanwhile
                _release(item)
                listener.reused(item.study, item.trial)
                continue
            yield Task(item.key, item.run, item.trial, item.part)
        waiting = busy
        if waiting:
            yield None


def _release(item: _Item) -> None:
    if item.lock is not None:
        item.lock.release()
        item.lock = None


def _conclude(job: Job, items: Sequence[_Item]) -> StudyRun:
    outcomes = [(item.trial, item.stored.outcome) for item in items if item.stored is not None]
    failures = [
        Failure(item.key, item.trial, *item.failure)
        for item in items
        if item.stored is None and item.failure is not None
    ]
    results = Results(job.config, outcomes, failures)
    evidence = [_evidence(claim, job, results) for claim in job.study.claims]
    environments: list[Mapping[str, Any]] = []
    for item in items:
        if item.stored is not None:
            environment = {name: value for name, value in item.stored.environment.items() if name != DEPFILE}
            if environment not in environments:
                environments.append(environment)
    return StudyRun(
        job,
        results,
        judge(job.study.claims, evidence),
        environments,
        computed=sum(item.computed for item in items),
    )


def _evidence(claim: Claim, job: Job, results: Results) -> Evidence:
    """A claim whose own test breaks must not take the other verdicts with it."""
    if SCALES.index(job.scale) < SCALES.index(claim.scale):
        return needs_scale(job.study.scale_for(claim) or claim.scale)
    try:
        evidence = claim.test(results)
    except Exception as error:
        line = f"{type(error).__name__}: {' '.join(str(error).split())}"
        warnings.warn(f"the test of claim {claim.name!r} raised {line}", RuntimeWarning, 2)
        return unusable(f"the claim's test raised {line}")
    if not isinstance(evidence, Evidence):
        return unusable(f"the claim's test returned {type(evidence).__name__}, not Evidence")
    return evidence
