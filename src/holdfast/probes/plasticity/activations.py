"""What passes through the activation functions of a model, while the model runs as it is.

An activation is seen wherever it is called: as a module, as a function (`torch.relu`, `torch.nn.functional.relu`) or in
place. One inside compiled or scripted code, or written out (`x.clamp(min=0)`), is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

from holdfast.errors import ArgumentError
from holdfast.probes.plasticity.metrics import (
    DORMANT,
    activation_change,
    activation_change_share,
    dead_ratio,
    dormant_ratio,
    kernel_change,
    ranks,
)
from holdfast.probes.report import evaluating, random_state_kept

RECTIFIERS = ("relu", "relu6", "gelu", "silu", "mish", "hardswish")
"""Activation functions that pass next to nothing of what is far below zero: a unit that is always there is dead."""

ACTIVATIONS = (*RECTIFIERS, "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "softplus", "tanh", "hardtanh")
"""Activation functions that are listened to, by their names in torch."""


@dataclass(frozen=True)
class LayerOutputs:
    """What one activation function made of a batch.

    Arguments:
        kind: its name in torch, or "output" for the output of a module that was asked for by name.
        outputs: its outputs. A unit is a feature after linear layers and a channel after convolutions; positions are
            those in a sequence or an image, and one where there are none.
        active: where what it was given is above zero, which for a ReLU is where its output is.
    """

    kind: str
    outputs: Float[Tensor, "examples positions units"]
    active: Bool[Tensor, "examples positions units"]

    @property
    def features(self) -> Float[Tensor, "examples features"]:
        """Positions and units of an example in one row."""
        return self.outputs.flatten(1)


@dataclass(frozen=True)
class LayerMetrics:
    """One layer's features on a batch.

    Arguments:
        kind: the activation function.
        examples: of the batch; no rank exceeds their number.
        units: of the layer.
        dormant: share of units with a dormancy score up to the threshold.
        dead: share of units that are never active; NaN for an activation function whose units cannot die.
        srank: singular values that make 99 % of the sum of all.
        effective_rank: exp of the entropy of the singular values.
        stable_rank: squared Frobenius norm over squared largest singular value.
    """

    kind: str
    examples: int
    units: int
    dormant: float
    dead: float
    srank: float
    effective_rank: float
    stable_rank: float


@dataclass(frozen=True)
class FeatureChange:
    """How one layer's features changed over some steps.

    Arguments:
        steps: between both looks.
        kernel: ΔC.
        activation: ΔA.
        activation_share: ΔA² as a share of all activations.
    """

    steps: int
    kernel: float
    activation: float
    activation_share: float


def record(model: nn.Module, inputs: Any, *, layers: Sequence[str] | None = None) -> dict[str, LayerOutputs]:
    """Run a model on a batch and keep what its activation functions made of it.

    The model runs in evaluation mode without gradients, and is left as it was found: modes, hooks, buffers of
    normalisation, random states.

    Arguments:
        model: any module that takes the batch.
        inputs: a tensor; or a tuple of arguments, or a dict of arguments with names. The first dimension of what the
            activation functions get is the example.
        layers: names of modules whose outputs are kept instead, such as those of attention.

    Returns:
        By layer in the order of the calls, with a module's name, or that of the module around a function with the
        function's, and from the second call on its number. Empty where no activation function was seen.

    Errors:
        ArgumentError: there is no such module, or one that was asked for puts out no tensor, or was not called.
    """
    plain = getattr(model, "_orig_mod", model)  # what torch.compile wraps: compiled code cannot be listened to
    listener = _Listener(frozenset(layers or ()), functions=layers is None)
    modules = dict(plain.named_modules())
    for name in layers or ():
        if name not in modules:
            raise ArgumentError("layers", "names of modules of the model", name)
    with ExitStack() as stack:
        stack.enter_context(random_state_kept())
        stack.enter_context(evaluating(plain))
        stack.enter_context(torch.no_grad())
        stack.enter_context(listener.following(modules))
        stack.enter_context(listener)
        call(plain, inputs)
    for name in layers or ():
        if name not in listener.kept:
            raise ArgumentError("layers", "modules that the batch passes", name)
    return listener.kept


def layer_metrics(layer: LayerOutputs, *, threshold: float = DORMANT) -> LayerMetrics:
    """Dormant and dead units, and the ranks of the features.

    Arguments:
        layer: what `record` kept.
        threshold: dormancy score up to which a unit is dormant.
    """
    examples, _, units = layer.outputs.shape
    of_features = ranks(layer.features)
    dead = dead_ratio(layer.active) if layer.kind in RECTIFIERS else math.nan
    return LayerMetrics(layer.kind, examples, units, dormant_ratio(layer.outputs, threshold), dead, *of_features)


def measure(
    model: nn.Module, inputs: Any, *, layers: Sequence[str] | None = None, threshold: float = DORMANT
) -> dict[str, LayerMetrics]:
    """`record` a model, and take the metrics of each layer.

    Arguments:
        model: any module that takes the batch.
        inputs: a tensor, a tuple of arguments, or a dict of them.
        layers: names of modules, for outputs other than those of activation functions.
        threshold: dormancy score up to which a unit is dormant.
    """
    kept = record(model, inputs, layers=layers)
    return {name: layer_metrics(layer, threshold=threshold) for name, layer in kept.items()}


def feature_change(
    before: Mapping[str, LayerOutputs], after: Mapping[str, LayerOutputs], *, steps: int
) -> dict[str, FeatureChange]:
    """How features changed between two records of one model on one batch.

    Arguments:
        before: what `record` kept.
        after: what it kept of the same batch, later.
        steps: that were taken in between.

    Errors:
        ArgumentError: the records have different layers or shapes.
    """
    if list(before) != list(after):
        raise ArgumentError("after", f"the layers {', '.join(before)}", ", ".join(after))
    return {
        name: FeatureChange(
            steps,
            kernel_change(first.features, after[name].features),
            activation_change(first.active, after[name].active),
            activation_change_share(first.active, after[name].active),
        )
        for name, first in before.items()
    }


def call(model: nn.Module, inputs: Any) -> Any:
    """What a model makes of a tensor, of a tuple of arguments, or of a dict of them."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


class _Listener(TorchFunctionMode):
    """Keeps what activation functions make, and under which module.

    Arguments:
        wanted: modules whose outputs are kept.
        functions: whether activation functions are listened to.
    """

    def __init__(self, wanted: frozenset[str], *, functions: bool) -> None:
        super().__init__()
        self.kept: dict[str, LayerOutputs] = {}
        self._wanted, self._functions = wanted, functions
        self._running = [("", False)]
        self._channels_first: bool | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kind = getattr(func, "__name__", "").rstrip("_")
        kwargs = kwargs or {}
        if not self._functions or kind not in ACTIVATIONS:
            return func(*args, **kwargs)
        given = args[0] if args else kwargs["input"]
        # Before the call, which may be in place.
        active = given.detach() > 0
        made = func(*args, **kwargs)
        self._keep(self._name(kind), kind, made, active)
        return made

    @contextmanager
    def following(self, modules: Mapping[str, nn.Module]) -> Iterator[None]:
        """Know which module is running, and what kind of layer ran last."""

        def enter(name: str, leaf: bool) -> Callable[..., None]:
            return lambda module, given: self._running.append((name, leaf))

        def leave(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, given: Any, made: Any) -> None:
                self._running.pop()
                if isinstance(module, _ConvNd | nn.Linear):
                    self._channels_first = isinstance(module, _ConvNd)
                if name in self._wanted:
                    made = made[0] if isinstance(made, tuple) and made else made
                    if not isinstance(made, Tensor) or made.ndim < 2:
                        raise ArgumentError("layers", "modules that put out a tensor with examples first", name)
                    self._keep(name, "output", made, made.detach() > 0)

            return hook

        handles = []
        try:
            for name, module in modules.items():
                handles.append(module.register_forward_pre_hook(enter(name, not any(module.children()))))
                # Before the user's own hooks, which may replace the output.
                handles.append(module.register_forward_hook(leave(name), prepend=True))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _name(self, kind: str) -> str:
        """A module without others inside gives its name, and one with others that of the function too."""
        name, leaf = self._running[-1]
        return name if leaf and name else f"{name}:{kind}".lstrip(":")

    def _keep(self, name: str, kind: str, made: Tensor, active: Bool[Tensor, "*shape"]) -> None:
        if made.ndim < 2 or not made.is_floating_point():
            return
        number = 1
        unique = name
        while unique in self.kept:
            number += 1
            unique = f"{name}#{number}"
        # The next function may be in place.
        outputs = made.detach().clone()
        self.kept[unique] = LayerOutputs(kind, self._units_last(outputs), self._units_last(active))

    def _units_last(self, tensor: Tensor) -> Tensor:
        """(examples, positions, units), by the layer that ran last; without one, images have their channels first."""
        first = tensor.ndim > 3 if self._channels_first is None else self._channels_first
        if first and tensor.ndim > 2:
            tensor = tensor.movedim(1, -1)
        return tensor.reshape(len(tensor), math.prod(tensor.shape[1:-1]), tensor.shape[-1])
