"""Parts that change gradients between the backward pass and the step, wherever the backward pass is run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from holdfast.optim.rewarming.hooks import StepPart


class GradientPart(StepPart):
    """Something that changes gradients before an optimiser uses them.

    Where a step is given a closure, as by Lightning and for `torch.optim.LBFGS`, the gradients are computed within the
    step: they are changed behind the closure then, each time that it is called.

    A subclass fills in `change_gradients`, and calls `super().__init__(optimizer)` last.
    """

    _handle: RemovableHandle | None = None

    def change_gradients(self) -> None:
        """Called without gradients recorded when the gradients are there, scaled as `scale` says."""
        raise NotImplementedError

    @property
    def scale(self) -> Tensor | float:
        """What the gradients are multiplied by: 1, unless a `GradScaler` leaves it to a fused optimiser to undo it."""
        scale: Tensor | None = getattr(self.optimizer, "grad_scale", None)
        return 1.0 if scale is None else scale

    def attach(self) -> None:
        """Act from now on; nothing happens if it does already."""
        super().attach()
        if self._handle is None:
            self._handle = self.optimizer.register_step_pre_hook(self._begin)

    def remove(self) -> None:
        """Act no longer; `attach` undoes it."""
        super().remove()
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the handle, which belongs to this optimiser's hooks."""
        return {**super().__getstate__(), "_handle": None}

    def _begin(self, optimizer: Optimizer, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        """Change what is there, or what the closure will make. The optimiser itself is the first of the arguments."""
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            with torch.no_grad():
                self.change_gradients()
            return None
        changed = self._behind(closure)
        if "closure" in kwargs:
            return args, {**kwargs, "closure": changed}
        return (args[0], changed, *args[2:]), kwargs

    def _behind(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        def then_change() -> Any:
            loss = closure()
            with torch.no_grad():
                self.change_gradients()
            return loss

        return then_change
