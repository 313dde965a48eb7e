"""The cheap probes in the loggers of Lightning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from holdfast.errors import count_of, require
from holdfast.optim.rewarming.hooks import real_optimizer
from holdfast.probes.watch.watching import Watch

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    _lightning = require("lightning.pytorch", "lightning")
    Callback, LightningModule, Trainer = _lightning.Callback, _lightning.LightningModule, _lightning.Trainer


class HoldfastCallback(Callback):
    """Logs what `Watch` measures at every N-th step, under `holdfast/`; it keeps no state, so a training may resume.

    Several optimisers are watched under the names that Lightning's `LearningRateMonitor` gives them: `elr/Adam/…`,
    `elr/Adam-1/…`. In manual optimisation N counts batches, and a batch after which no optimiser has made a step is
    measured together with the next one that has. What logging takes counts in the next `cost`.

    Arguments:
        part: name of the module that `training_step` calls, such as `model` for `self.model(...)`; by default the
            LightningModule itself.
        every: N.
        rows: of a batch that are measured.

    Errors:
        ArgumentError: a number is below 1; when the training begins: no optimiser holds a layer of the module.
        AttributeError: when the training begins: there is no such part.
    """

    def __init__(self, part: str = "", *, every: int = 100, rows: int = 16) -> None:
        self.part = part
        self.every, self.rows = count_of("every", every, 1), count_of("rows", rows, 1)
        self.watch: Watch | None = None
        self._made = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to watch."""
        self.watch = Watch(
            pl_module.get_submodule(self.part),
            named(trainer.optimizers),
            every=self.every,
            rows=self.rows,
            running=trainer.precision_plugin.forward_context,
        )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Say that a step, or a part of one, begins."""
        assert self.watch is not None
        self._made = trainer.global_step
        self.watch.before_step(_done(trainer, pl_module, 0))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure and log."""
        assert self.watch is not None
        numbers = self.watch.after_step(_done(trainer, pl_module, int(trainer.global_step > self._made)))
        if numbers:
            with self.watch.counting():
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


def named(optimizers: Sequence[object]) -> object:
    """The only optimiser, or each by the name of its class, with a number from the second one of a class on."""
    if len(optimizers) == 1:
        return optimizers[0]
    seen: Counter[str] = Counter()
    names = {}
    for optimizer in optimizers:
        kind = type(real_optimizer(optimizer)).__name__
        names[f"{kind}-{seen[kind]}" if seen[kind] else kind] = optimizer
        seen[kind] += 1
    return names


def _done(trainer: Trainer, module: LightningModule, stepped: int) -> int:
    """Steps that were made; in manual optimisation, where a batch may bring several, the batches."""
    if module.automatic_optimization:
        return trainer.global_step
    return trainer.fit_loop.total_batch_idx + stepped
