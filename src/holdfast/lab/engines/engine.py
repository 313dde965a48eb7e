"""What an engine is: it computes trials somewhere else and reports each as it ends. Engines write nothing."""

from __future__ import annotations

import abc
import dataclasses
import os
import pickle
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from holdfast.errors import HoldfastError
from holdfast.lab.depfile import Depfile
from holdfast.lab.locate import FunctionRef
from holdfast.lab.trial import Outcome, Trial

RETRIES = 1
"""How often a trial is tried again after its worker died. An exception inside the trial is final at once."""


class EngineError(HoldfastError):
    """The engine itself cannot work: no worker starts, no cluster answers, no GPU is there."""


Code: TypeAlias = "tuple[str, FunctionRef, tuple[str, ...]]"
"""Part, function, and modules executed whole: what a process loads once and for all."""


@dataclass(frozen=True)
class Task:
    """A trial to compute and the function that computes it.

    Arguments:
        key: of the trial.
        run: the function.
        trial: the trial.
        part: the study and part that it belongs to: a process computes trials of one part only.
        whole: modules to execute whole, see `holdfast.lab.loading`.
        timeout: seconds after which it has failed; `None` lets it take as long as it takes.
        retries: how often it is tried again after its worker died.
        checkpoints: folder where it may keep a checkpoint until it has a result; `None` where there is none.
    """

    key: str
    run: FunctionRef
    trial: Trial[Any]
    part: str = ""
    whole: tuple[str, ...] = ()
    timeout: float | None = None
    retries: int = RETRIES
    checkpoints: str | None = None

    @property
    def code(self) -> Code:
        """What a process has loaded that computes it."""
        return self.part, self.run, self.whole


@dataclass(frozen=True)
class Progress:
    """A running trial says how far it is."""

    task: Task
    fraction: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Finished:
    """A trial ended with a result.

    Arguments:
        task: the trial.
        outcome: what it measured.
        environment: where.
        depfile: what the result depends on.
    """

    task: Task
    outcome: Outcome
    environment: Mapping[str, Any]
    depfile: Depfile


@dataclass(frozen=True)
class Failed:
    """A trial ended without a result."""

    task: Task
    reason: str
    log: str


Event: TypeAlias = Progress | Finished | Failed


@dataclass(frozen=True)
class Answer:
    """What came of a trial, as its worker or those who watch over it say.

    Arguments:
        environment: of the worker.
        outcome: what was measured; `None` where the trial failed.
        reason: why it failed, in a line.
        log: what it printed, and where it failed.
        depfile: what the result depends on.
        whole: modules that the trial needs whole: it is to be computed again so. Empty where the answer stands.
        spent: why the worker can compute no other trial; empty where it can.
    """

    environment: Mapping[str, Any] = field(default_factory=dict)
    outcome: Outcome | None = None
    reason: str = ""
    log: str = ""
    depfile: Depfile = field(default_factory=Depfile)
    whole: tuple[str, ...] = ()
    spent: str = ""

    def event(self, task: Task) -> Finished | Failed:
        """The end of the trial."""
        if self.outcome is None:
            return Failed(task, self.reason, self.log)
        return Finished(task, self.outcome, self.environment, self.depfile)


@dataclass(frozen=True)
class Parcel:
    """A task as other processes get it: the trial is pickled apart, since it may need the study's module to load.

    Arguments:
        code: what computes it.
        seeds: of the trial.
        trial: the trial, pickled.
        gpu: share of a GPU that it needs.
        timeout: see `Task`.
        retries: see `Task`.
        checkpoints: see `Task`.
    """

    code: Code
    seeds: tuple[int, ...]
    trial: bytes
    gpu: float
    timeout: float | None
    retries: int
    checkpoints: str | None


def pack(task: Task) -> Parcel:
    """A task for other processes."""
    trial = task.trial
    return Parcel(task.code, trial.seeds, pickle.dumps(trial), trial.gpu, task.timeout, task.retries, task.checkpoints)


class Engine(abc.ABC):
    """Computes tasks, several at once. Subclasses say how to start one and how to wait for news."""

    def __init__(self) -> None:
        self._whole: dict[tuple[str, FunctionRef], tuple[str, ...]] = {}

    def map(self, tasks: Iterable[Task | None]) -> Iterator[Event]:
        """Compute tasks and yield events as they come, in no fixed order.

        Tasks are taken only when there is room for one, so an iterator may decide late what comes next.

        Arguments:
            tasks: what to compute. `None` means: nothing to start at present, ask again soon.
        """
        source = iter(tasks)
        held: Task | None = None
        exhausted = False
        try:
            self._open()
            while True:
                while not exhausted:
                    if held is None:
                        if not self._has_room(0.0):
                            break
                        try:
                            held = next(source)
                        except StopIteration:
                            exhausted = True
                            break
                    if held is None or not self._has_room(held.trial.gpu):
                        break
                    task, held = self._with_whole(held), None
                    try:
                        parcel = pack(task)
                    except (Exception, SystemExit) as error:
                        reason = f"the trial cannot be pickled: {type(error).__name__}: {' '.join(str(error).split())}"
                        yield Failed(task, reason[:500], "")
                    else:
                        self._start(task, parcel)
                if exhausted and self._idle():
                    return
                yield from self._wait(0.2)
        finally:
            self._close()

    def _conclude(self, task: Task, answer: Answer) -> Iterator[Event]:
        """Tell how a task has ended; or compute it again, where it needs more of a file than was executed."""
        if answer.whole and not set(answer.whole) <= set(task.whole):
            self._whole[task.part, task.run] = answer.whole
            task = self._with_whole(task)
            self._start(task, pack(task))
        else:
            yield answer.event(task)

    def _with_whole(self, task: Task) -> Task:
        """A task with what the part's other trials have been found to need."""
        return dataclasses.replace(task, whole=self._whole.get((task.part, task.run), task.whole))

    @abc.abstractmethod
    def _open(self) -> None:
        """Get ready; called once before anything else."""

    @abc.abstractmethod
    def _has_room(self, gpu: float) -> bool:
        """Whether a trial with this share of a GPU could start now."""

    @abc.abstractmethod
    def _start(self, task: Task, parcel: Parcel) -> None:
        """Start a task for which there is room.

        Arguments:
            task: the task.
            parcel: the same, for other processes.
        """

    @abc.abstractmethod
    def _idle(self) -> bool:
        """Whether nothing runs."""

    @abc.abstractmethod
    def _wait(self, seconds: float) -> Iterator[Event]:
        """News since the last call; waits at most this long for the first."""

    @abc.abstractmethod
    def _close(self) -> None:
        """Stop everything, also what still runs."""


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
