"""The engine on a Ray cluster, local or remote: the same trials, the same results.

Ray starts a trial again when the worker or the node that ran it is lost. Studies must be importable on the nodes:
installed packages, not single files.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from typing import Any

from holdfast.errors import ArgumentError, require
from holdfast.lab.engines.engine import (
    ONE_THREAD,
    Engine,
    EngineError,
    Event,
    Failed,
    Task,
    available_cores,
    execute,
    pack,
)
from holdfast.lab.identity import holdfast_variables

NODE_RETRIES = 3
"""How often Ray starts a trial again after losing its worker: nodes come and go for no fault of a trial."""


class RayEngine(Engine):
    """Computes trials on a Ray cluster.

    Arguments:
        address: `ray://host:port`, `host:port` or `auto` for a running cluster; `None` starts one on this machine,
            or uses the one that this process is connected to.
        workers: cores of the cluster that is started here; by default all that this process may use.

    Errors:
        ArgumentError: there is less than one worker; or, when it is used, no cluster answers at the address.
        MissingExtraError: Ray is not installed.
        EngineError: Ray does not start.
    """

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise ArgumentError("workers", "at least 1", workers)
        super().__init__()
        self._ray = require("ray", "ray")
        self._address = address
        self._workers = workers
        self._ours = False
        self._running: dict[Any, Task] = {}
        self._remote: Any = None

    def _open(self) -> None:
        ray = self._ray
        if not ray.is_initialized():
            _check_address(self._address)
            options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
            if self._address is None:
                options |= {"num_cpus": self._workers or available_cores(), "include_dashboard": False}
            try:
                ray.init(address=self._address or "local", **options)
            except (ConnectionError, ValueError, RuntimeError, OSError) as error:
                line = " ".join(str(error).split())
                if self._address is None:
                    raise EngineError(f"Ray does not start on this machine: {line}") from error
                raise _no_cluster(self._address, line) from error
            self._ours = True
        self._remote = ray.remote(execute)

    def _has_room(self, gpu: float) -> bool:
        resources = self._ray.cluster_resources()
        if gpu and not resources.get("GPU"):
            raise EngineError("a trial asks for a GPU and the Ray cluster has none; choose a CPU scale")
        # A few trials wait in Ray's own queue, so that a core that falls free has one at once.
        return len(self._running) < 2 * max(1, int(resources.get("CPU", 1)))

    def _start(self, task: Task) -> None:
        task = self._with_whole(task)
        # Ray gives no process to another environment than the one that it was started for.
        environment = {**ONE_THREAD, **holdfast_variables(), "_HOLDFAST_CODE": repr(task.code)}
        remote = self._remote.options(
            num_cpus=1,
            num_gpus=task.trial.gpu or None,
            max_retries=NODE_RETRIES,
            runtime_env={"env_vars": environment},
        )
        self._running[remote.remote(*pack(task))] = task

    def _idle(self) -> bool:
        return not self._running

    def _wait(self, seconds: float) -> Iterator[Event]:
        ray = self._ray
        if not self._running:
            time.sleep(seconds)
            return
        done, _ = ray.wait(list(self._running), num_returns=1, timeout=seconds)
        for reference in done:
            task = self._running.pop(reference)
            try:
                answer = ray.get(reference)
            except ray.exceptions.RayError as error:
                yield Failed(task, f"its worker was lost {NODE_RETRIES + 1} times", str(error))
                continue
            if again := self._again(task, answer):
                self._start(again)
            else:
                yield answer.event(task)

    def _close(self) -> None:
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running.clear()
        if self._ours:
            self._ray.shutdown()
            self._ours = False


def _no_cluster(address: str | None, error: object) -> ArgumentError:
    return ArgumentError("address", "a running Ray cluster", f"{address} ({error})")


def _check_address(address: str | None) -> None:
    """Knock at the cluster's door: Ray itself ends the process when nobody answers."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host:
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _no_cluster(address, error) from error
