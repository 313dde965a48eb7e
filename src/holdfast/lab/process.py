"""Sets a worker process to what it was before a trial, so that no trial can tell which ones came before it.

What a process was once the module of `run` had loaded, it is again after each trial: working folder, environment,
streams, warnings filters, signal handlers, what numpy and torch have been told. Random states come from the trial's
seed. Where a trial is the first to import numpy or torch, they are to be what their import has made them. What a file
of the project does to the process while a trial imports it cannot be repeated for the next trial, so that such a
process computes no other.
"""

from __future__ import annotations

import _thread
import contextlib
import decimal
import gc
import hashlib
import io
import locale
import multiprocessing
import operator
import os
import random
import resource
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any


@dataclass(frozen=True)
class _Setting:
    """Something of the process that code may change.

    Arguments:
        read: gives its value.
        write: sets it.
        library: the library that it belongs to. None is imported from here: they are looked at once they are there.
    """

    read: Callable[[], Any]
    write: Callable[[Any], Any]
    library: str | None = None


class Slate:
    """What one process was before its first trial, and how to make it so again."""

    def __init__(self) -> None:
        self._number = 0  # sixty-three bits from the seeds of the trial
        self._seeded: set[str] = set()
        self._clean: dict[str, Any] | None = None
        self._threads = 0, 0  # Python's and the system's
        self._under_way: list[dict[str, Any]] = []  # as the process was when files of the project began to load
        self._spent = ""
        self.in_library = False

    def settle(self) -> None:
        """The code that computes trials has been loaded: this is what the process is to be before each of them."""
        _streams.keep()
        self._clean = _look()
        self._threads = _thread._count(), _tasks()

    def seed(self, seeds: Sequence[int]) -> None:
        """Set all random states that there are; those of libraries still to be imported follow with their import.

        Arguments:
            seeds: of the trial; none while its code is loaded.
        """
        self._number = int.from_bytes(hashlib.sha256(repr(tuple(seeds)).encode()).digest()[:8], "big") >> 1
        self._seeded.clear()
        random.seed(self._number)
        self._seed_libraries()

    def _seed_libraries(self) -> None:
        """Once a trial, and once they are there."""
        if "numpy" in sys.modules and "numpy" not in self._seeded:
            self._seeded.add("numpy")  # first: what follows imports more of it
            import numpy.random

            numpy.random.seed(self._number % 2**32)
        if "torch" in sys.modules and "torch" not in self._seeded:
            self._seeded.add("torch")
            sys.modules["torch"].manual_seed(self._number)

    def restore(self) -> str:
        """Make the process what it was before the trial.

        Returns:
            Why it cannot compute another trial; empty if it can.
        """
        if self._clean is None:
            return "its code did not load"
        if not self._spent:
            self._spent = _left_running(self._threads)
        for name, setting in _settings().items():
            before = self._clean.get(name)
            if _read(setting) != before:
                with contextlib.suppress(Exception):
                    setting.write(before)
                if not self._spent and _read(setting) != before:
                    self._spent = f"the {name} cannot be set back"
        return self._spent

    @contextlib.contextmanager
    def importing_library(self) -> Iterator[None]:
        """A library is first imported, or a module of it: its settings are what it makes them, and it draws nothing."""
        if self.in_library:
            yield
            return
        self.in_library = True
        before = _look()
        state = random.getstate()
        try:
            yield
        finally:
            self._seed_libraries()
            random.setstate(state)
            self.in_library = False
            now = _look()
            if self._clean is not None:
                for name, value in now.items():
                    self._clean.setdefault(name, value)
            for snapshot in self._under_way:  # it is none of the project's doing
                snapshot.update({name: value for name, value in now.items() if before.get(name) != value})
                snapshot["random state"] = _random_state()

    @contextlib.contextmanager
    def importing_project(self, name: str) -> Iterator[None]:
        """A file of the project is imported by a trial: the next one that imports it finds it loaded.

        Arguments:
            name: of the module.
        """
        if self._clean is None or self._under_way:
            yield
            return
        before = _look() | {"random state": _random_state()}
        self._under_way.append(before)
        try:
            yield
        finally:
            self._under_way.remove(before)
            now = _look() | {"random state": _random_state()}
            for what, value in now.items():
                if before.get(what) != value and not self._spent:
                    self._spent = f"{name} has changed the {what} as it was imported"


def _settings() -> dict[str, _Setting]:
    """All that can be looked at now, by name."""
    return {name: item for name, item in _ALL.items() if item.library is None or item.library in sys.modules}


def _look() -> dict[str, Any]:
    return {name: _read(setting) for name, setting in _settings().items()}


def _read(setting: _Setting) -> Any:
    try:
        return setting.read()
    except Exception as error:  # a folder that is gone, a torch whose old and new switches contradict each other
        return f"{type(error).__name__}: {error}"


def _random_state() -> tuple[Any, ...]:
    """The states of all generators without a name, to be compared only."""
    states: list[Any] = [random.getstate()]
    if "numpy.random" in sys.modules:
        kind, keys, *rest = sys.modules["numpy.random"].get_state()
        states.append((kind, keys.tobytes(), *rest))
    if "torch" in sys.modules:
        states.append(sys.modules["torch"].get_rng_state().tolist())
    return tuple(states)


def _tasks() -> int:
    """Threads of this process, as the system counts them; 0 where it does not say."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 0


def _left_running(threads: tuple[int, int]) -> str:
    """What of a trial still goes on after it: nobody knows what that will do to the next one."""
    if _tasks() > threads[1]:
        time.sleep(0.001)  # Python counts a thread only once it runs
    if _thread._count() > threads[0]:
        return "the trial has left a thread"
    if hasattr(os, "waitpid"):
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            return "the trial has left a process"
    return ""


def _write_environment(before: dict[str, str]) -> None:
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)
    time.tzset()


def _read_umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


class _Streams:
    """The standard streams, and the files behind them by other numbers, which nobody closes by mistake."""

    names = ("stdin", "stdout", "stderr")

    def __init__(self) -> None:
        self._objects = [getattr(sys, name) for name in self.names]
        self._copies: list[int] = []

    def keep(self) -> None:
        """Note the files that are behind the streams now."""
        self._copies = [os.dup(number) for number in range(3)]

    def read(self) -> list[Any]:
        """Which file is behind each number, and whether the stream of this name writes to it."""
        return [
            (os.fstat(number)[:3], _usable(getattr(sys, name)) and getattr(sys, name).fileno() == number)
            for number, name in enumerate(self.names)
        ]

    def put_back(self, before: Any) -> None:
        """Make them what they were; a stream that was closed is opened anew."""
        for number, (name, copy) in enumerate(zip(self.names, self._copies, strict=True)):
            os.dup2(copy, number)
            if not _usable(self._objects[number]):
                mode = "r" if number == 0 else "w"
                stream = io.FileIO(number, mode, closefd=False)
                buffered = io.BufferedReader(stream) if number == 0 else io.BufferedWriter(stream)
                self._objects[number] = io.TextIOWrapper(buffered, "utf-8", "backslashreplace")
            setattr(sys, name, self._objects[number])
            setattr(sys, f"__{name}__", self._objects[number])


def _usable(stream: Any) -> bool:
    try:
        return not stream.closed
    except (AttributeError, ValueError):  # another object, or one that was taken apart
        return False


_streams = _Streams()


_SIGNALS = sorted(map(int, signal.valid_signals()))


def _read_handlers() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in _SIGNALS}


def _write_handlers(before: dict[int, Any]) -> None:
    for number, handler in before.items():
        if signal.getsignal(number) != handler:
            signal.signal(number, handler)


def _read_timers() -> tuple[bool, ...]:
    return tuple(
        bool(signal.getitimer(which)[0]) for which in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
    )


def _write_timers(before: Sequence[bool]) -> None:
    for which in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        signal.setitimer(which, 0)


def _write_filters(before: list[Any]) -> None:
    warnings.filters[:] = before  # type: ignore[index]
    with warnings.catch_warnings():  # which tells Python on its way out that the filters have changed
        pass


_ALL_OF = slice(None)


def _read_context() -> tuple[Any, ...]:
    context = decimal.getcontext()
    flags = {kind for kind, raised in context.flags.items() if raised}
    traps = {kind for kind, caught in context.traps.items() if caught}
    return context.prec, context.rounding, context.Emin, context.Emax, context.capitals, context.clamp, flags, traps


def _write_context(before: tuple[Any, ...]) -> None:
    prec, rounding, low, high, capitals, clamp, flags, traps = before
    decimal.setcontext(decimal.Context(prec, rounding, low, high, capitals, clamp, list(flags), list(traps)))


def _told(library: str, getter: str, setter: str) -> _Setting:
    """What a library is told by one function and tells by another; both by their names below the library."""

    def read() -> Any:
        return attrgetter(getter)(sys.modules[library])()

    def write(before: Any) -> Any:
        return attrgetter(setter)(sys.modules[library])(before)

    return _Setting(read, write, library)


def _switch(name: str) -> _Setting:
    """An attribute of one of torch's modules."""
    owner, _, attribute = name.rpartition(".")

    def write(before: Any) -> None:
        setattr(attrgetter(owner)(sys.modules["torch"]), attribute, before)

    return _Setting(lambda: attrgetter(name)(sys.modules["torch"]), write, "torch")


def _autocast(device: str) -> _Setting:
    def read() -> tuple[Any, ...]:
        torch = sys.modules["torch"]
        return torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)

    def write(before: tuple[Any, ...]) -> None:
        torch = sys.modules["torch"]
        torch.set_autocast_enabled(device, before[0])
        torch.set_autocast_dtype(device, before[1])

    return _Setting(read, write, "torch")


def _read_determinism() -> tuple[bool, bool]:
    torch = sys.modules["torch"]
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _write_determinism(before: tuple[bool, bool]) -> None:
    sys.modules["torch"].use_deterministic_algorithms(before[0], warn_only=before[1])


def _read_anomalies() -> tuple[bool, bool]:
    torch = sys.modules["torch"]
    return torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()


def _write_anomalies(before: tuple[bool, bool]) -> None:
    sys.modules["torch"].autograd.set_detect_anomaly(*before)


def _write_device(before: Any) -> None:
    torch = sys.modules["torch"]
    torch.set_default_device(None if before == torch.device("cpu") else before)


def _write_tracing(before: tuple[Any, Any]) -> None:
    sys.settrace(before[0])
    sys.setprofile(before[1])


def _read_module_hooks() -> tuple[int, ...]:
    modules = sys.modules["torch"].nn.modules.module
    return tuple(len(value) for name, value in sorted(vars(modules).items()) if name.startswith("_global_"))


def _write_hooks(before: tuple[Any, Any]) -> None:
    sys.excepthook, threading.excepthook = before


def _write_collector(before: tuple[bool, tuple[int, int, int]]) -> None:
    gc.set_threshold(*before[1])
    (gc.enable if before[0] else gc.disable)()


_LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]


def _read_limits() -> list[tuple[int, int]]:
    return [resource.getrlimit(number) for number in _LIMITS]


def _write_limits(before: list[tuple[int, int]]) -> None:
    for number, limits in zip(_LIMITS, before, strict=True):
        if resource.getrlimit(number) != limits:
            resource.setrlimit(number, limits)


def _write_flushing(before: bool) -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(before)


_TINY = sys.float_info.min
_HALF_ULP = sys.float_info.epsilon / 2

_ALL: dict[str, _Setting] = {
    "working folder": _Setting(os.getcwd, os.chdir),
    "environment": _Setting(lambda: dict(os.environ), _write_environment),
    "mask of new files": _Setting(_read_umask, os.umask),
    "streams": _Setting(_streams.read, _streams.put_back),
    "signal handlers": _Setting(_read_handlers, _write_handlers),
    "timers": _Setting(_read_timers, _write_timers),
    "warnings filters": _Setting(lambda: list(warnings.filters), _write_filters),
    "way to show warnings": _Setting(lambda: warnings.showwarning, partial(setattr, warnings, "showwarning")),
    "ways to show exceptions": _Setting(lambda: (sys.excepthook, threading.excepthook), _write_hooks),
    "signal mask": _Setting(
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()), partial(signal.pthread_sigmask, signal.SIG_SETMASK)
    ),
    "resource limits": _Setting(_read_limits, _write_limits),
    "priority": _Setting(partial(os.nice, 0), lambda before: None),
    "cores": _Setting(
        lambda: hasattr(os, "sched_getaffinity") and os.sched_getaffinity(0),
        lambda before: os.sched_setaffinity(0, before),
    ),
    "rounding": _Setting(lambda: (1.0 + _HALF_ULP, -1.0 - _HALF_ULP, 1.0 - _HALF_ULP), lambda before: None),
    "recursion limit": _Setting(sys.getrecursionlimit, sys.setrecursionlimit),
    "search path of modules": _Setting(
        lambda: list(sys.path), lambda before: operator.setitem(sys.path, _ALL_OF, before)
    ),
    "arguments": _Setting(lambda: list(sys.argv), lambda before: operator.setitem(sys.argv, _ALL_OF, before)),
    "decimal context": _Setting(_read_context, _write_context),
    "locale": _Setting(partial(locale.setlocale, locale.LC_ALL), partial(locale.setlocale, locale.LC_ALL)),
    "garbage collector": _Setting(lambda: (gc.isenabled(), gc.get_threshold()), _write_collector),
    "longest whole number in text": _Setting(sys.get_int_max_str_digits, sys.set_int_max_str_digits),
    "stack of new threads": _Setting(threading.stack_size, threading.stack_size),
    "finders of modules": _Setting(
        lambda: list(sys.meta_path), lambda before: operator.setitem(sys.meta_path, _ALL_OF, before)
    ),
    "temporary folder": _Setting(lambda: tempfile.tempdir, partial(setattr, tempfile, "tempdir")),
    "way to start processes": _Setting(
        partial(multiprocessing.get_start_method, allow_none=True),
        partial(multiprocessing.set_start_method, force=True),
    ),
    "timeout of sockets": _Setting(
        lambda: sys.modules["socket"].getdefaulttimeout(),
        lambda before: sys.modules["socket"].setdefaulttimeout(before),
        "socket",
    ),
    "tracing": _Setting(lambda: (sys.gettrace(), sys.getprofile()), _write_tracing),
    "flushing of tiny numbers": _Setting(lambda: _TINY / 2 == 0.0, _write_flushing),
    "numpy error state": _Setting(
        lambda: sys.modules["numpy"].geterr(), lambda before: sys.modules["numpy"].seterr(**before), "numpy"
    ),
    "numpy buffer": _told("numpy", "getbufsize", "setbufsize"),
    "numpy generator": _Setting(
        lambda: sys.modules["numpy.random"].get_bit_generator(),
        lambda before: sys.modules["numpy.random"].set_bit_generator(before),
        "numpy.random",
    ),
    "numpy error call": _told("numpy", "geterrcall", "seterrcall"),
    "numpy print options": _Setting(
        lambda: sys.modules["numpy"].get_printoptions(),
        lambda before: sys.modules["numpy"].set_printoptions(**before),
        "numpy",
    ),
    "torch default dtype": _told("torch", "get_default_dtype", "set_default_dtype"),
    "torch default device": _Setting(lambda: sys.modules["torch"].get_default_device(), _write_device, "torch"),
    "torch grad mode": _told("torch", "is_grad_enabled", "set_grad_enabled"),
    # It can only be left by the one who entered it: a process that has not is not used again.
    "torch inference mode": _Setting(
        lambda: sys.modules["torch"].is_inference_mode_enabled(), lambda before: None, "torch"
    ),
    "torch anomaly detection": _Setting(_read_anomalies, _write_anomalies, "torch"),
    "torch determinism": _Setting(_read_determinism, _write_determinism, "torch"),
    "torch memory that is not filled": _switch("utils.deterministic.fill_uninitialized_memory"),
    "torch threads": _told("torch", "get_num_threads", "set_num_threads"),
    "torch matmul precision": _told("torch", "get_float32_matmul_precision", "set_float32_matmul_precision"),
    "torch matmul in TF32": _switch("backends.cuda.matmul.allow_tf32"),
    "torch sums in half precision": _switch("backends.cuda.matmul.allow_fp16_reduced_precision_reduction"),
    "torch sums in bfloat16": _switch("backends.cuda.matmul.allow_bf16_reduced_precision_reduction"),
    "torch fast path of transformers": _told(
        "torch", "backends.mha.get_fastpath_enabled", "backends.mha.set_fastpath_enabled"
    ),
    "torch warnings": _told("torch", "is_warn_always_enabled", "set_warn_always"),
    "torch hooks of all modules": _Setting(_read_module_hooks, lambda before: None, "torch"),
    "torch hooks of saved tensors": _Setting(
        lambda: sys.modules["torch"]._C._autograd._top_saved_tensors_default_hooks(True),
        lambda before: None,
        "torch",
    ),
    "torch mkldnn": _Setting(
        lambda: sys.modules["torch"].backends.mkldnn.enabled,
        lambda before: sys.modules["torch"].backends.mkldnn.set_flags(before),
        "torch",
    ),
    **{f"torch autocast on {device}": _autocast(device) for device in ("cpu", "cuda")},
    **{
        f"torch cuDNN {name}": _switch(f"backends.cudnn.{name}")
        for name in ("enabled", "benchmark", "deterministic", "allow_tf32")
    },
    **{
        f"torch {name} attention": _told(
            "torch", f"backends.cuda.{name}_sdp_enabled", f"backends.cuda.enable_{name}_sdp"
        )
        for name in ("flash", "mem_efficient", "math", "cudnn")
    },
}
