"""What a worker does: it receives a trial, computes it, and says what came of it, until the driver is gone."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from pickle import loads

from holdfast.lab import progress
from holdfast.lab.checkpoints import Checkpoints
from holdfast.lab.depfile import CHANGED
from holdfast.lab.engines.engine import Answer, Parcel
from holdfast.lab.environment import environment
from holdfast.lab.loading import Recorder, recorder_of
from holdfast.lab.trial import as_outcome

BODY = f"{__name__}:serve"
"""How `holdfast.lab.engines.supervise` names it."""

_PROGRESS_EVERY_S = 0.1


def serve(connection: Connection) -> None:
    """Compute trials until the pipe closes.

    Sends `("ready",)` once, then for each trial any number of `("progress", fraction, metrics)` and one
    `("answer", Answer)`.

    Arguments:
        connection: the worker's end of the pipe; a `Parcel` and the number of a GPU or `None` come in.
    """
    log = os.dup(1)
    owner = os.getpid()
    lock = threading.Lock()
    connection.send(("ready",))
    while True:
        try:
            parcel, gpu = connection.recv()
        except (EOFError, OSError):
            return
        os.ftruncate(log, 0)
        last = -_PROGRESS_EVERY_S

        def tell(fraction: float, metrics: Mapping[str, float]) -> None:
            nonlocal last
            if os.getpid() != owner:  # a process that the trial has forked
                return
            now = time.monotonic()
            if now - last >= _PROGRESS_EVERY_S:
                last = now
                message = ("progress", float(fraction), {name: float(value) for name, value in metrics.items()})
                with lock:
                    connection.send(message)

        answer = execute(parcel, gpu, tell)
        if os.getpid() != owner:  # forked by the trial, and come back from it in its parent's place
            os._exit(0)
        with lock:
            connection.send(("answer", answer))


def execute(parcel: Parcel, gpu: int | None, tell: progress.Listener) -> Answer:
    """Compute one trial in this process, and set the process back.

    Arguments:
        parcel: the trial.
        gpu: number of the GPU that it may use.
        tell: hears how far it is.
    """
    recorder: Recorder | None = None
    outcome, depfile, reason, trace, changed = None, None, "", "", ""
    whole: tuple[str, ...] = ()
    try:
        recorder = recorder_of(*parcel.code)
        function = recorder.load()
        assert recorder.slate is not None
        recorder.slate.seed(parcel.seeds)
        folder = parcel.checkpoints
        progress.listen(tell, None if folder is None else Checkpoints(Path(folder), recorder))
        if gpu is not None:
            _choose_gpu(gpu)
        trial = loads(parcel.trial)
        outcome = as_outcome(function(trial), trial)
        depfile = recorder.depfile()
        whole = recorder.missed()
        if CHANGED in (*depfile.modules.values(), *depfile.files.values()):
            changed = "files have changed while it used them"
    except BaseException as error:  # an exit, too, is the trial's own affair
        outcome = None
        reason = f"{type(error).__name__}: {_words(error)}"[:500]
        trace = _trace()
        with contextlib.suppress(Exception):
            whole = recorder.missed(error) if recorder is not None else ()
    finally:
        progress.listen(None)
    spent = (
        changed or recorder.slate.restore()
        if recorder is not None and recorder.slate is not None
        else "it has loaded nothing"
    )
    print(trace, end="", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if outcome is None or depfile is None:
        return Answer(environment(), reason=reason, whole=whole, spent=spent)
    return Answer(environment(), outcome, depfile=depfile, whole=whole, spent=spent)


def _words(error: BaseException) -> str:
    """What an exception says, in one line that can be written; not all can say it."""
    try:
        return " ".join(str(error).encode("utf-8", "backslashreplace").decode().split())
    except BaseException as second:
        return f"its text raised {type(second).__name__}"


def _trace() -> str:
    try:
        return traceback.format_exc()
    except BaseException as error:
        return f"its traceback raised {type(error).__name__}\n"


def _choose_gpu(index: int) -> None:
    import torch

    torch.cuda.set_device(index)
