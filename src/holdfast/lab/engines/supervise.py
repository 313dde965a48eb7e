"""Processes that leave nothing behind, whatever ends them: each has a supervisor between it and the driver.

    driver -- supervisor -- process -- what its trials start

The supervisor is the parent of the process and does nothing but wait. When the process ends, however it ends, or the
driver does, it kills all that is left below it and ends in the same way. On Linux that includes what was orphaned,
since the supervisor inherits orphans, and the process dies with its supervisor. Elsewhere only the process itself is
killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import importlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from holdfast.lab.environment import THREAD_VARIABLES

SETTINGS = {**dict.fromkeys(THREAD_VARIABLES, "1"), "PYTHONHASHSEED": "0"}
"""Environment of all processes. Trials run side by side, and one thread each makes results independent of the machine;
so does one order of sets and dictionaries of text."""

_MARK = "_HOLDFAST_PROCESS"
_LOG_TAIL = 20_000
_LOG_MOST = 1 << 26
_STOP_S = 5.0
_LOOK_S = 1.0
_SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP)
_SUBREAPER, _DEATH_SIGNAL = 36, 1  # of Linux's prctl


class Supervised:
    """A process of this machine with a pipe to it, and its log.

    Arguments:
        body: what it does, as `module:function`; called with its end of the pipe and what follows here.
        arguments: plain data for the body.

    Errors:
        OSError: it cannot be started.
    """

    def __init__(self, body: str, *arguments: Any) -> None:
        self.connection, theirs = Pipe()
        lifeline, self._lifeline = os.pipe()
        # Without a name it needs no clearing up, whoever dies.
        self._log = tempfile.TemporaryFile("w+b", buffering=0)  # noqa: SIM115 - as long as the process
        fcntl.fcntl(self._log, fcntl.F_SETFL, os.O_APPEND)  # so that it may be cut
        self._mark = uuid.uuid4().hex
        command = (
            f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import main; "
            f"main({theirs.fileno()}, {lifeline}, {body!r}, {arguments!r})"
        )
        options = [f"-W{option}" for option in sys.warnoptions]
        try:
            self._process = subprocess.Popen(
                [sys.executable, *options, "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=(theirs.fileno(), lifeline),
                env={**os.environ, **SETTINGS, _MARK: self._mark},
            )
        except BaseException:
            self.connection.close()
            os.close(self._lifeline)
            self._log.close()
            raise
        finally:
            theirs.close()
            os.close(lifeline)

    @property
    def pid(self) -> int:
        """Number of the supervisor."""
        return self._process.pid

    def messages(self) -> Iterator[tuple[Any, ...]]:
        """What the process has sent since the last call.

        Errors:
            EOFError: it will send nothing more.
        """
        try:
            while self.connection.poll():
                message = self.connection.recv()
                if not isinstance(message, tuple):
                    raise EOFError
                yield message
        except Exception as error:  # whatever was written into the pipe
            raise EOFError from error

    def ended(self) -> bool:
        """Whether the process and all below it are gone."""
        return self._process.poll() is not None

    def cut_log(self) -> None:
        """Forget what it has printed, if that is more than anybody could want."""
        if os.fstat(self._log.fileno()).st_size > _LOG_MOST:
            os.ftruncate(self._log.fileno(), 0)

    def log(self) -> str:
        """The end of what it has printed."""
        try:
            size = os.fstat(self._log.fileno()).st_size
            text = os.pread(self._log.fileno(), _LOG_TAIL, max(0, size - _LOG_TAIL)).decode(errors="replace")
            if size <= _LOG_TAIL:
                return text
            whole_lines = text.partition("\n")[2] or text
            return f"[what was printed before is cut]\n{whole_lines}"
        except (OSError, ValueError):
            return ""

    def cause(self) -> str:
        """How it ended."""
        code = self._process.returncode
        if code is None:
            return "it does not answer"
        if code >= 0:
            return f"exit status {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"{name}, perhaps out of memory" if -code == signal.SIGKILL else name

    def begin_to_stop(self) -> None:
        """Ask the supervisor to end all: several stop sooner together than one after another."""
        if self._process.poll() is None:
            self._process.terminate()

    def stop(self) -> None:
        """End it, and wait for that."""
        if self.connection.closed:
            return
        self.begin_to_stop()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if (self._process.returncode or 0) < 0:  # perhaps the supervisor itself was killed
            _kill_marked(self._mark)
        self.connection.close()
        self._log.close()
        os.close(self._lifeline)


def main(connection: int, lifeline: int, body: str, arguments: tuple[Any, ...]) -> None:
    """Split in two: the process, which does what it is for, and its supervisor.

    Arguments:
        connection: number of the process's end of the pipe.
        lifeline: number of a pipe that closes when the driver ends.
        body: see `Supervised`.
        arguments: see `Supervised`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    driver = os.getppid()
    _control(_SUBREAPER, 1)
    process = os.fork()
    if process == 0:
        os.close(lifeline)
        os.setsid()  # who kills his own group kills neither the driver nor other trials
        _control(_SUBREAPER, 1)
        _control(_DEATH_SIGNAL, signal.SIGKILL)
        module, _, name = body.partition(":")
        getattr(importlib.import_module(module), name)(Connection(connection), *arguments)
        return
    os.close(connection)
    _end_like(_watch(process, lifeline, driver))


def _watch(process: int, lifeline: int, driver: int) -> int:
    """Wait for the end of the process or the driver, and kill what is left.

    Returns:
        How the process ended, as `os.wait` says it.
    """
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    asked_to_end: list[int] = []
    for number in _SIGNALS:
        signal.signal(number, lambda number, frame: asked_to_end.append(number) if number != signal.SIGCHLD else None)
    status = None
    while status is None:
        if asked_to_end or os.getppid() != driver:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        ended = _reap()
        status = ended.get(process)
        if status is None:
            ready = wait([lifeline, told], _LOOK_S)
            if told in ready:
                os.read(told, 4096)
            if lifeline in ready:
                asked_to_end.append(signal.SIGTERM)
    _kill_children()
    return status


def _reap() -> dict[int, int]:
    """Children that have ended, and how."""
    ended = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            number, status = os.waitpid(-1, os.WNOHANG)
            if number == 0:
                break
            ended[number] = status
    return ended


def _kill_children() -> None:
    """Until there are none: the children of a killed one come to be the supervisor's own."""
    own = os.getpid()
    while True:
        _reap()
        children = _children(own)
        if not children:
            return
        for child in children:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGKILL)
        time.sleep(0.002)


def _children(parent: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/self/task/{parent}/children").read_text().split()]
    except OSError:
        pass
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(entry.name))
    return found


def _end_like(status: int) -> None:
    """End this process as another one has ended."""
    if os.WIFSIGNALED(status):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        number = os.WTERMSIG(status)
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        time.sleep(_LOOK_S)
    os._exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 1)


def _control(option: int, value: int) -> None:
    """Linux's prctl; elsewhere nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _kill_marked(mark: str) -> None:
    """Kill what bears a mark in its environment: orphans of a supervisor that was killed.

    A process that is just becoming another program has no environment for a moment, and is looked at again.
    """
    until = time.monotonic() + _LOOK_S
    while _killed_or_unsure(f"{_MARK}={mark}".encode()) and time.monotonic() < until:
        time.sleep(0.01)


def _killed_or_unsure(mark: bytes) -> bool:
    again = False
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            environment = (entry / "environ").read_bytes()
            if mark in environment:
                os.kill(int(entry.name), signal.SIGKILL)
                again = True
            elif not environment:
                (entry / "exe").readlink()  # fails for what has ended, and for threads of the kernel
                again = True
    return again
