"""Which parameters of a network are layers, which of these set no scale of the output, and which are to be left alone.

A layer that a norm follows is scale-invariant: its weight times a positive number leaves the function as it was (arXiv
2507.20057, section 2.3). The output layer is not, and neither is any layer of a network without norms.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from holdfast.errors import ArgumentError
from holdfast.optim.rewarming.graph import CallGraph, call_graph

LAYERS = (nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag, nn.MultiheadAttention, nn.modules.conv._ConvNd)
NORMS = (
    nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.LocalResponseNorm,
    nn.modules.batchnorm._NormBase,
)  # fmt: skip
_LIKE_A_LAYER = re.compile(r"Linear|Conv\d?[dD]?$|Embedding")
_LIKE_A_NORM = re.compile(r"(?<!Weight)(?<!Spectral)Norm(\dd)?$")
_NORM_FUNCTIONS = re.compile(r"(layer|rms|group|batch|instance)_norm$|^normalize$")
_WRAPPERS = ("_orig_mod", "module", "_checkpoint_wrapped_module")
_WRAPPING = (
    "OptimizedModule", "DistributedDataParallel", "DataParallel", "CheckpointWrapper",
)  # fmt: skip

Role = Literal["weight", "magnitude", "direction"]


@dataclass(frozen=True, eq=False)
class Layer:
    """One parameter of a network that is a layer's weight.

    Arguments:
        name: of the parameter, without what `torch.compile`, `DistributedDataParallel` and the like put before it.
        parameter: itself.
        module: that holds it.
        module_name: of it.
        role: `magnitude` and `direction` are the two that `weight_norm` makes of a weight: the weight's norm is that of
            the magnitude, and nothing depends on that of a direction. A weight under `spectral_norm` is a direction.
        aliases: other names of the same tensor.
    """

    name: str
    parameter: nn.Parameter
    module: nn.Module
    module_name: str
    role: Role = "weight"
    aliases: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Short name: that of the module where the parameter is its `weight`."""
        return self.module_name if self.name == f"{self.module_name}.weight" else self.name

    @property
    def names(self) -> tuple[str, ...]:
        """All names of the tensor."""
        return (self.name, *self.aliases)

    def matches(self, pattern: str) -> bool:
        """Whether a pattern names the parameter or a module around it; `*` stands for anything."""
        return any(
            fnmatchcase(name, pattern) or any(fnmatchcase(around, pattern) for around in _modules_around(name))
            for name in self.names
        )


@dataclass(frozen=True)
class Selection:
    """Layers that are chosen, and why others are not.

    Arguments:
        layers: the chosen ones, each tensor once.
        excluded: of each other one, by name, the reason.
        graph: of the network's calls, by which the output layer was found.
    """

    layers: tuple[Layer, ...]
    excluded: dict[str, str]
    graph: CallGraph = field(repr=False)


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside of `torch.compile`, `DistributedDataParallel` and the like.

    Errors:
        ArgumentError: it is no module.
    """
    check_module(model)
    while type(model).__name__ in _WRAPPING:
        model = next(model._modules[name] for name in _WRAPPERS if model._modules.get(name) is not None)  # type: ignore[assignment]
    return model


def named_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All modules, each once, by names without the parts that wrappers put in.

    Errors:
        ArgumentError: the model is no module.
    """
    check_module(model)
    raw = dict(model.named_modules())
    for full, module in raw.items():
        if type(module).__name__ in _WRAPPING:
            continue
        clean: list[str] = []
        parent = ""
        for segment in full.split(".") if full else ():
            holder = raw.get(parent)
            if holder is None or type(holder).__name__ not in _WRAPPING or segment not in _WRAPPERS:
                clean.append(segment)
            parent = f"{parent}.{segment}" if parent else segment
        yield ".".join(clean), module


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalises activations: one of torch, or one whose class is called so."""
    return isinstance(module, NORMS) or _LIKE_A_NORM.search(type(module).__name__) is not None


def has_norm(model: nn.Module, graph: CallGraph | None = None) -> bool:
    """Whether a network normalises activations anywhere, as far as modules and its traced functions tell."""
    graph = call_graph(unwrapped(model)) if graph is None else graph
    inside = any(is_norm(module) for _, module in named_modules(model))
    return inside or any(_NORM_FUNCTIONS.search(name) for name in graph.functions)


def layers_of(model: nn.Module) -> tuple[Layer, ...]:
    """The weights of all linear, convolutional and embedding layers: their parameters of two dimensions or more.

    A module counts if it is such a layer of torch, or if its class is called like one (`Conv1D`,
    `ColumnParallelLinear`). A tensor with several names comes once, with the first of them.

    Errors:
        ArgumentError: a weight has a parametrisation other than `weight_norm` and `spectral_norm`, has no values yet,
            or is a part of a flat parameter (FSDP1, ZeRO-3).
    """
    for _, module in named_modules(model):
        if type(module).__name__ == "FullyShardedDataParallel":
            raise ArgumentError("model", "parameters as they are, or sharded by fully_shard (FSDP2)", "one under FSDP1")
    found: list[Layer] = []
    for module_name, module in named_modules(model):
        if not (isinstance(module, LAYERS) or _LIKE_A_LAYER.search(type(module).__name__)):
            continue
        found += [*_plain(module_name, module), *_parametrised(module_name, module)]
    return _once(found)


def output_layer(model: nn.Module, graph: CallGraph | None = None) -> nn.Module | None:
    """The last linear or convolutional layer that a forward calls, or the one that a model of Hugging Face names.

    Arguments:
        model: any.
        graph: of its calls, if it is there already. Without a trace the last that is defined counts as the last called.
    """
    inner = unwrapped(model)
    head = getattr(inner, "get_output_embeddings", None)
    if callable(head):
        module = head()
        if isinstance(module, nn.Module):
            return module
    graph = call_graph(inner) if graph is None else graph
    modules = dict(named_modules(inner))
    last = None
    for name in graph.order:
        called = modules.get(name)
        if called is not None and _is_output(called):
            last = called
    if isinstance(last, nn.MultiheadAttention):
        return last.out_proj
    return last


def select(
    model: nn.Module,
    *,
    include: Literal["all"] | Iterable[str] | None = None,
    exclude: Iterable[str] | None = None,
) -> Selection:
    """The layers whose norm may be held: all but the output layer, or layers, and what is named.

    Beside `output_layer` these are all whose outputs the network returns, with nothing but functions of one tensor and
    modules without parameters in between, as far as a trace tells: a policy and a value, a mean and a variance.

    Arguments:
        model: any; wrapped and compiled ones too.
        include: `"all"` for the output layer too, or names of what is to be taken beside the default: the output layer,
            or parameters of any shape. A name is that of a parameter or of a module around it; `*` stands for anything.
        exclude: names of what is left alone. In a network that cannot be traced, an output layer that is not called
            last (one of several heads) is named here.

    Errors:
        ArgumentError: a name matches nothing; a weight has a parametrisation that is not understood.
    """
    layers = layers_of(model)
    graph = call_graph(unwrapped(model))
    wanted = () if include in (None, "all") else _patterns("include", include)
    unwanted = () if exclude is None else _patterns("exclude", exclude)
    of_layers = {id(layer.parameter) for layer in layers}
    others = _once(layer for layer in _all_parameters(model) if id(layer.parameter) not in of_layers)
    for argument, patterns in (("include", wanted), ("exclude", unwanted)):
        for pattern in patterns:
            if not any(layer.matches(pattern) for layer in (*layers, *others)):
                raise ArgumentError(argument, "names of parameters or modules of the model", pattern)
    of_head = set() if include == "all" else {id(parameter) for parameter in _head_parameters(model, graph)}
    chosen: list[Layer] = []
    excluded: dict[str, str] = {}
    for layer in layers:
        if any(layer.matches(pattern) for pattern in unwanted):
            excluded[layer.name] = "named by exclude"
        elif id(layer.parameter) in of_head and not any(layer.matches(pattern) for pattern in wanted):
            tied = f", tied with {', '.join(layer.aliases)}" if layer.aliases else ""
            excluded[layer.name] = f"the output layer{tied}"
        else:
            chosen.append(layer)
    chosen += [
        layer
        for layer in others
        if any(layer.matches(pattern) for pattern in wanted) and not any(layer.matches(pattern) for pattern in unwanted)
    ]
    return Selection(tuple(chosen), excluded, graph)


def scale_invariance(
    model: nn.Module, batch: Any, *, factor: float = 2.0, names: Iterable[str] | None = None
) -> dict[str, float]:
    """How much the output changes when the weight of one layer is multiplied by a number.

    The model runs without dropout, and its BatchNorm layers with the statistics of the batch; both, and the running
    statistics, are as before afterwards. A value near 0 (below 0.01 in float32, where the epsilon of norms shows) means
    that the layer is scale-invariant. Biases stay as they are: a layer that has one before a norm is invariant only
    where the bias is small.

    Arguments:
        model: any.
        batch: what the model is called with: a tuple or list of arguments, a mapping of keywords, or one argument.
        factor: that a weight is multiplied by; a power of two brings no rounding of its own.
        names: of layers; by default all of `layers_of`.

    Returns:
        Of each layer by its parameter's name ‖f(factor W) − f(W)‖ / ‖f(W)‖, over all floating-point tensors of the
        output.

    Errors:
        ArgumentError: `factor` is not positive, a name is unknown, or the output has no floating-point tensor.
    """
    if not factor > 0:
        raise ArgumentError("factor", "a positive number", factor)
    layers = {layer.name: layer for layer in layers_of(model)}
    chosen = list(layers) if names is None else list(names)
    for name in chosen:
        if name not in layers:
            raise ArgumentError("names", f"some of {', '.join(layers)}", name)
    training = {module: module.training for module in model.modules()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    changes = {}
    try:
        for module in model.modules():
            module.training = isinstance(module, nn.modules.batchnorm._BatchNorm)
        with torch.no_grad():
            reference = output_of(model, batch)
            for name in chosen:
                weight = layers[name].parameter
                before = weight.detach().clone()
                weight.mul_(factor)
                try:
                    changes[name] = relative_change(reference, output_of(model, batch))
                finally:
                    weight.copy_(before)
    finally:
        for module, mode in training.items():
            module.training = mode
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])
    return changes


def output_of(model: nn.Module, batch: Any) -> tuple[Tensor, ...]:
    """Copies of all floating-point tensors of a model's output.

    Arguments:
        model: any.
        batch: see `scale_invariance`.

    Errors:
        ArgumentError: there is none.
    """
    if isinstance(batch, Mapping):
        output = model(**batch)
    else:
        output = model(*batch) if isinstance(batch, (tuple, list)) else model(batch)
    tensors = tuple(tensor.detach().clone() for tensor in _tensors(output))
    if not tensors:
        raise ArgumentError("batch", "one for which the model returns floating-point tensors", repr(type(output)))
    return tensors


def relative_change(before: tuple[Tensor, ...], after: tuple[Tensor, ...]) -> float:
    """‖after − before‖ / ‖before‖ over several tensors, computed in float64."""
    gap = sum(float((new.double() - old.double()).square().sum()) for old, new in zip(before, after, strict=True))
    size = sum(float(old.double().square().sum()) for old in before)
    return float((gap / size) ** 0.5) if size else (0.0 if gap == 0 else float("inf"))


def scale_decay_groups(model: nn.Module, decay: float | int, **defaults: Any) -> list[dict[str, Any]]:
    """Groups of parameters for an optimiser that decays the scales of norms, and nothing else unless told.

    Projected transformers with norms do not grok without it: the scales grow until attention saturates (arXiv
    2507.20057, section 4.1). Meant for decoupled decay (AdamW). A norm that multiplies by 1 + weight (Gemma's) is
    drawn to a scale of 1 rather than 0.

    Arguments:
        model: any.
        decay: weight decay of the scales.
        defaults: further settings of both groups, such as `lr`; `weight_decay` is that of all that is no scale, 0 by
            default.

    Returns:
        Two groups, first that of the scales.

    Errors:
        ArgumentError: no norm of the model has a scale, or `decay` is negative.
    """
    if not decay >= 0:
        raise ArgumentError("decay", "a number of at least 0", decay)
    scales: dict[int, nn.Parameter] = {}
    for _, module in named_modules(model):
        if is_norm(module):
            for name, parameter in module.named_parameters(recurse=False):
                if "bias" not in name and "shift" not in name and "beta" not in name:
                    scales[id(parameter)] = parameter
    if not scales:
        raise ArgumentError("model", "a network with norms that have a scale", type(unwrapped(model)).__name__)
    others = [parameter for parameter in model.parameters() if id(parameter) not in scales]
    return [
        {**defaults, "params": list(scales.values()), "weight_decay": decay},
        {"weight_decay": 0.0, **defaults, "params": others},
    ]


def _head_parameters(model: nn.Module, graph: CallGraph) -> Iterator[nn.Parameter]:
    """Parameters of all output layers."""
    last = output_layer(model, graph)
    modules = dict(named_modules(unwrapped(model)))
    returned = [modules[name] for name in graph.returned if name in modules and _is_output(modules[name])]
    for module in (*(() if last is None else (last,)), *returned):
        yield from module.parameters()


def check_module(model: object) -> None:
    """Refuse what is no module, such as an optimiser in its place."""
    if not isinstance(model, nn.Module):
        raise ArgumentError("model", "a torch.nn.Module", type(model).__name__)


def _plain(module_name: str, module: nn.Module) -> Iterator[Layer]:
    """Parameters of a layer itself, old-style `weight_norm` and `spectral_norm` included."""
    names = dict(module.named_parameters(recurse=False))
    for key, parameter in names.items():
        _check_values(_joined(module_name, key), parameter)
        stem, _, end = key.rpartition("_")
        role: Role = "weight"
        if end in ("g", "v") and {f"{stem}_g", f"{stem}_v"} <= set(names):
            role = "magnitude" if end == "g" else "direction"
        elif end == "orig" and hasattr(module, f"{stem}_u"):
            role = "direction"
        if parameter.ndim >= 2 or role != "weight":
            yield Layer(_joined(module_name, key), parameter, module, module_name, role)


def _parametrised(module_name: str, module: nn.Module) -> Iterator[Layer]:
    """The originals of parametrised weights."""
    if not parametrize.is_parametrized(module):
        return
    for key, parametrisations in module.parametrizations.items():  # type: ignore[operator, union-attr]
        kinds = [type(item).__name__ for item in parametrisations]
        prefix = _joined(module_name, f"parametrizations.{key}")
        if kinds == ["_WeightNorm"]:
            yield Layer(f"{prefix}.original0", parametrisations.original0, module, module_name, "magnitude")
            yield Layer(f"{prefix}.original1", parametrisations.original1, module, module_name, "direction")
        elif kinds == ["_SpectralNorm"]:
            yield Layer(f"{prefix}.original", parametrisations.original, module, module_name, "direction")
        elif getattr(module, key).ndim >= 2:
            expected = "weights as they are, or under weight_norm or spectral_norm alone"
            raise ArgumentError("model", expected, f"{prefix} under {', '.join(kinds)}")


def _once(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    """Each tensor with its first name, and the others as aliases."""
    found: dict[int, Layer] = {}
    for layer in layers:
        first = found.setdefault(id(layer.parameter), layer)
        if first is not layer:
            found[id(layer.parameter)] = replace(first, aliases=(*first.aliases, layer.name))
    return tuple(found.values())


def _check_values(name: str, parameter: nn.Parameter) -> None:
    """Refuse a parameter whose norm cannot be told."""
    if nn.parameter.is_lazy(parameter):
        raise ArgumentError("model", "parameters with values: call it once", f"{name} of an unknown shape")
    if parameter.is_meta:
        raise ArgumentError("model", "parameters with values", f"{name} on the device meta")
    if hasattr(parameter, "ds_id"):
        raise ArgumentError("model", "parameters as they are, or sharded by fully_shard (FSDP2)", "one under ZeRO-3")


def _all_parameters(model: nn.Module) -> Iterator[Layer]:
    """Every parameter as if it were a layer."""
    for module_name, module in named_modules(model):
        for key, parameter in module.named_parameters(recurse=False):
            yield Layer(_joined(module_name, key), parameter, module, module_name)


def _is_output(module: nn.Module) -> bool:
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) or "Embedding" in type(module).__name__:
        return False
    return isinstance(module, LAYERS) or _LIKE_A_LAYER.search(type(module).__name__) is not None


def _patterns(argument: str, given: Iterable[str] | str | None) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else tuple(given or ())
    if not all(isinstance(name, str) for name in names):
        raise ArgumentError(argument, "names", repr(given))
    return names


def _modules_around(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _joined(module_name: str, key: str) -> str:
    return f"{module_name}.{key}" if module_name else key


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, (tuple, list)):
        for value in output:
            yield from _tensors(value)
