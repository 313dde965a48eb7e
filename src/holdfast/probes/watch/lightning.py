"""The cheap probes in the loggers of Lightning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.errors import count_of, require
from holdfast.probes.watch.measures import Watch

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    _lightning = require("lightning.pytorch", "lightning")
    Callback, LightningModule, Trainer = _lightning.Callback, _lightning.LightningModule, _lightning.Trainer


class HoldfastCallback(Callback):
    """Logs what `Watch` measures at every N-th step, under `holdfast/`; it keeps no state, so a training may resume.

    Arguments:
        part: name of the module that `training_step` calls, such as `model` for `self.model(...)`; by default the
            LightningModule itself.
        every: N.
        rows: of a batch that are measured.

    Errors:
        ArgumentError: a number is below 1; when the training begins: the optimiser holds no layer of the module.
        AttributeError: when the training begins: there is no such part.
    """

    def __init__(self, part: str = "", *, every: int = 100, rows: int = 16) -> None:
        self.part = part
        self.every, self.rows = count_of("every", every, 1), count_of("rows", rows, 1)
        self.watch: Watch | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to watch."""
        self.watch = Watch(
            pl_module.get_submodule(self.part),
            trainer.optimizers[0],
            every=self.every,
            rows=self.rows,
            running=trainer.precision_plugin.forward_context,
        )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Say that a step, or a part of one, begins."""
        assert self.watch is not None
        self.watch.before_step(trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure and log."""
        assert self.watch is not None
        numbers = self.watch.after_step(trainer.global_step)
        if numbers:
            for logger in trainer.loggers:
                logger.log_metrics(
                    {f"holdfast/{name}": number for name, number in numbers.items()}, trainer.global_step
                )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take all hooks away."""
        self._end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Likewise where a training breaks off."""
        self._end()

    def _end(self) -> None:
        if self.watch is not None:
            self.watch.remove()
            self.watch = None
