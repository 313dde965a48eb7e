"""How far each step turns each layer: the effective learning rate, which decides whether a network can still learn.

The learning rate of an optimiser says little by itself: a layer that a norm follows learns at the rate of its relative
change. Source: arXiv 2507.20057, section 2.3.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from holdfast.errors import ArgumentError, count_of
from holdfast.optim.rewarming.hooks import MEASURE, StepPart, attached, real_optimizer, skipped
from holdfast.optim.rewarming.layers import Layer, layers_of, select
from holdfast.optim.rewarming.shards import alike, exact, local, norms, summed

Writer = Callable[[dict[str, float], int], None]
"""Called with the measurements and the number of the step."""

Family = Literal["gradient", "normalised"]
_NORMALISED = re.compile(
    r"^(Fused|Paged|Distributed)?(Adam|AdamW|NAdam|RAdam|Adamax|AMSGrad|RMSprop|Lion|Muon|SignSGD)(8bit)?$"
)


class UnknownOptimizerWarning(UserWarning):
    """The nominal effective learning rate is not known for this optimiser."""


def family_of(optimizer: Optimizer) -> Family | None:
    """How the update of an optimiser scales with the gradient, by its class or one that it derives from.

    Returns:
        `gradient`: in proportion (SGD, with momentum too); `normalised`: not at all (Adam and its kin, RMSprop, Lion,
        Muon); `None`: not known.
    """
    for kind in type(optimizer).__mro__:
        if kind.__name__ in ("SGD", "ASGD"):
            return "gradient"
        if _NORMALISED.match(kind.__name__):
            return "normalised"
    return None


@dataclass
class _Sample:
    """What one step did, as numbers on the device: a vector entry for each layer."""

    step: int
    titles: tuple[str, ...]
    held: tuple[bool, ...]
    rates: tuple[float | Tensor, ...]
    numbers: dict[str, list[tuple[list[int], Tensor]]]
    skipped: Tensor | None


class EffectiveLR(StepPart):
    """Measures the effective learning rate of every layer at every k-th step of an optimiser.

    For a weight W, its change ΔW by the optimiser, before any projection, and Frobenius norms:

    - `elr/<layer>`: ‖ΔW‖ / ‖W‖, the measured one.
    - `angular/<layer>`: the angle between W and W + ΔW in radians, which leaves out what only changes the norm.
    - `nominal/<layer>`: η / ‖W‖² for SGD, η / ‖W‖ for Adam and its kin; absent for other optimisers.
    - `norm/<layer>`: ‖W‖ before the step.
    - `elr/global`: √Σ‖ΔW‖² / √Σ‖W‖² over the layers that a `Projector` of the optimiser holds; without one over all
      but the output layer.
    - `elr/spread`: the largest measured rate of these layers divided by the smallest that is not 0.

    Nothing is copied from a GPU until somebody asks: a writer, or whoever reads `last`. A sampled step takes memory for
    one more copy of the weights; other steps take none. Weights in bfloat16 are subtracted in float32; an update that
    their rounding swallows was not made, and is measured as 0.

    Arguments:
        model: its layers are measured, so far as the optimiser holds them.
        optimizer: see `hooks.real_optimizer`.
        every: k. Steps that a `GradScaler` leaves out do not count, but those of a fused optimiser on a GPU, which only
            the GPU knows of: they count, and a sample of one is dropped.
        writers: one or several, called with all of this and the number of steps so far, at each sampled step.
        include: names of further parameters to measure; see `layers.select`.

    Errors:
        ArgumentError: `every` is below 1, or the optimiser holds no layer of the model.
    """

    rank = MEASURE

    def __init__(
        self,
        model: nn.Module,
        optimizer: object,
        *,
        every: int = 50,
        writers: Writer | Iterable[Writer] = (),
        include: Iterable[str] | None = None,
    ) -> None:
        self.every = count_of("every", every, least=1)
        self.writers = [writers] if callable(writers) else list(writers)
        self.steps = 0
        """Steps so far."""
        chosen = select(model, include=include)
        known = layers_of(model)
        ids = {id(layer.parameter) for layer in known}
        self.layers = (*known, *(layer for layer in chosen.layers if id(layer.parameter) not in ids))
        self._default = {id(layer.parameter): layer for layer in chosen.layers}
        self._sample: _Sample | None = None
        self._last: dict[str, float] = {}
        self._before: dict[int, Tensor] = {}
        inner = real_optimizer(optimizer)
        self.family = family_of(inner)
        """How the optimiser's updates scale; see `family_of`."""
        if not self._measured(inner):
            raise ArgumentError("optimizer", "one that holds a layer of the model", type(inner).__name__)
        if self.family is None:
            words = f"the nominal effective learning rate of {type(inner).__name__} is not known, and is left out"
            warnings.warn(words, UnknownOptimizerWarning, stacklevel=2)
        super().__init__(inner)

    @property
    def last(self) -> dict[str, float]:
        """The measurements of the last sampled step, empty before the first; reading it waits for a GPU."""
        self._take()
        return dict(self._last)

    def _take(self) -> bool:
        """Read the sample if there is one; whether there was, of a step that was made."""
        sample, self._sample = self._sample, None
        if sample is None or (sample.skipped is not None and float(sample.skipped) > 0):
            return False
        self._last = self._read(sample)
        return True

    def before_step(self) -> None:
        """Keep the weights if this step is to be sampled."""
        if (self.steps + 1) % self.every or _capturing():
            return
        chosen = self._measured(self.optimizer)
        values = [local(layer.parameter) for layer in chosen]
        if [id(layer.parameter) for layer in chosen] != list(self._before):
            self._before = {
                id(layer.parameter): torch.empty_like(value) for layer, value in zip(chosen, values, strict=True)
            }
        torch._foreach_copy_(list(self._before.values()), values)

    def after_step(self) -> None:
        """Measure if this step was sampled."""
        skip = skipped(self.optimizer)
        if _capturing() or (skip is not None and skip.device.type == "cpu" and float(skip) > 0):
            return
        self.steps += 1
        if self.steps % self.every or not self._before:
            return
        chosen = [layer for layer in self._measured(self.optimizer) if id(layer.parameter) in self._before]
        self._sample = self._measure(chosen, skip)
        if self.every > 1:
            self._before = {}
        if self.writers and self._take():
            for writer in self.writers:
                writer(self.last, self.steps)

    def state_dict(self) -> dict[str, Any]:
        """The number of steps so far."""
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state.

        Errors:
            ArgumentError: it is not one of `state_dict`.
        """
        if set(state) != {"steps"}:
            raise ArgumentError("state", "the entry steps", ", ".join(sorted(state)) or "none")
        self.steps = count_of("steps", state["steps"])

    def __getstate__(self) -> dict[str, Any]:
        """Without a sample that is under way: its weights are known by their place in memory."""
        return {**super().__getstate__(), "_before": {}, "_default": list(self._default.values())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """See `StepPart.__setstate__`."""
        super().__setstate__({**state, "_default": {id(layer.parameter): layer for layer in state["_default"]}})

    def _measured(self, optimizer: Optimizer) -> list[Layer]:
        """Layers that the optimiser holds now."""
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        return [layer for layer in self.layers if id(layer.parameter) in held]

    def _measure(self, layers: Sequence[Layer], skip: Tensor | None) -> _Sample:
        """All numbers of a step; the copies of the weights are used up."""
        rates: dict[int, Any] = {
            id(parameter): group["lr"] for group in self.optimizer.param_groups for parameter in group["params"]
        }
        held = self._held()
        numbers: dict[str, list[tuple[list[int], Tensor]]] = {"change": [], "norm": [], "angle": []}
        for places in alike([layer.parameter for layer in layers]).values():
            weights = [layers[place].parameter for place in places]
            after = exact([local(weight) for weight in weights])
            change = exact([self._before[id(weight)] for weight in weights])
            before = norms(weights, change)
            torch._foreach_sub_(change, after)  # W − W'
            size = norms(weights, change)
            length = norms(weights, after)
            # The change along W' and across it. The angle is then as exact as the change, however small; an arc cosine
            # would lose all digits below 1e-3.
            along = -summed(weights, torch.stack([_dot(a, b) for a, b in zip(change, after, strict=True)])) / length
            for part, value, share in zip(change, after, (along / length).unbind(), strict=True):
                part.addcmul_(value, share)
            numbers["change"].append((places, size))
            numbers["norm"].append((places, before))
            numbers["angle"].append((places, torch.atan2(norms(weights, change), length - along)))
        return _Sample(
            step=self.steps,
            titles=tuple(layer.title for layer in layers),
            held=tuple(id(layer.parameter) in held for layer in layers),
            rates=tuple(_kept(rates[id(layer.parameter)]) for layer in layers),
            numbers=numbers,
            skipped=None if skip is None else skip.clone(),
        )

    def _held(self) -> set[int]:
        """The layers that `elr/global` is about."""
        targets = [layer for part in attached(self.optimizer) for layer in getattr(part, "projected", ())]
        return {id(layer.parameter) for layer in targets} or set(self._default)

    def _read(self, sample: _Sample) -> dict[str, float]:
        """Numbers for the host."""
        values = {}
        for name, parts in sample.numbers.items():
            column = [math.nan] * len(sample.titles)
            for places, vector in parts:
                for place, number in zip(places, vector.tolist(), strict=True):
                    column[place] = number
            values[name] = column
        result: dict[str, float] = {}
        measured = [_ratio(change, norm) for change, norm in zip(values["change"], values["norm"], strict=True)]
        for place, title in enumerate(sample.titles):
            norm = values["norm"][place]
            result[f"elr/{title}"] = measured[place]
            result[f"angular/{title}"] = values["angle"][place]
            if self.family is not None:
                result[f"nominal/{title}"] = _ratio(
                    float(sample.rates[place]), norm**2 if self.family == "gradient" else norm
                )
            result[f"norm/{title}"] = norm
        inside = [place for place, held in enumerate(sample.held) if held]
        result["elr/global"] = _ratio(
            math.hypot(*(values["change"][place] for place in inside)),
            math.hypot(*(values["norm"][place] for place in inside)),
        )
        moving = [measured[place] for place in inside if 0 < measured[place] < math.inf]
        result["elr/spread"] = max(moving) / min(moving) if moving else math.nan
        return result


def _dot(a: Tensor, b: Tensor) -> Tensor:
    product: Tensor = torch.linalg.vecdot(a.reshape(-1), b.reshape(-1))
    return product


def _ratio(number: float, size: float) -> float:
    """Not a number where the weight is 0: nothing is known of its direction."""
    return number / size if size else math.nan


def _kept(rate: float | Tensor) -> float | Tensor:
    """A learning rate as it is now; schedulers change tensors in place."""
    return rate.clone() if isinstance(rate, Tensor) else rate


def _capturing() -> bool:
    """Whether a CUDA graph is being recorded, which would measure its recording alone."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
