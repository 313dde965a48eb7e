"""What is timed: RAT's core in prefill, training and decoding, and the whole layer, each beside its peers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from holdfast.benches.harness.timing import Arm
from holdfast.benches.rat.peers import best, of_fla, official_layer, sdpa, stepped
from holdfast.nn import RAT, CausalAttention
from holdfast.nn.rat.call import ChunkAnswer, ChunkCall, Past
from holdfast.nn.rat.rat_attention import BACKENDS, computed

CHECKED = 1 << 14
"""Up to this many tokens our arms are checked against float64."""


@dataclass(frozen=True)
class Shape:
    """Sizes of all arms of a subject.

    Arguments:
        device: `"cpu"` or `"cuda"`.
        dtype: of the inputs, by its name in torch; gates are in float32.
        batch: sequences.
        tokens: of each; in decoding, of the past.
        heads: heads of RAT, and query heads of attention.
        kv_heads: key heads of grouped attention.
        groups: queries and keys that RAT's heads share.
        head_dim: dimensions of a head.
        chunk_size: of RAT.
    """

    device: str
    dtype: str
    batch: int
    tokens: int
    heads: int
    kv_heads: int
    groups: int
    head_dim: int
    chunk_size: int

    def normal(self, *size: int) -> Tensor:
        """Normally distributed numbers."""
        return torch.randn(size, device=self.device, dtype=getattr(torch, self.dtype))

    def gates(self, tokens: int) -> Tensor:
        """Uniformly distributed gates."""
        return torch.rand(self.batch, tokens, self.heads, self.head_dim, device=self.device)


@dataclass(frozen=True)
class Subject:
    """Arms that do one thing with inputs of the same sizes; the peer is `sdpa`.

    Arguments:
        name: what they do.
        shape: the sizes.
        arms: what may be timed.
        kernels: which kernel of PyTorch's a peer is.
        errors: distance of ours from float64, relative, in the 2-norm.
        wrong: why an arm is not timed.
        cache_bytes: what an arm keeps of one sequence.
    """

    name: str
    shape: Shape
    arms: Mapping[str, Arm]
    kernels: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, float] = field(default_factory=dict)
    wrong: Mapping[str, str] = field(default_factory=dict)
    cache_bytes: Mapping[str, int] = field(default_factory=dict)


def core(shape: Shape, *, train: bool) -> Subject:
    """RAT's core over whole sequences, beside attention; forward, or forward and backward."""
    call = _call(shape)
    inputs = [call.query, call.key, call.value, call.gate]
    gradient = torch.randn_like(call.value)
    calls = {name: partial(_output, call, name) for name in _backends(call, train)}
    ours: dict[str, Callable[[], object]] = dict(calls)
    if train:
        for tensor in inputs:
            tensor.requires_grad_()
        ours = {name: stepped(one, inputs, gradient) for name, one in calls.items()}
    errors, wrong = _checked(call, ours, gradient if train else None)
    arms, kernels = _attention(shape, train)
    query, key = (tensor.detach().repeat(1, 1, call.repeats, 1).requires_grad_(train) for tensor in inputs[:2])
    for name, one in of_fla(query, key, call.value, call.gate).items():
        if not train:
            arms[name] = Arm(one)
        elif name == "fla-attention":
            arms[name] = Arm(stepped(one, [query, key, call.value], gradient))
    arms |= {f"rat-{name}": Arm(one) for name, one in ours.items() if name not in wrong}
    return Subject("train" if train else "prefill", shape, arms, kernels, errors, wrong)


def decoding(shape: Shape) -> Subject:
    """One new token after a past of as many tokens for each sequence."""
    call = _call(shape, tokens=1)
    closed, dtype = shape.tokens // shape.chunk_size, getattr(torch, shape.dtype)
    states = [shape.normal(shape.batch, shape.heads, closed, shape.head_dim) for _ in range(2)]
    running = [shape.normal(shape.batch, shape.heads, shape.head_dim).float() for _ in range(2)]
    count = torch.full((shape.batch,), closed, device=shape.device)
    past = Past(keys=states[0], values=states[1], count=count, running_key=running[0], running_value=running[1])
    call = replace(call, past=past)
    ours: dict[str, Callable[[], object]] = {name: partial(_output, call, name) for name in _backends(call, False)}
    errors, wrong = _checked(call, ours, None)
    query = shape.normal(shape.batch, shape.heads, 1, shape.head_dim)
    of_token = 2 * shape.head_dim * dtype.itemsize
    arms, kernels, cache = {}, {}, {}
    for name, heads in _peers(shape).items():
        key, value = (shape.normal(shape.batch, heads, shape.tokens, shape.head_dim) for _ in range(2))
        one = partial(sdpa, query, key, value, causal=False)
        kernels[name], setting = best(one, shape.device)
        arms[name] = Arm(one, setting)
        cache[name] = of_token * heads * shape.tokens
    for name, step in ours.items():
        if name not in wrong:
            arms[f"rat-{name}"] = Arm(step)
            cache[f"rat-{name}"] = shape.heads * (of_token * closed + 8 * shape.head_dim)
    return Subject("decode", shape, arms, kernels, errors, wrong, cache)


def layer(shape: Shape, *, train: bool, official: Path | None) -> Subject:
    """The whole layer, projections included, beside a layer of attention."""
    dim, dtype = shape.heads * shape.head_dim, getattr(torch, shape.dtype)
    x = shape.normal(shape.batch, shape.tokens, dim).requires_grad_(train)
    gradient = torch.randn_like(x)
    mixers = {name: CausalAttention(dim, shape.heads, kv_heads=kv_heads) for name, kv_heads in _peers(shape).items()}
    arms, kernels, wrong = {}, {}, {}
    for name, attention in mixers.items():
        attention.to(shape.device, dtype)
        arms[name], kernels[name] = _of_layer(attention, x, gradient, train, shape.device)
    for name in _backends(_call(replace(shape, batch=1, tokens=1)), train):
        mixer = RAT(
            dim,
            shape.heads,
            chunk_size=shape.chunk_size,
            qk_groups=shape.groups,
            backend=name,  # type: ignore[arg-type]
        )
        arms[f"rat-{name}"], _ = _of_layer(mixer.to(shape.device, dtype), x, gradient, train, "cpu")
    if official is not None:
        try:
            module, call = official_layer(official, dim, shape.heads, shape.chunk_size, shape.tokens, dtype)
            wide = x.detach().float().requires_grad_(train)
            arms["official"] = Arm(partial(call, wide))
            if train:
                inputs = [wide, *module.parameters()]
                arms["official"] = Arm(stepped(partial(call, wide), inputs, torch.randn_like(wide)))
            arms["official"].call()
        except Exception as error:
            arms.pop("official", None)
            wrong["official"] = f"{type(error).__name__}: {error}".splitlines()[0]
    return Subject("layer-train" if train else "layer", shape, arms, kernels, wrong=wrong)


def _of_layer(module: torch.nn.Module, x: Tensor, gradient: Tensor, train: bool, device: str) -> tuple[Arm, str]:
    def one() -> Tensor:
        with torch.set_grad_enabled(train):
            output: Tensor = module(x)[0]
        return output

    call: Callable[[], object] = stepped(one, [x, *module.parameters()], gradient) if train else one
    name, setting = best(call, device)
    return Arm(call, setting), name


def _output(call: ChunkCall, backend: str) -> Tensor:
    return computed(call, backend).output


def _call(shape: Shape, tokens: int | None = None) -> ChunkCall:
    tokens = shape.tokens if tokens is None else tokens
    query, key = (shape.normal(shape.batch, tokens, shape.groups, shape.head_dim) for _ in range(2))
    return ChunkCall(
        query=query,
        key=key,
        value=shape.normal(shape.batch, tokens, shape.heads, shape.head_dim),
        gate=shape.gates(tokens),
        chunk_size=shape.chunk_size,
        scale=shape.head_dim**-0.5,
        rope_theta=10_000.0,
    )


def _backends(call: ChunkCall, train: bool) -> list[str]:
    """What computes ours: `auto`, and on a GPU each one that takes the call, but for the reference."""
    names = [name for name, module in BACKENDS.items() if name != "reference" and module.refusal(call) is None]
    return ["auto", *names] if call.value.is_cuda else ["auto"]


def _peers(shape: Shape) -> dict[str, int]:
    """Key heads of the peers."""
    peers = {"sdpa": shape.heads}
    return peers if shape.kv_heads == shape.heads else peers | {"gqa": shape.kv_heads}


def _attention(shape: Shape, train: bool) -> tuple[dict[str, Arm], dict[str, str]]:
    """Causal attention over whole sequences."""
    arms, kernels = {}, {}
    query = shape.normal(shape.batch, shape.heads, shape.tokens, shape.head_dim).requires_grad_(train)
    gradient = torch.randn_like(query)
    for name, heads in _peers(shape).items():
        key, value = (
            shape.normal(shape.batch, heads, shape.tokens, shape.head_dim).requires_grad_(train) for _ in range(2)
        )
        one = partial(sdpa, query, key, value, causal=True)
        call = stepped(one, [query, key, value], gradient) if train else one
        kernels[name], setting = best(call, shape.device)
        arms[name] = Arm(call, setting)
    return arms, kernels


def _checked(
    call: ChunkCall, ours: Mapping[str, Callable[[], object]], gradient: Tensor | None
) -> tuple[dict[str, float], dict[str, str]]:
    """Distances from float64, and what is too far from it or fails."""
    errors: dict[str, float] = {}
    wrong: dict[str, str] = {}
    if call.time > CHECKED:
        return errors, wrong
    exact = _exact(call, gradient)
    bound = 1e-4 + 8 * torch.finfo(call.value.dtype).eps
    for name, one in ours.items():
        try:
            answer = one()
            outputs = [answer] if isinstance(answer, Tensor) else list(answer)  # type: ignore[call-overload]
            errors[f"rat-{name}"] = max(map(_distance, outputs, exact))
            if not errors[f"rat-{name}"] <= bound:
                wrong[name] = f"its distance from float64 is {errors[f'rat-{name}']:.2g}, above {bound:.2g}"
        except Exception as error:
            wrong[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    return errors, wrong


def _exact(call: ChunkCall, gradient: Tensor | None) -> list[Tensor]:
    """The output in float64, or with the gradient of it those of the inputs."""
    inputs = [tensor.detach().double() for tensor in (call.query, call.key, call.value, call.gate)]
    for tensor in inputs:
        tensor.requires_grad_(gradient is not None)
    query, key, value, gate = inputs
    past = call.past
    if past is not None:
        past = replace(past, **{name: getattr(past, name).double() for name in ("keys", "values")})
        past = replace(past, running_key=past.running_key.double(), running_value=past.running_value.double())
    answer: ChunkAnswer = computed(replace(call, query=query, key=key, value=value, gate=gate, past=past), "torch")
    if gradient is None:
        return [answer.output]
    return list(torch.autograd.grad(answer.output, inputs, gradient.double()))


def _distance(output: Tensor, exact: Tensor) -> float:
    """Relative, in the 2-norm."""
    difference = torch.linalg.vector_norm(output.detach().double() - exact.detach())
    return float(difference / torch.linalg.vector_norm(exact.detach()))
