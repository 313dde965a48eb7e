"""`holdfast probe solutions`: the fingerprint of a network of one's own, and two of them side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from holdfast.cli.parsing import OK, Device, ExplainedOptions, OptionalTarget, device_named, refuse_given
from holdfast.cli.probes.plasticity import call_user, check_network, function_of
from holdfast.errors import ArgumentError, HoldfastError, count_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from holdfast.probes.solutions import Fingerprint, SolutionSettings

DEMONSTRATION = "demo"

FLAGS = {
    "model": "TARGET",
    "sharpness": "--no-sharpness",
    "examples": "--data",
    "targets": "--data",
    "tests": "--tasks",
}
FLAGS |= {"sharpness": "--no-sharpness", **{name: f"--{name}" for name in ("initial", "snapshots", "loss", "head")}}
"""What the arguments of the probe are called here."""

NEEDED = {"checkpoint": "a file with its weights", "data": "a function that returns a loader, or inputs and targets"}
"""What there must be for a network of one's own."""


@dataclass(frozen=True)
class SolutionsProbe(ExplainedOptions):
    """Tell which solution an optimiser has found: ranks, sparsity, sharpness, what is forgotten and conserved."""

    target: OptionalTarget = None
    """A function without arguments that makes a network, as file.py:name or module:name; or demo, for a small one that
    SGD has taught pairs of digits in a few seconds. With --compare there is none."""
    checkpoint: Path | None = None
    """The network's weights: a state_dict that torch.save wrote, or a dict with one in it; or a file of safetensors."""
    initial: Path | None = None
    """Its weights before training, for all that is said of changes."""
    snapshots: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE ...")] = ()
    """Its weights after each task, in order; the last are those of the checkpoint. Needs --initial."""
    weights: str | None = None
    """Where in these files the weights are, with dots; unless given, the usual places are looked at."""
    data: str | None = None
    """A function without arguments that returns a DataLoader, or inputs and classes, with all classes in it; as
    file.py:name or module:name."""
    tasks: str | None = None
    """A function without arguments that returns for each task a DataLoader, or inputs and classes; as file.py:name.
    Needs --snapshots."""
    compare: Annotated[tuple[Path, Path] | None, tyro.conf.arg(metavar="A B")] = None
    """Two files that --json wrote, or two folders of them with a file a seed: the differences with paired intervals."""
    force: bool = False
    """Compare what is forgotten even where the tasks were not learnt."""
    optimizer: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """That of its training, to be noted."""
    setting: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE ...")] = ()
    """Settings of the optimiser, to be noted."""
    run_seed: int | None = None
    """Seed of its training, by which --compare makes pairs."""
    loss: Annotated[str | None, tyro.conf.arg(metavar="FUNCTION")] = None
    """A function from output and targets to the mean loss, as file.py:name; unless given, cross-entropy."""
    head: str | None = None
    """Name of the output layer; the last linear layer that is called unless given."""
    examples: int = 4096
    """Of the probe batch, at most."""
    sharpness: bool = True
    """Whether the Hessian is looked at."""
    seed: int = 0
    """Of what the probe draws."""
    device: Device = "cpu"
    """Where the network runs: cpu, cuda, cuda:1, … or auto."""


COMMON = ("plot", "json", "explain")
"""How any report is shown."""

OF_ONES_OWN = (
    "checkpoint", "initial", "snapshots", "weights", "data", "tasks", "optimizer", "setting", "loss", "head", "device",
)  # fmt: skip
"""Options that the demonstration does not have."""


def run(options: SolutionsProbe) -> int:
    """Probe the network, or compare."""
    count_of("--examples", options.examples, least=2)
    count_of("--seed", options.seed)
    if options.compare is not None:
        if options.target is not None:
            raise ArgumentError("TARGET", "nothing beside --compare", options.target)
        others = {field.name for field in dataclasses.fields(options)} - {"target", "compare", "force"}
        refuse_given(options, sorted(others - set(COMMON)), "a TARGET", "--compare")
        from holdfast.probes.solutions import compare_solutions, read_fingerprints

        first, second = (read_fingerprints(path) for path in options.compare)
        with _in_flags({"first": "--compare", "second": "--compare", "runs": "--compare"}):
            options.show(compare_solutions(first, second, force=options.force))
        return OK
    refuse_given(options, ("force",), "--compare", "a TARGET" if options.target else "none")
    if options.target is None:
        raise ArgumentError("TARGET", "file.py:name or module:name, demo, or --compare A B", "none")
    report = _demonstration(options) if options.target == DEMONSTRATION else _own(options, options.target)
    options.show(report)
    return OK


def _demonstration(options: SolutionsProbe) -> Fingerprint:
    refuse_given(options, OF_ONES_OWN, "a network of your own", DEMONSTRATION)
    from holdfast.probes.solutions import probe_solution
    from holdfast.probes.solutions.demonstration import RATE, digit_pairs, forgetful_run

    run_seed = 0 if options.run_seed is None else count_of("--run-seed", options.run_seed)
    model, learnt = forgetful_run(run_seed)
    tasks, batch = digit_pairs()
    return probe_solution(
        model,
        batch,
        snapshots=learnt.snapshots,
        tests=[task.test for task in tasks],
        optimizer=("SGD", {"lr": RATE}),
        seed=run_seed,
        settings=_settings(options),
    )


def _own(options: SolutionsProbe, target: str) -> Fingerprint:
    from holdfast.probes.plasticity.files import gather
    from holdfast.probes.solutions import probe_solution

    for name, what in NEEDED.items():
        if getattr(options, name) is None:
            raise ArgumentError(f"--{name}", f"{what}, for a network of your own", "none")
    if options.snapshots and options.initial is None:
        raise ArgumentError("--initial", "the weights before the first task, with --snapshots", "none")
    if options.tasks is not None and not options.snapshots:
        raise ArgumentError("--snapshots", "the weights after each task, with --tasks", "none")
    settings, noted = _settings(options), _noted(options)
    factory, device = function_of("TARGET", target), device_named(options.device)
    model = call_user("TARGET", "a function without arguments that returns a network", factory)
    check_network(model)
    assert options.checkpoint is not None
    initial = None if options.initial is None else _state(options, model, "--initial", options.initial)
    snapshots = [_state(options, model, "--snapshots", path) for path in options.snapshots]
    # The last, for what is loaded stays.
    _state(options, model, "--checkpoint", options.checkpoint)
    make = function_of("--data", str(options.data))
    expected = "a function without arguments that returns batches"
    examples = gather(call_user("--data", expected, make), options.examples)
    loss = None if options.loss is None else function_of("--loss", options.loss)
    with _in_flags(FLAGS):
        return probe_solution(
            model.to(device),
            examples,
            initial=initial,
            snapshots=[initial, *snapshots] if initial is not None and snapshots else None,
            tests=_tests(options.tasks) if options.tasks is not None else None,
            optimizer=noted,
            loss=loss,
            head=options.head,
            seed=options.run_seed,
            settings=settings,
        )


def _settings(options: SolutionsProbe) -> SolutionSettings:
    from holdfast.probes.solutions import SolutionSettings

    return SolutionSettings(examples=options.examples, sharpness=options.sharpness, seed=options.seed)


def _noted(options: SolutionsProbe) -> tuple[str, dict[str, Any]] | None:
    """Name and settings of the optimiser."""
    noted: dict[str, Any] = {}
    for word in options.setting:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ArgumentError("--setting", "NAME=VALUE", word)
        try:
            noted[name] = float(value)
        except ValueError:
            noted[name] = value
    if noted and not options.optimizer:
        raise ArgumentError("--optimizer", "given, with --setting", "none")
    return (options.optimizer, noted) if options.optimizer else None


def _state(options: SolutionsProbe, model: nn.Module, flag: str, path: Path) -> dict[str, Tensor]:
    """Load weights into the network, and copy them."""
    from holdfast.probes.plasticity.files import load_weights
    from holdfast.probes.solutions.continual import snapshot

    with _in_flags({"--checkpoint": flag}):
        load_weights(model, path, options.weights)
    return snapshot(model)


def _tests(place: str) -> list[tuple[Any, Tensor]]:
    """Inputs and classes of each task."""
    from holdfast.probes.plasticity.files import gather

    expected = "a function without arguments that returns a list with the batches of each task"
    tasks = call_user("--tasks", expected, function_of("--tasks", place))
    if not isinstance(tasks, Sequence) or isinstance(tasks, str):
        raise ArgumentError("--tasks", expected, f"one that returns {type(tasks).__name__}")
    with _in_flags({"--data": "--tasks"}):
        return [gather(batches, 10**9) for batches in tasks]


@contextmanager
def _in_flags(flags: dict[str, str]) -> Iterator[None]:
    """Errors name what the user typed, and those of the user's own code are one line too."""
    try:
        yield
    except ArgumentError as error:
        raise ArgumentError(flags.get(error.argument, error.argument), error.expected, error.got) from error
    except (HoldfastError, KeyboardInterrupt):
        raise
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        expected = "a network that classifies what --data gives"
        raise ArgumentError("TARGET", expected, f"{type(error).__name__}: {first}") from error
