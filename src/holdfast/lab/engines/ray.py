"""The engine on a Ray cluster, local or remote: the same trials, the same results.

Ray hands the trials out; on each node the same worker processes compute them as on one machine. Ray itself is spoken
to by an agent, a process of its own: Ray ends a process that loses its cluster, and some of its calls never return.
Studies must be importable on the nodes: installed packages, not single files.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any

from holdfast.errors import ArgumentError, require
from holdfast.lab.engines.engine import Answer, Engine, EngineError, Event, Parcel, Task, available_cores
from holdfast.lab.engines.pool import Pool
from holdfast.lab.engines.supervise import Supervised
from holdfast.lab.identity import holdfast_variables

NODE_RETRIES = 3
"""How often Ray starts a trial again after losing its process: nodes come and go for no fault of a trial."""

CONNECT_S = 36.0
"""How long a cluster may take to answer at first."""

START_S = 120.0
"""How long a cluster may take to start on this machine."""

SILENT_S = 60.0
"""How long a cluster may not answer; then it is lost."""

_KNOCK_S = 5.0
_GOODBYE_S = 5.0
_TELL_EVERY_S = 1.0


class RayEngine(Engine):
    """Computes trials on a Ray cluster.

    Arguments:
        address: `ray://host:port`, `host:port` or `auto` for a running cluster; `None` starts one on this machine,
            or uses the one that this process is connected to.
        workers: cores of the cluster that is started here; by default all that this process may use.

    Errors:
        ArgumentError: there is less than one worker; or, when it is used, no cluster answers at the address.
        MissingExtraError: Ray is not installed.
        EngineError: Ray does not start, or the cluster is lost.
    """

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise ArgumentError("workers", "at least 1", workers)
        super().__init__()
        self._ray = require("ray", "ray")
        self._address = address
        self._workers = workers
        self._agent: Supervised | None = None
        self._running: dict[int, Task] = {}
        self._started = 0
        self._resources: Mapping[str, float] = {}
        self._heard = 0.0

    def _open(self) -> None:
        address = self._address
        if address is None and self._ray.is_initialized():
            address = self._ray.get_runtime_context().gcs_address
        _knock(address)
        self._agent = Supervised(f"{__name__}:serve", address, self._workers or available_cores(), holdfast_variables())
        self._heard = time.monotonic()
        patience = START_S if address is None else CONNECT_S
        while not self._resources:
            for kind, content in self._messages(0.2):
                if kind == "failed":
                    if address is None:
                        raise EngineError(f"Ray does not start on this machine: {content}")
                    raise _no_cluster(address, content)
            if time.monotonic() - self._heard > patience and not self._resources:
                if address is None:
                    raise EngineError(f"Ray does not start on this machine: nothing happens for {patience:g} s")
                raise _no_cluster(address, f"it does not answer for {patience:g} s")

    def _has_room(self, gpu: float) -> bool:
        if gpu and not self._resources.get("GPU"):
            raise EngineError("a trial asks for a GPU and the Ray cluster has none; choose a CPU scale")
        # A few trials wait in Ray's own queue, so that a core that falls free has one at once.
        return len(self._running) < 2 * max(1, int(self._resources.get("CPU", 1)))

    def _start(self, task: Task, parcel: Parcel) -> None:
        assert self._agent is not None
        self._started += 1
        self._running[self._started] = task
        with contextlib.suppress(OSError):  # it is gone, which the next wait says
            self._agent.connection.send((self._started, parcel))

    def _idle(self) -> bool:
        return not self._running

    def _wait(self, seconds: float) -> Iterator[Event]:
        for kind, content in self._messages(seconds):
            if kind == "answer":
                number, answer = content
                yield from self._conclude(self._running.pop(number), answer)
        if time.monotonic() - self._heard > SILENT_S:
            raise _lost(f"it does not answer for {SILENT_S:g} s")

    def _messages(self, seconds: float) -> Iterator[tuple[str, Any]]:
        """What the agent says; waits at most this long for the first.

        Errors:
            EngineError: the agent has ended, which it does when Ray loses the cluster.
        """
        assert self._agent is not None
        try:
            self._agent.connection.poll(seconds)
            for kind, content in self._agent.messages():
                self._heard = time.monotonic()
                if kind == "resources":
                    self._resources = content
                elif kind == "lost":
                    raise _lost(content)
                else:
                    yield kind, content
        except (EOFError, OSError) as error:
            raise _lost(_last_line(self._agent.log()) or "Ray has ended the process that spoke to it") from error

    def _close(self) -> None:
        agent, self._agent = self._agent, None
        listens, self._resources = bool(self._resources), {}
        self._running.clear()
        if agent is None:
            return
        try:
            if listens and time.monotonic() - self._heard < _GOODBYE_S:
                with contextlib.suppress(OSError):
                    agent.connection.send(None)
                until = time.monotonic() + _GOODBYE_S
                while not agent.ended() and time.monotonic() < until:
                    time.sleep(0.02)
        finally:
            agent.stop()


def _no_cluster(address: str | None, why: str) -> ArgumentError:
    return ArgumentError("address", "a running Ray cluster", f"{address} ({why})")


def _knock(address: str | None) -> None:
    """Whether anybody listens at an address: Ray itself takes half a minute to say that nobody does."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host:
        return
    try:
        socket.create_connection((host, int(port)), timeout=_KNOCK_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _no_cluster(address, str(error)) from error


def _lost(why: str) -> EngineError:
    return EngineError(
        f"the Ray cluster is lost: {why}; finished trials are kept and the same command computes the rest"
    )


def _last_line(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def serve(connection: Connection, address: str | None, cores: int, variables: Mapping[str, str]) -> None:
    """Body of the agent: hand trials to Ray and pass on what comes of them, until told to stop.

    Sends `("failed", why)` where no cluster answers; otherwise `("resources", of the cluster)` every second,
    `("answer", (number, Answer))` for each trial, and `("lost", why)` where the cluster no longer answers.

    Arguments:
        connection: the agent's end of the pipe; `(number, parcel)` come in, and `None` at the end.
        address: of the cluster; `None` starts one.
        cores: of the cluster that is started.
        variables: environment of the trials.
    """
    ray = require("ray", "ray")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        options |= {"num_cpus": cores, "include_dashboard": False}
    try:
        ray.init(address=address or "local", **options)
        connection.send(("resources", ray.cluster_resources()))
    except Exception as error:
        connection.send(("failed", " ".join(str(error).split())[:300]))
        return
    remote = ray.remote(compute)
    running: dict[Any, int] = {}
    told = time.monotonic()
    try:
        while True:
            while connection.poll(0.0 if running else 0.2):
                message = connection.recv()
                if message is None:
                    return
                number, parcel = message
                chosen = remote.options(
                    num_cpus=1,
                    num_gpus=parcel.gpu or None,
                    max_retries=NODE_RETRIES,
                    runtime_env={"env_vars": dict(variables)},
                )
                running[chosen.remote(parcel)] = number
            done = ray.wait(list(running), num_returns=1, timeout=0.2)[0] if running else []
            for reference in done:
                connection.send(("answer", (running.pop(reference), _answer(ray, reference))))
            if time.monotonic() - told >= _TELL_EVERY_S:
                told = time.monotonic()
                connection.send(("resources", ray.cluster_resources()))
    except (EOFError, OSError):
        return
    except Exception as error:
        connection.send(("lost", " ".join(str(error).split())[:300]))
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        ray.shutdown()


def _answer(ray: Any, reference: Any) -> Answer:
    try:
        answer: Answer = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        return Answer(reason=f"its node cannot compute it: {_last_line(str(error))}", log=str(error))
    except ray.exceptions.RayError as error:
        return Answer(reason=f"its node was lost {NODE_RETRIES + 1} times", log=str(error))
    return answer


_pool: Pool | None = None
_visible: str | None = None


def compute(parcel: Parcel) -> Answer:
    """Compute one trial on the node that this is called on, in a worker that is kept for the next one."""
    global _pool, _visible
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if _pool is not None and visible != _visible:  # its worker was started for another GPU
        _pool.close()
        _pool = None
    if _pool is None:
        sys.path[:] = [entry for entry in sys.path if "thirdparty_files" not in entry]  # Ray's own, for itself
        _pool, _visible = Pool(1), visible
    _pool.start(0, parcel, 0 if parcel.gpu else None)
    while True:
        for _, news in _pool.news(0.5):
            if isinstance(news, Answer):
                return news
