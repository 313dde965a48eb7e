"""The one thread that the model runs in: all steps that wait become one batch, and those of a session stay in order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from holdfast.errors import HoldfastError
from holdfast.serving.sessions import Lane
from holdfast.serving.stepper import Step, Stepper

MOST_TOGETHER = 16
"""Steps of a batch at most: a larger one would make the first wait for the last."""

Outcome = tuple[object, HoldfastError | None]
"""The action, or why there is none."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A step that waits for the model.

    Arguments:
        lane: what the model remembers of the session.
        step: what is asked, but for the memory: that of the lane is read when its turn comes.
        tell: is called with the outcome, in the model's thread.
    """

    lane: Lane
    step: Step
    tell: Callable[[Outcome], None]


class Engine:
    """Runs a stepper.

    Arguments:
        stepper: what decides.
        observe: is called with the number of steps of each batch, in the model's thread.
    """

    def __init__(self, stepper: Stepper, observe: Callable[[int], None] = lambda steps: None) -> None:
        self.stepper, self._observe = stepper, observe
        self._arrivals: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """Begin to decide."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether steps are decided."""
        return self._thread.is_alive()

    def submit(self, job: Job) -> None:
        """Let a step wait for the model."""
        self._arrivals.put(job)

    def close(self) -> None:
        """Decide what waits, and end."""
        self._arrivals.put(None)
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        waiting: list[Job] = []
        ending = False
        while waiting or not ending:
            arrived: list[Job | None] = [] if waiting else [self._arrivals.get()]
            while not self._arrivals.empty():
                arrived.append(self._arrivals.get())
            ending = ending or None in arrived
            waiting += [job for job in arrived if job is not None]
            batch, waiting = chosen(waiting)
            if batch:
                self._observe(len(batch))
                for job, outcome in zip(batch, self._decided(batch), strict=True):
                    job.tell(outcome)

    def _decided(self, batch: Sequence[Job]) -> list[Outcome]:
        """The outcome of each step; those that could be read are remembered."""
        whole = [job for job in batch if not job.lane.broken]
        try:
            decided = self.stepper.act([replace(job.step, memory=job.lane.memory) for job in whole])
        except Exception as error:  # the thread has to go on for all other sessions
            decided = [HoldfastError(f"the model failed: {type(error).__name__}: {error}") for _ in whole]
        of_job = dict(zip(map(id, whole), decided, strict=True))
        outcomes: list[Outcome] = []
        for job in batch:
            answer = of_job.get(id(job), HoldfastError("an earlier step of the session could not be read"))
            if isinstance(answer, HoldfastError):
                job.lane.broken = True
                outcomes.append((None, answer))
            else:
                action, job.lane.memory = answer
                outcomes.append((action, None))
        return outcomes


def chosen(waiting: Sequence[Job], most: int = MOST_TOGETHER) -> tuple[list[Job], list[Job]]:
    """The next batch, of at most one step of each session, and who has to wait; both in order of arrival."""
    batch: list[Job] = []
    rest: list[Job] = []
    lanes: set[int] = set()
    for job in waiting:
        (batch if len(batch) < most and id(job.lane) not in lanes else rest).append(job)
        lanes.add(id(job.lane))
    return batch, rest
