"""Give a network a norm before every nonlinearity, which makes its hidden layers scale-invariant.

Source: arXiv 2407.01800 (normalise and project), which also leaves out the biases that an offset of a norm replaces.
"""

from __future__ import annotations

import inspect
import operator
import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn

from holdfast.errors import ArgumentError
from holdfast.optim.rewarming.graph import trace
from holdfast.optim.rewarming.layers import is_norm, output_layer, unwrapped

NONLINEARITIES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Softplus, nn.Softsign, nn.Tanh, nn.Sigmoid, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.LogSigmoid,
    nn.Tanhshrink, nn.Softshrink, nn.Hardshrink, nn.Threshold, nn.GLU,
)  # fmt: skip
_FUNCTIONS = (
    "relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "prelu", "rrelu", "elu", "celu", "selu", "gelu", "silu",
    "mish", "softplus", "softsign", "tanh", "tanh_", "sigmoid", "sigmoid_", "hardtanh", "hardswish", "hardsigmoid",
    "logsigmoid", "tanhshrink", "softshrink", "hardshrink", "threshold", "glu",
)  # fmt: skip
_IN_SOURCE = re.compile(rf"(?:\b(?:F|functional|torch|special)|[\w)\]])\.({'|'.join(sorted(_FUNCTIONS))})\(")
_OPAQUE = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
_SHAPE_KEEPING = (
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout,
    nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AvgPoolNd,
)  # fmt: skip
_SUMS = (operator.add, operator.iadd, operator.sub, torch.add, torch.sub)

Norm = Literal["layer", "rms"]


class ChannelRMSNorm(nn.Module):
    """Divides by the root mean square over channels and positions; for the output of convolutions.

    Arguments:
        channels: of the input.
        eps: added to the mean square.
        affine: whether each channel has a learned scale.
    """

    weight: nn.Parameter | None

    def __init__(self, channels: int, eps: float = 1e-6, *, affine: bool = True) -> None:
        super().__init__()
        self.register_parameter("weight", nn.Parameter(torch.ones(channels)) if affine else None)
        self.eps = eps

    def forward(self, x: Float[Tensor, "batch channels *positions"]) -> Float[Tensor, "batch channels *positions"]:
        """The normalised input, of the same shape."""
        square = x.square().mean(tuple(range(1, x.ndim)), keepdim=True)
        normalised = x * torch.rsqrt(square + self.eps)
        return normalised if self.weight is None else normalised * self.weight.view(-1, *[1] * (x.ndim - 2))


@dataclass(frozen=True)
class _Source:
    """What a nonlinearity reads.

    Arguments:
        features: of it.
        kind: where they are: the last dimension, or the second.
        like: a module whose device and dtype the norm gets.
        layer: whose output it is, without anything but a norm in between.
        norm: that is there already.
    """

    features: int
    kind: Literal["linear", "conv"]
    like: nn.Module
    layer: nn.Module | None
    norm: nn.Module | None = None


def normalize_(model: nn.Module, *, norm: Norm = "layer", affine: bool = True) -> nn.Module:
    """Insert a norm before every nonlinearity that has none, in place, and drop the biases that it makes redundant.

    A nonlinearity that is a module `act` becomes `nn.Sequential(norm, activation)` in the same place, so that all other
    entries of a `state_dict` keep their names. Behind a linear or embedding layer the norm is over features,
    `nn.LayerNorm` or `nn.RMSNorm`; behind a convolution it is over channels and positions together, `nn.GroupNorm(1,
    channels)` or `ChannelRMSNorm`, with a scale a channel. A layer that only a norm reads loses its bias. A scaled norm
    of type `rms` has no offset that would replace it, as in arXiv 2507.20057. A nonlinearity on the output layer at the
    end (a sigmoid of probabilities) is left alone, as are attention and recurrent layers.

    The computation of the network changes: call it before training, and before an optimiser is made.

    Calls are found by a symbolic trace; in a network that cannot be traced by the order in which modules stand in an
    `nn.Sequential`, or else are defined, and then biases are dropped in an `nn.Sequential` alone.

    Arguments:
        model: not compiled or wrapped yet.
        norm: `"layer"` or `"rms"`.
        affine: whether the norms have scales (and offsets, for `"layer"`) that are trained. Projection works best
            without: trained scales grow in the weights' place.

    Returns:
        The same model.

    Errors:
        ArgumentError: a nonlinearity is a function rather than a module, is one module that is called several times, or
            reads something of unknown shape; or there is none. The model is unchanged then.
    """
    if norm not in ("layer", "rms"):
        raise ArgumentError("norm", "layer or rms", repr(norm))
    if unwrapped(model) is not model:
        raise ArgumentError("model", "a network before it is compiled or wrapped", type(model).__name__)
    for name, module in model.named_modules():
        if isinstance(module, _OPAQUE):
            raise ArgumentError("model", "nonlinearities that are modules", f"{name}, a {type(module).__name__}")
    graph = trace(model)
    sources = _defined(model) if graph is None else _traced(model, graph)
    if not sources:
        raise ArgumentError("model", "nonlinearities that are modules", f"none in {type(model).__name__}")
    for name, source in sources.items():
        if source.norm is None:
            parent, _, key = name.rpartition(".")
            activation = model.get_submodule(name)
            inserted = nn.Sequential(OrderedDict(norm=_norm(norm, source, affine), activation=activation))
            setattr(model.get_submodule(parent), key, inserted)
        _drop_bias(source)
    return model


def _traced(model: nn.Module, graph: fx.Graph) -> dict[str, _Source]:
    """What each nonlinearity of a traced network reads, by name."""
    modules = dict(model.named_modules())
    head = output_layer(model)
    sources: dict[str, _Source] = {}
    called: list[str] = []
    for node in graph.nodes:
        name = str(node.target)
        read = node.all_input_nodes[0] if node.all_input_nodes else None
        at_end = read is not None and read.op == "call_module" and modules[str(read.target)] is head
        function = getattr(node.target, "__name__", name).rpartition(".")[2]
        if node.op in ("call_function", "call_method") and function in _FUNCTIONS and not at_end:
            raise ArgumentError("model", "nonlinearities that are modules", f"the function {function} in its forward")
        if node.op == "call_module" and isinstance(modules[name], NONLINEARITIES) and not at_end:
            if name in called:
                raise ArgumentError("model", "a module for each nonlinearity", f"{name}, which is called several times")
            called.append(name)
            source = _source(read, modules)
            if source is None:
                raise ArgumentError(
                    "model", "nonlinearities of a layer's output", f"{name}, whose input is of unknown shape"
                )
            sources[name] = source
    return sources


def _source(node: fx.Node | None, modules: dict[str, nn.Module]) -> _Source | None:
    """What a node computes, if its shape is known."""
    if node is None:
        return None
    alone = len(node.users) == 1
    if node.op == "call_module":
        module = modules[str(node.target)]
        layer = _of_layer(module)
        if layer is not None:
            return layer if alone else _Source(layer.features, layer.kind, module, None)
        read = node.all_input_nodes[0] if node.all_input_nodes else None
        before = _source(read, modules)
        if is_norm(module):
            return _after_norm(module, before)
        if isinstance(module, _SHAPE_KEEPING):
            return before
        if isinstance(module, NONLINEARITIES) and not isinstance(module, nn.GLU) and before is not None:
            return _Source(before.features, before.kind, before.like, None)
    if node.op == "call_function" and node.target in _SUMS:
        for read in node.all_input_nodes:
            summand = _source(read, modules)
            if summand is not None:
                return _Source(summand.features, summand.kind, summand.like, None)
    return None


def _defined(model: nn.Module) -> dict[str, _Source]:
    """What each nonlinearity reads if modules are called in the order in which each of their parents defines them."""
    for module in model.modules():
        if type(module).__module__.startswith("torch."):
            continue
        try:
            source = inspect.getsource(type(module).forward)
        except (OSError, TypeError):
            source = ""
        function = _IN_SOURCE.search(source)
        if function:
            where = f"the function {function[1]} in the forward of {type(module).__name__}"
            raise ArgumentError("model", "nonlinearities that are modules", where)
    head = output_layer(model)
    sources: dict[str, _Source] = {}
    for name, module in model.named_modules():
        before: _Source | None = None
        for key, child in module.named_children():
            full = f"{name}.{key}" if name else key
            layer = _of_layer(child)
            if isinstance(child, NONLINEARITIES):
                if before is None:
                    raise ArgumentError("model", "nonlinearities behind a layer", f"{full}, whose input is not known")
                if before.layer is not head or head is None:
                    # The order of attributes tells the number of features, but not that nothing else reads the layer.
                    sure = isinstance(module, nn.Sequential)
                    kept = before.layer if sure else None
                    sources[full] = _Source(before.features, before.kind, before.like, kept, before.norm)
                before = _Source(before.features, before.kind, before.like, None)
            elif layer is not None:
                before = layer
            elif is_norm(child):
                before = _after_norm(child, before)
            elif not isinstance(child, _SHAPE_KEEPING):
                before = None
    return sources


def _of_layer(module: nn.Module) -> _Source | None:
    """The output of a layer."""
    if isinstance(module, (nn.Linear, nn.Bilinear)):
        return _Source(module.out_features, "linear", module, module)
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return _Source(module.embedding_dim, "linear", module, module)
    if isinstance(module, nn.modules.conv._ConvNd):
        return _Source(module.out_channels, "conv", module, module)
    return None


def _after_norm(module: nn.Module, before: _Source | None) -> _Source | None:
    """The output of a norm, which has the shape of what it reads."""
    if before is not None:
        return _Source(before.features, before.kind, before.like, before.layer, module)
    if isinstance(module, nn.GroupNorm):
        return _Source(module.num_channels, "conv", module, None, module)
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return _Source(module.num_features, "conv", module, None, module)
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)) and len(module.normalized_shape) == 1:
        return _Source(int(module.normalized_shape[0]), "linear", module, None, module)
    return None


def _norm(norm: Norm, source: _Source, affine: bool) -> nn.Module:
    weight = next(source.like.parameters(), None)
    made: nn.Module
    if source.kind == "linear":
        kind = nn.LayerNorm if norm == "layer" else nn.RMSNorm
        made = kind(source.features, elementwise_affine=affine)
    elif norm == "layer":
        made = nn.GroupNorm(1, source.features, affine=affine)
    else:
        made = ChannelRMSNorm(source.features, affine=affine)
    return made if weight is None else made.to(weight.device, weight.dtype)


def _drop_bias(source: _Source) -> None:
    """Take the bias of a layer that only a norm reads; a BatchNorm's running mean was about it."""
    layer: Any = source.layer
    bias = None if layer is None else getattr(layer, "bias", None)
    if bias is None:
        return
    mean = getattr(source.norm, "running_mean", None)
    if isinstance(mean, Tensor):
        mean.sub_(bias.detach())
    layer.bias = None
