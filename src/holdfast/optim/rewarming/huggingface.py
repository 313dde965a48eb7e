"""Projection, monitor and re-warming for trainings by the Trainer of Hugging Face, with their state in its checkpoints.

The state is a part of `trainer_state.json`, which the Trainer writes and reads itself: it is there whenever a
checkpoint is, and wherever the training resumes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from holdfast.errors import ArgumentError, require
from holdfast.optim.rewarming.attachments import Attachments, MakeMonitor, MakeProjector, MakeRewarm
from holdfast.optim.rewarming.hooks import real_optimizer
from holdfast.optim.rewarming.schedule import Rewarm

if TYPE_CHECKING:
    from transformers.trainer_callback import ExportableState, TrainerCallback, TrainerControl, TrainerState
    from transformers.training_args import TrainingArguments
else:
    _callback = require("transformers.trainer_callback", "hf")
    ExportableState, TrainerCallback = _callback.ExportableState, _callback.TrainerCallback
    TrainerControl, TrainerState = _callback.TrainerControl, _callback.TrainerState
    TrainingArguments = require("transformers.training_args", "hf").TrainingArguments


class HuggingFaceCallback(TrainerCallback, ExportableState):
    """Attaches to the optimiser of a `transformers.Trainer`.

    ```python
    HuggingFaceCallback(projector=Projector, rewarm=lambda optimizer: Rewarm(optimizer, peak=1e-3, ...))
    ```

    The parts are made when the training begins, and are restored from the checkpoint that it resumes from. The Trainer
    always has a scheduler of its own: with `rewarm` it is overruled, and what is logged as `learning_rate` is the true
    one. A `Rewarm` may be given to the Trainer instead, as the second of its `optimizers`; without `rewarm` this
    callback gives it the losses.

    Arguments:
        projector: makes the projector of the model and the optimiser, such as `Projector` itself; `None` for none.
        monitor: makes the monitor, such as `EffectiveLR` itself.
        rewarm: makes the schedule of the optimiser.
        loss: what a trigger gets. `forward`: the loss in the model's output at each step, the mean over the batches
            whose gradients are summed up, of the first process if there are several. `logged`: that of the Trainer's
            log at each `logging_steps`, which a label smoother or a loss function of one's own needs, since the model
            returns none then.

    Errors:
        ArgumentError: when the training begins: there is nothing to attach, two schedules, or a projector that keeps
            masters, which do not fit into the state of the Trainer; at a step: there is no loss for the trigger.
    """

    def __init__(
        self,
        *,
        projector: MakeProjector | None = None,
        monitor: MakeMonitor | None = None,
        rewarm: MakeRewarm | None = None,
        loss: Literal["forward", "logged"] = "forward",
    ) -> None:
        if loss not in ("forward", "logged"):
            raise ArgumentError("loss", "forward or logged", loss)
        self.attachments = Attachments(projector, monitor, rewarm)
        self.loss = loss
        self._losses: list[Tensor] = []
        self._hook: RemovableHandle | None = None

    @property
    def rewarm(self) -> Rewarm | None:
        """The schedule, once the training has begun."""
        return self.attachments.rewarm

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Attach all parts."""
        model: nn.Module = kwargs["model"]
        scheduler = kwargs["lr_scheduler"]
        # Of a training that resumes, what `state` gave when the checkpoint was written. The Trainer fails to write the
        # next one where there is no entry, since the checkpoint is of a training without this callback.
        entries: dict[str, Any] = state.stateful_callbacks  # type: ignore[assignment]
        entry = entries.setdefault(type(self).__name__, self.state())
        if isinstance(entry, list):
            raise ArgumentError("callbacks", f"one {type(self).__name__}", f"{len(entry)}")
        resumed = state.global_step > 0
        if resumed:
            self.attachments.load_state_dict(entry["attributes"]["parts"])
        existing = scheduler if isinstance(scheduler, Rewarm) else None
        self.attachments.attach(model, real_optimizer(kwargs["optimizer"]), existing, resumed=resumed)
        if self.attachments.projector is not None and self.attachments.projector.keeps_masters:
            raise ArgumentError("projector", "one without masters", "masters=True")
        self._losses.clear()
        rewarm = self.attachments.rewarm
        if self.loss == "forward" and rewarm is not None and rewarm.wants_loss:
            self._hook = model.register_forward_hook(self._take_loss)
        self._show(scheduler)

    def _take_loss(self, module: nn.Module, args: Any, output: Any) -> None:
        if module.training and torch.is_grad_enabled():
            loss = output.get("loss") if isinstance(output, Mapping) else output[0] if output else None
            if isinstance(loss, Tensor) and loss.numel() == 1:
                self._losses.append(loss.detach())

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Overrule what the Trainer's scheduler has written."""
        if self.attachments.rewarm is not None:
            self.attachments.rewarm.apply()
            self._show(kwargs["lr_scheduler"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Tell the schedule the loss."""
        rewarm = self.attachments.rewarm
        if rewarm is None:
            return
        if self._hook is None:
            rewarm.step()
        else:
            self.attachments.hear(torch.stack(self._losses).double().mean() if self._losses else None)
            self._losses.clear()
        self._show(kwargs["lr_scheduler"])

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Tell the schedule the loss in the log."""
        if self.loss == "logged" and self.attachments.rewarm is not None and logs is not None and "loss" in logs:
            self.attachments.hear(float(logs["loss"]))
            self._show(kwargs["lr_scheduler"])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let the optimiser go."""
        self.attachments.detach()
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _show(self, scheduler: Any) -> None:
        """Let the Trainer log our rates: it asks its own scheduler for the last it wrote."""
        rewarm = self.attachments.rewarm
        if rewarm is not None and scheduler is not rewarm:
            scheduler._last_lr = rewarm.get_last_lr()

    def state(self) -> dict[str, Any]:
        """For the Trainer, which writes it into a checkpoint's `trainer_state.json`."""
        return {"args": {}, "attributes": {"parts": self.attachments.state_dict()}}
