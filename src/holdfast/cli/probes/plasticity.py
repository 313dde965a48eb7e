"""`holdfast probe plasticity`: on a network, weights and data of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from holdfast.cli.parsing import OK, Device, ExplainedOptions, Target, device_named, function_at, refuse_given
from holdfast.errors import ArgumentError, HoldfastError, count_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from holdfast.probes.plasticity import PlasticityReport
    from holdfast.probes.plasticity.training import Project

DEMONSTRATION = "demo"

FLAGS = {"factory": "TARGET", "model": "TARGET", "examples": "--data"}
FLAGS |= {name: f"--{name}" for name in ("optimizer", "peak", "current", "loss")}
"""What the arguments of the probe are called here."""

NEEDED = {
    "checkpoint": "a file with its weights",
    "data": "a function that returns a loader, or inputs and targets",
    "peak": "the highest learning rate of its training",
}
"""What there must be for a network of one's own."""


@dataclass(frozen=True)
class PlasticityProbe(ExplainedOptions):
    """Measure whether your own network can still learn, beside fresh networks of its kind."""

    target: Target
    """A function without arguments that makes a fresh network, as file.py:name or module:name; or demo, for a small
    network that is worn out in a few seconds."""
    checkpoint: Path | None = None
    """The network's weights: a state_dict that torch.save wrote, or a dict with one in it; or a file of safetensors."""
    weights: str | None = None
    """Where in the checkpoint they are, with dots; unless given, the usual places are looked at."""
    data: str | None = None
    """A function without arguments that returns a DataLoader, or inputs and targets; as file.py:name or module:name."""
    peak: float | None = None
    """The highest learning rate of its training."""
    current: float | None = None
    """The learning rate that training has come to; the peak rate unless given."""
    optimizer: Annotated[str, tyro.conf.arg(metavar="NAME")] = "adam"
    """That of its training: adam, adamw, sgd (with momentum 0.9) or rmsprop; or a function from parameters to one, as
    file.py:name."""
    weight_decay: float = 0.0
    """Of adam, adamw, sgd or rmsprop."""
    projected: Literal["no", "hidden", "all"] = "no"
    """Whether the norms of its layers were held in training: of none, of all but the output layer, or of all."""
    loss: Annotated[str | None, tyro.conf.arg(metavar="FUNCTION")] = None
    """A function from output and targets to the mean loss, as file.py:name; unless given, cross-entropy for classes and
    the mean squared error for other targets."""
    steps: int = 250
    """Of each run."""
    batch: int = 64
    """Examples of a step."""
    examples: int = 500
    """That are memorised, at most."""
    draws: int = 3
    """Of new targets."""
    twins: int = 3
    """Fresh networks."""
    seed: int = 0
    """Of everything that is drawn."""
    device: Device = "cpu"
    """Where the networks run: cpu, cuda, cuda:1, … or auto."""


OF_ONES_OWN = ("checkpoint", "weights", "data", "peak", "current", "optimizer", "weight_decay", "loss", "device")
"""Options that the demonstration does not have."""


def run(options: PlasticityProbe) -> int:
    """Probe the network."""
    # What is typed wrong is said before anything is loaded.
    for name, least in (("steps", 25), ("batch", 1), ("examples", 2), ("draws", 1), ("twins", 1), ("seed", 0)):
        count_of(f"--{name}", getattr(options, name), least=least)
    if options.target == DEMONSTRATION:
        report = _demonstration(options)
    else:
        for name, what in NEEDED.items():
            if getattr(options, name) is None and not (name == "peak" and ":" in options.optimizer):
                raise ArgumentError(f"--{name}", f"{what}, for a network of your own", "none")
        report = _own(options)
    options.show(report)
    return OK


def _demonstration(options: PlasticityProbe) -> PlasticityReport:
    refuse_given(options, OF_ONES_OWN, "a network of your own", DEMONSTRATION)
    from holdfast.probes.plasticity.demonstration import fresh_network, worn_network

    model, examples, optimizer = worn_network(options.seed)
    return _probed(options, model, fresh_network, examples, optimizer, None)


def _own(options: PlasticityProbe) -> PlasticityReport:
    from holdfast.probes.plasticity.files import gather, load_weights

    factory = function_at(options.target)
    device = device_named(options.device)
    model = call_user("TARGET", "a function without arguments that returns a network", factory)
    check_network(model)
    assert options.checkpoint is not None
    load_weights(model, options.checkpoint, options.weights)
    make = function_of("--data", str(options.data))
    examples = gather(call_user("--data", "a function without arguments that returns batches", make), options.examples)
    loss = None if options.loss is None else function_of("--loss", options.loss)
    return _probed(options, model.to(device), factory, examples, _optimizer(options), loss)


def _probed(
    options: PlasticityProbe,
    model: nn.Module,
    factory: Callable[[], nn.Module],
    examples: tuple[Any, Tensor],
    optimizer: Any,
    loss: Callable[..., Any] | None,
) -> PlasticityReport:
    from holdfast.probes.plasticity import PlasticitySettings, probe_plasticity

    settings = PlasticitySettings(
        steps=options.steps,
        batch=options.batch,
        examples=options.examples,
        draws=options.draws,
        twins=options.twins,
        seed=options.seed,
    )
    with _in_flags():
        return probe_plasticity(
            model,
            factory,
            examples,
            optimizer=optimizer,
            loss=loss,
            peak=options.peak,
            current=options.current,
            projector=_projector(options.projected),
            settings=settings,
        )


def _optimizer(options: PlasticityProbe) -> Callable[..., Any]:
    """From parameters to an optimiser at the peak rate."""
    from holdfast.probes.plasticity.training import optimizer_named

    if ":" in options.optimizer:
        refuse_given(options, ("weight_decay",), "an optimizer of torch by its name", options.optimizer)
        return function_of("--optimizer", options.optimizer)
    assert options.peak is not None
    with _in_flags():
        return optimizer_named(options.optimizer, options.peak, weight_decay=options.weight_decay)


def _projector(projected: str) -> Project | None:
    from holdfast.optim.rewarming.projection import Projector

    if projected == "no":
        return None
    return partial(Projector, include="all" if projected == "all" else None)


def function_of(flag: str, place: str) -> Callable[..., Any]:
    """A function of the user's, whose errors name the flag."""
    try:
        return function_at(place)
    except ArgumentError as error:
        raise ArgumentError(flag, error.expected, error.got) from error


def call_user(flag: str, expected: str, function: Callable[[], Any]) -> Any:
    """What a function of the user's returns; its errors name the flag, in one line."""
    try:
        return function()
    except (HoldfastError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise ArgumentError(flag, expected, f"{type(error).__name__}: {error}") from error


def check_network(model: object) -> None:
    """Refuse what is no network."""
    from torch import nn

    if not isinstance(model, nn.Module):
        raise ArgumentError(
            "TARGET", "a function that returns a torch.nn.Module", f"one that returns {type(model).__name__}"
        )


@contextmanager
def _in_flags() -> Iterator[None]:
    """Errors name what the user typed, and those of the user's own code are one line too."""
    try:
        yield
    except ArgumentError as error:
        raise ArgumentError(FLAGS.get(error.argument, error.argument), error.expected, error.got) from error
    except (HoldfastError, KeyboardInterrupt):
        raise
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ArgumentError(
            "TARGET", "a network that learns from --data", f"{type(error).__name__}: {first}"
        ) from error
