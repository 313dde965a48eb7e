"""The Trainer of transformers as training needs it: what decays, how loss is measured, which checkpoints are whole."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import default_collate
from transformers import Trainer, TrainerCallback

from holdfast.models.language.corpus import Windows
from holdfast.models.training.loss import check_loss
from holdfast.models.training.run_folder import RunFolder


class LanguageTrainer(Trainer):
    """The Trainer with weight decay on matrices only, and a loss that does not depend on how windows are shared."""

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Names of all matrices, the embedding included."""
        return [name for name, parameter in model.named_parameters() if parameter.ndim >= 2]

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Measure the loss on `eval_dataset`, and tell everybody who listens."""
        windows: Any = self.eval_dataset
        metrics = {"eval_loss": self.mean_loss(windows)}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @torch.no_grad()
    def mean_loss(self, windows: Windows) -> float:
        """Mean loss of all predicted tokens in nats, each window counted once by one of the processes.

        The Trainer's own loop counts some of them twice where the windows cannot be shared evenly.
        """
        size, processes, rank = (
            self.args.per_device_eval_batch_size,
            self.args.world_size,
            self.args.process_index,
        )
        model: Any = self.model
        model.eval()
        total = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        for start in range(0, len(windows), size * processes):
            # A sharded model needs all processes in every round: one that has no window left takes the last again.
            places = range(start + rank * size, start + (rank + 1) * size)
            rows = default_collate([windows[min(place, len(windows) - 1)]["input_ids"] for place in places])
            rows = rows.to(self.args.device)
            with self.accelerator.autocast():
                logits = model(input_ids=rows, use_cache=False).logits
            losses = cross_entropy(logits[:, :-1].float().transpose(1, 2), rows[:, 1:], reduction="none").double()
            counted = torch.tensor([place < len(windows) for place in places], device=rows.device)
            total += torch.stack([losses[counted].sum(), counted.sum() * losses.shape[1]])
        if processes > 1:
            torch.distributed.all_reduce(total)
        return float(total[0] / total[1])


class Keeper(TrainerCallback):
    """Marks checkpoints as whole, and stops a run that has come to nothing.

    Arguments:
        folder: of the run.
        seconds: what the run has taken before.
    """

    def __init__(self, folder: RunFolder, seconds: float) -> None:
        self._folder, self._before, self._start = folder, seconds, time.monotonic()

    @property
    def seconds(self) -> float:
        """What the run has taken, the times before interruptions included."""
        return self._before + time.monotonic() - self._start

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log before a checkpoint: the mean of losses that a curve tells begins anew after it."""
        if control.should_save:
            control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Refuse to go on without a loss."""
        check_loss(kwargs["logs"].get("loss", 0.0), state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mark a checkpoint once all processes have written their part."""
        args.distributed_state.wait_for_everyone()
        if args.distributed_state.is_main_process:
            self._folder.complete(state.global_step, self.seconds)
