"""What is watched while a model trains, whatever the trainer: entropies, ranks, dormant units, effective rates."""

from __future__ import annotations

import inspect
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from holdfast.errors import ArgumentError, MissingExtraError, count_of
from holdfast.nn.attention.call import AttentionCall, full_precision
from holdfast.nn.attention.statistics import row_statistics
from holdfast.optim.rewarming.effective_lr import EffectiveLR
from holdfast.probes.plasticity.activations import layer_metrics, record
from holdfast.probes.replaced_attention import attention_replaced, model_attention, model_implementation


class WatchWarning(UserWarning):
    """A part is left out of what is watched."""


def watch_once(model: nn.Module, inputs: Any, *, attention: bool = True) -> dict[str, float]:
    """Entropy of attention, rank of features and dormant units of a model on a batch.

    The model runs once more in evaluation mode without gradients, and is left as it was found.

    - `entropy/<layer>/mean`, `/max` and `/min`: over heads; a head's is the mean of H / ln n over its rows, with n the
      number of visible keys: 1 spreads evenly, 0 sees one key. Rows of padding and with fewer than two keys are left
      out.
    - `rank/<layer>`: the effective rank of the features behind an activation function, at most the number of rows.
    - `dormant/<layer>`: share of dormant units.

    Arguments:
        model: any module that takes the batch.
        inputs: as `holdfast.probes.plasticity.record` takes them.
        attention: whether to measure attention, which takes a model of transformers.
    """
    entropies: dict[str, float] = {}
    with ExitStack() as stack:
        if attention:
            stack.enter_context(_entropies(model, inputs, entropies))
        kept = record(model, inputs)
    numbers = dict(entropies)
    for name, layer in kept.items():
        metrics = layer_metrics(layer)
        numbers[f"rank/{name}"] = metrics.effective_rank
        numbers[f"dormant/{name}"] = metrics.dormant
    return numbers


@contextmanager
def _entropies(model: nn.Module, inputs: Any, into: dict[str, float]) -> Iterator[None]:
    """Have a model's attention tell its entropies."""
    implementation = model_implementation(model)
    names = {id(module): name for name, module in model.named_modules()}
    mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None

    def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, hidden: Tensor | None, **options: Any) -> Any:
        with full_precision(query.device):
            rows = row_statistics(AttentionCall.of_transformers(module, query, key, None, hidden, **options))
        counted = rows.visible > 1
        if isinstance(mask, Tensor) and tuple(mask.shape) == (query.shape[0], query.shape[2]):
            counted = counted & mask.bool()[:, None]
        share = (rows.entropy / rows.visible.clamp(min=2).log()).double().masked_fill(~counted, 0.0)
        heads = share.sum((0, 2)) / counted.sum((0, 2))
        name = names.get(id(module), type(module).__name__)
        for part, number in (("mean", heads.mean()), ("max", heads.max()), ("min", heads.min())):
            into[f"entropy/{name}/{part}"] = float(number)
        return model_attention(module, implementation)(module, query, key, value, hidden, **options)

    with attention_replaced(model, attend, implementation):
        yield


class Watch:
    """Measures at every N-th step, from a batch that the training itself has used.

    Arguments:
        model: the module that the training calls.
        optimizer: see `holdfast.optim.rewarming.hooks.real_optimizer`.
        every: N.
        rows: of the batch that are measured, drawn anew each time without a change of any random state.
        running: a context in which the model runs, such as one of autocast.

    Errors:
        ArgumentError: a number is below 1, or the optimiser holds no layer of the model.
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
        self._attention = self._has_attention()
        self._elr = EffectiveLR(model, optimizer, every=every)
        self._inputs: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self._due, self._warned, self._done = False, False, 0
        self._hook: RemovableHandle | None = model.register_forward_pre_hook(self._keep, with_kwargs=True)
        self._since = time.perf_counter()

    def _has_attention(self) -> bool:
        config = getattr(self.model, "config", None)
        try:
            model_implementation(self.model)
            reason = "an encoder with a decoder" if getattr(config, "is_encoder_decoder", False) else None
        except (ArgumentError, MissingExtraError) as error:
            reason = str(error)
        if reason is not None:
            warnings.warn(f"entropies of attention are left out: {reason}", WatchWarning, stacklevel=4)
        return reason is None

    def _keep(self, module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        if self._due and self._inputs is None and torch.is_grad_enabled():
            self._inputs = (args, dict(options))

    def before_step(self, done: int) -> None:
        """Say that a step begins, of which so many are done; to be called once or more before each.

        Arguments:
            done: steps that were made, in this training and those that it resumes.
        """
        self._elr.load_state_dict({"steps": done})
        self._done = done
        self._due = (done + 1) % self.every == 0

    def after_step(self, done: int) -> dict[str, float]:
        """The measurements if this step was one to measure at, else nothing.

        Arguments:
            done: steps with this one.

        Returns:
            What `watch_once` tells, `elr/<layer>` of `EffectiveLR`, and `cost`: seconds of measuring divided by those
            of all steps since the last time without them, as a clock has them; what the copy of the weights before the
            step costs counts as training.
        """
        if not self._due or done == self._done:  # gradients may still be summed up
            return {}
        self._due = False
        _wait(self.model)
        start = time.perf_counter()
        numbers: dict[str, float] = {}
        if self._inputs is not None:
            args, options = self._inputs
            self._inputs = None
            with self._running():
                numbers = watch_once(self.model, self._rows(args, options, done), attention=self._attention)
        elif not self._warned:
            self._warned = True
            words = "features and attention are left out: the training does not call the watched module"
            warnings.warn(words, WatchWarning, stacklevel=3)
        if self._elr.steps == done:  # not where a scaler left the step out
            numbers |= {name: number for name, number in self._elr.last.items() if name.startswith("elr/")}
        end = time.perf_counter()
        training = start - self._since
        numbers["cost"] = (end - start) / training
        self._since = end
        return numbers

    def _rows(self, args: tuple[Any, ...], options: dict[str, Any], seed: int) -> Any:
        """Some rows of all that has as many as the first tensor."""
        tensors = [value for value in (*args, *options.values()) if isinstance(value, Tensor) and value.ndim]
        count = len(tensors[0]) if tensors else 0
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(count, generator=generator)[: self.rows].sort().values

        def some(value: Any) -> Any:
            fits = isinstance(value, Tensor) and value.ndim and len(value) == count
            return value.detach()[chosen.to(value.device)] if fits else value

        if args and options:  # what comes by its place has a name in the signature
            options = {**inspect.signature(self.model.forward).bind_partial(*args).arguments, **options}
        return {name: some(value) for name, value in options.items()} if options else tuple(map(some, args))

    def remove(self) -> None:
        """Take all hooks away."""
        self._elr.remove()
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
        self._inputs = None


def _wait(model: nn.Module) -> None:
    """Until a GPU has done what was asked of it, which belongs to the training."""
    parameter = next(model.parameters(), None)
    if parameter is not None and parameter.is_cuda:
        torch.cuda.synchronize(parameter.device)
