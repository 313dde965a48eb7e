"""Does the checks one after another, cheapest and most telling first, within a budget; what is finished is kept."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from holdfast import __version__
from holdfast.card import checks
from holdfast.card.card import Card, Subject, finding_from_dict, finding_to_dict
from holdfast.card.checks.check import Check
from holdfast.card.finding import MEASURED, Finding, Outcome
from holdfast.card.settings import CheckSettings
from holdfast.card.target import Kind, Target
from holdfast.card.words import line
from holdfast.errors import ArgumentError, HoldfastError, MissingExtraError
from holdfast.lab import files
from holdfast.lab.environment import environment

LEAST_S = 1.0
"""No probe starts with less time than this."""


AGAIN_S = 1.0
"""An alarm that a target swallowed is repeated after as long."""

MOST_ALARMS = 10
"""A target that swallows as many does not let itself be stopped."""


@dataclass(frozen=True)
class Step:
    """A probe that begins.

    Arguments:
        number: which one it is, from 1.
        total: how many there are.
        check: the probe.
        kept: whether its finding is that of an earlier check.
    """

    number: int
    total: int
    check: Check
    kept: bool

    def __str__(self) -> str:
        """Return a line for people."""
        what = "kept from an earlier check; --fresh measures anew" if self.kept else self.check.question
        return f"[{self.number}/{self.total}] {self.check.name}: {what}"


class OutOfTime(BaseException):
    """The time of a probe is over. No handler of ordinary errors stops it on its way."""


def check_targets(
    targets: Sequence[Target],
    settings: CheckSettings,
    *,
    probes: Sequence[str] = (),
    store: Path | None = None,
    fresh: bool = False,
    tell: Callable[[Step], None] = lambda step: None,
    command: str = "",
    last: Callable[[], None] | None = None,
) -> Card:
    """Put every question that applies to each target.

    Arguments:
        targets: what to check.
        settings: of the check.
        probes: only these; all unless given.
        store: a folder for finished findings, from which the same check goes on; `None`: nothing is kept.
        fresh: whether to measure anew what is there.
        tell: called for each probe that begins.
        command: what does the same again.
        last: called where a target does not let itself be stopped; see `within`.

    Errors:
        ArgumentError: the store cannot be made.
    """
    if store is not None:
        try:
            store.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArgumentError("store", "a folder that can be written", f"{store} ({error})") from error
    started = time.monotonic()
    chosen = [check for check in checks.CHECKS if not probes or check.name in probes]
    # Each target's probes, the cheapest of all first: where the budget ends, most questions have an answer.
    waiting = sorted(
        ((target, check) for target in targets for check in chosen if not check.unfit(target, settings)),
        key=lambda pair: pair[1].seconds,
    )
    found: dict[tuple[int, str], Finding] = {}
    for number, (target, check) in enumerate(waiting, 1):
        left = settings.budget_s - (time.monotonic() - started)
        # What cannot be told from another of its name is measured anew.
        path = None if store is None or not target.identity else store / f"{key_of(target, check, settings)}.json"
        finding = None if path is None or fresh else _kept(path)
        tell(Step(number, len(waiting), check, finding is not None))
        if finding is None:
            share = left * check.seconds / sum(other.seconds for _, other in waiting[number - 1 :])
            finding = _ask(check, target, settings, max(share, min(left, LEAST_S)) if left >= LEAST_S else 0.0, last)
            if path is not None and finding.outcome in MEASURED:
                _keep(path, finding)
        found[id(target), check.name] = finding
    subjects = [
        Subject(
            target.name,
            target.kind,
            target.identity,
            tuple(
                found.get((id(target), check.name))
                or Finding(check.name, check.question, Outcome.INAPPLICABLE, check.unfit(target, settings))
                for check in chosen
            ),
        )
        for target in targets
    ]
    return Card(
        tuple(subjects),
        command,
        _plain(settings),
        environment(),
        time.monotonic() - started,
    )


def _ask(
    check: Check, target: Target, settings: CheckSettings, seconds: float, last: Callable[[], None] | None
) -> Finding:
    """The answer of one probe; whatever goes wrong with it is told, and the others go on."""
    started = time.monotonic()

    def not_run(why: str) -> Finding:
        spent = time.monotonic() - started
        return Finding(check.name, check.question, Outcome.NOT_RUN, why, seconds=spent)

    if seconds <= 0:
        return not_run(f"no time was left of {settings.budget_s:g} s")
    if target.kind is Kind.FUNCTION:
        target = dataclasses.replace(target, subject=_in_this_process(target.subject))
    try:
        with within(seconds, last), _place_and_memory_kept(limited=settings.device == "cpu"):
            finding = check.probe(target, settings, seconds)
    except OutOfTime:
        return not_run(f"not finished within its {seconds:.0f} s: a longer --budget gives it more")
    except MissingExtraError as error:
        return not_run(str(error))
    except HoldfastError as error:
        return not_run(line(error))
    except (Exception, SystemExit) as error:
        # The model is the user's, and anything may be wrong with it.
        return not_run(f"{type(error).__name__}: {line(error, 200)}")
    return dataclasses.replace(finding, seconds=time.monotonic() - started)


def _in_this_process(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function after which only this process goes on: it may have made others, which would make the card again."""
    here = os.getpid()

    @functools.wraps(function)
    def asked(*given: Any) -> Any:
        try:
            return function(*given)
        finally:
            if os.getpid() != here:
                os._exit(0)

    return asked


@contextmanager
def _place_and_memory_kept(*, limited: bool) -> Iterator[None]:
    """Go back to the folder that it began in; and let what asks for more memory than there is fail by itself.

    Arguments:
        limited: not on a GPU, whose driver reserves more addresses than the machine has memory.
    """
    place, process, limit = os.getcwd(), os.getpid(), _limit_memory() if limited else None
    try:
        yield
    finally:
        if os.getpid() != process:
            os._exit(0)
        with suppress(OSError):
            os.chdir(place)
        if limit is not None:
            import resource

            resource.setrlimit(resource.RLIMIT_DATA, limit)


def _limit_memory() -> tuple[int, int] | None:
    """Limit this process to what it has and what is free, and return the limit before; `None`: it cannot be told.

    Linux would end the process for more, without a word.
    """
    try:
        import resource

        free = _kilobytes("/proc/meminfo", "MemAvailable")
        had = _kilobytes("/proc/self/status", "VmData")
        before = resource.getrlimit(resource.RLIMIT_DATA)
        most = 1024 * (had + free)
        if before[0] == resource.RLIM_INFINITY or most < before[0]:
            resource.setrlimit(resource.RLIMIT_DATA, (most, before[1]))
    except (ImportError, AttributeError, OSError, ValueError, StopIteration):
        return None
    return before


def _kilobytes(file: str, entry: str) -> int:
    lines = Path(file).read_text("utf-8").splitlines()
    return int(next(words for words in lines if words.startswith(f"{entry}:")).split()[1])


@contextmanager
def within(seconds: float, last: Callable[[], None] | None = None) -> Iterator[None]:
    """Stop what runs inside after some time, where this is the main thread: other threads have no alarm.

    Arguments:
        seconds: the time.
        last: called where what runs inside swallows every alarm: it may end the process.

    Errors:
        OutOfTime: the time is over.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    running, alarms = True, 0

    def over(number: int, frame: FrameType | None) -> None:
        nonlocal alarms
        if running:
            alarms += 1
            if alarms > MOST_ALARMS and last is not None:
                last()
            raise OutOfTime

    def unheard(told: Any) -> None:
        """An alarm in the midst of a clean-up reaches nobody, and comes again: there is nothing to tell of it."""
        if told.exc_type is not OutOfTime:
            hook(told)

    hook = sys.unraisablehook
    sys.unraisablehook = unheard
    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_S)
    try:
        yield
    finally:
        running = False
        sys.unraisablehook = hook
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def key_of(target: Target, check: Check, settings: CheckSettings) -> str:
    """What a finding is kept under: it changes with the target, the settings and the version."""
    # The budget among the settings: with a longer one probes measure more, and what was not told may be.
    plain = _plain(settings)
    read = {name: _content(getattr(settings, name)) for name in plain}
    document = {"identity": target.identity, "name": target.name, "probe": check.name, "version": __version__, **plain}
    document["content"] = {name: content for name, content in read.items() if content}
    return f"{check.name}-{files.checksum(files.to_bytes(document))[:16]}"


def _content(value: Any) -> str:
    """The checksum of a setting's file, or of the file that its function stands in; empty where there is none."""
    if callable(value):
        try:
            value = Path(inspect.getfile(value))
        except TypeError:
            return ""
    try:
        return files.checksum(files.read(value)) if isinstance(value, Path) else ""
    except OSError:
        return ""


def _plain(settings: CheckSettings) -> dict[str, Any]:
    """The settings as JSON data: functions by name."""
    shown = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if callable(value):
            value = f"{value.__module__}:{getattr(value, '__qualname__', type(value).__name__)}"
        shown[field.name] = str(value) if isinstance(value, Path) else value
    return shown


def _kept(path: Path) -> Finding | None:
    """A finding of an earlier try; one that is damaged is measured anew."""
    try:
        return finding_from_dict(files.unseal(files.read(path)))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(path: Path, finding: Finding) -> None:
    temporary = path.with_suffix(".tmp")
    with suppress(OSError):  # a full disk costs the finding's copy, and not the finding
        files.write(temporary, files.seal(finding_to_dict(finding)))
        temporary.replace(path)
