"""Parts that act around every step of an optimiser, by hooks on the real `torch.optim.Optimizer`.

Torch keeps a step's hooks on the optimiser object alone: neither its `state_dict`, nor a deep copy, nor a pickle has
them. A part remembers its optimiser instead, and attaches itself again wherever both are copied or pickled together.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor
from torch.optim import Optimizer

from holdfast.errors import ArgumentError

MEASURE, CHANGE, PROJECT = 0, 10, 20
"""Ranks of parts, in the order in which they act after a step: what the optimiser did is measured before others change
weights, and norms are put back last."""


def real_optimizer(optimizer: object) -> Optimizer:
    """The optimiser whose `step` changes the weights.

    Arguments:
        optimizer: of torch, or a wrapper that keeps one as `.optimizer` and has no hooks of its own (Accelerate's).

    Errors:
        ArgumentError: it is no optimiser of torch and holds none.
    """
    inner: Any = optimizer
    while inner is not None:
        if isinstance(inner, Optimizer) and hasattr(inner, "_optimizer_step_post_hooks"):
            return inner
        inner = getattr(inner, "optimizer", None)
    raise ArgumentError(
        "optimizer", "a torch.optim.Optimizer, or a wrapper with one as `.optimizer`", type(optimizer).__name__
    )


def skipped(optimizer: Optimizer) -> Tensor | None:
    """Whether this step changes nothing, since a `GradScaler` found a gradient that is not finite.

    A scaler does not call the step of most optimisers then, and no hook runs. It does call fused ones, whose kernel
    skips by itself; only there can a hook run without a change of weights.

    Returns:
        A number on the device of the scaler, above 0 if skipped; `None` if no scaler steers this step.
    """
    inf: Tensor | None = getattr(optimizer, "found_inf", None)
    return inf


class StepPart:
    """Something that acts before and after each step of an optimiser.

    A subclass fills in `before_step` and `after_step`, and calls `super().__init__(optimizer)` last, or calls `attach`.

    Hooks stay where they are through `load_state_dict`, groups of parameters that are added, schedulers and a
    `GradScaler`. A step that a scaler leaves out runs no hook, but see `skipped`. A part that is deep-copied or pickled
    in one piece with its optimiser, as in `copy.deepcopy((model, optimizer, part))`, is attached to the copy.

    Arguments:
        optimizer: whose steps; see `real_optimizer`.
    """

    rank: ClassVar[int] = CHANGE
    """Parts of one optimiser act in ascending order, equal ones as they were attached."""

    def __init__(self, optimizer: object) -> None:
        self.optimizer = real_optimizer(optimizer)
        self.attach()

    def before_step(self) -> None:
        """Called when a step begins, before its closure."""

    def after_step(self) -> None:
        """Called when the optimiser has changed the weights."""

    def attach(self) -> None:
        """Act from now on; nothing happens if it does already."""
        line = _line(self.optimizer)
        if line is None:
            line = _Line(self.optimizer)
        if self not in line.parts:
            line.parts = sorted([*line.parts, self], key=lambda part: part.rank)

    def remove(self) -> None:
        """Act no longer; `attach` undoes it."""
        line = _line(self.optimizer)
        if line is not None and self in line.parts:
            line.parts.remove(self)
            if not line.parts:
                line.remove()

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled, with a note whether to attach again."""
        return {**self.__dict__, "_attached": self in attached(self.optimizer)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Back from a copy or a pickle."""
        attach = state.pop("_attached")
        self.__dict__.update(state)
        if attach:
            self.attach()


def attached(optimizer: object) -> tuple[StepPart, ...]:
    """The parts that act around the steps of an optimiser, in their order; none for one that was copied alone.

    Arguments:
        optimizer: see `real_optimizer`.
    """
    line = _line(real_optimizer(optimizer))
    return () if line is None else tuple(line.parts)


class _Line:
    """The parts of one optimiser in their order: torch would run them in that of their attachment."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.parts: list[StepPart] = []
        self.handles = (
            optimizer.register_step_pre_hook(self.before),
            optimizer.register_step_post_hook(self.after),
        )

    def before(self, *_: object) -> None:
        for part in tuple(self.parts):
            part.before_step()

    def after(self, *_: object) -> None:
        for part in tuple(self.parts):
            part.after_step()

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


def _line(optimizer: Optimizer) -> _Line | None:
    """Found among the hooks that torch will really call, so that it is never there without them."""
    for hook in optimizer._optimizer_step_post_hooks.values():
        line = getattr(hook, "__self__", None)
        if isinstance(line, _Line):
            return line
    return None
