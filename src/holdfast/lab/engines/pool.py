"""Worker processes of this machine, each with a pipe of its own: what becomes of one concerns no other.

The standard library's pool breaks as a whole when one worker is killed, and pools that share a queue can lose the lock
on it with the dying worker.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from typing import TypeAlias

from holdfast.lab.engines.engine import Answer, Code, EngineError, Parcel
from holdfast.lab.engines.supervise import Supervised
from holdfast.lab.engines.worker import BODY

START_S = 120.0
"""How long a worker may take to start; then it counts as one that has died."""

FAILED_STARTS = 6
"""After so many in a row, with no worker that ever started, nothing can be computed at all."""

_END_S = 5.0
"""How long its supervisor has, once a worker can no longer be heard, to say how it ended."""

_LOOK_S = 0.02

Told: TypeAlias = "tuple[float, Mapping[str, float]]"
"""How far a trial is."""


@dataclass
class _Job:
    number: int
    parcel: Parcel
    gpu: int | None
    attempt: int = 1


class _Worker:
    """A process, and what it works on."""

    def __init__(self) -> None:
        self.process = Supervised(BODY)
        self.ready = False
        self.mute = False
        self.job: _Job | None = None
        self.code: Code | None = None
        self.since = time.monotonic()

    @property
    def deadline(self) -> float | None:
        """When it has taken too long."""
        if self.mute:
            return self.since + _END_S
        if not self.ready:
            return self.since + START_S
        if self.job is None or self.job.parcel.timeout is None:
            return None
        return self.since + self.job.parcel.timeout


class Pool:
    """Computes parcels, several at once.

    Arguments:
        workers: how many processes at a time.
    """

    def __init__(self, workers: int) -> None:
        self._size = workers
        self._workers: list[_Worker] = []
        self._waiting: list[_Job] = []
        self._failed_starts = 0
        self._ever_ready = False

    def start(self, number: int, parcel: Parcel, gpu: int | None = None) -> None:
        """Begin with a parcel. The caller sees to it that there is a free worker.

        Arguments:
            number: what it is called in the news.
            parcel: the parcel.
            gpu: number of the GPU that it may use.
        """
        self._waiting.append(_Job(number, parcel, gpu))

    def news(self, seconds: float) -> Iterator[tuple[int, Told | Answer]]:
        """What has come of the parcels since the last call; waits at most this long for the first.

        Errors:
            EngineError: no worker can be started.
        """
        waiting, self._waiting = self._waiting, []
        for job in waiting:
            yield from self._assign(job)
        now = time.monotonic()
        deadlines = [worker.deadline for worker in self._workers if worker.deadline is not None]
        seconds = max(0.0, min([seconds, *(deadline - now for deadline in deadlines)]))
        audible = [worker.process.connection for worker in self._workers if not worker.mute]
        if self._waiting:
            seconds = 0.0
        elif len(audible) < len(self._workers):
            seconds = min(seconds, _LOOK_S)
        ready = wait(audible, seconds) if audible else []
        if not audible:
            time.sleep(seconds)
        for worker in list(self._workers):
            if worker.process.connection in ready:
                yield from self._hear(worker)
        now = time.monotonic()
        for worker in list(self._workers):
            worker.process.cut_log()
            if worker.process.ended():
                if not worker.mute:
                    yield from self._hear(worker)  # it may have answered as it went
                if worker in self._workers:
                    yield from self._bury(worker)
            elif worker.deadline is not None and now >= worker.deadline:
                yield from self._give_up(worker) if worker.ready and not worker.mute else self._bury(worker)

    def close(self) -> None:
        """End all."""
        for worker in self._workers:
            worker.process.begin_to_stop()
        for worker in self._workers:
            worker.process.stop()
        self._workers.clear()
        self._waiting.clear()

    def _assign(self, job: _Job) -> Iterator[tuple[int, Answer]]:
        while True:
            try:
                worker = self._worker_for(job.parcel.code)
            except OSError as error:
                yield from self._again(job, "no worker could be started", str(error), "")
                return
            try:
                worker.process.connection.send((job.parcel, job.gpu))
            except OSError:  # it died while idle; the trial has not begun
                self._drop(worker)
                continue
            worker.job, worker.code = job, job.parcel.code
            if worker.ready:
                worker.since = time.monotonic()
            return

    def _worker_for(self, code: Code) -> _Worker:
        """A worker that has loaded this code, or nothing yet; one that has loaded other code makes room for it."""
        idle = [worker for worker in self._workers if worker.job is None]
        for worker in idle:
            if worker.code in (None, code) and not worker.mute:
                return worker
        if idle and len(self._workers) >= self._size:
            self._drop(idle[0])
        worker = _Worker()
        self._workers.append(worker)
        return worker

    def _hear(self, worker: _Worker) -> Iterator[tuple[int, Told | Answer]]:
        try:
            for kind, *content in worker.process.messages():
                job = worker.job
                if kind == "ready":
                    worker.ready = self._ever_ready = True
                    worker.since = time.monotonic()
                    self._failed_starts = 0
                elif job is None:
                    continue
                elif kind == "progress":
                    fraction, metrics = content
                    yield job.number, (fraction, metrics)
                else:
                    (answer,) = content
                    worker.job = None
                    if answer.outcome is None:
                        answer = replace(answer, log=worker.process.log())
                    if answer.spent:
                        self._drop(worker)
                    yield job.number, answer
                    if answer.spent:
                        return
        except EOFError:  # it is about to end, or has closed its end of the pipe
            worker.mute, worker.since = True, time.monotonic()

    def _bury(self, worker: _Worker) -> Iterator[tuple[int, Answer]]:
        """A worker has ended, or can no longer be heard."""
        job, ready, log, cause = worker.job, worker.ready, worker.process.log(), worker.process.cause()
        self._drop(worker)
        if not ready:
            self._failed_starts += 1
            if not self._ever_ready and self._failed_starts >= FAILED_STARTS:
                raise EngineError(f"workers cannot start ({cause}): {log.strip()[-500:] or 'no log'}")
        if job is not None:
            yield from self._again(job, "its worker died" if ready else "its worker died as it started", cause, log)

    def _again(self, job: _Job, what: str, cause: str, log: str) -> Iterator[tuple[int, Answer]]:
        """Try a trial again, or say that it has failed."""
        if job.attempt <= job.parcel.retries:
            self._waiting.append(replace(job, attempt=job.attempt + 1))
            return
        times = f" {job.attempt} times" if job.attempt > 1 else ""
        yield job.number, Answer(reason=f"{what}{times} ({cause})", log=log)

    def _give_up(self, worker: _Worker) -> Iterator[tuple[int, Answer]]:
        """A trial has taken too long."""
        job, log = worker.job, worker.process.log()
        self._drop(worker)
        if job is not None:
            yield job.number, Answer(reason=f"it took longer than {job.parcel.timeout:g} s and was stopped", log=log)

    def _drop(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.process.stop()
