"""What an engine is: it computes trials somewhere else and reports each as it ends. Engines write nothing."""

from __future__ import annotations

import abc
import os
import pickle
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from holdfast.errors import HoldfastError
from holdfast.lab.environment import THREAD_VARIABLES, environment
from holdfast.lab.locate import FunctionRef
from holdfast.lab.trial import Outcome, Trial, as_outcome

ONE_THREAD = dict.fromkeys(THREAD_VARIABLES, "1")
"""Environment of a worker: trials run side by side, and one thread each makes results independent of the machine."""

RETRIES = 1
"""How often a trial is tried again after its worker died. An exception inside the trial is final at once."""


class EngineError(HoldfastError):
    """The engine itself cannot work: no worker starts, no cluster answers, no GPU is there."""


@dataclass(frozen=True)
class Task:
    """A trial to compute and the function that computes it."""

    key: str
    run: FunctionRef
    trial: Trial[Any]


@dataclass(frozen=True)
class Progress:
    """A running trial says how far it is."""

    task: Task
    fraction: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Finished:
    """A trial ended with a result."""

    task: Task
    outcome: Outcome
    environment: Mapping[str, Any]


@dataclass(frozen=True)
class Failed:
    """A trial ended without a result."""

    task: Task
    reason: str
    log: str


Event: TypeAlias = Progress | Finished | Failed


class Engine(abc.ABC):
    """Computes tasks, several at once. Subclasses say how to start one and how to wait for news."""

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
                    self._start(held)
                    held = None
                if exhausted and self._idle():
                    return
                yield from self._wait(0.2)
        finally:
            self._close()

    @abc.abstractmethod
    def _open(self) -> None:
        """Get ready; called once before anything else."""

    @abc.abstractmethod
    def _has_room(self, gpu: float) -> bool:
        """Whether a trial with this share of a GPU could start now."""

    @abc.abstractmethod
    def _start(self, task: Task) -> None:
        """Start a task for which there is room."""

    @abc.abstractmethod
    def _idle(self) -> bool:
        """Whether nothing runs."""

    @abc.abstractmethod
    def _wait(self, seconds: float) -> Iterator[Event]:
        """News since the last call; waits at most this long for the first."""

    @abc.abstractmethod
    def _close(self) -> None:
        """Stop everything, also what still runs."""


def pack(task: Task) -> tuple[FunctionRef, bytes]:
    """A task for another process: the trial is pickled apart, since it may need the study's module to load."""
    try:
        return task.run, pickle.dumps(task.trial)
    except Exception as error:
        raise EngineError(f"trial {dict(task.trial.labels)} cannot be pickled: {error}") from error


def execute(run: FunctionRef, payload: bytes) -> tuple[Outcome | None, str, str, dict[str, Any]]:
    """Compute one trial in this process.

    Returns:
        The outcome, or `None` with a one-line reason and a traceback; and this process's environment.
    """
    try:
        function = run.load()
        trial = pickle.loads(payload)
        outcome = as_outcome(function(trial), trial)
    except Exception as error:
        line = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return None, line[:500], traceback.format_exc(), environment()
    return outcome, "", "", environment()


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
