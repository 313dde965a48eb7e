"""How fast a network learns something new, beside fresh networks: what a loss of plasticity is.

Everything else that is measured of a network goes along with the loss in some cases and not in others; this is it. The
task is to memorise: the user's own inputs with targets that have nothing to do with them, so that nothing that the
network knows is of help, and nothing that it has forgotten matters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.optim import Optimizer

from holdfast.errors import ArgumentError
from holdfast.probes.plasticity.activations import call

Loss = Callable[[Any, Tensor], Tensor]
"""From a model's output and targets to the mean loss."""

LAST = 25
"""Steps at the end by which it is told whether a run was long enough."""

TOO_SHORT = 0.6
"""A fresh network whose loss is above this share of a constant's by then has not learnt enough to compare with."""


@dataclass(frozen=True, eq=False)
class Task:
    """Something to memorise.

    Arguments:
        inputs: a tensor, or a tuple or a dict of tensors, with examples in the first dimension.
        targets: of the examples.
        batches: places of the examples in each batch.
        loss: from a model's output and targets.
        constant: loss of the best output that is the same for all examples.
    """

    inputs: Any
    targets: Tensor
    batches: Int64[Tensor, "steps batch"]
    loss: Loss
    constant: float


def default_loss(output: Any, targets: Tensor) -> Tensor:
    """Cross-entropy for whole numbers, mean squared error for others.

    Arguments:
        output: a tensor, something with `logits`, or a tuple that begins with a tensor. Classes are in the last
            dimension if all others are those of the targets, and otherwise in the second.
        targets: of the examples; places with a negative class do not count.

    Errors:
        ArgumentError: the shapes do not fit.
    """
    y = tensor_of(output)
    if targets.is_floating_point():
        if y.shape != targets.shape:
            raise ArgumentError("loss", "a function, since output and targets differ in shape", _shapes(y, targets))
        return mse_loss(y, targets)
    if y.shape[:-1] == targets.shape:
        y, targets = y.reshape(-1, y.shape[-1]), targets.flatten()
    elif y.ndim != targets.ndim + 1 or len(y) != len(targets) or y.shape[2:] != targets.shape[1:]:
        raise ArgumentError("loss", "a function, since the output has no dimension of classes", _shapes(y, targets))
    # Whatever the negative number is that marks what does not count.
    return cross_entropy(y, targets.masked_fill(targets < 0, -100))


def tensor_of(output: Any) -> Tensor:
    """The tensor in a model's output.

    Errors:
        ArgumentError: there is none.
    """
    y = getattr(output, "logits", output)
    y = y[0] if isinstance(y, tuple | list) and y else y
    if not isinstance(y, Tensor):
        raise ArgumentError("loss", "a function, for a model that puts out no tensor", type(output).__name__)
    return y


def renewed(targets: Tensor, generator: torch.Generator) -> Tensor:
    """Targets that have nothing to do with the inputs.

    Whole numbers are drawn uniformly from all that there are, except where they are negative, which marks what does not
    count. Other targets change places.

    Arguments:
        targets: of the examples, on the CPU.
        generator: of random numbers.
    """
    if targets.is_floating_point():
        return targets[torch.randperm(len(targets), generator=generator)]
    classes = targets[targets >= 0].unique()
    drawn = classes[torch.randint(len(classes), targets.shape, generator=generator)]
    return torch.where(targets >= 0, drawn, targets)


def batches(examples: int, size: int, steps: int, generator: torch.Generator) -> Int64[Tensor, "steps batch"]:
    """Places of the examples in each batch: all of them in a new order, again and again."""
    size = min(size, examples)
    orders = [torch.randperm(examples, generator=generator) for _ in range(-(-steps * size // examples))]
    return torch.cat(orders)[: steps * size].view(steps, size)


def constant_loss(loss: Loss | None, output: Any, targets: Tensor) -> float:
    """The loss of the best output that is the same for all examples.

    For the default losses ln C and the variance; for others it is searched for.

    Arguments:
        loss: `None` for the default.
        output: a model's, of any examples.
        targets: that were renewed.

    Errors:
        ArgumentError: the loss is not positive, as for a target that is always the same, or cannot be computed.
    """
    if loss is not None:
        found = _searched(loss, output, targets)
    elif targets.is_floating_point():
        found = float((targets.double() - targets.double().mean(0)).square().mean())
    else:
        found = math.log(len(targets[targets >= 0].unique()))
    if not (found > 0 and math.isfinite(found)):
        expected = "targets that no constant fits, so that there is something to learn"
        raise ArgumentError("examples", expected, f"a loss of {found:.3g} without learning")
    return found


def learn(model: nn.Module, optimizer: Optimizer, task: Task) -> Iterator[float]:
    """Train a network on a task, and yield the loss of each batch before its step.

    A loss that is not finite is yielded as it is, and the training goes on.
    """
    for places in task.batches:
        optimizer.zero_grad()
        loss = task.loss(call(model, select(task.inputs, places)), task.targets[places])
        loss.backward()
        optimizer.step()
        yield float(loss.detach())


def gain(losses: Sequence[float], constant: float) -> float:
    """How far the loss was below that of a constant, on average over all steps; what is above counts as nothing.

    A plain mean of the losses would not do: a network that does not learn at all has about that of a constant, and a
    fresh one begins there.
    """
    return sum(max(0.0, constant - loss) if math.isfinite(loss) else 0.0 for loss in losses) / len(losses)


@dataclass(frozen=True)
class SpeedRatio:
    """Learning speed beside that of fresh networks: 1 is as fast.

    Arguments:
        ratio: gain of the network over the mean gain of its twins, averaged over draws of the task.
        interval: 95 %, over draws and twins.
        rate: learning rate of the network; its twins always learn at the peak rate.
        loss: mean of the last steps as a share of a constant's loss.
        by_draw: the ratio of each draw.
    """

    ratio: float
    interval: tuple[float, float]
    rate: float
    loss: float
    by_draw: tuple[float, ...]


def speed_ratio(
    gains: Float[Tensor, " draws"], twins: Float[Tensor, "draws twins"], *, rate: float, loss: float
) -> SpeedRatio:
    """The ratio with Student's interval, from the spread over draws and that over twins.

    Arguments:
        gains: of the network, by draw.
        twins: of the twins.
        rate: learning rate of the network.
        loss: mean of the network's last losses as a share of a constant's.
    """
    from scipy.stats import t

    of_draws = gains / twins.mean(1)
    ratio = float(of_draws.mean())
    draws, number = twins.shape
    low = high = math.nan
    if min(draws, number) > 1:
        of_twins = twins.mean(0) / twins.mean()
        variance = float(of_draws.var()) / draws + ratio**2 * float(of_twins.var()) / number
        half = float(t.ppf(0.975, min(draws, number) - 1)) * math.sqrt(variance)
        low, high = max(0.0, ratio - half), ratio + half
    return SpeedRatio(ratio, (low, high), rate, loss, tuple(of_draws.tolist()))


def select(inputs: Any, places: Tensor | slice) -> Any:
    """Some of the examples."""
    if isinstance(inputs, Mapping):
        return {name: tensor[places] for name, tensor in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(tensor[places] for tensor in inputs)
    return inputs[places]


def moved(inputs: Any, device: torch.device) -> Any:
    """All examples on a device."""
    if isinstance(inputs, Mapping):
        return {name: tensor.to(device) for name, tensor in inputs.items()}
    return tuple(tensor.to(device) for tensor in inputs) if isinstance(inputs, tuple) else inputs.to(device)


def count(inputs: Any) -> int:
    """How many examples there are.

    Errors:
        ArgumentError: there is no tensor, or tensors differ in length.
    """
    tensors = list(
        inputs.values() if isinstance(inputs, Mapping) else inputs if isinstance(inputs, tuple) else (inputs,)
    )
    if not tensors or not all(isinstance(tensor, Tensor) and tensor.ndim for tensor in tensors):
        raise ArgumentError(
            "examples", "inputs that are a tensor, or a tuple or dict of tensors", type(inputs).__name__
        )
    lengths = {len(tensor) for tensor in tensors}
    if len(lengths) > 1:
        raise ArgumentError("examples", "inputs of one length", sorted(lengths))
    return lengths.pop()


def _searched(loss: Loss, output: Any, targets: Tensor) -> float:
    """By gradients, from an output of zeros."""
    y = tensor_of(output)
    constant = torch.zeros_like(y[:1], requires_grad=True)
    search = torch.optim.LBFGS([constant], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        search.zero_grad()
        value = loss(constant.expand(len(targets), *constant.shape[1:]), targets)
        value.backward()
        return value

    search.step(closure)
    with torch.no_grad():
        return float(loss(constant.expand(len(targets), *constant.shape[1:]), targets))


def _shapes(output: Tensor, targets: Tensor) -> str:
    return f"{tuple(output.shape)} and {tuple(targets.shape)}"
