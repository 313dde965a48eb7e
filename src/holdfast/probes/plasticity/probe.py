"""Whether a network can still learn: its learning speed beside fresh copies, and what goes along with a loss of it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from holdfast.bar import Bar
from holdfast.errors import ArgumentError, count_of
from holdfast.optim.baselines.parameters import named_parameters
from holdfast.optim.rewarming.effective_lr import EffectiveLR, UnknownOptimizerWarning
from holdfast.optim.rewarming.layers import layers_of, unwrapped
from holdfast.probes.plasticity.activations import (
    FeatureChange,
    LayerMetrics,
    LayerOutputs,
    call,
    feature_change,
    layer_metrics,
    record,
)
from holdfast.probes.plasticity.learning_speed import (
    LAST,
    TOO_SHORT,
    Loss,
    SpeedRatio,
    Task,
    batches,
    constant_loss,
    count,
    default_loss,
    gain,
    learn,
    moved,
    renewed,
    select,
    speed_ratio,
)
from holdfast.probes.plasticity.report import ENOUGH, ActivationState, Curves, LayerState, PlasticityReport
from holdfast.probes.plasticity.training import MakeOptimizer, Project, Training
from holdfast.probes.report import evaluating, random_state_kept

FEATURES_OF = 256
"""Examples, at most, that features are looked at for."""

ELR_SAMPLES = 10
"""Steps of a run at which effective learning rates are measured."""


@dataclass(frozen=True)
class PlasticitySettings:
    """How much is measured.

    Arguments:
        steps: of each run.
        batch: examples of a step.
        examples: that are memorised, at most.
        draws: of their targets; at least two for an interval.
        twins: fresh networks; at least two for an interval.
        seed: of everything that is drawn.
        progress: show a bar on a terminal.
    """

    steps: int = 250
    batch: int = 64
    examples: int = 500
    draws: int = 3
    twins: int = 3
    seed: int = 0
    progress: bool = True

    def __post_init__(self) -> None:
        for name, least in (("steps", LAST), ("batch", 1), ("examples", 2), ("draws", 1), ("twins", 1), ("seed", 0)):
            count_of(name, getattr(self, name), least=least)


def probe_plasticity(
    model: nn.Module,
    factory: Callable[[], nn.Module],
    examples: tuple[Any, Any],
    *,
    optimizer: Optimizer | MakeOptimizer,
    loss: Loss | None = None,
    peak: float | None = None,
    current: float | None = None,
    projector: Project | None = None,
    settings: PlasticitySettings | None = None,
) -> PlasticityReport:
    """Measure how fast a network learns something new, beside fresh networks of its kind.

    The task is to memorise new targets for the user's inputs: classes drawn uniformly, or other targets that change
    places. A network's gain is the mean over all steps of max(0, L_0 − loss), where L_0 is the loss of the best
    constant; the ratio is its gain over that of fresh networks, its twins, with the same batches in the same order. It
    is measured at the peak rate; at the current rate, where that is another one; and, where the network is slow at the
    peak rate and its norms were not held, at the peak rate with the norms of its layers put back to those of its
    twins.

    All runs are those of copies. The model is left as it was found: weights, gradients, modes, hooks, random states.
    Hooks of the user's modules run in the copies as well; parts that are attached to the optimiser do not, but for a
    `Projector`.

    Arguments:
        model: that has been trained.
        factory: makes a fresh network of the same kind, each time another one. Random numbers are those of torch's
            global generator, which is seeded before.
        examples: inputs and targets, with examples in the first dimension. Inputs are a tensor, a tuple of arguments or
            a dict of them; targets whole numbers for classes, where negative ones do not count, or numbers.
        optimizer: the user's, whose settings are taken and whose state is not; or a function from parameters to one, at
            the peak rate.
        loss: mean loss from output and targets; `None`: cross-entropy, or the mean squared error.
        peak: the highest learning rate of the training, of the first group of parameters; `None`: what a scheduler of
            torch has noted in the optimiser, or its rate. Name it where a rate was lowered by hand.
        current: the rate that training has come to; `None`: the optimiser's.
        projector: attaches a `Projector` to a network and its optimiser, such as `Projector` itself or a partial of it,
            for a network whose norms were held; `None`: if the user's optimiser has one, one that holds the same.
        settings: how much is measured.

    Returns:
        The report.

    Errors:
        ArgumentError: an argument does not fit; the factory makes networks of another kind, or the model itself; or
            nothing can be learnt from these targets.

    Source: dead and dormant units, ranks and norms: see `holdfast.probes.plasticity`.
    """
    settings = settings or PlasticitySettings()
    plain = unwrapped(model)
    with random_state_kept(), torch.inference_mode(False), torch.enable_grad():
        training = Training(plain, optimizer, peak=peak, current=current, projector=projector)
        runs = _Runs(plain, training, settings)
        runs.twins = [_twin(plain, factory, settings, number) for number in range(settings.twins)]
        runs.tasks = _tasks(plain, examples, loss, settings)
        with Bar(
            "learning speed", settings.steps * settings.draws * (settings.twins + 1), wanted=settings.progress
        ) as bar:
            runs.bar = bar
            return _report(runs)


@dataclass
class _Run:
    """Losses of one network on all draws.

    Arguments:
        losses: as shares of a constant's.
        gains: by draw, as shares of a constant's loss.
        rates: effective learning rates of the first draw, by the names of `EffectiveLR`, averaged.
        before: features before the first draw.
        after: features behind it.
    """

    losses: Float[Tensor, "draws steps"]
    gains: Float[Tensor, " draws"]
    rates: dict[str, float]
    before: dict[str, LayerOutputs]
    after: dict[str, LayerOutputs]

    @property
    def last(self) -> float:
        """Mean of the last steps."""
        return float(self.losses[:, -LAST:].mean())

    @property
    def curve(self) -> tuple[float, ...]:
        """Mean over draws."""
        return tuple(self.losses.mean(0).tolist())

    def ratio(self, twins: list[_Run], rate: float) -> SpeedRatio:
        """Beside fresh networks."""
        return speed_ratio(self.gains, torch.stack([twin.gains for twin in twins], 1), rate=rate, loss=self.last)


@dataclass
class _Runs:
    """What all runs share."""

    model: nn.Module
    training: Training
    settings: PlasticitySettings
    twins: list[nn.Module] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    bar: Bar = field(default_factory=lambda: Bar("", wanted=False))

    def of(self, network: nn.Module, rate: float, *, watched: bool = False) -> _Run:
        """Let copies of a network learn all draws of the task.

        Arguments:
            network: that is copied.
            rate: learning rate.
            watched: whether features and effective learning rates are measured in the first draw.
        """
        losses, rates = [], dict[str, float]()
        before: dict[str, LayerOutputs] = {}
        after: dict[str, LayerOutputs] = {}
        for number, task in enumerate(self.tasks):
            trained = _copy(network).train()
            optimizer = self.training.optimizer(trained, rate)
            look = watched and number == 0
            some = select(task.inputs, slice(FEATURES_OF))
            samples = _sampled(trained, optimizer, len(task.batches) // ELR_SAMPLES) if look else []
            before = record(trained, some) if look else before
            # One state for all networks, so that dropout draws alike.
            torch.manual_seed(self.settings.seed + number)
            losses.append([self._told(value) for value in learn(trained, optimizer, task)])
            after = record(trained, some) if look else after
            if samples:
                rates = {name: sum(one[name] for one in samples) / len(samples) for name in samples[0]}
        gains = [gain(values, task.constant) / task.constant for values, task in zip(losses, self.tasks, strict=True)]
        constants = torch.tensor([task.constant for task in self.tasks], dtype=torch.float64)
        shares = torch.tensor(losses, dtype=torch.float64) / constants[:, None]
        return _Run(shares, torch.tensor(gains, dtype=torch.float64), rates, before, after)

    def _told(self, value: float) -> float:
        self.bar.advance()
        return value

    def more(self) -> None:
        """One more run of all draws turned out to be needed."""
        self.bar.advance(0, self.settings.steps * self.settings.draws)


def _report(runs: _Runs) -> PlasticityReport:
    """Make the runs that are needed, and say what came."""
    training, settings, model = runs.training, runs.settings, runs.model
    fresh = [runs.of(twin, training.peak, watched=number == 0) for number, twin in enumerate(runs.twins)]
    twin_loss = sum(run.last for run in fresh) / len(fresh)
    at_peak = runs.of(model, training.peak, watched=True)
    peak = current = restored = None
    now = back = None
    # A loss that is not finite is not below anything.
    if twin_loss <= TOO_SHORT:
        peak = at_peak.ratio(fresh, training.peak)
        if training.current != training.peak:
            runs.more()
            now = runs.of(model, training.current)
            current = now.ratio(fresh, training.current)
        if peak.ratio < ENOUGH and not training.projected:
            runs.more()
            back = runs.of(_with_norms(model, runs.twins), training.peak)
            restored = back.ratio(fresh, training.peak)
    gains = torch.stack([run.gains for run in fresh], 1).mean(0)
    return PlasticityReport(
        peak=peak,
        current=current,
        restored=restored,
        twins=tuple((gains / gains.mean()).tolist()),
        twin_loss=twin_loss,
        constant=sum(task.constant for task in runs.tasks) / len(runs.tasks),
        projected=training.projected,
        steps=settings.steps,
        examples=len(runs.tasks[0].targets),
        draws=settings.draws,
        layers=_layer_states(runs, at_peak, fresh[0]),
        activations=_activation_states(at_peak, fresh[0], settings.steps),
        elr_spread=at_peak.rates.get("elr/spread", float("nan")),
        elr_spread_fresh=fresh[0].rates.get("elr/spread", float("nan")),
        curves=Curves(
            at_peak.curve,
            None if now is None else now.curve,
            None if back is None else back.curve,
            tuple(run.curve for run in fresh),
        ),
    )


def _tasks(model: nn.Module, examples: tuple[Any, Any], loss: Loss | None, settings: PlasticitySettings) -> list[Task]:
    """A pool of examples, and as many draws of their targets as are wanted."""
    if not isinstance(examples, tuple) or len(examples) != 2 or not isinstance(examples[1], Tensor):
        raise ArgumentError("examples", "a pair of inputs and targets", type(examples).__name__)
    inputs, targets = examples
    number = count(inputs)
    if targets.ndim == 0 or len(targets) != number or number < 2:
        found = f"{number} inputs and targets of shape {tuple(targets.shape)}"
        raise ArgumentError("examples", "at least two inputs and as many targets", found)
    # Places in memory of examples may be on a GPU; what is drawn is drawn on the CPU, alike on all machines.
    generator = torch.Generator().manual_seed(settings.seed)
    pool = torch.randperm(number, generator=generator)[: settings.examples]
    targets = targets.cpu()[pool]
    targets = targets if targets.is_floating_point() else targets.long()
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    inputs = moved(select(moved(inputs, torch.device("cpu")), pool), device)
    with evaluating(model), torch.no_grad():
        output = call(model, select(inputs, slice(2)))
        (loss or default_loss)(output, targets[:2].to(device))
    tasks = []
    for _ in range(settings.draws):
        new = renewed(targets, generator)
        places = batches(len(pool), settings.batch, settings.steps, generator)
        constant = constant_loss(loss, output, new.to(device))
        tasks.append(Task(inputs, new.to(device), places.to(device), loss or default_loss, constant))
    return tasks


def _twin(model: nn.Module, factory: Callable[[], nn.Module], settings: PlasticitySettings, number: int) -> nn.Module:
    """A fresh network, which has the model's parameters by name and shape, and its choice of what is trained."""
    # Large seeds, such as nobody takes for the network that is probed: it may be a fresh one itself.
    seeds = torch.randint(2**62, (number + 1,), generator=torch.Generator().manual_seed(settings.seed))
    torch.manual_seed(int(seeds[-1]))
    made: object = factory()
    if not isinstance(made, nn.Module):
        raise ArgumentError("factory", "a function that returns a network", type(made).__name__)
    twin = unwrapped(made)
    own, fresh = named_parameters(model), named_parameters(twin)
    for name in sorted({*own, *fresh}):
        shapes = [tuple(side[name].shape) if name in side else None for side in (own, fresh)]
        if shapes[0] != shapes[1]:
            expected = f"a network with {name} of shape {shapes[0]}" if shapes[0] else f"a network without {name}"
            raise ArgumentError("factory", expected, f"shape {shapes[1]}" if shapes[1] else "none")
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    twin.to(device)
    if all(torch.equal(parameter, fresh[name].to(parameter.dtype)) for name, parameter in own.items()):
        raise ArgumentError("factory", "a function that makes a fresh network", "one with the weights of the model")
    for name, parameter in own.items():
        fresh[name].data = fresh[name].data.to(parameter.dtype)
        fresh[name].requires_grad_(parameter.requires_grad)
    return twin


def _copy(network: nn.Module) -> nn.Module:
    try:
        copied = copy.deepcopy(network)
    except Exception as error:
        raise ArgumentError("model", "one that can be copied", f"{type(error).__name__}: {error}") from error
    copied.zero_grad(set_to_none=True)
    return copied


@torch.no_grad()
def _with_norms(model: nn.Module, twins: list[nn.Module]) -> nn.Module:
    """A copy whose layers have the mean norms of fresh ones; a layer that is zero, or begins so, keeps its own."""
    restored = _copy(model)
    norms = _norms(twins)
    for layer in layers_of(restored):
        own = float(layer.parameter.norm())
        if own > 0 and norms[layer.name] > 0:
            layer.parameter.mul_(norms[layer.name] / own)
    return restored


@torch.no_grad()
def _norms(twins: list[nn.Module]) -> dict[str, float]:
    """Mean norm of each layer."""
    columns = [{layer.name: float(layer.parameter.norm()) for layer in layers_of(twin)} for twin in twins]
    return {name: sum(column[name] for column in columns) / len(columns) for name in columns[0]}


def _sampled(network: nn.Module, optimizer: Optimizer, every: int) -> list[dict[str, float]]:
    """A list that fills with effective learning rates as the network learns; it stays empty without a layer."""
    samples: list[dict[str, float]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnknownOptimizerWarning)
        try:
            EffectiveLR(network, optimizer, every=every, writers=[lambda values, step: samples.append(values)])
        except ArgumentError:
            return []
    return samples


def _layer_states(runs: _Runs, run: _Run, fresh: _Run) -> dict[str, LayerState]:
    norms, nothing = _norms(runs.twins), float("nan")
    states = {}
    for layer in layers_of(runs.model):
        size, key = float(layer.parameter.detach().norm()), f"elr/{layer.title}"
        ratio = size / norms[layer.name] if norms[layer.name] else nothing
        states[layer.title] = LayerState(size, ratio, run.rates.get(key, nothing), fresh.rates.get(key, nothing))
    return states


def _activation_states(run: _Run, fresh: _Run, steps: int) -> dict[str, ActivationState]:
    """Of activation functions that both networks called, which are alike."""
    metrics: Iterator[dict[str, LayerMetrics]] = (
        {name: layer_metrics(layer) for name, layer in one.before.items()} for one in (run, fresh)
    )
    changes: Iterator[dict[str, FeatureChange]] = (
        feature_change(one.before, one.after, steps=steps) for one in (run, fresh)
    )
    (now, began), (change, change_fresh) = metrics, changes
    return {
        name: ActivationState(now[name], began[name], change[name], change_fresh[name]) for name in now if name in began
    }
