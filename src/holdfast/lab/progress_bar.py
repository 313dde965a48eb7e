"""Shows a run to a person: a bar a study on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from holdfast.lab.results import Failure
from holdfast.lab.run import Listener
from holdfast.lab.store import Store
from holdfast.lab.trial import Outcome, Trial

_LINE_EVERY_S = 5.0
_KNOWN_AFTER_S = 10.0
"""Before that the time left is not told: workers start, and the first trials are seldom like the others."""
_KNOWN_AFTER_SHARE = 0.1
"""Nor before so much of the work is done."""
_STEADY = 1.5
"""Nor while the pace differs by more than this factor from what it was when half as much was done."""


@dataclass
class _Tally:
    """How far one study is."""

    trials: int
    cost: float
    left_by_seed: Counter[int]
    ended: int = 0
    failed: int = 0
    done_cost: float = 0.0
    computed_cost: float = 0.0
    running: dict[int, float] = field(default_factory=dict)
    paces: list[tuple[float, float]] = field(default_factory=list)
    """How much was computed, and the seconds for one unit of it, at the news since half of it was."""
    metric: str = ""
    started: float = field(default_factory=time.monotonic)
    begun: float | None = None
    """When its first trial began, as far as can be told: studies are computed one after another."""

    @property
    def seeds_done(self) -> int:
        return sum(left == 0 for left in self.left_by_seed.values())

    @property
    def progress(self) -> float:
        return self.done_cost + sum(self.running.values())

    def remaining_s(self) -> float | None:
        """Time left at the pace of the trials computed so far; trials found in the store say nothing about it.

        `None` while too little is done to tell, or the pace is not steady yet: trials of which nobody knew how long
        they take would make it wild.
        """
        computed = self.computed_cost + sum(self.running.values())
        to_compute = self.cost - self.done_cost + self.computed_cost
        elapsed = time.monotonic() - (self.started if self.begun is None else self.begun)
        if not computed:
            return None
        pace = elapsed / computed
        while self.paces and self.paces[-1][0] > computed:  # a trial began again
            self.paces.pop()
        self.paces.append((computed, pace))
        while len(self.paces) > 1 and self.paces[1][0] <= computed / 2:
            self.paces.pop(0)
        if elapsed < _KNOWN_AFTER_S or computed < _KNOWN_AFTER_SHARE * to_compute:
            return None
        half, before = self.paces[0]
        if half > computed / 2 or not before / _STEADY <= pace <= before * _STEADY:
            return None
        return pace * (self.cost - self.progress)

    def __str__(self) -> str:
        text = f"{self.ended}/{self.trials} trials, {self.seeds_done}/{len(self.left_by_seed)} seeds"
        if self.failed:
            text += f", {self.failed} failed"
        return f"{text}, {self.metric}" if self.metric else text


class ProgressBar(Listener):
    """A listener that writes to a stream.

    Use it as a context manager. On a terminal it draws one bar a study with trials and seeds done, the latest metric
    and the time left; elsewhere it writes a plain line now and then.

    Arguments:
        stream: where to write, usually `sys.stderr`.
        store: where logs of failed trials are.
    """

    def __init__(self, stream: IO[str], store: Store | None = None) -> None:
        self._store = store
        self._console = Console(file=stream)
        self._tallies: dict[str, _Tally] = {}
        self._bars: dict[str, TaskID] = {}
        self._step: TaskID | None = None
        self._last_line = 0.0
        self._last_news: float | None = None
        self._live = (
            Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=28),
                TextColumn("{task.fields[text]}", markup=False),
                TimeElapsedColumn(),
                TextColumn("{task.fields[left]}"),
                console=self._console,
            )
            if self._console.is_terminal
            else None
        )

    def __enter__(self) -> ProgressBar:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def planned(self, study: str, trials: Sequence[Trial[Any]]) -> None:
        """Start a bar."""
        left = Counter(seed for trial in trials for seed in trial.seeds)
        self._tallies[study] = tally = _Tally(len(trials), sum(trial.cost for trial in trials), left)
        if self._live is not None:
            self._bars[study] = self._live.add_task(study, total=tally.cost, text=str(tally), left="")

    def reused(self, study: str, trial: Trial[Any]) -> None:
        """Count a trial that was in the store."""
        self._end(study, trial, computed=False)

    def advanced(self, study: str, trial: Trial[Any], fraction: float, metrics: Mapping[str, float]) -> None:
        """Move the bar within a trial."""
        tally = self._tallies[study]
        self._note_begin(tally)
        tally.running[id(trial)] = trial.cost * min(1.0, max(0.0, fraction))
        if metrics:
            name, value = next(iter(metrics.items()))
            tally.metric = f"{name} {value:.3g}"
        self._show(study)

    def finished(self, study: str, trial: Trial[Any], outcome: Outcome) -> None:
        """Count a computed trial and show the first of its numbers that is no label."""
        tally = self._tallies[study]
        for name, value in outcome.records[-1].items():
            if isinstance(value, float) and name not in trial.labels:
                tally.metric = f"{name} {value:.3g}"
                break
        self._end(study, trial, computed=True)

    def failed(self, study: str, failure: Failure) -> None:
        """Count a failed trial, and say why it failed and where its log is."""
        self._tallies[study].failed += 1
        line = f"{study} {failure.trial.title} failed: {failure.reason}"
        if self._store is not None and failure.log.strip():
            line += f" (log: {self._store.log_of(study, failure.key)})"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._end(study, failure.trial, computed=True)

    def judging(self, study: str) -> None:
        """Say whose claims are being judged."""
        self.say(f"judging the claims of {study}")

    def say(self, what: str) -> None:
        """Say what goes on beside the trials: in one place on a terminal, in a line elsewhere."""
        if self._live is None:
            self._console.print(f"{what} …", markup=False, highlight=False, soft_wrap=True)
        elif self._step is None:
            self._step = self._live.add_task(what, total=None, text="", left="")
        else:
            self._live.update(self._step, description=what)

    def _end(self, study: str, trial: Trial[Any], *, computed: bool) -> None:
        tally = self._tallies[study]
        if computed:
            self._note_begin(tally)
        tally.running.pop(id(trial), None)
        tally.ended += 1
        tally.done_cost += trial.cost
        tally.computed_cost += trial.cost * computed
        tally.left_by_seed.subtract(trial.seeds)
        self._show(study)

    def _note_begin(self, tally: _Tally) -> None:
        """The first news of a study come from a trial that began when other studies last had news, or later."""
        if tally.begun is None:
            tally.begun = tally.started if self._last_news is None else self._last_news
        self._last_news = time.monotonic()

    def _show(self, study: str) -> None:
        tally = self._tallies[study]
        remaining_s = tally.remaining_s()
        left = "" if remaining_s is None else f"about {_duration(remaining_s)} left"
        if tally.ended == tally.trials:
            left = "done"
        if self._live is not None:
            self._live.update(self._bars[study], completed=tally.progress, text=str(tally), left=left)
            return
        now = time.monotonic()
        # A log of an hour needs no line every five seconds.
        pause = max(_LINE_EVERY_S, (now - tally.started) / 20)
        if now - self._last_line >= pause or tally.ended == tally.trials:
            self._last_line = now
            line = f"{study}: {tally}{', ' if left else ''}{left}"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
