"""Projection, monitor and re-warming for trainings by Lightning, with their state in its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from holdfast.errors import ArgumentError, require
from holdfast.optim.rewarming.attachments import Attachments, MakeMonitor, MakeProjector, MakeRewarm
from holdfast.optim.rewarming.schedule import Rewarm

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    _lightning = require("lightning.pytorch", "lightning")
    Callback, LightningModule, Trainer = _lightning.Callback, _lightning.LightningModule, _lightning.Trainer


class LightningCallback(Callback):
    """Attaches to the optimiser of a `lightning.pytorch.Trainer`.

    ```python
    LightningCallback(projector=Projector, rewarm=lambda optimizer: Rewarm(optimizer, peak=1e-3, ...))
    ```

    The parts are made when the training starts, after a checkpoint's weights are there, and are restored from it. After
    each step of the optimiser the schedule gets the loss that `training_step` returned; with several processes that of
    the first. With gradients that are summed up over batches it is the last batch's.

    A `Rewarm` may be returned by `configure_optimizers` instead, so that `LearningRateMonitor` sees it; without
    `rewarm` this callback gives it the losses, whatever its interval.

    Arguments:
        projector: makes the projector of the module and the optimiser, such as `Projector` itself; `None` for none.
        monitor: makes the monitor, such as `EffectiveLR` itself, which then writes to the trainer's loggers too.
        rewarm: makes the schedule of the optimiser. `configure_optimizers` returns none then.
        optimizer: number of the optimiser, in manual optimisation with several.

    Errors:
        ArgumentError: when the training starts: there is nothing to attach, no such optimiser, or a second schedule.
    """

    def __init__(
        self,
        *,
        projector: MakeProjector | None = None,
        monitor: MakeMonitor | None = None,
        rewarm: MakeRewarm | None = None,
        optimizer: int = 0,
    ) -> None:
        self.attachments = Attachments(projector, monitor, rewarm)
        self.optimizer = optimizer

    @property
    def rewarm(self) -> Rewarm | None:
        """The schedule, once the training has started."""
        return self.attachments.rewarm

    @property
    def state_key(self) -> str:
        """Under which a checkpoint keeps the state: one for each optimiser."""
        return self._generate_state_key(optimizer=self.optimizer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach all parts."""
        if not 0 <= self.optimizer < len(trainer.optimizers):
            raise ArgumentError("optimizer", f"a number below {len(trainer.optimizers)}", self.optimizer)
        optimizer = trainer.optimizers[self.optimizer]
        schedulers = [
            config.scheduler for config in trainer.lr_scheduler_configs if config.scheduler.optimizer is optimizer
        ]
        existing = next((scheduler for scheduler in schedulers if isinstance(scheduler, Rewarm)), None)
        if self.attachments.make_rewarm is not None and schedulers:
            kind = type(schedulers[0]).__name__
            raise ArgumentError("rewarm", "no other scheduler from configure_optimizers", kind)
        self.attachments.attach(pl_module, optimizer, existing, resumed=trainer.ckpt_path is not None)

        def write(numbers: dict[str, float], step: int) -> None:
            for logger in trainer.loggers:
                logger.log_metrics(numbers, step)

        if self.attachments.monitor is not None:
            self.attachments.monitor.writers.append(write)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Tell the schedule the loss."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        self.attachments.hear(loss.detach() if isinstance(loss, Tensor) else loss)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the optimiser go."""
        self.attachments.detach()

    def state_dict(self) -> dict[str, Any]:
        """States of the parts, for the checkpoint."""
        return self.attachments.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Those of a checkpoint."""
        self.attachments.load_state_dict(state_dict)
