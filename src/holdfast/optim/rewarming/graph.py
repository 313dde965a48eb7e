"""What calls what in a network's forward, from a symbolic trace where the network allows one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import fx, nn

_LAYER_OR_NORM = re.compile("Linear|Conv|Embedding|Norm")


@dataclass(frozen=True)
class CallGraph:
    """What a network's forward calls.

    Arguments:
        order: names of the modules that torch defines, and of other layers and norms, as they are called; untraced,
            of all modules as they are defined.
        next: of a module's name, that of the only module that reads its output, which reads no other; where that is
            certain.
        returned: names of the modules with parameters whose outputs are returned, as they are or after functions of one
            tensor and modules without parameters.
        functions: the functions and methods that are called between modules.
        traced: whether `order` and `functions` are those of a trace.
    """

    order: tuple[str, ...]
    next: dict[str, str] = field(default_factory=dict)
    returned: frozenset[str] = frozenset()
    functions: frozenset[str] = frozenset()
    traced: bool = False


def call_graph(model: nn.Module) -> CallGraph:
    """Trace a network with `torch.fx`; where its forward cannot be traced, fall back to its definition.

    Then the order is that in which modules are registered, and one module is said to read another's output only where
    both follow each other in an `nn.Sequential`. The model is left as it was, buffers and attributes that its
    forward sets included, and so are random states.

    Arguments:
        model: not wrapped for several processes, nor compiled.
    """
    graph = trace(model)
    if graph is None:
        registered: dict[str, str] = {}
        for name, module in model.named_modules():
            if isinstance(module, nn.Sequential):
                prefix = f"{name}." if name else ""
                keys = [prefix + key for key in module._modules]
                registered.update(pairwise(keys))
        return CallGraph(tuple(name for name, _ in model.named_modules()), registered)
    called = [node for node in graph.nodes if node.op == "call_module"]
    readers: dict[str, set[str | None]] = {}
    sources: dict[str, set[str | None]] = {}
    for node in called:  # some of them several times
        readers.setdefault(str(node.target), set()).update(map(_module, node.users))
        sources.setdefault(str(node.target), set()).update(map(_module, node.all_input_nodes))
    followers = {
        name: reader
        for name, found in readers.items()
        for reader in found
        if reader is not None and found == {reader} and sources[reader] == {name}
    }
    functions = {
        node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        for node in graph.nodes
        if node.op in ("call_function", "call_method")
    }
    order = tuple(str(node.target) for node in called)
    return CallGraph(order, followers, _returned(model, graph), frozenset(functions), traced=True)


def _returned(model: nn.Module, graph: fx.Graph) -> frozenset[str]:
    names = set()
    left = [read for node in graph.nodes if node.op == "output" for read in node.all_input_nodes]
    while left:
        node = left.pop()
        name = _module(node)
        if name is not None and any(True for _ in model.get_submodule(name).parameters()):
            names.add(name)
        elif len(node.all_input_nodes) == 1:
            left += node.all_input_nodes
    return frozenset(names)


def _module(node: fx.Node) -> str | None:
    return str(node.target) if node.op == "call_module" else None


def trace(model: nn.Module) -> fx.Graph | None:
    """The graph of a forward, or `None` where it cannot be traced (it decides by the values that it computes)."""
    before = {module: dict(module.__dict__) for module in model.modules()}
    try:
        # A trace runs what does not depend on the input.
        devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
        with torch.random.fork_rng(devices), buffers_kept(model):
            return _Tracer().trace(model)
    except Exception:  # whatever code of others raises when it is given symbols for tensors
        return None
    finally:
        for module, attributes in before.items():
            for name in set(module.__dict__) - set(attributes):
                del module.__dict__[name]
            module.__dict__.update(attributes)


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Put back the buffers that a forward has changed or replaced, which some do in evaluation mode too."""
    before = [
        (module, name, buffer, buffer.clone(), buffer._version)
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, name, buffer, values, version in before:
                if buffer._version != version:
                    buffer.copy_(values)
                if module._buffers.get(name) is not buffer:
                    module._buffers[name] = buffer


class _Tracer(fx.Tracer):
    """Stops at layers and norms that torch does not define too."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = _LAYER_OR_NORM.search(type(m).__name__) is not None and not m._modules
        return known or super().is_leaf_module(m, module_qualified_name)
