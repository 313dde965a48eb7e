"""Power-propagation as an optimiser: large weights move fast and small ones freeze, so that many can be pruned."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from holdfast.errors import ArgumentError
from holdfast.optim.inner import attributes, copied, standing_in
from holdfast.optim.power_propagation import together
from holdfast.optim.power_propagation.powers import (
    ALIKE,
    Scratch,
    factor,
    in_pieces,
    pieces,
    power,
    preconditioner,
    root,
    same_bits,
)
from holdfast.optim.power_propagation.selection import PowerPropWarning, check_alpha, check_zeros, powered
from holdfast.optim.rewarming.hooks import attached

Form = Literal["exact", "first-order", "decoupled"]

SCHEMA = 1
"""Version of what `PowerProp.state_dict` adds."""
DIRECTIONS = ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop", "Adagrad", "Adadelta")
"""Optimisers of torch whose step, without decay, does not depend on the weights."""
UNSEEN = ("SparseAdam", "SAM", "GSAM", "WSAM", "BSAM", "LookSAM")
"""Optimisers that work on sparse gradients, or between several passes at other weights."""


class PowerProp(Optimizer):
    """Any optimiser, on the roots φ of weights θ = φ|φ|^(α−1).

    Gradient flow on φ is one on θ with the diagonal preconditioner P(θ) = α²|θ|^(2−2/α): what is large moves fast, what
    is small stays small. The model itself is not changed, and neither is any gradient. Parameters that are not powered
    (biases, norms, embeddings, what `exclude` names) are the inner optimiser's as ever.

    Forms:
        `"exact"`: the inner optimiser steps on φ with ∂L/∂φ = α|φ|^(α−1) ∂L/∂θ, as if the model were written in φ. Its
            decay acts on φ. With Adam, half of the exponent cancels; decay in φ makes up for it (`power_adamw`).
        `"first-order"`: P(θ)·∂L/∂θ goes into `torch.optim.SGD`, with δ beside |θ|; differs from exact by O(lr²). Into
            an adaptive optimiser it is refused, since P would cancel.
        `"decoupled"`: what an inner optimiser without decay adds to θ, times P(θ).

    Groups and state are those of the inner optimiser, so that schedulers work on either. A weight that somebody else
    writes between two steps is noticed: elements that differ by more than rounding get a new root, and moments
    stay. A closure is called once, at θ. A model may be moved to another device, as the Trainer of Hugging Face and
    Accelerate do.

    Arguments:
        model: whose linear and convolutional weights are powered, as far as the optimiser has them.
        optimizer: of torch, with nothing attached; attach to this one instead.
        alpha: α of at least 1; at 1 this is the inner optimiser.
        form: see above.
        exclude: names of weights, or of modules around them, that are left alone; `*` stands for anything.
        floor: δ of the first-order form.
        zeros: what to do about weights of which more than 1 % is zero: `"keep"` them there, as in a pruned network.

    Errors:
        ArgumentError: α is below 1; more than 1 % of a weight is zero, which would never move; the form does not go
            with the optimiser; the optimiser needs its closure or sparse gradients; it has none of the weights.

    Source: Schwarz et al., arXiv 2110.00296 (the reparametrisation); arXiv 2507.12224 (as a preconditioner).
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        alpha: float | int = 2.0,
        form: Form = "exact",
        exclude: Iterable[str] | None = None,
        floor: float | int = 0.0,
        zeros: Literal["refuse", "keep"] = "refuse",
    ) -> None:
        if form not in ("exact", "first-order", "decoupled"):
            raise ArgumentError("form", "'exact', 'first-order' or 'decoupled'", form)
        if not floor >= 0 or (floor and form != "first-order"):
            raise ArgumentError("floor", "a number of at least 0, in the first-order form", floor)
        _check_inner(optimizer, form)
        self.inner = optimizer
        self.alpha = check_alpha(alpha)
        self.form: Form = form
        self.floor = float(floor)
        self.zeros = zeros
        self.masks: dict[str, Tensor] = {}
        """What the weights are multiplied by, by name; see `set_masks`."""
        layers, self.excluded = powered(model, exclude)
        self._candidates = {layer.parameter: layer.name for layer in layers}
        self.weights: dict[str, nn.Parameter] = {}
        """The powered weights θ by name."""
        self.roots: dict[str, nn.Parameter] = {}
        """Their roots φ by name, in float32 where the weight is of half precision; for `exact` and α > 1 alone."""
        self._said = False
        self._changed: dict[tuple[str, ...], Tensor] = {}
        self._steps = 0
        self._scratch = Scratch()
        self._take_up()
        if not self.weights:
            raise ArgumentError("optimizer", "one that changes linear or convolutional weights of the model", "none")
        super().__setstate__({})

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The groups of the inner optimiser."""
        return self.inner.param_groups

    @property
    def state(self) -> Any:  # type: ignore[override]
        """The state of the inner optimiser."""
        return self.inner.state

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        """The defaults of the inner optimiser."""
        return self.inner.defaults

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Of parameters that are powered if they are weights of the model's layers."""
        self.inner.add_param_group(param_group)
        self._take_up()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of the inner optimiser on the roots.

        Errors:
            TypeError: a powered weight has a sparse or complex gradient.
            ArgumentError: the decoupled form meets a group with decay.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._follow()
        moved = [name for name, weight in self.weights.items() if weight.grad is not None]
        for name in moved:
            gradient = self.weights[name].grad
            if gradient is None or gradient.is_sparse or gradient.is_complex():
                raise TypeError(f"{name} has a sparse or complex gradient")
        if self.alpha == 1:
            self.inner.step()
        elif self.form == "exact":
            self._exact(moved)
        elif self.form == "first-order":
            self._first_order(moved)
        else:
            self._decoupled(moved)
        if self.alpha == 1 or self.form != "exact":
            for name, mask in self.masks.items():
                self.weights[name].mul_(mask)
        return loss

    @torch.no_grad()
    def set_masks(self, masks: Mapping[str, Tensor]) -> None:
        """Multiply weights from now on, after the power; roots stay.

        Arguments:
            masks: of the weights' shapes, by name: 1 or true for what is kept. Weights that are not there are whole.

        Errors:
            ArgumentError: no such weight is powered, or a shape differs.
        """
        for name, mask in masks.items():
            if name not in self.weights:
                raise ArgumentError("masks", f"names among {', '.join(self.weights)}", name)
            if mask.shape != self.weights[name].shape:
                shape = tuple(self.weights[name].shape)
                raise ArgumentError("masks", f"{name} of shape {shape}", f"shape {tuple(mask.shape)}")
        self._follow()
        self._notice(list(self.roots))
        self.masks = {
            name: torch.empty_like(self.weights[name], dtype=torch.bool).copy_(mask != 0)
            for name, mask in masks.items()
        }
        for name, weight in self.weights.items():
            if name in self.roots:
                self._write([name])
            elif name in self.masks:
                weight.mul_(self.masks[name])

    def state_dict(self) -> dict[str, Any]:
        """That of the inner optimiser, with α, form, roots and masks; loads with `weights_only=True`."""
        added = {
            "version": SCHEMA,
            "inner": type(self.inner).__name__,
            "alpha": self.alpha,
            "form": self.form,
            "roots": {name: value.detach() for name, value in self.roots.items()},
            "masks": dict(self.masks),
        }
        return {**self.inner.state_dict(), "power_propagation": added}

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where another process stopped; the weights themselves are in the model's `state_dict`.

        Errors:
            ArgumentError: it is not of a `PowerProp` with this inner optimiser, α, form and weights; nothing has been
                loaded then.
        """
        added = state_dict.get("power_propagation")
        if not isinstance(added, Mapping):
            raise ArgumentError("state_dict", "the state of a PowerProp", "one without 'power_propagation'")
        expected = {"version": SCHEMA, "inner": type(self.inner).__name__, "alpha": self.alpha, "form": self.form}
        for key, value in expected.items():
            if added.get(key) != value:
                raise ArgumentError("state_dict", f"{key} {value!r}", repr(added.get(key)))
        for kept, values in ((self.roots, added["roots"]), (self.weights, added["masks"])):
            unknown = sorted(set(values) - set(kept))
            missing = sorted(set(kept) - set(values)) if kept is self.roots else []
            if unknown or missing:
                raise ArgumentError("state_dict", f"weights {', '.join(kept)}", f"other ones: {unknown + missing}")
            for name, value in values.items():
                if value.shape != kept[name].shape:
                    shape = f"{name} of shape {tuple(kept[name].shape)}"
                    raise ArgumentError("state_dict", shape, f"shape {tuple(value.shape)}")
        own = {key: value for key, value in state_dict.items() if key != "power_propagation"}
        self._follow()
        with standing_in(self.inner, self._stand_ins()):
            self.inner.load_state_dict(own)
        for name, value in added["roots"].items():
            self.roots[name].copy_(value)
        self.masks = {name: mask.to(self.weights[name].device) for name, mask in added["masks"].items()}

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled."""
        return {**copied(self), "_scratch": Scratch(), "_inner_attributes": attributes(self.inner)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Back from a copy or a pickle."""
        vars(state["inner"]).update(state.pop("_inner_attributes"))
        super().__setstate__(state)

    def __repr__(self) -> str:
        """With the inner optimiser's."""
        return f"PowerProp(alpha={self.alpha:g}, form={self.form!r}, {self.inner!r})"

    def _take_up(self) -> None:
        """Power what the optimiser has and did not have."""
        new = {
            self._candidates[parameter]: parameter
            for group in self.inner.param_groups
            for parameter in group["params"]
            if parameter in self._candidates and self._candidates[parameter] not in self.weights
        }
        if self.alpha > 1 and self.zeros == "refuse":
            check_zeros(new)
        for name, parameter in new.items():
            if self.alpha > 1 and self.form != "exact" and _is_half(parameter):
                expected = "weights in float32 or float64 for this form"
                raise ArgumentError("model", expected, f"{name} in {parameter.dtype}")
        for name, parameter in new.items():
            self.weights[name] = parameter
            if self.alpha > 1 and self.form == "exact":
                self.roots[name] = nn.Parameter(root(_full(parameter.detach()), self.alpha))

    def _follow(self) -> None:
        """Take roots and masks to the device that weights have been moved to, which stay the same parameters there."""
        for name, value in self.roots.items():
            if value.device != self.weights[name].device:
                value.data = value.data.to(self.weights[name].device)
        for name, mask in self.masks.items():
            self.masks[name] = mask.to(self.weights[name].device)

    def _stand_ins(self) -> dict[Tensor, Tensor]:
        return {self.weights[name]: value for name, value in self.roots.items()}

    def _exact(self, moved: list[str]) -> None:
        """The inner optimiser's step on φ with the gradient α|φ|^(α−1) g, then θ anew.

        Between the two θ is not needed, and its memory holds the gradient of φ where their types are the same.
        """
        at_once, ready = self._apart(moved)
        begun: list[list[str]] = []
        try:
            for names in at_once:
                begun.append(names)
                self._before_at_once(names)
            for name in ready:
                begun.append([name])
                self._before(name)
            with standing_in(self.inner, self._stand_ins()):
                self.inner.step()
        finally:
            for names in reversed(begun):  # what the step has left in a cache comes first
                for name in names:
                    self.roots[name].grad = None
                self._write(names)
        self._say()

    def _first_order(self, moved: Iterable[str]) -> None:
        """SGD on θ itself, with the gradient P(θ) g."""
        stand_ins: dict[Tensor, Tensor] = {}
        for name in moved:
            weight = self.weights[name]
            assert weight.grad is not None
            stand_in = weight.detach()
            stand_in.grad = preconditioner(stand_in, self.alpha, self.floor).mul_(weight.grad)
            stand_ins[weight] = stand_in
        with standing_in(self.inner, stand_ins):
            self.inner.step()

    def _decoupled(self, moved: Iterable[str]) -> None:
        """θ + P(θ) d, of the step d that the inner optimiser makes from zero with the gradient g."""
        if any(group.get("weight_decay") for group in self.inner.param_groups):
            raise ArgumentError("form", "'exact' where a group has weight decay", self.form)
        stand_ins: dict[Tensor, Tensor] = {}
        for name in moved:
            weight = self.weights[name]
            stand_in = torch.zeros_like(weight, requires_grad=False)
            stand_in.grad = weight.grad
            stand_ins[weight] = stand_in
        with standing_in(self.inner, stand_ins):
            self.inner.step()
        for parameter, step in stand_ins.items():
            parameter.addcmul_(preconditioner(parameter.detach(), self.alpha), step)

    def _tensors(self, name: str) -> tuple[Tensor, ...]:
        """φ, θ and, where there is one, the mask. What writes to this θ counts as a change for autograd."""
        mask = self.masks.get(name)
        tensors = (self.roots[name].detach(), self.weights[name].detach())
        return tensors if mask is None else (*tensors, mask)

    def _before(self, name: str) -> None:
        """∂L/∂φ, of what θ is now."""
        tensors = self._tensors(name)
        value, weight = tensors[:2]
        gradient = self.weights[name].grad
        assert gradient is not None
        into = weight if weight.dtype == value.dtype else torch.empty_like(value)
        gradient = gradient.contiguous() if in_pieces(*tensors, into) else gradient
        cut = in_pieces(into, gradient, *tensors)
        zero = into.new_zeros(())
        for there, towards, *parts in pieces(into, gradient, *tensors):
            factors = self._notice_piece(name, cut, *parts)
            torch.addcmul(zero, factors, towards.to(there.dtype), value=self.alpha, out=there)
            if len(parts) == 3:
                there.mul_(parts[2])
        self.roots[name].grad = into

    def _apart(self, names: Iterable[str]) -> tuple[list[list[str]], list[str]]:
        """Weights that are worked on at once, and those that are one after the other."""
        at_once = {n: self.weights[n] for n in names if together.can_be(self.roots[n], self.weights[n])}
        return list(together.chunks(at_once)), [name for name in names if name not in at_once]

    def _lists(self, names: list[str]) -> tuple[list[Tensor], list[Tensor], list[Tensor | None]]:
        """φ, θ and masks."""
        values, weights = ([tensors[name].detach() for name in names] for tensors in (self.roots, self.weights))
        return values, weights, [self.masks.get(name) for name in names]

    def _before_at_once(self, names: list[str]) -> None:
        """As `_before`, of several weights."""
        values, weights, masks = self._lists(names)
        self._notice_at_once(names)
        gradients = [gradient for name in names if (gradient := self.weights[name].grad) is not None]
        together.gradients_(weights, gradients, values, masks, self.alpha)
        for name, into in zip(names, weights, strict=True):
            self.roots[name].grad = into

    def _notice_at_once(self, names: list[str]) -> None:
        """As `_notice_piece`, of several weights."""
        values, weights, masks = self._lists(names)
        self._changed_are(names, together.take_up_(values, weights, masks, self.alpha))

    def _write(self, names: list[str]) -> None:
        """θ of φ."""
        at_once, others = self._apart(names)
        for chunk in at_once:
            values, weights, masks = self._lists(chunk)
            together.powers_(weights, values, masks, self.alpha)
        for name in others:
            self._write_one(name)

    def _write_one(self, name: str) -> None:
        tensors = self._tensors(name)
        direct = tensors[0].dtype == tensors[1].dtype
        for value, weight, *mask in pieces(*tensors):
            if direct:
                power(value, self.alpha, out=weight)
            else:
                weight.copy_(power(value, self.alpha))
            if mask:
                weight.mul_(mask[0])

    def _notice(self, names: list[str]) -> None:
        at_once, others = self._apart(names)
        for chunk in at_once:
            self._notice_at_once(chunk)
        for name in others:
            tensors = self._tensors(name)
            for parts in pieces(*tensors):
                self._notice_piece(name, in_pieces(*tensors), *parts)

    def _notice_piece(self, name: str, cut: bool, value: Tensor, weight: Tensor, mask: Tensor | None = None) -> Tensor:
        """New roots of elements of θ that are neither what was written last, nor what roots were taken of.

        Arguments:
            name: of the weight.
            cut: whether these are parts of tensors and not whole ones.
            value: φ.
            weight: θ.
            mask: of θ.

        Returns:
            |φ|^(α−1).
        """
        spare = self._scratch.like(value) if cut else (None, None)
        factors = factor(value, self.alpha, spare[0])
        written = torch.mul(factors, value, out=spare[1]).to(weight.dtype)
        if mask is not None:
            written = written.mul_(mask)
        if cut and same_bits(written, weight):
            return factors
        fresh = root(_full(weight), self.alpha)
        near = value.abs().mul_(ALIKE * torch.finfo(value.dtype).eps)
        same = (written == weight) | ((fresh - value).abs_() <= near)
        value.copy_(torch.where(same, value, fresh))
        changed = (~same).any()
        self._changed_are([name], changed.reshape(1))
        return factor(value, self.alpha, factors)

    def _changed_are(self, names: list[str], changed: Tensor) -> None:
        """Remember which weights somebody else wrote: those whose number is not 0."""
        if not self._said:
            before = self._changed.get(tuple(names))
            self._changed[tuple(names)] = changed if before is None else torch.maximum(before, changed)

    def _say(self) -> None:
        """Warn of weights that somebody else wrote; on a GPU, which must wait for it, at few of the steps."""
        self._steps += 1
        often = all(changed.device.type == "cpu" for changed in self._changed.values())
        if self._said or not (often or self._steps & (self._steps - 1) == 0):
            return
        flags = [pair for names, own in self._changed.items() for pair in zip(names, own.tolist(), strict=True)]
        names = dict.fromkeys(name for name, flag in flags if flag)
        self._changed = {}
        if names:
            self._said = True
            warnings.warn(
                f"{', '.join(names)}: written by somebody else since the last step; roots are taken anew, moments stay "
                "(said once)",
                PowerPropWarning,
                stacklevel=2,
            )


def _is_half(tensor: Tensor) -> bool:
    return tensor.dtype not in (torch.float32, torch.float64)


def _full(tensor: Tensor) -> Tensor:
    return tensor.float() if _is_half(tensor) else tensor


def _check_inner(optimizer: Optimizer, form: Form) -> None:
    """Refuse what cannot step on roots.

    Errors:
        ArgumentError: see `PowerProp`.
    """
    kind = type(optimizer).__name__
    if not isinstance(optimizer, Optimizer) or isinstance(optimizer, PowerProp):
        raise ArgumentError("optimizer", "an optimiser of torch", kind)
    if attached(optimizer):
        parts = ", ".join(type(part).__name__ for part in attached(optimizer))
        raise ArgumentError("optimizer", "one with nothing attached: attach to the PowerProp", f"{kind} with {parts}")
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if kind in UNSEEN or (closure is not None and closure.default is inspect.Parameter.empty):
        raise ArgumentError("optimizer", "one whose step needs neither a closure nor sparse gradients", kind)
    if form == "first-order" and type(optimizer) is not torch.optim.SGD:
        expected = "torch.optim.SGD for this form: an adaptive optimiser divides P·g by its own size, and P cancels"
        raise ArgumentError("optimizer", expected, kind)
    if form == "decoupled" and (kind not in DIRECTIONS or not isinstance(optimizer, getattr(torch.optim, kind))):
        raise ArgumentError("optimizer", f"one of torch's {', '.join(DIRECTIONS)} for this form", kind)
