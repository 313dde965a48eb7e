"""Runs studies: computes what the store lacks, judges the claims, and tells a listener how it goes."""

from __future__ import annotations

import dataclasses
import itertools
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
from holdfast.lab.engines.engine import RETRIES
from holdfast.lab.environment import git_commit, merged
from holdfast.lab.identity import identity, key_of
from holdfast.lab.locate import FunctionRef, has_no_name, modules_with, source_of
from holdfast.lab.results import Failure, LeftOut, Results
from holdfast.lab.store import Lock, Store, Stored
from holdfast.lab.study import Part, Study, check_timeout
from holdfast.lab.trial import PART, SCALES, Config, Outcome, Trial
from holdfast.lab.verdict import Claim, Evidence, Verdict, failed_seeds, judge, needs_parts, needs_scale, unusable

DEPFILE = "depfile"
"""Name in a trial's environment under which it is stored what the result depends on."""


class Listener:
    """Hears how a run goes, and does nothing; `holdfast.lab.progress_bar` shows it to a person."""

    def planned(self, study: str, trials: Sequence[Trial[Any]]) -> None:
        """A study has these trials, but for those that the run leaves out."""

    def reused(self, study: str, trial: Trial[Any]) -> None:
        """A trial's result was already in the store."""

    def advanced(self, study: str, trial: Trial[Any], fraction: float, metrics: Mapping[str, float]) -> None:
        """A running trial is this far."""

    def finished(self, study: str, trial: Trial[Any], outcome: Outcome) -> None:
        """A trial was computed and stored."""

    def failed(self, study: str, failure: Failure) -> None:
        """A trial ended without a result."""

    def judging(self, study: str) -> None:
        """All trials have ended, and the claims of a study are judged."""


@dataclass(frozen=True)
class Job:
    """A study with the configuration to run it in.

    Arguments:
        study: the study.
        scale: the scale whose configuration was taken.
        config: that configuration, perhaps with settings changed.
        only: names of the parts to compute; `None`: all. Results of the others are used where they are in the store.
        timeout: seconds after which a trial has failed; `None`: what its part says.
    """

    study: Study[Any]
    scale: str
    config: Any
    only: tuple[str, ...] | None = None
    timeout: float | None = None

    @classmethod
    def of(
        cls,
        study: Study[Any],
        scale: str,
        *,
        config: Any = None,
        changes: Mapping[str, Any] | None = None,
        seeds: int | None = None,
        only: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> Job:
        """A job at one of the study's scales.

        Arguments:
            study: the study.
            scale: one of the scales that the study has.
            config: the whole configuration; by default that of the scale.
            changes: settings to change in it, by dotted name.
            seeds: number of seeds, if not the configuration's own.
            only: names of the parts to compute, if not all.
            timeout: seconds after which a trial has failed, if not what its part says.

        Errors:
            ArgumentError: the study has no such scale, setting or part, the number of seeds is below one, or there
                are no such seconds.
        """
        if scale not in study.scales:
            raise ArgumentError("scale", f"a scale that {study.name} has ({', '.join(study.scales)})", scale)
        config = settings.apply(study.scales[scale] if config is None else config, changes or {})
        if seeds is not None:
            config = dataclasses.replace(config, seeds=seeds)
        if config.seeds < 1:
            raise ArgumentError("seeds", "at least 1", config.seeds)
        parts = [part.name for part in study.parts]
        for name in only or ():
            if name not in parts:
                raise ArgumentError("only", f"parts of {study.name} ({', '.join(parts)})", name)
        check_timeout("timeout", timeout)
        return cls(study, scale, config, None if only is None else tuple(only), timeout)

    def lacking(self) -> dict[str, dict[str, str]]:
        """The parts that are to be computed and cannot: what each needs that is not installed here."""
        wanted = [part for part in self.study.parts if self.only is None or part.name in self.only]
        lacks = {part.name: part.lacks(self.config) for part in wanted if any(part.labelled_trials(self.config))}
        return {name: missing for name, missing in lacks.items() if missing}

    @property
    def overrides(self) -> dict[str, Any]:
        """Settings that differ from those of the scale."""
        return settings.overrides(self.config, self.study.scales[self.scale])


@dataclass(frozen=True)
class Choice:
    """Which trials to compute, and how stubbornly.

    Arguments:
        failed: only those whose last attempt failed; others without a result are left as they are.
        fresh: also those whose result is in the store; that gives way once the new one is there.
        retries: how often a trial is tried again after its worker died.

    Errors:
        ArgumentError: `failed` contradicts `fresh`, or there are no such retries.
    """

    failed: bool = False
    fresh: bool = False
    retries: int = RETRIES

    def __post_init__(self) -> None:
        if self.failed and self.fresh:
            raise ArgumentError("fresh", "either this or failed, which computes no other trial", "both")
        if self.retries < 0:
            raise ArgumentError("retries", "at least 0", self.retries)


@dataclass(frozen=True)
class StudyRun:
    """What came of a job.

    Arguments:
        job: the job.
        results: what the trials measured, failures included.
        verdicts: one for each claim.
        environments: the distinct machines and versions that the results come from.
        computed: number of trials computed by this run; the others were in the store.
        failed: the trials that this run tried in vain, also where the store has an older result, which is used.
    """

    job: Job
    results: Results
    verdicts: Sequence[Verdict]
    environments: Sequence[Mapping[str, Any]]
    computed: int
    failed: Sequence[Failure] = ()


@dataclass
class _Item:
    """A trial on its way through a run."""

    study: str
    trial: Trial[Any]
    document: dict[str, Any]
    key: str
    run: FunctionRef
    commit: str | None
    timeout: float | None = None
    wanted: bool = True
    lacks: Mapping[str, str] = field(default_factory=dict)
    """What is wanted for it and not installed."""
    stored: Stored | None = None
    missing: str = "not computed yet"
    reason: str | None = None
    """Why it is to be computed; `None` if it is not."""
    anew: bool = False
    """Whether to compute it though there is a result."""
    failure: Failure | None = None
    computed: bool = False
    lock: Lock | None = field(default=None, repr=False)

    @property
    def part(self) -> str:
        """Study and part, as one text."""
        return f"{self.study}/{self.trial.labels[PART]}"

    def look_up(self, store: Store, files: Files, *, outdated: bool = False) -> None:
        """Take the trial's result from the store, if its code and data are still what they were, or need not be."""
        stored = store.load(self.study, self.document)
        change = None if stored is None or outdated else _change(stored, self, files)
        self.stored = None if change else stored
        self.missing = change or "not computed yet"

    def decide(self, store: Store, choice: Choice) -> None:
        """Whether to compute the trial, and why, once it was looked up."""
        if not self.wanted or self.lacks:
            return
        if choice.failed:
            last = store.load_failure(self.study, self.document)
            self.reason = None if last is None else f"failed last time ({last[0]})"
            if self.reason is None and self.stored is None:
                self.fail(self.missing, attempted=False)
        elif self.stored is None:
            last = store.load_failure(self.study, self.document)
            self.reason = self.missing if last is None else f"failed last time ({last[0]})"
        elif choice.fresh:
            self.reason = "its result is to be computed anew"
        self.anew = self.reason is not None and self.stored is not None

    def fail(self, reason: str, log: str = "", *, attempted: bool = True) -> Failure:
        """Note why the trial has no result."""
        self.failure = Failure(self.key, self.trial, reason, log, attempted)
        return self.failure


def run(
    jobs: Sequence[Job],
    store: Store,
    engine: Engine,
    listener: Listener | None = None,
    choice: Choice | None = None,
) -> list[StudyRun]:
    """Run studies into a store: compute the trials that it lacks, then judge every claim.

    Several runs may share a store: a trial that another run computes at the same time is waited for, not repeated.

    Arguments:
        jobs: what to run.
        store: where results are, and go.
        engine: where trials are computed.
        listener: hears how it goes.
        choice: which of their trials to compute; by default those without a result.

    Returns:
        One entry a job, in order. Trials without a result are in `results.failures`, or in `results.left_out` if
        their part was left out, because it was not asked for or because something that it needs is not installed.

    Errors:
        StoreError: the store cannot be written.
        EngineError: the engine cannot work.
    """
    listener, choice = listener or Listener(), choice or Choice()
    store.check_writable()
    plans = [_plan(job) for job in jobs]
    for job in jobs:
        store.remember(job.study.name, job.scale, job.overrides, source_of(job.study), job.only, job.timeout)
    files = Files()
    items = _decided(plans, store, files, choice)
    for job, plan in zip(jobs, plans, strict=True):
        of_job = [items[item.key] for item in plan]
        listener.planned(job.study.name, [item.trial for item in of_job if item.reason or item.stored])
    for item in items.values():
        if item.reason is None and item.stored is not None:
            listener.reused(item.study, item.trial)
    chosen = [item for item in items.values() if item.reason is not None]
    if chosen:
        _compute(_in_order(chosen), items, store, files, engine, listener, choice)
        _check_again(items.values())
    runs = []
    for job, plan in zip(jobs, plans, strict=True):
        listener.judging(job.study.name)
        runs.append(_conclude(job, [items[item.key] for item in plan]))
    return runs


@dataclass(frozen=True)
class Forecast:
    """What a run would do with a trial.

    Arguments:
        study: name of the study.
        trial: the trial.
        reason: why it would be computed; `None` if it would not.
        stored: whether its result would be taken from the store; with neither it would be left out.
        lacks: what is not installed and would have to be, if that is why; for each module what to give pip.
    """

    study: str
    trial: Trial[Any]
    reason: str | None
    stored: bool = False
    lacks: Mapping[str, str] = field(default_factory=dict)


def forecast(jobs: Sequence[Job], store: Store, choice: Choice | None = None) -> list[Forecast]:
    """What `run` would do, without doing it."""
    items = _decided([_plan(job) for job in jobs], store, Files(), choice or Choice())
    return [
        Forecast(
            item.study,
            item.trial,
            item.reason,
            item.reason is None and item.stored is not None,
            {} if item.stored else item.lacks,
        )
        for item in items.values()
    ]


def collect(jobs: Sequence[Job], store: Store, *, outdated: bool = False) -> list[StudyRun]:
    """Judge what a store already holds, without computing anything.

    Trials that are missing count as failures, but for those of parts that the job leaves out.

    Arguments:
        jobs: what to judge.
        store: where the results are.
        outdated: take results of code that has changed since, too, to compare with what it says now.
    """
    runs = []
    files = Files()
    for job in jobs:
        plan = _plan(job)
        for item in plan:
            item.look_up(store, files, outdated=outdated)
            if item.stored is None and item.wanted and not item.lacks:
                last = store.load_failure(item.study, item.document)
                item.fail(*(last or (item.missing, "")), attempted=last is not None)
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
        for item in _plan_part(study, part, job):
            if item.key in items:
                expected = "trials that differ in seed, labels or config"
                raise ArgumentError(f"trials of {study.name}", expected, f"{item.trial} twice")
            items[item.key] = item
    if not items:
        raise ArgumentError(f"trials of {study.name}", "at least one trial", "none")
    return list(items.values())


def _plan_part(study: Study[Any], part: Part[Any], job: Job) -> Iterator[_Item]:
    reference = FunctionRef.of(part.run)
    at_home = {reference.module, *modules_with(study)}
    source = reference.file or getattr(sys.modules.get(reference.module), "__file__", None)
    commit = git_commit(Path(source).resolve().parent) if source else None
    timeout = part.timeout if job.timeout is None else job.timeout
    wanted = job.only is None or part.name in job.only
    lacks = part.lacks(job.config) if wanted else {}
    for trial in part.labelled_trials(job.config):
        kind = type(trial.config)
        if has_no_name(kind.__module__) and kind.__module__ != reference.module:
            raise ArgumentError(
                f"trials of {part.name}",
                "a configuration of a class in the part's own file, or in a module beside it: workers load no other",
                f"{kind.__qualname__}, which stands elsewhere",
            )
        if isinstance(trial.config, Config):
            # How many seeds the study has is no part of a trial: `run` sees only its own.
            settings = dataclasses.replace(trial.config, seeds=len(trial.seeds), first_seed=trial.seeds[0])
            trial = dataclasses.replace(trial, config=settings)
        document = identity(study.name, trial, at_home)
        yield _Item(study.name, trial, document, key_of(document), reference, commit, timeout, wanted, lacks)


def _decided(plans: Sequence[Sequence[_Item]], store: Store, files: Files, choice: Choice) -> dict[str, _Item]:
    """The trials of all plans by their keys, looked up, each with the reason to compute it."""
    items: dict[str, _Item] = {}
    for item in itertools.chain.from_iterable(plans):
        known = items.setdefault(item.key, item)
        known.wanted |= item.wanted
    for item in items.values():
        item.look_up(store, files)
        item.decide(store, choice)
    return items


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
            item.fail(f"{change} it was computed; run it again" if change.endswith("since") else change)


def _compute(
    missing: list[_Item],
    items: Mapping[str, _Item],
    store: Store,
    files: Files,
    engine: Engine,
    listener: Listener,
    choice: Choice,
) -> None:
    """Compute what is missing. `files` are what the plan was made with: no other code's results are stored."""
    tasks = _claim(missing, store, files, listener, choice)

    def fail(item: _Item, reason: str, log: str) -> None:
        store.save_failure(item.study, item.document, reason, log)
        _release(item)
        listener.failed(item.study, item.fail(reason, log))

    try:
        for event in engine.map(tasks):
            item = items[event.task.key]
            if isinstance(event, Progress):
                listener.advanced(item.study, item.trial, event.fraction, event.metrics)
            elif isinstance(event, Finished) and (change := files.changed(event.depfile, item.run)):
                fail(item, f"the worker had other code than this process: {change}", "")
            elif isinstance(event, Finished):
                environment = {**event.environment, "commit": item.commit, DEPFILE: event.depfile.to_json()}
                item.stored = store.save(item.study, item.document, event.outcome, environment)
                item.computed = True
                _release(item)
                listener.finished(item.study, item.trial, item.stored.outcome)
            elif isinstance(event, Failed):
                fail(item, event.reason, event.log)
    finally:
        for item in missing:
            _release(item)


def _claim(
    missing: Sequence[_Item], store: Store, files: Files, listener: Listener, choice: Choice
) -> Iterator[Task | None]:
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
            if item.stored is not None and not item.anew:  # another run has finished it meanwhile
                _release(item)
                listener.reused(item.study, item.trial)
                continue
            if choice.fresh:
                store.drop_checkpoint(item.key)
            yield Task(
                item.key,
                item.run,
                item.trial,
                item.part,
                timeout=item.timeout,
                retries=choice.retries,
                checkpoints=str(store.checkpoint_folder(item.key).absolute()),
            )
        waiting = busy
        if waiting:
            yield None


def _release(item: _Item) -> None:
    if item.lock is not None:
        item.lock.release()
        item.lock = None


def _conclude(job: Job, items: Sequence[_Item]) -> StudyRun:
    outcomes = [(item.trial, item.stored.outcome) for item in items if item.stored is not None]
    without = [item for item in items if item.stored is None]
    failures = [item.failure for item in without if item.failure is not None]
    left_out = [item.trial for item in without if item.failure is None]
    lacking = {str(item.trial.labels[PART]): item.lacks for item in without if item.failure is None and item.lacks}
    results = Results(job.config, outcomes, failures, left_out, lacking)
    evidence = [_evidence(claim, job, results.guarded()) for claim in job.study.claims]
    stored = [item.stored.environment for item in items if item.stored is not None]
    return StudyRun(
        job,
        results,
        judge(job.study.claims, evidence),
        merged({name: value for name, value in environment.items() if name != DEPFILE} for environment in stored),
        computed=sum(item.computed for item in items),
        failed=[item.failure for item in items if item.failure is not None and item.failure.attempted],
    )


def _evidence(claim: Claim, job: Job, results: Results) -> Evidence:
    """A claim whose own test breaks must not take the other verdicts with it."""
    if SCALES.index(job.scale) < SCALES.index(claim.scale):
        return needs_scale(job.study.scale_for(claim) or claim.scale)
    try:
        evidence = claim.test(results)
    except LeftOut as left_out:
        return needs_parts(left_out)
    except (Exception, SystemExit) as error:
        line = f"{type(error).__name__}: {' '.join(str(error).split())}"
        warnings.warn(f"the test of claim {claim.name!r} raised {line}", RuntimeWarning, 2)
        return unusable(f"the claim's test raised {line}")
    if not isinstance(evidence, Evidence):
        return unusable(f"the claim's test returned {type(evidence).__name__}, not Evidence")
    if evidence.p_value is not None and (unnoticed := results.unnoticed()):
        return unusable(f"{failed_seeds(unnoticed)}, and the claim's test does not ask for whom there is none")
    return evidence
