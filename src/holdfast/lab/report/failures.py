"""Failed trials as the page shows them: one of every kind first, the rest counted, so that the page stays readable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.lab.report import text
from holdfast.lab.results import Failure

SHOWN = 100
"""Failed trials that a page shows in full, those of all studies together."""

LOGS = 300_000
"""Bytes that their logs may take on the page."""

_TITLE = 300
_REASON = 500


@dataclass(frozen=True)
class FailedTrial:
    """A failed trial on the page.

    Arguments:
        title: its labels and seeds.
        key: its key in the store.
        reason: why it failed.
        log: the end of its log.
        place: of the log in the store, if it has one.
    """

    title: str
    key: str
    reason: str
    log: str
    place: str


def choose(study: str, failures: Sequence[Failure], studies: int) -> list[FailedTrial]:
    """Those that the page shows: a reason that few trials have does not vanish among many others.

    Arguments:
        study: the study's name.
        failures: its failed trials.
        studies: how many studies share the page's room for failures.
    """
    chosen = various(failures)[: max(1, SHOWN // max(1, studies))]
    room = LOGS // max(1, studies) // max(1, len(chosen))
    return [_shown(study, failure, room) for failure in chosen]


def various(failures: Sequence[Failure]) -> list[Failure]:
    """Failed trials with one of every reason first, then a second of every reason, and so on."""
    before: Counter[str] = Counter()
    order: list[tuple[int, Failure]] = []
    for failure in sorted(failures, key=lambda failure: failure.key):
        order.append((before[failure.reason], failure))
        before[failure.reason] += 1
    order.sort(key=lambda pair: pair[0])
    return [failure for _, failure in order]


def _shown(study: str, failure: Failure, room: int) -> FailedTrial:
    trial = failure.trial
    labels = ", ".join(f"{name} = {value}" for name, value in trial.told_labels.items())
    seeds = f"seed{'s' * (len(trial.seeds) > 1)} {text.ranges(trial.seeds)}"
    return FailedTrial(
        title=text.shorten(text.without_folders(f"{labels}, {seeds}" if labels else seeds), _TITLE),
        key=failure.key,
        reason=text.shorten(text.without_folders(text.clean(failure.reason)), _REASON),
        log=_fitting_tail(failure.log, room),
        place=f"failed/{study}/{failure.key}/log.txt" if failure.log.strip() else "",
    )


def _fitting_tail(log: str, room: int) -> str:
    """The end of a log, in no more bytes of HTML than there is room for."""
    from markupsafe import escape

    limit = text.LOG_LIMIT
    while True:
        tail = text.log_tail(log, limit)
        size = len(escape(tail).encode("utf-8", "replace"))
        if size <= room or limit <= 1:
            return tail
        limit = max(1, limit * room // (size + 1))
