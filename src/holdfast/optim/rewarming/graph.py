"""What calls what in a network's forward, from a symbolic trace where the network allows one."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise

from torch import fx, nn

_LAYER_OR_NORM = re.compile("Linear|Conv|Embedding|Norm")


@dataclass(frozen=True)
class CallGraph:
    """What a network's forward calls.

    Arguments:
        order: names of the modules that torch defines, and of other layers and norms, as they are called; untraced,
            of all modules as they are defined.
        next: of a module's name, that of the only module that reads its output, where that is certain.
        functions: the functions and methods that are called between modules.
        traced: whether `order` and `functions` are those of a trace.
    """

    order: tuple[str, ...]
    next: dict[str, str] = field(default_factory=dict)
    functions: frozenset[str] = frozenset()
    traced: bool = False


def call_graph(model: nn.Module) -> CallGraph:
    """Trace a network with `torch.fx`; where its forward cannot be traced, fall back to its definition.

    Then the order is that in which modules are registered, and one module is said to read another's output only where
    both follow each other in an `nn.Sequential`. The model is left as it was, attributes that its forward sets
    included.

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
    calls: dict[str, int] = {}
    for node in called:
        calls[str(node.target)] = calls.get(str(node.target), 0) + 1
    followers: dict[str, str] = {}
    for node in called:
        users = list(node.users)
        # A module that is called twice may have two readers, one of them elsewhere.
        if len(users) == 1 and users[0].op == "call_module" and calls[str(node.target)] == 1:
            followers[str(node.target)] = str(users[0].target)
    functions = {
        node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        for node in graph.nodes
        if node.op in ("call_function", "call_method")
    }
    return CallGraph(tuple(str(node.target) for node in called), followers, frozenset(functions), traced=True)


def trace(model: nn.Module) -> fx.Graph | None:
    """The graph of a forward, or `None` where it cannot be traced (it decides by the values that it computes)."""
    before = {module: dict(module.__dict__) for module in model.modules()}
    try:
        return _Tracer().trace(model)
    except Exception:  # whatever code of others raises when it is given symbols for tensors
        return None
    finally:
        for module, attributes in before.items():
            for name in set(module.__dict__) - set(attributes):
                del module.__dict__[name]
            module.__dict__.update(attributes)


class _Tracer(fx.Tracer):
    """Stops at layers and norms that torch does not define too."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = _LAYER_OR_NORM.search(type(m).__name__) is not None and not m._modules
        return known or super().is_leaf_module(m, module_qualified_name)
