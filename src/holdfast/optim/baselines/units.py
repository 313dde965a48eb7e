"""Hidden units of a network that can be replaced: what makes them, what activates them, and what reads them.

Found in a trace of the network (`torch.fx`), not in the order of its modules: a unit whose consumer is missed would be
replaced by one that others still read. Where a layer has readers other than linear layers and convolutions (a residual
sum, a gate), its units are left alone, and it is said why.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from holdfast.errors import ArgumentError
from holdfast.optim.rewarming.graph import trace
from holdfast.optim.rewarming.layers import NORMS, unwrapped

READABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers whose units are replaced, and that may read them."""

_RECTIFIERS = ("relu", "relu6", "leakyrelu", "prelu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish")
_ACTIVATIONS = (*_RECTIFIERS, "softplus", "tanh", "sigmoid", "hardtanh", "hardsigmoid")
_POINTWISE = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alphadropout", "identity", "contiguous", "clone")
_POOLS = tuple(f"{way}pool{n}d" for way in ("max", "avg", "adaptivemax", "adaptiveavg") for n in (1, 2, 3))
_FLATTENS = ("flatten", "view", "reshape")


@dataclass(frozen=True, eq=False)
class Consumer:
    """A layer that reads units.

    Arguments:
        name: of the module.
        module: linear or convolutional.
        block: inputs of it that belong to one unit, next to each other: more than 1 where an image was flattened.
        direct: whether it reads the activations themselves, and not pooled or normalised ones.
    """

    name: str
    module: nn.Module
    block: int
    direct: bool

    def inputs(self, units: Int64[Tensor, " chosen"]) -> Int64[Tensor, " inputs"]:
        """Places in dimension 1 of its weight that read some units."""
        return (units[:, None] * self.block + torch.arange(self.block, device=units.device)).flatten()


@dataclass(frozen=True, eq=False)
class Units:
    """The units that one layer makes.

    Arguments:
        name: of the layer.
        module: linear or convolutional; a unit is a row of its weight, and a channel of what it puts out.
        count: of the units.
        listening: where activations are seen.
        norms: with a parameter or a statistic for each unit in their rows, between the layer and its readers.
        consumers: all layers that read the units.
    """

    name: str
    module: nn.Module
    count: int
    listening: Listening
    norms: tuple[nn.Module, ...]
    consumers: tuple[Consumer, ...]

    def of(self, activations: Tensor) -> Float[Tensor, "places units"]:
        """Activations, with examples and positions in one dimension."""
        x = activations
        if self.listening.flattened:
            x = x.unflatten(-1, (self.count, -1)).movedim(-2, -1)
        elif self.listening.channels:
            # A convolution takes one example without a batch too.
            dimensions: int = self.module.weight.ndim  # type: ignore[assignment]
            x = x.movedim(0 if x.ndim == dimensions - 1 else 1, -1)
        return x.reshape(-1, self.count)


@dataclass(frozen=True, eq=False)
class Listening:
    """Where activations are seen.

    Arguments:
        module: that shows them.
        at_input: whether they are what it is given, for an activation that is a function, or a module that others use
            too; otherwise they are what it puts out.
        channels: whether units are in dimension 1, before those of space.
        flattened: whether dimensions of space were merged with them.
    """

    module: nn.Module
    at_input: bool
    channels: bool
    flattened: bool


def replaceable_units(model: nn.Module) -> tuple[tuple[Units, ...], dict[str, str]]:
    """All layers whose units can be replaced, and of the other ones the reason why not, by name.

    Arguments:
        model: whose forward `torch.fx` can trace.

    Errors:
        ArgumentError: it cannot, or no layer has such units.
    """
    inner = unwrapped(model)
    graph = trace(inner)
    if graph is None:
        raise ArgumentError("model", "a network whose forward torch.fx can trace", type(inner).__name__)
    network = _Network(dict(inner.named_modules()), graph)
    units, left = list[Units](), dict[str, str]()
    for node in graph.nodes:
        if node.op == "call_module" and isinstance(network.modules[str(node.target)], READABLE):
            try:
                units.append(_Walk(network, node).units())
            except _NotReplaceableError as reason:
                left[str(node.target)] = str(reason)
    if not units:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left.items()) or "no such layer"
        raise ArgumentError("model", "a linear or convolutional layer, an activation, and one that reads it", reasons)
    return tuple(units), left


class _NotReplaceableError(Exception):
    """Why a layer's units are left alone."""


class _Network:
    """Modules by name, and how often each is called."""

    def __init__(self, modules: dict[str, nn.Module], graph: fx.Graph) -> None:
        self.modules = modules
        called = [str(node.target) for node in graph.nodes if node.op == "call_module"]
        self._calls = {name: called.count(name) for name in called}
        self._attributes = {str(node.target) for node in graph.nodes if node.op == "get_attr"}

    def once(self, name: str) -> bool:
        """Whether a module is called in one place alone."""
        return self._calls[name] == 1

    def check_layer(self, name: str) -> None:
        """Refuse a layer whose weight is not its alone, or not what it seems."""
        module = self.modules[name]
        if not self.once(name):
            raise _NotReplaceableError(f"{name} is called more than once")
        if getattr(module, "groups", 1) != 1:
            raise _NotReplaceableError(f"{name} has groups of channels")
        if parametrize.is_parametrized(module) or hasattr(module, "weight_g") or hasattr(module, "weight_orig"):
            raise _NotReplaceableError(f"the weight of {name} is parametrised")
        holders = sum(any(p is module.weight for p in m.parameters(recurse=False)) for m in self.modules.values())
        if holders > 1 or f"{name}.weight" in self._attributes:
            raise _NotReplaceableError(f"the weight of {name} is used elsewhere too")


@dataclass(frozen=True)
class _Place:
    """How far a tensor has come.

    Arguments:
        channels: whether units are in dimension 1, before those of space.
        flattened: whether dimensions of space were merged with them.
        activation: the call of the activation function that lies behind it.
        unheard: whether no module has shown what that function made.
        direct: whether only dropout and reshaping lie behind the activation.
    """

    channels: bool
    flattened: bool = False
    activation: fx.Node | None = None
    unheard: bool = False
    direct: bool = True


class _Walk:
    """From a layer to all its readers."""

    def __init__(self, network: _Network, start: fx.Node) -> None:
        self.network, self.start = network, start
        self.name = str(start.target)
        self.module = network.modules[self.name]
        self.count = int(self.module.weight.shape[0])  # type: ignore[index]
        self.activation: fx.Node | None = None
        self.listening: Listening | None = None
        self.norms: list[nn.Module] = []
        self.consumers: list[Consumer] = []

    def units(self) -> Units:
        """What was met on the way."""
        self.network.check_layer(self.name)
        self.follow(self.start, _Place(channels=not isinstance(self.module, nn.Linear)))
        if self.listening is None:
            raise _NotReplaceableError("nothing reads it")
        return Units(self.name, self.module, self.count, self.listening, tuple(self.norms), tuple(self.consumers))

    def follow(self, node: fx.Node, place: _Place) -> None:
        """Go on to all that reads a call's result."""
        if not node.users:
            raise _NotReplaceableError("nothing reads it")
        for user in node.users:
            if user.op == "output":
                raise _NotReplaceableError("it is the output")
            if user.op == "call_module":
                self.enter(user, place)
            elif not _asks_for_shape(user):
                self.pass_function(user, place)

    def enter(self, user: fx.Node, place: _Place) -> None:
        """A module reads the tensor."""
        name = str(user.target)
        module = self.network.modules[name]
        kind = type(module).__name__.lower()
        if place.unheard and self.network.once(name):
            self.hear(module, True, place)
            place = replace(place, unheard=False)
        if isinstance(module, READABLE):
            self.network.check_layer(name)
            if place.activation is None:
                raise _NotReplaceableError("no activation function follows")
            self.consumers.append(Consumer(name, module, self.block(name, module, place), place.direct))
            return
        if kind in _ACTIVATIONS:
            place = self.activated(user, name, place)
            if self.network.once(name):
                self.hear(module, False, place)
                place = replace(place, unheard=False)
        elif isinstance(module, NORMS):
            place = self.changed(name, place)
            self.norms += [module] if self.has_rows(name, module, place) else []
        elif kind == "flatten":
            if [module.start_dim, module.end_dim] != [1, -1]:
                raise _NotReplaceableError(f"{name} flattens other dimensions than those behind the first")
            place = replace(place, flattened=place.flattened or place.channels)
        elif kind in _POOLS:
            place = self.changed(name, place)
        elif kind not in _POINTWISE:
            raise _NotReplaceableError(f"{name} ({type(module).__name__}) reads it")
        self.follow(user, place)

    def pass_function(self, user: fx.Node, place: _Place) -> None:
        """A function or a method reads the tensor."""
        name = user.target if isinstance(user.target, str) else getattr(user.target, "__name__", str(user.target))
        kind = name.replace("_", "")
        if kind in _ACTIVATIONS:
            place = self.activated(user, name, place)
        elif kind in _FLATTENS and _flattens(user, kind):
            place = replace(place, flattened=place.flattened or place.channels)
        elif kind in _POOLS:
            place = self.changed(name, place)
        elif kind == "mean" and place.channels and not place.flattened and _over_space(user):
            place = replace(self.changed(name, place), channels=False)
        elif kind not in _POINTWISE:
            raise _NotReplaceableError(f"{name} reads it")
        self.follow(user, place)

    def activated(self, user: fx.Node, name: str, place: _Place) -> _Place:
        """An activation function: the only one."""
        if self.activation not in (None, user) or place.activation is not None:
            raise _NotReplaceableError(f"a second activation function follows, {name}")
        self.activation = user
        return replace(place, activation=user, unheard=True)

    def changed(self, name: str, place: _Place) -> _Place:
        """Something makes other numbers of activations."""
        if place.unheard:
            raise _NotReplaceableError(f"{name} lies between its activation function and a module that shows it")
        return replace(place, direct=place.activation is None)

    def hear(self, module: nn.Module, at_input: bool, place: _Place) -> None:
        """All ways that units take have the same activations: the first module that shows them will do."""
        if self.listening is None:
            self.listening = Listening(module, at_input, place.channels, place.flattened)

    def block(self, name: str, module: nn.Module, place: _Place) -> int:
        """Inputs of a layer that belong to one unit."""
        inputs = int(module.weight.shape[1])  # type: ignore[index]
        as_image = place.channels and not place.flattened
        if isinstance(module, nn.Linear) == as_image or inputs % self.count:
            raise _NotReplaceableError(f"{name} reads it in another arrangement")
        if inputs != self.count and not place.flattened:
            raise _NotReplaceableError(f"{name} reads it in another arrangement")
        return inputs // self.count

    def has_rows(self, name: str, module: nn.Module, place: _Place) -> bool:
        """Whether a norm keeps something for each unit, in its rows."""
        kept = [tensor for tensor in (*module.parameters(), *module.buffers()) if tensor.ndim]
        if not kept:
            return False
        over_last = isinstance(module, nn.LayerNorm | nn.RMSNorm)
        whole = len(getattr(module, "normalized_shape", ())) > 1
        if place.flattened or any(len(t) != self.count for t in kept) or (over_last and place.channels != whole):
            raise _NotReplaceableError(f"the norm {name} is over other dimensions than its units")
        return True


def _asks_for_shape(node: fx.Node) -> bool:
    if node.op == "call_method":
        return node.target in ("size", "dim")
    return node.target is len or (node.target is getattr and node.args[1] in ("shape", "ndim"))


def _flattens(node: fx.Node, kind: str) -> bool:
    """Whether a reshaping merges all dimensions behind the first."""
    rest: Any = node.args[1:]
    if kind == "flatten":
        first, last = (*rest, None, None)[:2]
        first = node.kwargs.get("start_dim", first)
        last = node.kwargs.get("end_dim", -1 if last is None else last)
        return (first, last) == (1, -1)
    if len(rest) == 1 and isinstance(rest[0], tuple | list):
        rest = tuple(rest[0])
    return len(rest) == 2 and rest[1] == -1


def _over_space(node: fx.Node) -> bool:
    dims: Any = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    dims = (dims,) if isinstance(dims, int) else dims
    return dims is not None and not {0, 1} & set(dims) and len(node.args) < 3 and not node.kwargs.get("keepdim")
