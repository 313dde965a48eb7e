"""What is watched while a model trains, whatever the trainer, and what it costs."""

from __future__ import annotations

import inspect
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from holdfast.errors import ArgumentError, MissingExtraError, count_of
from holdfast.optim.rewarming.effective_lr import EffectiveLR, UnknownOptimizerWarning
from holdfast.optim.rewarming.layers import layers_of, unwrapped
from holdfast.probes.replaced_attention import model_implementation
from holdfast.probes.watch.measures import watch_once
from holdfast.probes.watch.ranks import WeightRanks
from holdfast.probes.watch.rows import sampled


class WatchWarning(UserWarning):
    """A part is left out of what is watched."""


class Watch:
    """Measures at every N-th step, from a batch that the training itself has used.

    Arguments:
        model: the module that the training calls, with what wraps it.
        optimizer: see `holdfast.optim.rewarming.hooks.real_optimizer`; or several by name.
        every: N.
        rows: of the batch that are measured, drawn anew each time without a change of any random state.
        running: a context in which the model runs, such as one of autocast.

    Errors:
        ArgumentError: a number is below 1, or no optimiser holds a layer of the model.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: object,
        *,
        every: int = 100,
        rows: int = 16,
        running: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.every, self.rows = count_of("every", every, 1), count_of("rows", rows, 1)
        self.model, self._running = model, running
        self._plain = unwrapped(model)
        self._features, self._attention = True, self._has_attention()
        self._rates = self._rates_of(optimizer)
        trained = {id(parameter) for rates in self._rates.values() for parameter in _held(rates)}
        self._weights = WeightRanks(layer for layer in layers_of(model) if id(layer.parameter) in trained)
        self._forward = getattr(model, "forward", None)
        self._inputs: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self._due, self._done = False, 0
        self._hook: RemovableHandle | None = model.register_forward_pre_hook(self._keep, prepend=True, with_kwargs=True)
        self._began: float | None = None
        self._training, self._measuring, self._within = 0.0, 0.0, 0.0  # seconds; the last are in both others

    def _has_attention(self) -> bool:
        config = getattr(self._plain, "config", None)
        try:
            model_implementation(self._plain)
            reason = "an encoder with a decoder" if getattr(config, "is_encoder_decoder", False) else None
        except (ArgumentError, MissingExtraError) as error:
            reason = str(error)
        if reason is not None and any("attention" in type(module).__name__.lower() for module in self._plain.modules()):
            _warn(f"entropies of attention are left out: {reason}")
        return reason is None

    def _rates_of(self, optimizer: object) -> dict[str, _Rates]:
        """What measures the rates, by the prefix of their names."""
        if not isinstance(optimizer, Mapping):
            return {"": _Rates(self, optimizer)}
        rates, refusal = {}, None
        for name, single in optimizer.items():
            try:
                rates[f"{name}/"] = _Rates(self, single)
            except ArgumentError as error:  # one of other layers
                refusal = error
        if not rates:
            raise refusal or ArgumentError("optimizer", "one or several", "none")
        return rates

    def _keep(self, module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Keep some rows of the first batch of a step that is measured."""
        if torch.compiler.is_compiling():  # inside of a graph, which must stay as it is
            return
        if not (self._due and self._features and self._inputs is None and torch.is_grad_enabled()):
            return
        if self.model.forward != self._forward:  # Lightning leads `training_step` through it, for DDP
            return
        with self.counting():
            try:
                self._inputs = sampled((args, dict(options)), self.rows, self._done + 1)
            except Exception as error:
                self._give_up(error)

    def before_step(self, done: int) -> None:
        """Say that a step begins, of which so many are done; to be called once or more before each.

        Arguments:
            done: steps that were made, in this training and those that it resumes.
        """
        self._done = done
        if self._began is None:
            self._began = time.perf_counter()
        if not self._due and (done + 1) % self.every == 0:
            self._due = True
            for rates in self._rates.values():
                rates.arm()

    def after_step(self, done: int) -> dict[str, float]:
        """The measurements if this step was one to measure at, else nothing.

        Arguments:
            done: steps with this one; as many as before it: it is not over, gradients are still summed up.

        Returns:
            What `watch_once` tells, `elr/<layer>` of `EffectiveLR`, what `WeightRanks` tells, and `cost`, seconds of
            measuring divided by those of the training's steps without them, since the last time and as a clock has
            them. With optimisers by name it is `elr/<name>/<layer>`, of the first step that each makes in this one; of
            one that makes none there is nothing.
        """
        if self._due and done != self._done:
            _wait(self.model)  # for what a GPU has yet to do for the training
        if self._began is not None:
            self._training += time.perf_counter() - self._began
            self._began = None
        if not self._due or done == self._done:
            return {}
        self._due = False
        numbers: dict[str, float] = {}
        with self.counting():
            numbers |= self._look()
            for prefix, rates in self._rates.items():
                numbers |= {name.replace("elr/", f"elr/{prefix}", 1): number for name, number in rates.take().items()}
            numbers |= self._weights.measure(done // self.every)
        training = self._training - self._within
        numbers["cost"] = self._measuring / training if training > 0 else math.nan
        self._training, self._measuring, self._within = 0.0, 0.0, 0.0
        return numbers

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what runs inside as measuring, in the next `cost`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - start
            self._measuring += took
            if self._began is not None:
                self._within += took

    def _look(self) -> dict[str, float]:
        """What the kept rows tell; without them, and where the model cannot take them alone, nothing."""
        if not self._features:
            return {}
        if self._inputs is None:
            self._features = False
            _warn(
                "features and attention are left out: the training does not call the watched module, or calls it in "
                "compiled code"
            )
            return {}
        (args, options), self._inputs = self._inputs, None
        try:
            if args and options:  # what comes by its place has a name in the signature
                options = {**inspect.signature(self._plain.forward).bind_partial(*args).arguments, **options}
            return watch_once(self.model, options or args, attention=self._attention, running=self._running)
        except Exception as error:  # of a model of others, whose training is to go on
            self._give_up(error)
            return {}

    def _give_up(self, error: Exception) -> None:
        """Leave out what has failed: attention first, and where it fails without it, the features too."""
        words = f"{type(error).__name__}: {error}"
        if self._attention:
            self._attention = False
            _warn(f"entropies of attention are left out: on some rows of a batch the model raises {words}")
        else:
            self._features = False
            _warn(f"features are left out: on some rows of a batch the model raises {words}")

    def remove(self) -> None:
        """Take all hooks away."""
        for rates in self._rates.values():
            rates.remove()
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
        self._inputs = None


class _Rates(EffectiveLR):
    """Measures one step of an optimiser whenever it is armed, and counts what that takes."""

    def __init__(self, watch: Watch, optimizer: object) -> None:
        self._watch, self._armed = watch, False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnknownOptimizerWarning)  # of a rate that is not watched
            super().__init__(watch.model, optimizer, every=1)

    def arm(self) -> None:
        """Measure the next step that is made."""
        self._armed, self._last = True, {}

    def before_step(self) -> None:
        """Keep the weights if this step is to be measured."""
        if self._armed:
            _wait(self._watch.model)
            with self._watch.counting():
                super().before_step()
                _wait(self._watch.model)

    def after_step(self) -> None:
        """Measure."""
        if not self._armed:
            return
        before = self.steps
        _wait(self._watch.model)
        with self._watch.counting():
            super().after_step()
            _wait(self._watch.model)
        self._armed = self.steps == before
        if not self._armed:
            self._before = {}

    def take(self) -> dict[str, float]:
        """What was measured; nothing without a step, or of one that a scaler left out."""
        self._armed, self._before = False, {}
        return {name: number for name, number in self.last.items() if name.startswith("elr/")}


def _held(rates: EffectiveLR) -> list[nn.Parameter]:
    return [parameter for group in rates.optimizer.param_groups for parameter in group["params"]]


def _warn(words: str) -> None:
    warnings.warn(words, WatchWarning, stacklevel=2)


def _wait(model: nn.Module) -> None:
    """Until a GPU has done what was asked of it, which belongs to the training."""
    parameter = next(model.parameters(), None)
    if parameter is not None and parameter.is_cuda:
        torch.cuda.synchronize(parameter.device)
