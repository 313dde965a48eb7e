"""Tasks one after the other: a hook for a loop of one's own, and paired runs of several optimisers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from holdfast.errors import ArgumentError, count_of
from holdfast.probes.plasticity.activations import call
from holdfast.probes.plasticity.learning_speed import Loss, batches, count, default_loss, select, tensor_of
from holdfast.probes.report import evaluating, random_state_kept
from holdfast.probes.solutions.retention import RateResult, Retention, retention

State = Mapping[str, Tensor]
"""A `state_dict`."""


class Steps(Protocol):
    """What trains: an optimiser, or a `DirectionSwap`."""

    def step(self) -> Any:
        """Change the weights."""

    def zero_grad(self) -> None:
        """Forget the gradients."""


@dataclass(frozen=True, eq=False)
class ContinualTask:
    """One of the tasks.

    Arguments:
        train: inputs and targets to learn from.
        test: inputs and classes by which accuracy is told.
    """

    train: tuple[Any, Tensor]
    test: tuple[Any, Tensor]


@dataclass(frozen=True)
class Arm:
    """An optimiser with the learning rates to run it at.

    Arguments:
        make: from parameters and a learning rate to something that steps.
        rates: learning rates.
        reset: whether it is made anew at each task, and forgets its state.
    """

    make: Callable[[Iterable[nn.Parameter], float], Steps]
    rates: tuple[float, ...]
    reset: bool = False


@dataclass(frozen=True, eq=False)
class ContinualRun:
    """One network that has learnt all tasks.

    Arguments:
        seed: of weights and batches.
        rate: learning rate.
        accuracies: A[k, j], on task j after task k.
        snapshots: weights before the first task and after each, where they were wanted.
    """

    seed: int
    rate: float
    accuracies: Float[Tensor, "tasks tasks"]
    snapshots: tuple[dict[str, Tensor], ...]

    @property
    def retention(self) -> Retention:
        """What it has kept."""
        return retention(self.accuracies)

    @property
    def result(self) -> RateResult:
        """As one of a sweep."""
        kept = self.retention
        return RateResult(self.rate, kept.learn, kept.old)


class ContinualEvaluation:
    """Looks at a network after each task of anybody's loop, and leaves it as it was.

    Arguments:
        model: that learns.
        tests: inputs and classes of each task.
        snapshots: whether weights are kept, on the CPU, from now on and after each task.
    """

    def __init__(self, model: nn.Module, tests: Sequence[tuple[Any, Tensor]], *, snapshots: bool = True) -> None:
        if len(tests) < 2:
            raise ArgumentError("tests", "those of at least two tasks", f"{len(tests)}")
        self._model, self._tests, self._wanted = model, list(tests), snapshots
        self._rows: list[list[float]] = []
        self.snapshots: list[dict[str, Tensor]] = [snapshot(model)] if snapshots else []

    def after_task(self) -> list[float]:
        """Accuracy on all tasks now.

        Errors:
            ArgumentError: more tasks are over than there are tests.
        """
        if len(self._rows) == len(self._tests):
            raise ArgumentError("after_task", f"{len(self._tests)} calls, one a task", "one more")
        self._rows.append([accuracy(self._model, *test) for test in self._tests])
        if self._wanted:
            self.snapshots.append(snapshot(self._model))
        return self._rows[-1]

    @property
    def accuracies(self) -> Float[Tensor, "tasks tasks"]:
        """A[k, j], on task j after task k; NaN of tasks to come."""
        missing = len(self._tests) - len(self._rows)
        return torch.tensor(self._rows + missing * [[math.nan] * len(self._tests)], dtype=torch.float64)

    @property
    def retention(self) -> Retention:
        """What is kept, when all tasks are over."""
        return retention(self.accuracies)


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def accuracy(model: nn.Module, inputs: Any, targets: Tensor, state: State | None = None) -> float:
    """The share of examples with the right class, in evaluation mode; negative targets do not count.

    Arguments:
        model: that is left as it was.
        inputs: a tensor, a tuple of arguments or a dict of them.
        targets: classes.
        state: weights to run it with; `None`: its own.

    Errors:
        ArgumentError: there is no class to be told.
    """
    with random_state_kept(), evaluating(model), torch.no_grad():
        output = call(model, inputs) if state is None else call_with(model, state, inputs)
    guesses, wanted = rows(tensor_of(output), targets)
    if not len(wanted):
        raise ArgumentError("targets", "at least one class", "none")
    return float((guesses.argmax(1).cpu() == wanted.cpu()).double().mean())


def call_with(model: nn.Module, state: State, inputs: Any) -> Any:
    """What a model makes of its inputs with other weights; those that are not named are its own."""
    if isinstance(inputs, Mapping):
        return functional_call(model, dict(state), (), dict(inputs))
    return functional_call(model, dict(state), inputs if isinstance(inputs, tuple) else (inputs,))


def rows(output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and classes with one row for each target that counts; classes are in the last dimension.

    Errors:
        ArgumentError: targets are no classes, or of another shape than the output without its last dimension.
    """
    if targets.is_floating_point() or output.shape[:-1] != targets.shape:
        found = f"output {tuple(output.shape)} and targets {tuple(targets.shape)} of {targets.dtype}"
        raise ArgumentError("targets", "whole numbers, one for each row of logits", found)
    known = targets >= 0
    return output[known.to(output.device)], targets[known]


def train_paired(
    factory: Callable[[], nn.Module],
    arms: Mapping[str, Arm],
    tasks: Sequence[ContinualTask],
    *,
    seeds: Sequence[int],
    steps: int,
    batch: int = 32,
    loss: Loss | None = None,
    snapshots: bool = False,
) -> dict[str, list[ContinualRun]]:
    """Let several optimisers learn the same tasks; at a seed all begin with the same weights and see the same batches.

    Arguments:
        factory: makes a fresh network from torch's global generator, which is seeded before and kept.
        arms: optimisers by name.
        tasks: in their order.
        seeds: of weights and batches.
        steps: of each task.
        batch: examples of a step.
        loss: mean loss from output and targets; `None`: cross-entropy over all logits.
        snapshots: whether weights are kept.

    Returns:
        Of each arm its runs, by seed and then by rate.
    """
    count_of("steps", steps, least=1)
    count_of("batch", batch, least=1)
    found: dict[str, list[ContinualRun]] = {}
    with random_state_kept(), torch.enable_grad():
        for name, arm in arms.items():
            found[name] = [
                _train(factory, arm, tasks, rate, seed, (steps, batch), loss or default_loss, snapshots)
                for seed in seeds
                for rate in arm.rates
            ]
    return found


def sweeps(runs: Iterable[ContinualRun]) -> dict[int, list[RateResult]]:
    """Runs of one arm by seed, for `compare_matched`."""
    found: dict[int, list[RateResult]] = {}
    for run in runs:
        found.setdefault(run.seed, []).append(run.result)
    return found


def _train(
    factory: Callable[[], nn.Module],
    arm: Arm,
    tasks: Sequence[ContinualTask],
    rate: float,
    seed: int,
    length: tuple[int, int],
    loss: Loss,
    snapshots: bool,
) -> ContinualRun:
    torch.manual_seed(seed)
    model = factory().train()
    optimizer = arm.make(model.parameters(), rate)
    evaluation = ContinualEvaluation(model, [task.test for task in tasks], snapshots=snapshots)
    orders = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # factories may draw unequally; dropout must not
    steps, batch = length
    for number, task in enumerate(tasks):
        if arm.reset and number:
            optimizer = arm.make(model.parameters(), rate)
        inputs, targets = task.train
        for places in batches(count(inputs), batch, steps, orders):
            optimizer.zero_grad()
            loss(call(model, select(inputs, places)), targets[places]).backward()
            optimizer.step()
        evaluation.after_task()
    return ContinualRun(seed, rate, evaluation.accuracies, tuple(evaluation.snapshots))
