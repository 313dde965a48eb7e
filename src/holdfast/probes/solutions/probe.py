"""The fingerprint of a solution: which one an optimiser has found."""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer

from holdfast import __version__
from holdfast.errors import ArgumentError, count_of
from holdfast.optim.rewarming.layers import Layer, layers_of, unwrapped
from holdfast.probes.plasticity.learning_speed import Loss, count, default_loss, moved, select
from holdfast.probes.plasticity.metrics import ranks, stable_rank
from holdfast.probes.report import evaluating, random_state_kept
from holdfast.probes.solutions.continual import State, accuracy, call_with
from holdfast.probes.solutions.curvature import TOLERANCE, Sharpness, sharpness
from holdfast.probes.solutions.features import ROWS, HeadRecord, head_of, record_head
from holdfast.probes.solutions.metrics import (
    class_cosines,
    class_means,
    column_drift,
    delta_participation,
    hoyer,
    mean_off_diagonal,
    nc0,
    near_zero,
    participation_ratio,
    ridge_probe,
    treves_rolls,
    unit_overlap,
)
from holdfast.probes.solutions.pruning import FRACTIONS, pruning_curve
from holdfast.probes.solutions.report import (
    LARGEST_MATRIX,
    Conservation,
    Fingerprint,
    LinearProbe,
    Localisation,
    Provenance,
    Ranks,
    Representation,
    WeightState,
)
from holdfast.probes.solutions.retention import Retention, retention


@dataclass(frozen=True)
class SolutionSettings:
    """How much is measured.

    Arguments:
        examples: of the probe batch, at most.
        fractions: of weights to keep.
        sharpness: whether the Hessian is looked at; it costs 30 to 100 products with a vector, and as many copies of
            the weights in float64.
        seed: of what the probe draws.
    """

    examples: int = ROWS
    fractions: tuple[float, ...] = FRACTIONS
    sharpness: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        count_of("examples", self.examples, least=2)
        count_of("seed", self.seed)
        if 1.0 not in self.fractions or not all(0 < fraction <= 1 for fraction in self.fractions):
            raise ArgumentError("fractions", "shares above 0 and up to 1, with 1 among them", self.fractions)


def probe_solution(
    model: nn.Module,
    examples: tuple[Any, Any],
    *,
    initial: State | None = None,
    snapshots: Sequence[State] | None = None,
    tests: Sequence[tuple[Any, Tensor]] | None = None,
    optimizer: Optimizer | tuple[str, Mapping[str, Any]] | None = None,
    loss: Loss | None = None,
    head: str | None = None,
    seed: int | None = None,
    settings: SolutionSettings | None = None,
) -> Fingerprint:
    """Measure which solution a network is: ranks, sparsity, similarity of classes, sharpness, what is conserved.

    The model runs in evaluation mode and is left as it was found: weights, gradients, modes, hooks, random states.

    Arguments:
        model: a classifier that ends in a linear layer.
        examples: inputs and classes of the probe batch, the same for all networks that are to be compared, with all
            classes in it; negative ones do not count.
        initial: the weights before training, for what is said of changes; `None`: the first of `snapshots`, if any.
        snapshots: weights before the first task and after each, as `ContinualEvaluation` keeps them; the last are the
            model's own.
        tests: inputs and classes of each task, for what is forgotten.
        optimizer: that has trained it, or its name and settings; noted in the report.
        loss: mean loss from output and targets; `None`: cross-entropy.
        head: name of the output layer; `None`: the last linear layer that is called.
        seed: of the run, by which fingerprints are paired.
        settings: how much is measured.

    Returns:
        The fingerprint.

    Errors:
        ArgumentError: an argument does not fit.
    """
    settings = settings or SolutionSettings()
    plain = unwrapped(model)
    inputs, targets, digest = _batch(plain, examples, settings)
    states = _states(plain, initial, snapshots)
    if tests is not None and (snapshots is None or len(tests) != len(states) - 1 or len(tests) < 2):
        raise ArgumentError("tests", "those of at least two tasks, with snapshots before and after each", len(tests))
    last = head_of(plain, head)
    names = {id(parameter): name for name, parameter in plain.named_parameters()}
    head_name = names.get(id(last.weight), "")
    layers = [layer for layer in layers_of(plain) if layer.role == "weight"]
    with random_state_kept(), torch.inference_mode(False):
        record = record_head(plain, last, inputs, targets, seed=settings.seed)
        representation, notes = _representation(record)
        probed, of_probe = _linear_probe(record, settings.seed)
        own_loss = _objective(plain, inputs, targets, loss or default_loss)
        with torch.no_grad():
            value = float(own_loss({}))
        of_weights = {layer.title: _weight(layer, names, states[:1]) for layer in layers}
        together = torch.cat([layer.parameter.detach().flatten().cpu().double() for layer in layers])
        prunable = [layer for layer in layers if not isinstance(layer.module, nn.Embedding | nn.EmbeddingBag)
                    or layer.parameter is last.weight]  # fmt: skip
        kept = pruning_curve(
            plain,
            inputs,
            targets,
            {names[id(layer.parameter)]: layer.parameter for layer in prunable},
            head_name,
            settings.fractions,
        )
        sharp = _sharpness(plain, own_loss, settings.seed) if settings.sharpness else None
        law, of_head = _conservation(plain, last, head_name, layers, states)
        if sharp is not None and not sharp.residual <= TOLERANCE:
            notes.append(f"λ_max has not converged: residual {sharp.residual:.2g}, above {TOLERANCE:g}")
        if len(layers) < len(layers_of(plain)):
            notes.append("weights under weight_norm or spectral_norm are left out of the sparsity of weights")
        if loss is not None:
            notes.append("column sums are conserved under softmax cross-entropy; the loss was one of your own")
        return Fingerprint(
            provenance=_provenance(optimizer, seed, settings, digest),
            loss=value,
            accuracy=accuracy(plain, inputs, targets),
            classes=record.logits.shape[1],
            representation=representation,
            layers=of_weights,
            weights=WeightState(len(together), math.nan, math.nan, hoyer(together), near_zero(together)),
            kept=kept,
            linear_probe=probed,
            sharpness=sharp,
            localisation=_localisation(layers, names, states) if states else None,
            retention=None if tests is None else accuracy_matrix(plain, states[1:], tests),
            conservation=law,
            notes=(*notes, *of_probe, *of_head),
        )


def accuracy_matrix(model: nn.Module, states: Sequence[State], tests: Sequence[tuple[Any, Tensor]]) -> Retention:
    """What weights after each task make of the tests of all.

    Arguments:
        model: that the weights are of, on the device of the tests.
        states: after each task.
        tests: of each task.
    """
    device = _device(model)
    rows = []
    for state in states:
        there = {name: tensor.to(device) for name, tensor in state.items()}
        rows.append([accuracy(model, moved(x, device), y.to(device), there) for x, y in tests])
    return retention(torch.tensor(rows, dtype=torch.float64))


def _device(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _batch(model: nn.Module, examples: tuple[Any, Any], settings: SolutionSettings) -> tuple[Any, Tensor, str]:
    """Inputs and targets on the model's device, and their digest."""
    if not isinstance(examples, tuple) or len(examples) != 2 or not isinstance(examples[1], Tensor):
        raise ArgumentError("examples", "a pair of inputs and targets", type(examples).__name__)
    inputs, targets = examples
    number = count(inputs)
    if targets.ndim == 0 or len(targets) != number or number < 2:
        found = f"{number} inputs and targets of shape {tuple(targets.shape)}"
        raise ArgumentError("examples", "at least two inputs and as many targets", found)
    if targets.is_floating_point() or targets.dtype == torch.bool:
        raise ArgumentError("examples", "classes as whole numbers", str(targets.dtype))
    if number > settings.examples:
        drawn = torch.randperm(number, generator=torch.Generator().manual_seed(settings.seed))
        places = drawn[: settings.examples].sort().values
        inputs = select(moved(inputs, torch.device("cpu")), places)
        targets = targets.cpu()[places]
    digest = hashlib.sha256()
    tensors = (
        list(inputs.values()) if isinstance(inputs, Mapping) else inputs if isinstance(inputs, tuple) else [inputs]
    )
    for tensor in (*tensors, targets.long()):
        digest.update(str((tuple(tensor.shape), tensor.dtype)).encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    device = _device(model)
    return moved(inputs, device), targets.long().to(device), digest.hexdigest()[:16]


def _states(model: nn.Module, initial: State | None, snapshots: Sequence[State] | None) -> list[State]:
    """Weights before training and after each task, or after all; empty where there are no initial ones."""
    own = dict(model.state_dict())
    if snapshots is not None and len(snapshots) < 2:
        raise ArgumentError("snapshots", "weights before the first task and after each", f"{len(snapshots)}")
    given = [("snapshots", state) for state in snapshots or ()]
    for name, state in [*([] if initial is None else [("initial", initial)]), *given]:
        for key, tensor in own.items():
            if key not in state or state[key].shape != tensor.shape:
                found = f"{tuple(state[key].shape)} of {key}" if key in state else f"none called {key}"
                raise ArgumentError(name, f"weights of the model, {tuple(tensor.shape)} of {key}", found)
    if snapshots is not None:
        final = snapshots[-1]
        if not all(torch.equal(final[key].cpu(), tensor.cpu()) for key, tensor in own.items()):
            raise ArgumentError("snapshots", "the weights of the model as the last", "others")
        return [snapshots[0] if initial is None else initial, *snapshots[1:]]
    return [] if initial is None else [initial, own]


def _objective(model: nn.Module, inputs: Any, targets: Tensor, loss: Loss) -> Any:
    """From weights by name to the loss; by operations that can be differentiated twice."""

    def objective(weights: State) -> Tensor:
        with evaluating(model), sdpa_kernel(SDPBackend.MATH):
            return loss(call_with(model, weights, inputs), targets)

    return objective


def _representation(record: HeadRecord) -> tuple[Representation, list[str]]:
    h = record.features
    number, width = h.shape
    notes = []
    if not bool(h.isfinite().all()):
        raise ArgumentError("model", "finite features", "some that are not")
    if number < width:
        notes.append(f"fewer rows ({number}) than features ({width}): no rank exceeds the number of rows")
    centred = h - h.mean(0)
    for name, features in (("centred", centred), ("uncentred", h)):
        if float(features.abs().max()) == 0:
            notes.append(f"{name} features are all zero: their ranks are 0")
    means, present = class_means(h, record.targets)
    cosines = class_cosines(means)
    classes = record.logits.shape[1]
    absent = sorted(set(range(classes)) - set(present.tolist())) if classes <= LARGEST_MATRIX else []
    if absent:
        notes.append(f"classes without an example: {', '.join(map(str, absent))}; cosines are of the others")
    lifetime, population = treves_rolls(h)
    return (
        Representation(
            rows=number,
            features=width,
            centred=_ranks(centred),
            uncentred=_ranks(h),
            class_cosine=mean_off_diagonal(cosines),
            cosines=tuple(map(tuple, cosines.tolist())) if len(present) <= LARGEST_MATRIX else (),
            nonpositive=float((h <= 0).double().mean()),
            dead=float((h <= 0).all(0).double().mean()),
            lifetime=lifetime,
            population=population,
        ),
        notes,
    )


def _ranks(features: Float[Tensor, "rows features"]) -> Ranks:
    of_sums, effective, _ = ranks(features)
    return Ranks(effective, participation_ratio(features), of_sums)


def _linear_probe(record: HeadRecord, seed: int) -> tuple[LinearProbe, list[str]]:
    """A probe that learns from half of the rows; both accuracies are those of the other half."""
    order = torch.randperm(len(record.targets), generator=torch.Generator().manual_seed(seed))
    half = len(order) // 2
    seen, unseen = order[:half], order[half:]
    notes = []
    if half < record.features.shape[1]:
        notes.append(f"the linear probe learns {record.features.shape[1]} features from {half} rows alone")
    classes = int(record.targets.max()) + 1
    wanted = record.targets[unseen]
    guesses = ridge_probe(record.features[seen], record.targets[seen], record.features[unseen], classes)
    probe = float((guesses == wanted).double().mean())
    return LinearProbe(probe, float((record.logits[unseen].argmax(1) == wanted).double().mean())), notes


def _matrix(weight: Tensor) -> Float[Tensor, "out rest"]:
    return weight.detach().cpu().double().flatten(1)


def _weight(layer: Layer, names: Mapping[int, str], initial: Sequence[State]) -> WeightState:
    weight = _matrix(layer.parameter)
    change = math.nan
    if initial:
        change = stable_rank(weight - _matrix(initial[0][names[id(layer.parameter)]]))
    return WeightState(weight.numel(), stable_rank(weight), change, hoyer(weight), near_zero(weight))


def _sharpness(model: nn.Module, objective: Any, seed: int) -> Sharpness:
    """Of all weights that are trained, or of all if none is."""
    every = {name: p for name, p in model.named_parameters() if p.is_floating_point()}
    trained = {name: p for name, p in every.items() if p.requires_grad} or every
    try:
        with torch.enable_grad():
            return sharpness(
                lambda weights: objective(dict(zip(trained, weights, strict=True))), list(trained.values()), seed=seed
            )
    except RuntimeError as error:
        expected = "a model and a loss that can be differentiated twice, or sharpness=False"
        raise ArgumentError("sharpness", expected, str(error).strip().splitlines()[0]) from error


def _localisation(layers: Sequence[Layer], names: Mapping[int, str], states: Sequence[State]) -> Localisation:
    keys = list(names.values())
    deltas, units = [], []
    for before, after in pairwise(states):
        change = {key: after[key].cpu().double() - before[key].cpu().double() for key in keys}
        deltas.append(torch.cat([part.flatten() for part in change.values()]))
        squares = [change[names[id(layer.parameter)]].square().flatten(1).sum(1) for layer in layers]
        units.append(torch.cat(squares))
    cosines = [float(a @ b / (a.norm() * b.norm())) for a, b in combinations(deltas, 2)]
    overlaps = [unit_overlap(a, b) for a, b in combinations(units, 2)]
    mean = (float(torch.tensor(values, dtype=torch.float64).nanmean()) for values in (cosines, overlaps))
    return Localisation(tuple(delta_participation(delta) for delta in deltas), *mean)


def _conservation(
    model: nn.Module, head: nn.Linear, name: str, layers: Sequence[Layer], states: Sequence[State]
) -> tuple[Conservation, list[str]]:
    weight = head.weight.detach().cpu()
    tied = any(layer.parameter is head.weight and layer.aliases for layer in layers)
    if tied:
        notes = ["the output layer is tied: its column sums are not conserved by any optimiser"]
        return Conservation(math.nan, math.nan, math.nan, nc0(weight), math.nan), notes
    if not states or not name:
        return Conservation(math.nan, math.nan, math.nan, nc0(weight), math.nan), []
    first = states[0][name].cpu()
    return Conservation(*column_drift(first, weight), nc0(weight), nc0(first)), []


def _provenance(
    optimizer: Optimizer | tuple[str, Mapping[str, Any]] | None,
    seed: int | None,
    settings: SolutionSettings,
    digest: str,
) -> Provenance:
    name, described = "", list[dict[str, Any]]()
    if isinstance(optimizer, tuple):
        name, described = optimizer[0], [_plain(optimizer[1])]
    elif optimizer is not None:
        name = type(optimizer).__name__
        described = [_plain(group) for group in optimizer.param_groups]
    versions = {
        "holdfast": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }
    return Provenance(seed, settings.seed, name, tuple(described), digest, versions)


def _plain(group: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a group as JSON has them."""

    def plain(value: Any) -> Any:
        if isinstance(value, Tensor) and value.numel() == 1:
            return value.item()
        if isinstance(value, tuple | list):
            return tuple(plain(item) for item in value)
        return value if isinstance(value, bool | int | float | str) or value is None else str(value)

    return {key: plain(value) for key, value in group.items() if key not in ("params", "param_names")}
