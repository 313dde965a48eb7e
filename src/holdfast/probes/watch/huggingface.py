"""The cheap probes in the log of the Trainer of Hugging Face."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.errors import count_of, require
from holdfast.optim.rewarming.layers import unwrapped
from holdfast.probes.watch.watching import Watch

if TYPE_CHECKING:
    from transformers.trainer import Trainer
    from transformers.trainer_callback import TrainerCallback, TrainerControl, TrainerState
    from transformers.training_args import TrainingArguments
else:
    _callback = require("transformers.trainer_callback", "hf")
    TrainerCallback, TrainerControl = _callback.TrainerCallback, _callback.TrainerControl
    TrainerState = _callback.TrainerState
    TrainingArguments = require("transformers.training_args", "hf").TrainingArguments
    Trainer = require("transformers.trainer", "hf").Trainer


class HoldfastCallback(TrainerCallback):
    """Logs what `Watch` measures at every N-th step, under `holdfast/`; it keeps no state, so a training may resume.

    ```python
    trainer.add_callback(HoldfastCallback(trainer, every=100))
    ```

    Arguments:
        trainer: into whose log it writes, and from there to TensorBoard and others.
        every: N.
        rows: of a batch that are measured.

    What logging takes counts in the next `cost`.

    Errors:
        ArgumentError: a number is below 1; when the training begins: the optimiser holds no layer of the model.
    """

    def __init__(self, trainer: Trainer, *, every: int = 100, rows: int = 16) -> None:
        self.trainer = trainer
        self.every, self.rows = count_of("every", every, 1), count_of("rows", rows, 1)
        self.watch: Watch | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin to watch."""
        if self.watch is not None:  # of a training that an error ended
            self.watch.remove()
        model, wrapped = kwargs["model"], self.trainer.model_wrapped
        if unwrapped(wrapped) is unwrapped(model):  # a hook inside of compiled code would see nothing
            model = wrapped
        self.watch = Watch(model, kwargs["optimizer"], every=self.every, rows=self.rows)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say that a step begins."""
        assert self.watch is not None
        self.watch.before_step(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure and log."""
        assert self.watch is not None
        numbers = self.watch.after_step(state.global_step)
        if numbers:
            wanted = control.should_log
            with self.watch.counting():
                self.trainer.log({f"holdfast/{name}": number for name, number in numbers.items()})
            control.should_log = wanted  # a log ends the wish for one, and that was for the loss

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take all hooks away."""
        if self.watch is not None:
            self.watch.remove()
            self.watch = None
