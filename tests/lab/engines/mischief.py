"""A study whose trials do to their process what they should not, and say first what they have found."""

from __future__ import annotations

import _thread
import decimal
import gc
import io
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from typing import Any

from holdfast.lab import Config, Study, Trial


class Unspeakable(Exception):
    """Not even its text can be had."""

    def __str__(self) -> str:
        raise ValueError


def change_all() -> None:
    """What can be set back."""
    warnings.simplefilter("error")
    os.umask(0)
    sys.setrecursionlimit(77_777)
    if "numpy" in sys.modules:
        numpy = sys.modules["numpy"]
        numpy.seterr(all="raise")
        numpy.random.set_bit_generator(numpy.random.PCG64(1))
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        torch.use_deterministic_algorithms(True)
        torch.set_num_threads(2)
        torch.set_flush_denormal(True)
        torch.autograd.set_detect_anomaly(True)
        torch.set_autocast_enabled("cpu", True)
        torch.backends.mkldnn.set_flags(False)
    os.chdir(tempfile.mkdtemp())
    os.rmdir(os.getcwd())
    os.environ.clear()
    sys.path.clear()
    signal.signal(signal.SIGALRM, lambda *_: os._exit(3))
    signal.setitimer(signal.ITIMER_REAL, 0.5)


def leave_a_daemon() -> None:
    """A process that nobody is the parent of."""
    subprocess.Popen(["setsid", "sh", "-c", "sleep 7654321 & sleep 7654321 & true"]).wait()


def raise_from_itself() -> None:
    try:
        raise ZeroDivisionError("again")
    except ZeroDivisionError as error:
        raise error from error


def set_what_others_need() -> None:
    """What makes the next trial fail if it stays."""
    multiprocessing.set_start_method("spawn")
    resource.setrlimit(resource.RLIMIT_NOFILE, (12, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    decimal.getcontext().prec = 3
    gc.set_threshold(1)
    sys.meta_path.clear()


def die_and_leave_a_child() -> None:
    if os.fork() == 0:
        time.sleep(600)
    os._exit(4)


DEEDS: dict[str, Any] = {
    "nothing": lambda: None,
    "change all": change_all,
    "close streams": lambda: [stream.close() for stream in (sys.stdin, sys.stdout, sys.stderr)],
    "close files": lambda: os.closerange(0, 3),
    "close all": lambda: os.closerange(3, 500),
    "replace streams": lambda: (setattr(sys, "stdout", io.StringIO()), setattr(sys, "stderr", None)),
    "detach": lambda: sys.stdout.detach(),
    "set": set_what_others_need,
    "own group": lambda: os.killpg(os.getpgrp(), signal.SIGKILL),
    "raise from itself": raise_from_itself,
    "raw thread": lambda: _thread.start_new_thread(time.sleep, (600,)),
    "nice": lambda: os.nice(1),
    "thread": lambda: threading.Thread(target=time.sleep, args=(600,), daemon=True).start(),
    "daemon": leave_a_daemon,
    "fork": os.fork,
    "exit": lambda: sys.exit(0),
    "exit at once": lambda: os._exit(5),
    "orphan": die_and_leave_a_child,
    "interrupt": lambda: signal.raise_signal(signal.SIGTERM),
    "hang": lambda: time.sleep(600),
}


def run(trial: Trial[Config]) -> dict[str, Any]:
    deed = trial.labels["deed"]
    if trial.labels["libraries"]:
        import torch
    here = {
        "folder": os.getcwd(),
        "variables": len(os.environ),
        "drawn": random.random(),
        "order": " ".join({f"word {i}" for i in range(20)}),
        "recursion": sys.getrecursionlimit(),
        "path": len(sys.path),
        "finders": len(sys.meta_path),
        "priority": os.nice(0),
        "digits": decimal.getcontext().prec,
        "start": str(multiprocessing.get_start_method(allow_none=True)),
        "streams": sys.stdin.fileno() == 0 and sys.stdout.fileno() == 1 and sys.stderr.fileno() == 2,
        "errors": sum(item[0] == "error" for item in warnings.filters),
        "tiny": sys.float_info.min / 2,
    }
    if trial.labels["libraries"]:
        numpy = sys.modules["numpy"]
        here |= {
            "numpy": numpy.random.random(),
            "torch": torch.rand(()).item(),
            "error state": str(numpy.geterr()),
            "settings": str(
                (
                    torch.get_default_dtype(),
                    torch.is_grad_enabled(),
                    torch.are_deterministic_algorithms_enabled(),
                    torch.get_num_threads(),
                    torch.is_anomaly_enabled(),
                    torch.is_autocast_enabled("cpu"),
                    torch.backends.mkldnn.enabled,
                )
            ),
        }
    print("about to:", deed, flush=True)
    if trial.labels["misbehaves"]:
        if deed == "raise":
            raise Unspeakable
        DEEDS[str(deed)]()
    return here


def trials(config: Config) -> list[Trial[Config]]:
    """Each deed between two harmless trials of the same seed."""
    return [
        Trial(seed, config, {"deed": deed, "misbehaves": misbehaves, "libraries": libraries})
        for seed in config.seed_range
        for libraries in (False, True)
        for deed in (["change all", "nothing"] if libraries else [*DEEDS, "raise"])
        for misbehaves in (True, False)
    ]


study = Study("mischief", "Does anybody notice?", {"quick": Config(seeds=1)}, trials, run)
