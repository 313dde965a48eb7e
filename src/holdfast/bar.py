"""A progress bar on a terminal, for a loop that takes longer than people like to wait."""

from __future__ import annotations

import sys
import time
from types import TracebackType

SHOW_AFTER_S = 2.0
"""Seconds before a bar is seen: what is done sooner needs none."""


class Bar:
    """Steps that were taken, with the time that is left; seen after two seconds, and on a terminal only.

    Use it as a context manager, and `advance` it from inside the loop:

        with Bar("steps", 1000) as bar:
            for step in range(1000):
                ...
                bar.advance()

    Arguments:
        title: what is under way.
        expected: steps that it will take, as far as known.
        wanted: whether to show anything at all.
    """

    def __init__(self, title: str, expected: int = 0, *, wanted: bool = True) -> None:
        self.live = wanted and sys.stderr is not None and sys.stderr.isatty()
        """Whether it will be seen, if this takes long."""
        self._title = title
        self._expected = expected
        self._taken = 0
        self._started = time.monotonic()

    def __enter__(self) -> Bar:
        if self.live:
            from rich.console import Console
            from rich.progress import Progress

            self._progress = Progress(console=Console(stderr=True), transient=True)
            self._progress.start()
            self._task = self._progress.add_task(self._title, total=self._expected, visible=False)
        return self

    def advance(self, taken: int = 1, more: int = 0) -> None:
        """Count some steps, and what turned out to be left to do."""
        self._taken += taken
        self._expected += more
        if self.live:
            visible = time.monotonic() - self._started > SHOW_AFTER_S
            total = max(self._expected, self._taken)
            self._progress.update(self._task, completed=self._taken, total=total, visible=visible)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self._progress.stop()
