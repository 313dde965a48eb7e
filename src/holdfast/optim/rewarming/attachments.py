"""What a trainer's callback attaches to its optimiser, saves, and restores: the same for every trainer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from holdfast.errors import ArgumentError
from holdfast.optim.rewarming.effective_lr import EffectiveLR
from holdfast.optim.rewarming.projection import Projector
from holdfast.optim.rewarming.schedule import Rewarm, RewarmWarning

MakeProjector = Callable[[nn.Module, Optimizer], Projector]
MakeMonitor = Callable[[nn.Module, Optimizer], EffectiveLR]
MakeRewarm = Callable[[Optimizer], Rewarm]


class Attachments:
    """A projector, a monitor and a schedule, made when a trainer has its optimiser.

    Arguments:
        projector: makes the projector of a model and its optimiser; `None` for no projection.
        monitor: makes the monitor; `None` for none.
        rewarm: makes the schedule of an optimiser; `None` if the trainer has one already, or for none.
    """

    def __init__(
        self,
        projector: MakeProjector | None = None,
        monitor: MakeMonitor | None = None,
        rewarm: MakeRewarm | None = None,
    ) -> None:
        for name, make in (("projector", projector), ("monitor", monitor), ("rewarm", rewarm)):
            if make is not None and not callable(make):
                takes = "the optimizer" if name == "rewarm" else "the model and the optimizer"
                raise ArgumentError(name, f"a function of {takes}, which makes it", make)
        self.make_projector, self.make_monitor, self.make_rewarm = projector, monitor, rewarm
        self.projector: Projector | None = None
        self.monitor: EffectiveLR | None = None
        self.rewarm: Rewarm | None = None
        self._saved: Mapping[str, Any] | None = None

    def attach(self, model: nn.Module, optimizer: Optimizer, existing: Rewarm | None, *, resumed: bool) -> None:
        """Make all parts, and restore what was saved.

        Arguments:
            model: as the optimiser has it.
            optimizer: the real one.
            existing: the trainer's own schedule, if it is a `Rewarm`: it only gets the losses then, and the trainer
                saves and restores it.
            resumed: whether the training goes on from a checkpoint.

        Errors:
            ArgumentError: there are two schedules, or nothing at all.
        """
        if existing is not None and self.make_rewarm is not None:
            raise ArgumentError("rewarm", "no second schedule beside the trainer's own", "two")
        self.detach()
        if self.make_projector is not None:
            self.projector = self.make_projector(model, optimizer)
        if self.make_monitor is not None:
            self.monitor = self.make_monitor(model, optimizer)
        self.rewarm = existing if self.make_rewarm is None else self.make_rewarm(optimizer)
        if not any((self.projector, self.monitor, self.rewarm)):
            raise ArgumentError("rewarm", "a projector, a monitor or a schedule, or the trainer's own Rewarm", "none")
        if resumed or self._saved is not None:
            self._restore()
        self._saved = None

    def _restore(self) -> None:
        saved = self._saved or {}
        parts = self._own_parts()
        for name, part in parts.items():
            if name in saved:
                part.load_state_dict(saved[name])
        missing = sorted(set(parts) - set(saved))
        if missing:
            text = f"the checkpoint has no state of {', '.join(missing)}, as if the training began now"
            warnings.warn(text, RewarmWarning, stacklevel=4)

    def _own_parts(self) -> dict[str, Any]:
        """The parts that are saved here, by name."""
        rewarm = self.rewarm if self.make_rewarm is not None else None
        parts = {"projector": self.projector, "monitor": self.monitor, "rewarm": rewarm}
        return {name: part for name, part in parts.items() if part is not None}

    def hear(self, loss: float | Tensor | None) -> None:
        """Tell the schedule of a step, and its loss."""
        if self.rewarm is None:
            return
        if loss is None and self.rewarm.wants_loss:
            raise ArgumentError("trigger", "a training that tells its loss", "none in this step's output")
        self.rewarm.step(loss)

    def detach(self) -> None:
        """Act no longer; the parts can still be read and saved."""
        for part in (self.projector, self.monitor):
            if part is not None:
                part.remove()

    def state_dict(self) -> dict[str, Any]:
        """States of the parts by name; what was loaded, as long as there are none."""
        parts = self._own_parts()
        return {name: part.state_dict() for name, part in parts.items()} if parts else dict(self._saved or {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Keep states until the parts are there."""
        self._saved = state
