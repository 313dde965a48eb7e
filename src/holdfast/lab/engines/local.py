"""The engine on this machine: worker processes side by side, and its GPUs shared out among them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from holdfast.errors import ArgumentError
from holdfast.lab.engines.engine import Answer, Engine, EngineError, Event, Parcel, Progress, Task, available_cores
from holdfast.lab.engines.pool import Pool


@dataclass
class _Running:
    task: Task
    gpu: int | None


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
        self._pool = Pool(self.workers)
        self._running: dict[int, _Running] = {}
        self._started = 0
        self._gpus: list[float] | None = None

    def _open(self) -> None:
        pass

    def _has_room(self, gpu: float) -> bool:
        return len(self._running) < self.workers and (gpu == 0 or self._free_gpu(gpu) is not None)

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

    def _start(self, task: Task, parcel: Parcel) -> None:
        gpu = self._free_gpu(parcel.gpu) if parcel.gpu else None
        if gpu is not None and self._gpus is not None:
            self._gpus[gpu] -= parcel.gpu
        self._started += 1
        self._running[self._started] = _Running(task, gpu)
        self._pool.start(self._started, parcel, gpu)

    def _idle(self) -> bool:
        return not self._running

    def _wait(self, seconds: float) -> Iterator[Event]:
        for number, news in self._pool.news(seconds):
            if isinstance(news, Answer):
                running = self._running.pop(number)
                if running.gpu is not None and self._gpus is not None:
                    self._gpus[running.gpu] += running.task.trial.gpu
                yield from self._conclude(running.task, news)
            else:
                yield Progress(self._running[number].task, *news)

    def _close(self) -> None:
        self._pool.close()
        self._running.clear()
        self._gpus = None


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
