"""Shows a training run to a person: a bar with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from types import TracebackType
from typing import Any

from transformers import TrainerCallback

from holdfast.models.language.corpus import Corpus


class TrainingProgress(TrainerCallback):
    """Steps, bits per byte, tokens a second and the time left, on standard error.

    Use it as a context manager around the training.

    Arguments:
        corpus: tells losses in bits per byte.
        tokens_per_step: of all processes together.
        wanted: whether to show anything.
    """

    def __init__(self, corpus: Corpus, tokens_per_step: int, *, wanted: bool = True) -> None:
        self._corpus, self._tokens_per_step, self._wanted = corpus, tokens_per_step, wanted
        self._live = wanted and sys.stderr.isatty()
        self._begun = (0.0, 0)
        self._told: dict[str, float] = {}

    def __enter__(self) -> TrainingProgress:
        if self._live:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.fields[text]}"), BarColumn(bar_width=20), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("training", total=None, text="training")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._bar.stop()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note when and where it begins."""
        self._begun = (time.monotonic(), state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the bar."""
        if self._live:
            text = self._text(state)
            self._bar.update(self._task, total=state.max_steps, completed=state.global_step, text=text)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep the last bits per byte."""
        logs = kwargs["logs"]
        if "loss" in logs:
            self._told["training"] = self._corpus.train.bits_per_byte(logs["loss"])
        if "eval_loss" in logs:
            self._told["validation"] = self._corpus.validation.bits_per_byte(logs["eval_loss"])

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write a line where there is no bar."""
        if self._wanted and not self._live:
            with contextlib.suppress(BrokenPipeError):
                print(f"{self._text(state)}{self._left(state)}", file=sys.stderr, flush=True)

    def _text(self, state: Any) -> str:
        words = [f"step {state.global_step}/{state.max_steps}"]
        if self._told:
            words.append(", ".join(f"{name} {value:.3f}" for name, value in self._told.items()) + " bits/byte")
        pace = self._pace(state)
        return ", ".join([*words, f"{pace * self._tokens_per_step:,.0f} tokens/s"] if pace else words)

    def _left(self, state: Any) -> str:
        pace, steps = self._pace(state), state.max_steps - state.global_step
        if not pace or not steps:
            return ""
        minutes, seconds = divmod(round(steps / pace), 60)
        return f", {minutes} min {seconds} s left"

    def _pace(self, state: Any) -> float:
        """Steps a second since this process began."""
        start, first = self._begun
        elapsed = time.monotonic() - start
        return (state.global_step - first) / elapsed if elapsed > 0 else 0.0
