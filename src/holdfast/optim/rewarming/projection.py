"""Hold the norm of every layer, so that the learning rate alone decides how fast a network turns.

W ← W · ρ / ‖W‖ after a step, one number a layer, ρ its norm at the start. Source: arXiv 2507.20057, equation 2, and
2407.01800, which leaves the output layer out.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.optim import Optimizer

from holdfast.errors import ArgumentError, HoldfastError, count_of
from holdfast.optim.rewarming.hooks import PROJECT, StepPart, attached, real_optimizer, skipped
from holdfast.optim.rewarming.layers import Layer, Selection, has_norm, named_modules, output_of, select, unwrapped
from holdfast.optim.rewarming.shards import alike, exact, is_sharded, local, norms

Radius = Literal["init", "unit"] | float | int | Mapping[str, float] | Mapping[str, int]

LOW_PRECISION = (torch.bfloat16, torch.float16)
_ZERO = "zero when it was attached"


class ProjectionWarning(UserWarning):
    """Something about a network makes the projection do less, or other things, than one may expect."""


class NonFiniteParameter(HoldfastError, ArithmeticError):
    """A weight became zero or not finite, and has no norm that could be put back."""


@dataclass(frozen=True)
class _Follower:
    """A BatchNorm with running statistics, and the module whose output it reads."""

    norm: nn.Module
    module: nn.Module


@dataclass
class _Bucket:
    """Layers of one device and dtype, which are projected in one go."""

    layers: list[Layer]
    targets: Float[Tensor, " layers"]
    skips: Float[Tensor, " layers"]
    masters: list[Tensor]
    """float32 copies, if they are kept."""
    followers: list[tuple[int, _Follower]] = field(default_factory=list)
    """What reads the output of a layer, with its place."""


class Projector(StepPart):
    """Puts the norms of layers back after every k-th step of an optimiser.

    Which layers: the weights of linear, convolutional and embedding layers that the optimiser holds, each tensor once,
    but not the output layer, which is not scale-invariant: that is the last linear or convolutional layer that is
    called, by a symbolic trace where the network has one, and else by definition; with a trace all whose outputs are
    returned, such as a policy and a value. Groups that are added to the
    optimiser later are taken in. Of a weight under `weight_norm` both parts are held: the norm of the magnitude, which
    is that of the weight, and that of the direction, which alone decides how fast it turns; under `spectral_norm` the
    original. Other parametrisations, FSDP1 and ZeRO-3 are refused; of a `DTensor` (FSDP2) the norm is the whole one's.

    What is never projected: a weight that is zero when it is attached (a zero-initialised head, LoRA's B), which a
    target of 0 would kill for ever; `radius` can name one for it. A weight that is zero or not finite at a step is left
    as it is and counted in `skips`.

    BatchNorm: where one reads a layer's output directly, and no other module's, its running mean and variance go along,
    so that the network in `eval` computes what it did before. It is found by the trace; in a network that cannot be
    traced only within `nn.Sequential`, since the order of definition proves nothing. Others are named by a warning, if
    `every` or `radius` makes for factors that are not near 1.

    Precision: norms and factors of bfloat16 and float16 weights are computed in float32, but their rounding swallows a
    factor near 1, so that the norm stays up to 0.4 % off its target. With `masters=True` the projector keeps them in
    float32 and adds each step's change to these, which leaves the norm within rounding of single entries. Weights
    in float32 under autocast need neither.

    Projection makes decoupled weight decay of the same tensors idle, about which a warning tells. No value is read by
    the host during a step unless `strict`.

    Arguments:
        model: its layers; wrapped and compiled ones too.
        optimizer: after whose steps; see `hooks.real_optimizer`.
        every: k. Steps that a `GradScaler` leaves out do not count.
        exclude: names of what is not to be projected beside the default; see `layers.select`.
        include: `"all"` for the output layer too, or names of what is to be projected beside the default.
        radius: `"init"`: the norm when it is attached; `"unit"`: 1; a number; or numbers by parameter name, such as the
            norms of a checkpoint, where other layers keep theirs. A norm that is not the present one is put in place at
            once. That changes the effective learning rate at a stroke, about which a warning tells.
        strict: raise when a weight is zero or not finite; it waits for a GPU at each projection.
        masters: see above.

    Errors:
        ArgumentError: there is nothing to project, a name is unknown, a radius is not positive, or another projector
            holds a layer already.
        NonFiniteParameter: at a step, if `strict`.
    """

    rank = PROJECT

    def __init__(
        self,
        model: nn.Module,
        optimizer: object,
        *,
        every: int = 1,
        exclude: Iterable[str] | None = None,
        include: Literal["all"] | Iterable[str] | None = None,
        radius: Radius = "init",
        strict: bool = False,
        masters: bool = False,
    ) -> None:
        self.every = count_of("every", every, least=1)
        self.strict = strict
        self.keeps_masters = masters
        self.radius = _checked(radius)
        self.steps = 0
        """Steps so far."""
        selection = select(model, include=include, exclude=exclude)
        self.excluded = selection.excluded
        """Layers that are not projected, by name, with the reason."""
        self._candidates = selection.layers
        self._followers = _followers(model, selection)
        self._buckets: list[_Bucket] = []
        inner = real_optimizer(optimizer)
        self._check(model, selection, inner)
        self.optimizer = inner
        self._parameters = 0
        self._take_in()
        if not self._buckets:
            raise ArgumentError("model", "a layer to project that is not zero", ", ".join(self.excluded))
        _tell(model, selection, inner, self)
        if self.radius != "init":
            self._warn_of_jump()
            self._project()
        super().__init__(inner)

    @property
    def targets(self) -> dict[str, Tensor]:
        """The norm that each layer is held at, by parameter name, on the device of its weight."""
        return {
            layer.name: target
            for bucket in self._buckets
            for layer, target in zip(bucket.layers, bucket.targets.unbind(), strict=True)
        }

    @property
    def projected(self) -> tuple[Layer, ...]:
        """The layers that are held."""
        return tuple(layer for bucket in self._buckets for layer in bucket.layers)

    @property
    def skips(self) -> dict[str, int]:
        """How often each weight was left alone since it was zero or not finite; reading it waits for a GPU."""
        counts = (zip(bucket.layers, bucket.skips.tolist(), strict=True) for bucket in self._buckets)
        return {layer.name: int(count) for pairs in counts for layer, count in pairs if count}

    def after_step(self) -> None:
        """Project at every k-th step."""
        skip = skipped(self.optimizer)
        if skip is not None and skip.device.type == "cpu" and float(skip) > 0:
            return
        if self.every > 1 and torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
            raise ArgumentError("every", "1 in a CUDA graph, which repeats one step", self.every)
        self.steps += 1
        self._take_in()
        if self.steps % self.every == 0:
            self.project()

    def project(self) -> None:
        """Put all norms back now. Once is as good as twice.

        Errors:
            NonFiniteParameter: a weight is zero or not finite, and the projector is `strict`; the others are projected.
        """
        fine = self._project()
        if self.strict:
            pairs = (
                zip(bucket.layers, ok.tolist(), strict=True) for bucket, ok in zip(self._buckets, fine, strict=True)
            )
            broken = [layer.name for group in pairs for layer, ok in group if not ok]
            if broken:
                raise NonFiniteParameter(f"zero or not finite, and not projected: {', '.join(broken)}")

    @torch.no_grad()
    def _project(self) -> list[Bool[Tensor, " layers"]]:
        """Put all norms back; which weights of each bucket had one."""
        answers = []
        for bucket in self._buckets:
            weights = [layer.parameter for layer in bucket.layers]
            here = [local(weight) for weight in weights]
            _follow_masters(bucket)
            values = bucket.masters or exact(here)
            factors = bucket.targets / norms(weights, values)
            fine = factors.isfinite() & (factors > 0)
            # A factor within rounding of 1 is 1: what was projected stays as it is to the last bit.
            near = (factors - 1).abs() <= 8 * torch.finfo(factors.dtype).eps
            factors = torch.where(fine & ~near, factors, 1.0)
            torch._foreach_mul_(values, list(factors.unbind()))
            if values[0] is not here[0]:
                torch._foreach_copy_(here, values)
            for place, follower in bucket.followers:
                _scale_statistics(follower, factors[place])
            bucket.skips += ~fine
            answers.append(fine)
        return answers

    def output_change(self, model: nn.Module, batch: Any) -> float:
        """How much the next projection will change the output: the jump that `every` above 1 brings.

        The model runs in `eval`; it and the projector are as before afterwards.

        Arguments:
            model: the one that is projected.
            batch: what it is called with; see `layers.scale_invariance`.

        Returns:
            The largest ‖f'(x) − f(x)‖ / ‖f(x)‖ over the examples of the batch, which are the first dimension of each
            output. About 0 where all layers are scale-invariant.
        """
        modes = {module: module.training for module in model.modules()}
        tensors = [*model.parameters(), *model.buffers(), *(master for b in self._buckets for master in b.masters)]
        tensors += [bucket.skips for bucket in self._buckets]
        kept = [tensor.detach().clone() for tensor in tensors]
        try:
            model.eval()
            with torch.no_grad():
                before = output_of(model, batch)
                self._project()
                after = output_of(model, batch)
        finally:
            with torch.no_grad():
                for tensor, old in zip(tensors, kept, strict=True):
                    tensor.detach().copy_(old)
            for module, mode in modes.items():
                module.training = mode
        return max(_largest_change(old, new) for old, new in zip(before, after, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """What a later run needs to go on: steps, targets by parameter name, the names of layers that were zero, and
        masters where they are kept.
        """
        state: dict[str, Any] = {
            "steps": self.steps,
            "zero": self._zero(),
            "targets": {
                layer.name: target
                for bucket in self._buckets
                for layer, target in zip(bucket.layers, bucket.targets.tolist(), strict=True)
            },
        }
        if self.keeps_masters:
            state["masters"] = self._masters()
        return state

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state. Weights stay as they are: they come from the checkpoint of the model, before or after.

        A layer that was zero when the first run began is left alone, though it may not be zero any more.

        Errors:
            ArgumentError: it is not one of `state_dict`, or of a projector of other layers, which are named.
        """
        expected = {"steps", "targets", "zero", *(("masters",) if self.keeps_masters else ())}
        if not isinstance(state, Mapping) or set(state) != expected:
            found = ", ".join(sorted(map(str, state))) if isinstance(state, Mapping) else repr(type(state))
            raise ArgumentError("state", f"the entries {', '.join(sorted(expected))}", found)
        unknown = sorted(set(state["zero"]) - {layer.name for layer in self._candidates})
        if unknown:
            raise ArgumentError("state['zero']", "layers of this projector", f"unexpected {', '.join(unknown)}")
        present = {layer.name for layer in self.projected} | set(self._zero())
        present -= set(state["zero"])
        for entry in ("targets", *(("masters",) if self.keeps_masters else ())):
            missing, unexpected = present - set(state[entry]), set(state[entry]) - present
            if missing or unexpected:
                words = [f"missing {', '.join(sorted(missing))}"] * bool(missing)
                words += [f"unexpected {', '.join(sorted(unexpected))}"] * bool(unexpected)
                raise ArgumentError(f"state[{entry!r}]", "the layers of this projector", "; ".join(words))
        _checked(state["targets"])
        self.steps = count_of("steps", state["steps"])
        if set(self._zero()) != set(state["zero"]):
            for name in self._zero():
                del self.excluded[name]
            self.excluded.update(dict.fromkeys(state["zero"], _ZERO))
            self._buckets, self._parameters = [], 0
            self._take_in(state["targets"])
        for name, target in self.targets.items():
            target.fill_(state["targets"][name])
        if self.keeps_masters:
            for name, master in self._masters().items():
                master.copy_(state["masters"][name])

    def _zero(self) -> list[str]:
        return [name for name, reason in self.excluded.items() if reason == _ZERO]

    def _masters(self) -> dict[str, Tensor]:
        pairs = (zip(bucket.layers, bucket.masters, strict=False) for bucket in self._buckets)
        return {layer.name: master for group in pairs for layer, master in group}

    def _check(self, model: nn.Module, selection: Selection, optimizer: Optimizer) -> None:
        """Refuse what cannot be projected."""
        if not selection.layers:
            raise ArgumentError("model", "a layer to project beside the output layer", type(unwrapped(model)).__name__)
        if not _held(optimizer) & {id(layer.parameter) for layer in selection.layers}:
            raise ArgumentError("optimizer", "one that holds a layer of the model", type(optimizer).__name__)
        if isinstance(self.radius, Mapping):
            names = {name for layer in selection.layers for name in layer.names}
            unknown = sorted(set(self.radius) - names)
            if unknown:
                raise ArgumentError(
                    "radius", f"names of layers that are projected: {', '.join(sorted(names))}", ", ".join(unknown)
                )
        ours = {id(layer.parameter) for layer in selection.layers}
        for part in attached(optimizer):
            if isinstance(part, Projector):
                twice = [layer.name for layer in part.projected if id(layer.parameter) in ours]
                if twice:
                    raise ArgumentError("optimizer", "one without a projector of the same layers", ", ".join(twice))

    @torch.no_grad()
    def _take_in(self, targets: Mapping[str, float] | None = None) -> None:
        """Start to hold the candidates that the optimiser has by now.

        Arguments:
            targets: of a state; of other layers that of `radius`.
        """
        count = sum(len(group["params"]) for group in self.optimizer.param_groups)
        if count == self._parameters:
            return
        self._parameters = count
        held = _held(self.optimizer) - {id(layer.parameter) for layer in self.projected}
        layers = [
            layer for layer in self._candidates if id(layer.parameter) in held and layer.name not in self.excluded
        ]
        zero = []
        for places in alike([layer.parameter for layer in layers]).values():
            group = [layers[place] for place in places]
            weights = [layer.parameter for layer in group]
            present = norms(weights, exact([local(weight) for weight in weights]))
            kept = []
            for place, (layer, norm) in enumerate(zip(group, present.tolist(), strict=True)):
                target = (targets or {}).get(layer.name, self._radius_of(layer))
                if norm == 0 and target is None:
                    zero.append(layer.name)
                elif not math.isfinite(norm):
                    raise ArgumentError("model", "weights that are finite", layer.name)
                else:
                    kept.append(place)
                    if target is not None:
                        present[place] = target
            if kept:
                self._add([group[place] for place in kept], present[kept])
        if zero:
            self.excluded.update(dict.fromkeys(zero, _ZERO))
            words = f"zero, and never projected unless radius names them: {', '.join(zero)}"
            warnings.warn(words, ProjectionWarning, stacklevel=3)

    def _add(self, layers: list[Layer], targets: Float[Tensor, " layers"]) -> None:
        low = layers[0].parameter.dtype in LOW_PRECISION
        masters = [local(layer.parameter).float() for layer in layers] if low and self.keeps_masters else []
        places = {layer.name: place for place, layer in enumerate(layers)}
        followers = [(place, item) for name, place in places.items() for item in self._followers.get(name, ())]
        self._buckets.append(_Bucket(layers, targets, torch.zeros_like(targets), masters, followers))

    def _radius_of(self, layer: Layer) -> float | None:
        """The norm that was asked for, if any."""
        if self.radius == "init":
            return None
        if self.radius == "unit":
            return 1.0
        if isinstance(self.radius, Mapping):
            return next((float(self.radius[name]) for name in layer.names if name in self.radius), None)
        return float(self.radius)

    @torch.no_grad()
    def _warn_of_jump(self) -> None:
        """Say how much the first projection changes norms."""
        jumps: dict[str, float] = {}
        for bucket in self._buckets:
            weights = [layer.parameter for layer in bucket.layers]
            present = norms(weights, exact([local(weight) for weight in weights])).tolist()
            for layer, norm, target in zip(bucket.layers, present, bucket.targets.tolist(), strict=True):
                if norm > 0 and abs(target / norm - 1) > 1e-3:
                    jumps[layer.name] = target / norm
        if jumps:
            name = max(jumps, key=lambda key: abs(math.log(jumps[key])))
            words = f"norms of {len(jumps)} layers change now, that of {name} by a factor of {jumps[name]:.3g}"
            warnings.warn(f"{words}: effective learning rates jump the other way", ProjectionWarning, stacklevel=3)


def _checked(radius: Any) -> Radius:
    """A radius, if it is one."""
    values = list(radius.values()) if isinstance(radius, Mapping) else [radius]
    if isinstance(radius, str):
        good = radius in ("init", "unit")
    else:
        good = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
        good = good and all(0 < value < math.inf for value in values)
    if not good:
        raise ArgumentError(
            "radius", "init, unit, a positive number, or positive numbers by parameter name", repr(radius)
        )
    result: Radius = radius
    return result


def _held(optimizer: Optimizer) -> set[int]:
    return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}


def _follow_masters(bucket: _Bucket) -> None:
    """Add what the optimiser did to the weights since they were last made of the masters."""
    if bucket.masters:
        here = [local(layer.parameter) for layer in bucket.layers]
        for weight, master in zip(here, bucket.masters, strict=True):
            master.add_(weight.float() - master.to(weight.dtype).float())


def _followers(model: nn.Module, selection: Selection) -> dict[str, list[_Follower]]:
    """The BatchNorms with running statistics that read a layer's output, by the name of the layer's weight.

    A tied weight may have several.
    """
    modules = dict(named_modules(unwrapped(model)))
    following = selection.graph.next
    found: dict[str, list[_Follower]] = {}
    for layer in selection.layers:
        if layer.role == "direction":
            continue  # nothing depends on its norm
        for name in dict.fromkeys((layer.module_name, *(alias.rpartition(".")[0] for alias in layer.aliases))):
            after = modules.get(following.get(name, ""))
            if after is not None and _tracks(after):
                found.setdefault(layer.name, []).append(_Follower(after, modules[name]))
    return found


def _tracks(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats


def _scale_statistics(follower: _Follower, factor: Float[Tensor, ""]) -> None:
    """Make running statistics of a layer's output those of the output with the weight times a factor."""
    norm = follower.norm
    mean, variance, bias = norm.running_mean, norm.running_var, getattr(follower.module, "bias", None)
    if isinstance(mean, Tensor) and isinstance(variance, Tensor):
        offset = mean
        if isinstance(bias, Tensor):  # which is not scaled
            whole: Any = bias.detach()
            offset = mean - (whole.full_tensor() if is_sharded(whole) else whole)
        mean.add_(offset * (factor - 1))
        variance.mul_(factor * factor)


def _largest_change(before: Tensor, after: Tensor) -> float:
    examples = before.shape[0] if before.ndim else 1
    old, new = (tensor.double().reshape(examples, -1) for tensor in (before, after))
    gap = (new - old).norm(dim=1)
    return float(torch.where(gap == 0, 0.0, gap / old.norm(dim=1)).max())


def _tell(model: nn.Module, selection: Selection, optimizer: Optimizer, projector: Projector) -> None:
    """Warn of what makes a projection do other things than one may expect."""
    if not has_norm(model, selection.graph):
        words = "the network has no norms, as far as can be seen, so its layers are not scale-invariant: holding their"
        words += (
            " norms caps its outputs, and it may not even fit its training data (layers.scale_invariance measures it)"
        )
        warnings.warn(words, ProjectionWarning, stacklevel=3)
    ids = {id(layer.parameter): layer.name for layer in projector.projected}
    decouples = re.search("AdamW|Lion|Muon", type(optimizer).__name__) is not None
    decayed = [
        ids[id(parameter)]
        for group in optimizer.param_groups
        if group.get("weight_decay") and (decouples or group.get("decoupled_weight_decay"))
        for parameter in group["params"]
        if id(parameter) in ids
    ]
    if decayed:
        words = f"decoupled weight decay of projected weights does nothing: {', '.join(decayed)}"
        warnings.warn(f"{words}; give their group a weight_decay of 0", ProjectionWarning, stacklevel=3)
    rescaled = projector.every > 1 or projector.radius != "init"
    followed = {id(item.norm) for items in projector._followers.values() for item in items}
    stale = [name for name, norm in named_modules(model) if _tracks(norm) and id(norm) not in followed]
    if selection.graph.traced:  # what is called before every projected layer is not touched
        order = selection.graph.order
        ours = {name.rpartition(".")[0] for layer in projector.projected for name in layer.names}
        first = next((place for place, name in enumerate(order) if name in ours), len(order))
        stale = [name for name in stale if name in order[first:]]
    if rescaled and stale:
        words = "these BatchNorms do not read one layer alone, or the network cannot be traced to know it, so their"
        words += " running statistics will be stale after a projection; project at every step, or let them be estimated"
        warnings.warn(f"{words} again before eval: {', '.join(stale)}", ProjectionWarning, stacklevel=3)
