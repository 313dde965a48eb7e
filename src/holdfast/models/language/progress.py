"""Tells the progress of a training run as the Trainer of transformers meets it."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from holdfast.models.language.corpus import Corpus
from holdfast.models.training.progress import Progress


class TrainingProgress(TrainerCallback):
    """Passes steps and bits per byte on.

    Arguments:
        corpus: tells losses in bits per byte.
        progress: that is shown.
    """

    def __init__(self, corpus: Corpus, progress: Progress) -> None:
        self._corpus, self._progress = corpus, progress

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note when and where it begins."""
        self._progress.begin(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the bar."""
        self._progress.move(state.global_step, state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep the last bits per byte."""
        logs = kwargs["logs"]
        if "loss" in logs:
            self._progress.tell(training=self._corpus.train.bits_per_byte(logs["loss"]))
        if "eval_loss" in logs:
            self._progress.tell(validation=self._corpus.validation.bits_per_byte(logs["eval_loss"]))

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write a line."""
        self._progress.line(state.global_step, state.max_steps)
