"""Shows a training run to a person: a bar with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from types import TracebackType


class Progress:
    """Steps, losses, the pace and the time left, on standard error. Use it as a context manager around the training.

    Arguments:
        unit: of the losses.
        per_step: of `things` in a step, all processes together.
        things: what is counted, such as tokens.
        wanted: whether to show anything.
    """

    def __init__(self, unit: str, per_step: int, things: str, *, wanted: bool = True) -> None:
        self._unit, self._per_step, self._things, self._wanted = unit, per_step, things, wanted
        self._live = wanted and sys.stderr.isatty()
        self._begun = (0.0, 0)
        self._told: dict[str, float] = {}

    def __enter__(self) -> Progress:
        if self._live:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.fields[text]}"), BarColumn(bar_width=20), TimeRemainingColumn())
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("training", total=None, text="training")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._bar.stop()

    def begin(self, step: int) -> None:
        """Note when and where it begins."""
        self._begun = (time.monotonic(), step)

    def tell(self, **losses: float) -> None:
        """Keep the last losses, by name."""
        self._told |= losses

    def move(self, step: int, steps: int) -> None:
        """Move the bar."""
        if self._live:
            self._bar.update(self._task, total=steps, completed=step, text=self._text(step, steps))

    def line(self, step: int, steps: int) -> None:
        """Write a line where there is no bar."""
        if self._wanted and not self._live:
            with contextlib.suppress(BrokenPipeError):
                print(f"{self._text(step, steps)}{self._left(step, steps)}", file=sys.stderr, flush=True)

    def _text(self, step: int, steps: int) -> str:
        words = [f"step {step}/{steps}"]
        if self._told:
            words.append(", ".join(f"{name} {value:.3f}" for name, value in self._told.items()) + f" {self._unit}")
        pace = self._pace(step)
        return ", ".join([*words, f"{pace * self._per_step:,.0f} {self._things}/s"] if pace else words)

    def _left(self, step: int, steps: int) -> str:
        pace = self._pace(step)
        if not pace or step == steps:
            return ""
        minutes, seconds = divmod(round((steps - step) / pace), 60)
        return f", {minutes} min {seconds} s left"

    def _pace(self, step: int) -> float:
        """Steps a second since this process began."""
        start, first = self._begun
        elapsed = time.monotonic() - start
        return (step - first) / elapsed if elapsed > 0 else 0.0
