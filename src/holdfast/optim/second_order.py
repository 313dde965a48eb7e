"""Shampoo, SOAP and Muon on a whole model: classes that exist, with arguments that do what their names say.

A matrix is what a layer's weight is after its last dimensions are flattened into one (a convolution: outputs, rest).
Only those go to the second-order method; biases, norms and embeddings go to a first-order one.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from holdfast.errors import ArgumentError, HoldfastError, count_of, require
from holdfast.optim.baselines.parameters import named_parameters
from holdfast.optim.inner import attributes, copied, standing_in
from holdfast.optim.rewarming.layers import layers_of, named_modules, output_layer

Method = Literal["shampoo", "soap", "muon"]
Graft = Literal["sgd", "adagrad", "rmsprop", "none"]

SCHEMA = 1
"""Version of `SecondOrder.state_dict`."""
ROUNDING = 8
"""The ridge of a statistic in units of rounding of its trace: in float32 1e-6 of it, as in the package's other root."""
SELDOM = 100
"""The most steps between two preconditioners that go without saying how long a training is."""


class SecondOrderWarning(UserWarning):
    """A second-order optimiser works, but perhaps not as meant."""


class NonFiniteGradient(HoldfastError, FloatingPointError):
    """A gradient is NaN or infinite; the step has not been made, and no statistics have seen it."""


@dataclass(frozen=True, eq=False)
class Split:
    """A model's trainable parameters by what they are, each by name.

    Arguments:
        matrices: weights of linear and convolutional layers.
        head: the output layer's.
        embeddings: of embedding layers, and what is tied to one.
        vectors: all others: biases, norms, and parameters of no layer.
    """

    matrices: dict[str, nn.Parameter]
    head: dict[str, nn.Parameter]
    embeddings: dict[str, nn.Parameter]
    vectors: dict[str, nn.Parameter]


def split_parameters(model: nn.Module) -> Split:
    """Tell a model's parameters apart by the layers that hold them, not by their number of dimensions.

    Arguments:
        model: any; frozen parameters and those without elements are in no part.
    """
    of_layers = {id(layer.parameter) for layer in layers_of(model) if layer.role == "weight"}
    embedded = {
        id(parameter)
        for _, module in named_modules(model)
        if "Embedding" in type(module).__name__
        for parameter in module.parameters(recurse=False)
    }
    head = output_layer(model)
    of_head = set() if head is None else {id(parameter) for parameter in head.parameters()}
    split = Split({}, {}, {}, {})
    for name, parameter in named_parameters(model).items():
        if not parameter.requires_grad or not parameter.numel():
            continue
        key = id(parameter)
        if key in embedded:
            split.embeddings[name] = parameter
        elif key not in of_layers or parameter.ndim < 2:
            split.vectors[name] = parameter
        else:
            (split.head if key in of_head else split.matrices)[name] = parameter
    return split


def second_order(
    method: Method,
    model: nn.Module,
    *,
    lr: float | int,
    rest: Callable[[list[nn.Parameter]], Optimizer] | None = None,
    head: bool | None = None,
    graft: Graft = "sgd",
    every: int = 10,
    beta: float | None = None,
    steps: int | None = None,
    nonfinite: Literal["raise", "skip"] = "raise",
    **others: Any,
) -> SecondOrder:
    """A second-order optimiser of a whole model.

    Arguments:
        method: `"shampoo"` (the `ScalableShampoo` of pytorch_optimizer, without momentum), `"soap"` (its `SOAP`,
            whose first step changes nothing), or `"muon"` (torch's).
        model: all its parameters that require gradients are trained.
        lr: learning rate of the matrices.
        rest: makes the optimiser of all other parameters; by default `torch.optim.SGD` with `lr` for Shampoo grafted on
            SGD, so that only the direction of the matrices' steps is another, and else AdamW with a rate of 1e-3.
        head: whether the output layer is one of the matrices; by default so but for Muon.
        graft: of Shampoo: the optimiser whose length each matrix's step has.
        every: steps between two preconditioners (Shampoo) or bases (SOAP).
        beta: decay of the statistics' memory: 0.999 for Shampoo, 0.95 for SOAP, and of Muon's momentum, 0.95.
        steps: of the training, if known.
        nonfinite: what to do about a gradient that is NaN or infinite; skipped steps are counted in `skipped`.
        others: further arguments of the method's class.

    Errors:
        ArgumentError: the model has no matrix; a method does not have what is asked for; the preconditioner would never
            be used within `steps`, or, without these, only every so often (plain SGD until then).
        MissingExtraError: pytorch_optimizer is not installed.

    Source: Shampoo arXiv 1802.09568 and 2002.09018, SOAP arXiv 2409.11321, grafting arXiv 2002.11803.
    """
    if method not in ("shampoo", "soap", "muon"):
        raise ArgumentError("method", "'shampoo', 'soap' or 'muon'", method)
    if graft not in ("sgd", "adagrad", "rmsprop", "none"):
        raise ArgumentError("graft", "'sgd', 'adagrad', 'rmsprop' or 'none'", graft)
    if method != "shampoo" and graft != "sgd":
        raise ArgumentError("graft", "'sgd', the default: only Shampoo is grafted", graft)
    count_of("every", every, 1)
    split = split_parameters(model)
    with_head = (method != "muon") if head is None else head
    matrices = {**split.matrices, **(split.head if with_head else {})}
    if not matrices:
        raise ArgumentError("model", "one with linear or convolutional weights that are trained", "none")
    stand_ins: dict[Tensor, Tensor] = {
        parameter: nn.Parameter(parameter.detach().flatten(1)) for parameter in matrices.values() if parameter.ndim > 2
    }
    working = [stand_ins.get(parameter, parameter) for parameter in matrices.values()]
    inner = _inner(method, working, lr=lr, graft=graft, every=every, beta=beta, others=others)
    known = {id(parameter) for parameter in matrices.values()}
    remaining = [p for p in model.parameters() if p.requires_grad and p.numel() and id(p) not in known]
    if rest is None:
        rest = _like_sgd(lr) if method == "shampoo" and graft == "sgd" else _like_adamw
    if method == "shampoo" and graft == "none" and every > 1:
        warnings.warn(
            f"Shampoo without grafting and with preconditioners every {every} steps: directions that are not in old "
            "statistics explode; use every=1 or a graft",
            SecondOrderWarning,
            stacklevel=2,
        )
    return SecondOrder(
        model,
        inner,
        rest(remaining) if remaining else None,
        stand_ins=stand_ins,
        steps=steps,
        nonfinite=nonfinite,
    )


class SecondOrder(Optimizer):
    """One optimiser of matrices and one of all other parameters, which act as one.

    Groups are those of both, so that schedulers work. No gradient is changed. Gradients are looked at before any
    statistics see them. The state is of tensors and numbers and resumes bit for bit. `second_order` makes one with
    arguments that are known to work.

    Arguments:
        model: whose parameters both optimisers have.
        matrices: the optimiser of matrices.
        rest: that of all others, if there are any.
        stand_ins: what `matrices` has been made with, by parameter, in the place of tensors of more dimensions.
        steps: of the training, if known.
        nonfinite: `"raise"`, or `"skip"` the step.

    Errors:
        ArgumentError: `matrices` is a `ScalableShampoo` whose preconditioners would never be used, or not within
            `steps`: it would be plain SGD; parameters are shards of something larger.
    """

    def __init__(
        self,
        model: nn.Module,
        matrices: Optimizer,
        rest: Optimizer | None = None,
        *,
        stand_ins: Mapping[Tensor, Tensor] | None = None,
        steps: int | None = None,
        nonfinite: Literal["raise", "skip"] = "raise",
    ) -> None:
        if nonfinite not in ("raise", "skip"):
            raise ArgumentError("nonfinite", "'raise' or 'skip'", nonfinite)
        self.matrices, self.rest = matrices, rest
        self.stand_ins = dict(stand_ins or {})
        self.nonfinite = nonfinite
        self.names = {parameter: name for name, parameter in named_parameters(model).items()}
        self.steps_made = 0
        self.skipped = 0
        """Steps that were left out for a gradient that was not finite."""
        for parameter, name in self.names.items():
            if hasattr(parameter, "device_mesh"):
                raise ArgumentError("model", "whole matrices", f"{name}, a shard")
        refuse_plain_sgd(matrices, steps)
        self._guarded = False
        if self.stand_ins:  # its groups hold stand-ins from its construction on
            back = {stand_in: parameter for parameter, stand_in in self.stand_ins.items()}
            for group in matrices.param_groups:
                group["params"] = [back.get(tensor, tensor) for tensor in group["params"]]
        super().__setstate__({})

    @property
    def optimizers(self) -> tuple[Optimizer, ...]:
        """The optimiser of matrices, and the other one if there is one."""
        return (self.matrices,) if self.rest is None else (self.matrices, self.rest)

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The groups of both."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    @property
    def state(self) -> Any:  # type: ignore[override]
        """The state of both, to be read."""
        return {key: value for optimizer in self.optimizers for key, value in optimizer.state.items()}

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        """Those of the optimiser of matrices."""
        return self.matrices.defaults

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refused: which of the two optimisers is meant cannot be told."""
        raise ArgumentError("param_group", "to be added to `matrices` or to `rest`", "neither named")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both.

        Errors:
            NonFiniteGradient: a gradient is not finite and `nonfinite` is `"raise"`.
            TypeError: a gradient is sparse or complex.
            ArgumentError: preconditioners have had their time and are still identities.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if not self._finite():
            self.skipped += 1
            return loss
        self._follow()
        for parameter, stand_in in self.stand_ins.items():
            stand_in.grad = None if parameter.grad is None else parameter.grad.flatten(1)
        with standing_in(self.matrices, self.stand_ins), _damped(self.matrices):
            self.matrices.step()
        for parameter, stand_in in self.stand_ins.items():
            if stand_in.data_ptr() != parameter.data_ptr():  # a layout that cannot be flattened in place
                parameter.copy_(stand_in.view_as(parameter))
            torch.autograd.graph.increment_version(parameter)
            stand_in.grad = None
        if self.rest is not None:
            self.rest.step()
        self.steps_made += 1
        self._guard()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Of tensors and numbers; loads with `weights_only=True`."""
        return {
            "version": SCHEMA,
            "classes": [type(optimizer).__name__ for optimizer in self.optimizers],
            "states": [_plain_state(optimizer) for optimizer in self.optimizers],
            "steps_made": self.steps_made,
            "skipped": self.skipped,
        }

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where another process stopped.

        Errors:
            ArgumentError: it is of another version or of other optimisers.
        """
        expected = {"version": SCHEMA, "classes": [type(optimizer).__name__ for optimizer in self.optimizers]}
        for key, value in expected.items():
            if state_dict.get(key) != value:
                raise ArgumentError("state_dict", f"{key} {value!r}", repr(state_dict.get(key)))
        self._follow()
        with standing_in(self.matrices, self.stand_ins):
            for optimizer, saved in zip(self.optimizers, state_dict["states"], strict=True):
                _load_plain_state(optimizer, saved)
        self.steps_made, self.skipped = state_dict["steps_made"], state_dict["skipped"]

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled."""
        return {**copied(self), "_attributes": [attributes(optimizer) for optimizer in self.optimizers]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Back from a copy or a pickle."""
        for optimizer, kept in zip((state["matrices"], state["rest"]), state.pop("_attributes"), strict=False):
            vars(optimizer).update(kept)
        super().__setstate__(state)

    def __repr__(self) -> str:
        """With both optimisers'."""
        return f"SecondOrder({', '.join(repr(optimizer) for optimizer in self.optimizers)})"

    def _follow(self) -> None:
        """Let stand-ins be what their parameters are now, wherever these have been moved to."""
        for parameter, stand_in in self.stand_ins.items():
            stand_in.data = parameter.detach().flatten(1)

    def _finite(self) -> bool:
        """Whether this step may be made."""
        gradients: dict[str, Tensor] = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    gradients[self.names.get(parameter, "a parameter of no module")] = parameter.grad
        if not gradients:
            return True
        for name, gradient in gradients.items():
            if gradient.is_sparse or gradient.is_complex():
                raise TypeError(f"{name} has a sparse or complex gradient")
        norms = torch._foreach_norm(list(gradients.values()), math.inf)
        if bool(torch.stack([norm.float() for norm in norms]).isfinite().all()):
            return True
        wrong = [f"{name} ({float(norm)})" for name, norm in zip(gradients, norms, strict=True) if not norm.isfinite()]
        if self.nonfinite == "raise":
            step = self.steps_made + self.skipped + 1
            raise NonFiniteGradient(f"step {step}: the largest gradients of {', '.join(wrong)} are not finite")
        return False

    def _guard(self) -> None:
        """Once, when preconditioners have had their time: at least one must not be an identity."""
        every = getattr(self.matrices, "preconditioning_compute_steps", None)
        if self._guarded or every is None or self.steps_made < 2 * every:
            return
        self._guarded = True
        factors = [
            factor
            for state in self.matrices.state.values()
            if "pre_conditioner" in state
            for factor in state["pre_conditioner"].pre_conditioners
        ]
        if not any(not torch.equal(factor, torch.eye(len(factor)).to(factor)) for factor in factors):
            found = f"{len(factors)} identities after {self.steps_made} steps: plain SGD"
            raise ArgumentError("matrices", "preconditioners that change gradients", found)


def refuse_plain_sgd(optimizer: Optimizer, steps: int | None = None) -> None:
    """Refuse a `ScalableShampoo` that would do what SGD does.

    With the package's own defaults it does so for its first 999 steps, and for ever on matrices of at most `block_size`
    elements, which it takes for vectors.

    Arguments:
        optimizer: any; others pass.
        steps: of the training, if known.

    Errors:
        ArgumentError: it would.
    """
    if type(optimizer).__name__ != "ScalableShampoo":
        return
    options: Any = optimizer
    first = max(options.preconditioning_compute_steps, options.start_preconditioning_step)
    if steps is None and first > SELDOM:
        expected = f"a first preconditioner within {SELDOM} steps, or `steps` that says how long the training is"
        raise ArgumentError("preconditioning_compute_steps", expected, f"{first}: plain SGD until then")
    if steps is not None and steps < 2 * first:
        expected = f"at most half of the training's {steps} steps"
        raise ArgumentError("preconditioning_compute_steps", expected, f"{first}: plain SGD until then")
    if options.shape_interpretation:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.ndim > 1 and parameter.numel() <= options.block_size:
                    found = f"True with a matrix of {tuple(parameter.shape)}, which it takes for a vector: plain SGD"
                    raise ArgumentError("shape_interpretation", "False", found)


def _inner(
    method: Method,
    parameters: list[Any],
    *,
    lr: float | int,
    graft: Graft,
    every: int,
    beta: float | None,
    others: Mapping[str, Any],
) -> Optimizer:
    """The method's class with safe arguments."""
    if method == "muon":
        return torch.optim.Muon(
            parameters, lr=lr, **{"weight_decay": 0.0, "momentum": 0.95 if beta is None else beta, **others}
        )
    package = require("pytorch_optimizer", "solutions")
    made: Optimizer
    if method == "soap":
        memory = 0.95 if beta is None else beta
        arguments = {"weight_decay": 0.0, "shampoo_beta": memory, "precondition_frequency": every, **others}
        made = package.SOAP(parameters, lr=lr, **arguments)
        return made
    grafting = require("pytorch_optimizer.optimizer.utils.graft", "solutions").LayerWiseGrafting
    safe = {
        "betas": (0.0, 0.999 if beta is None else beta),
        "nesterov": False,
        "preconditioning_compute_steps": every,
        "start_preconditioning_step": 1,
        "shape_interpretation": False,
        "use_svd": True,
        "graft_type": grafting[graft.upper()],
    }
    made = package.ScalableShampoo(parameters, lr=lr, **{**safe, **others})
    return made


@contextmanager
def _damped(optimizer: Any) -> Iterator[None]:
    """Let a `ScalableShampoo` take the roots of its statistics plus a ridge, while this lasts.

    Its statistics begin at εI, and their moving average forgets it. Without it an eigenvalue of gradients that have no
    part in a direction, such as the sum over all classes of softmax, becomes zero, and its root infinite.
    """
    if type(optimizer).__name__ != "ScalableShampoo":
        yield
        return
    for group in optimizer.param_groups:
        optimizer.init_group(group)  # what is not there cannot be damped in its first step
    factors = [state["pre_conditioner"] for state in optimizer.state.values() if "pre_conditioner" in state]
    for factor in factors:
        factor.compute_pre_conditioners = partial(_damped_roots, factor)
    try:
        yield
    finally:
        for factor in factors:
            del factor.compute_pre_conditioners


def _damped_roots(factor: Any) -> None:
    bare = factor.statistics
    stacked = isinstance(bare, Tensor)
    factor.statistics = _ridged(bare, factor.matrix_eps) if stacked else [_ridged(s, factor.matrix_eps) for s in bare]
    try:
        type(factor).compute_pre_conditioners(factor)
    finally:
        factor.statistics = bare


def _ridged(statistic: Tensor, epsilon: float) -> Tensor:
    """A statistic, or several, plus ε and what rounding may hide of an eigenvalue, on the diagonal."""
    diagonal = statistic.diagonal(dim1=-2, dim2=-1)
    ridge = epsilon + ROUNDING * torch.finfo(statistic.dtype).eps * diagonal.sum(-1, keepdim=True)
    return statistic + torch.diag_embed(ridge.expand_as(diagonal))


def _like_sgd(lr: float | int) -> Callable[[list[nn.Parameter]], Optimizer]:
    return lambda parameters: torch.optim.SGD(parameters, lr=lr)


def _like_adamw(parameters: list[nn.Parameter]) -> Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0)


def _plain_state(optimizer: Optimizer) -> dict[str, Any]:
    """An optimiser's state with the objects of `ScalableShampoo` taken apart."""
    saved = optimizer.state_dict()
    return {**saved, "state": {key: _apart(state) for key, state in saved["state"].items()}}


def _apart(state: Mapping[str, Any]) -> dict[str, Any]:
    plain = dict(state)
    if "pre_conditioner" in plain:
        factors, graft = plain.pop("pre_conditioner"), plain.pop("graft")
        plain["statistics"] = list(factors.statistics)
        plain["factors"] = list(factors.pre_conditioners)
        plain["graft"] = {key: value for key, value in vars(graft).items() if isinstance(value, Tensor)}
    return plain


def _load_plain_state(optimizer: Optimizer, saved: Mapping[str, Any]) -> None:
    """The way back; what `_apart` took apart keeps its own type, and everything else gets the parameter's."""
    apart = {key: state for key, state in saved["state"].items() if "factors" in state}
    whole = {key: state for key, state in saved["state"].items() if key not in apart}
    optimizer.load_state_dict({"state": whole, "param_groups": saved["param_groups"]})
    if not apart:
        return
    order = _in_order(saved["param_groups"])
    parameters = dict(zip(order, _in_order(optimizer.param_groups), strict=True))
    for key, state in apart.items():
        parameter = parameters[key]
        group = next(g for g in optimizer.param_groups if any(p is parameter for p in g["params"]))
        fresh = _fresh_state(optimizer, group, parameter)
        factors = fresh["pre_conditioner"]
        for ours, theirs in ((factors.statistics, state["statistics"]), (factors.pre_conditioners, state["factors"])):
            for into, value in zip(ours, theirs, strict=True):
                into.copy_(value)
        for name, value in state["graft"].items():
            getattr(fresh["graft"], name).copy_(value)
        fresh["momentum"].copy_(state["momentum"])
        optimizer.state[parameter] = fresh


def _in_order(groups: Iterable[Mapping[str, Any]]) -> list[Any]:
    return [entry for group in groups for entry in group["params"]]


def _fresh_state(optimizer: Any, group: dict[str, Any], parameter: Tensor) -> dict[str, Any]:
    """What `ScalableShampoo` begins with for a parameter."""
    optimizer.state.pop(parameter, None)
    kept, gradient = group["params"], parameter.grad
    group["params"] = [parameter]
    parameter.grad = torch.zeros_like(parameter)
    try:
        optimizer.init_group(group)
    finally:
        group["params"], parameter.grad = kept, gradient
    made: dict[str, Any] = optimizer.state[parameter]
    return made
