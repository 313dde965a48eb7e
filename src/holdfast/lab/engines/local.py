"""The engine on this machine: spawned workers, one BLAS thread each.

Each worker has a pipe of its own. The standard library's pool breaks as a whole when one worker is killed, and pools
that share a queue can lose the lock on it with the dying worker; here a death concerns nobody else.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from holdfast.errors import ArgumentError
from holdfast.lab import progress
from holdfast.lab.engines.engine import (
    ONE_THREAD,
    RETRIES,
    Code,
    Engine,
    EngineError,
    Event,
    Failed,
    Progress,
    Task,
    available_cores,
    execute,
    pack,
)

_LOG_TAIL = 20_000
_PROGRESS_EVERY_S = 0.1


@dataclass
class _Job:
    task: Task
    attempt: int
    gpu: int | None


class _Worker:
    """One process, its end of the pipe, its log, and what it works on."""

    def __init__(self, log: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.log = log
        self.log.touch()
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, str(log)), daemon=True)
        # BLAS libraries read them when they load, so they must be inherited.
        with _variables(ONE_THREAD), _without_main():
            self.process.start()
        theirs.close()
        self.ready = False
        self.job: _Job | None = None
        self.code: Code | None = None

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.process.close()
        self.connection.close()


class LocalEngine(Engine):
    """Computes trials in worker processes on this machine.

    Arguments:
        workers: number of processes; by default the cores that this process may use.

    Errors:
        ArgumentError: there is less than one worker.
        EngineError: workers cannot start, or a trial asks for a GPU that is not there.
    """

    def __init__(self, workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise ArgumentError("workers", "at least 1", workers)
        super().__init__()
        self.workers = workers or available_cores()
        self._pool: list[_Worker] = []
        self._retry: list[_Job] = []
        self._gpus: list[float] | None = None
        self._logs: tempfile.TemporaryDirectory[str] | None = None
        self._spawned = 0
        self._stillborn = 0

    def _open(self) -> None:
        self._logs = tempfile.TemporaryDirectory(prefix="holdfast-logs-", ignore_cleanup_errors=True)

    def _spawn(self) -> _Worker:
        assert self._logs is not None
        self._spawned += 1
        worker = _Worker(Path(self._logs.name) / f"worker-{self._spawned}.log")
        self._pool.append(worker)
        return worker

    def _has_room(self, gpu: float) -> bool:
        busy = sum(worker.job is not None for worker in self._pool) + len(self._retry)
        if busy >= self.workers:
            return False
        return gpu == 0 or self._free_gpu(gpu) is not None

    def _free_gpu(self, share: float) -> int | None:
        if self._gpus is None:
            self._gpus = [1.0] * _count_gpus()
        if not self._gpus:
            raise EngineError(
                "a trial asks for a GPU and this machine shows none (nvidia-smi); "
                "choose a CPU scale or run on a machine with a GPU"
            )
        free = [i for i, left in enumerate(self._gpus) if left >= share - 1e-9]
        # The fullest GPU that still fits leaves whole ones for trials that need a whole one.
        return min(free, key=lambda i: self._gpus[i]) if free else None  # type: ignore[index]

    def _start(self, task: Task) -> None:
        gpu = self._free_gpu(task.trial.gpu) if task.trial.gpu else None
        if gpu is not None and self._gpus is not None:
            self._gpus[gpu] -= task.trial.gpu
        self._assign(_Job(self._with_whole(task), 1, gpu))

    def _assign(self, job: _Job) -> None:
        message = (*pack(job.task), job.gpu)
        while True:
            worker = self._worker_for(job.task.code)
            try:
                worker.connection.send(message)
            except OSError:  # it died while idle; the trial has not begun
                self._drop(worker)
                continue
            worker.job, worker.code = job, job.task.code
            return

    def _worker_for(self, code: Code) -> _Worker:
        """A worker that has loaded this code, or nothing yet; one that has loaded other code makes room for it."""
        idle = [worker for worker in self._pool if worker.job is None]
        for worker in idle:
            if worker.code in (None, code):
                return worker
        if idle and len(self._pool) >= self.workers:
            self._drop(idle[0])
        return self._spawn()

    def _idle(self) -> bool:
        return not self._retry and all(worker.job is None for worker in self._pool)

    def _wait(self, seconds: float) -> Iterator[Event]:
        retry, self._retry = self._retry, []
        for job in retry:
            self._assign(job)
        watched: dict[Any, _Worker] = {}
        for worker in self._pool:
            watched[worker.connection] = worker
            watched[worker.process.sentinel] = worker
        if not watched:
            time.sleep(seconds)
            return
        news = wait(list(watched), timeout=seconds)
        for worker in {id(watched[item]): watched[item] for item in news}.values():
            yield from self._hear(worker)

    def _hear(self, worker: _Worker) -> Iterator[Event]:
        try:
            while worker.connection.poll():
                kind, *content = worker.connection.recv()
                job = worker.job
                if kind == "ready":
                    worker.ready = True
                    self._stillborn = 0
                elif job is None:
                    continue
                elif kind == "progress":
                    yield Progress(job.task, *content)
                else:
                    worker.job = None
                    (answer,) = content
                    if again := self._again(job.task, answer):
                        self._retry.append(_Job(again, job.attempt, job.gpu))
                        continue
                    self._release(job)
                    yield answer.event(job.task, "" if answer.outcome else _tail(worker.log))
        except (EOFError, OSError):
            pass
        else:
            if worker.process.is_alive():
                return
        yield from self._bury(worker)

    def _bury(self, worker: _Worker) -> Iterator[Event]:
        worker.process.join(5)
        code, job, log = worker.process.exitcode, worker.job, _tail(worker.log)
        ready = worker.ready
        self._drop(worker)
        if not ready:
            self._stillborn += 1
            if self._stillborn > 2:
                raise EngineError(f"workers cannot start ({_cause(code)}): {log.strip()[-500:] or 'no log'}")
        if job is None:
            return
        if job.attempt <= RETRIES or not ready:
            self._retry.append(_Job(job.task, job.attempt + ready, job.gpu))
            return
        self._release(job)
        yield Failed(job.task, f"its worker died {job.attempt} times ({_cause(code)})", log)

    def _release(self, job: _Job) -> None:
        if job.gpu is not None and self._gpus is not None:
            self._gpus[job.gpu] += job.task.trial.gpu

    def _drop(self, worker: _Worker) -> None:
        self._pool.remove(worker)
        worker.stop()

    def _close(self) -> None:
        for worker in self._pool:
            worker.stop()
        self._pool.clear()
        self._retry.clear()
        self._gpus = None
        if self._logs is not None:
            self._logs.cleanup()
            self._logs = None


def _serve(connection: Connection, log: str) -> None:
    """Body of a worker: receive a trial, compute it, send the result, until the driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    threading.Thread(target=_die_with_parent, daemon=True).start()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    connection.send(("ready",))
    while True:
        try:
            code, payload, gpu = connection.recv()
        except (EOFError, OSError):
            return
        os.ftruncate(descriptor, 0)
        last = 0.0

        def tell(fraction: float, metrics: Mapping[str, float]) -> None:
            nonlocal last
            if time.monotonic() - last >= _PROGRESS_EVERY_S:
                last = time.monotonic()
                connection.send(("progress", float(fraction), {k: float(v) for k, v in metrics.items()}))

        progress.listen(tell)
        if gpu is not None:
            _choose_gpu(gpu)
        answer = execute(code, payload)
        progress.listen(None)
        sys.stdout.flush()
        sys.stderr.flush()
        connection.send(("answer", answer))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _choose_gpu(index: int) -> None:
    import torch

    torch.cuda.set_device(index)


def _count_gpus() -> int:
    """GPUs of this machine, counted without starting CUDA in the driver."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([item for item in visible.split(",") if item.strip() and item.strip() != "-1"])
    try:
        answer = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in answer.stdout.splitlines()) if answer.returncode == 0 else 0


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Keep a new process from running this one's main file: it would load code that nobody has recorded."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _cause(code: int | None) -> str:
    if code is None:
        return "it does not answer"
    if code >= 0:
        return f"exit status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name}, perhaps out of memory" if -code == signal.SIGKILL else name


def _tail(path: Path) -> str:
    try:
        return path.read_bytes()[-_LOG_TAIL:].decode(errors="replace")
    except OSError:
        return ""
