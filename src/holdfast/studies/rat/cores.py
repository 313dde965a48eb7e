"""What the mixers compute between their projections, as calls without arguments that can be timed.

Attention is PyTorch's, in the form that is fastest here: by every kernel that CUDA has, and with the query heads that
share a key head as the queries of one head where a single token is decoded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.studies.rat.arms import GQA

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Call = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Core:
    """Sizes of one call.

    Arguments:
        arm: attention, gqa8, rnn, or rat with a chunk size.
        batch: sequences.
        time: tokens of each; when one is decoded, those before it.
        heads: query heads.
        head_dim: width of a head.
        groups: queries and keys that RAT's heads share.
        device: where.
    """

    arm: str
    batch: int
    time: int
    heads: int
    head_dim: int
    groups: int
    device: str

    @property
    def key_heads(self) -> int:
        """Key heads of attention."""
        return self.heads // GQA if self.arm == "gqa8" else self.heads

    @property
    def chunk_size(self) -> int:
        """Tokens a chunk of RAT."""
        return int(self.arm.removeprefix("rat"))

    def cache_bytes(self, bits: int) -> int:
        """Bytes that a layer keeps of one sequence in numbers of so many bits; running states have 32."""
        width = self.heads * self.head_dim
        if self.arm == "rnn":
            return 4 * width
        if self.arm.startswith("rat"):
            return 2 * (self.time // self.chunk_size) * width * bits // 8 + 2 * 4 * width
        return 2 * self.time * self.key_heads * self.head_dim * bits // 8


def random(core: Core, generator: torch.Generator, *shape: int) -> Tensor:
    """Normal numbers, in bfloat16 on CUDA."""
    import torch

    dtype = torch.bfloat16 if core.device.startswith("cuda") else torch.float32
    return torch.randn(*shape, generator=generator, device=core.device, dtype=dtype)


def kernels(device: str) -> Iterator[tuple[str, Callable[[], AbstractContextManager[None]]]]:
    """The kernels that attention is tried with, by name."""
    if not device.startswith("cuda"):
        yield "default", nullcontext
        return
    from torch.nn.attention import SDPBackend, sdpa_kernel

    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION):
        yield backend.name, lambda backend=backend: sdpa_kernel(backend)  # type: ignore[misc]


def whole(core: Core, generator: torch.Generator, *, training: bool) -> dict[str, Call]:
    """Calls that mix whole sequences, by kernel; in training with all gradients."""
    import torch

    size = (core.batch, core.time, core.heads, core.head_dim)
    if core.arm in ("attention", "gqa8"):
        keys = (core.batch, core.key_heads, core.time, core.head_dim)
        query = random(core, generator, core.batch, core.heads, core.time, core.head_dim)
        key, value = (random(core, generator, *keys) for _ in range(2))

        def attend() -> Tensor:
            grouped = core.key_heads != core.heads
            return torch.nn.functional.scaled_dot_product_attention(
                query, key, value, is_causal=True, enable_gqa=grouped
            )

        tensors = [query, key, value]
        return {name: _called(attend, tensors, training, context) for name, context in kernels(core.device)}
    gate = random(core, generator, *size).float().mul_(1.5).add_(2).sigmoid_()
    if core.arm == "rnn":
        from holdfast.nn.rat.gated_rnn import gated_scan

        value, start = random(core, generator, *size).flatten(2), torch.zeros(core.batch, size[2] * size[3])
        tensors = [gate.flatten(2), value.float(), start.to(core.device)]
        return {"default": _called(lambda: gated_scan(*tensors), tensors, training, nullcontext)}
    from holdfast.nn import rat_attention

    shared = (core.batch, core.time, core.groups, core.head_dim)
    tensors = [*(random(core, generator, *shared) for _ in range(2)), random(core, generator, *size), gate]

    def mix() -> Tensor:
        return rat_attention(*tensors, chunk_size=core.chunk_size, rope_theta=10_000.0)

    return {"default": _called(mix, tensors, training, nullcontext)}


def _called(
    mix: Callable[[], Tensor],
    tensors: list[Tensor],
    training: bool,
    context: Callable[[], AbstractContextManager[None]],
) -> Call:
    import torch

    for tensor in tensors:
        tensor.requires_grad_(training)

    def call() -> None:
        with context(), torch.set_grad_enabled(training):
            output = mix()
            if training:
                torch.autograd.grad(output.sum(), tensors)

    return call


def next_token(core: Core, generator: torch.Generator) -> dict[str, Call]:
    """Calls that mix one more token of each sequence with what is kept of those before it, by kernel."""
    import torch

    if core.arm in ("attention", "gqa8"):
        keys = (core.batch, core.key_heads, core.time, core.head_dim)
        query = random(core, generator, core.batch, core.key_heads, core.heads // core.key_heads, core.head_dim)
        key, value = (random(core, generator, *keys) for _ in range(2))

        def attend() -> Tensor:
            return torch.nn.functional.scaled_dot_product_attention(query, key, value)

        return {name: _called(attend, [], False, context) for name, context in kernels(core.device)}
    from holdfast.nn.rat.call import ChunkCall, Past
    from holdfast.nn.rat.rat_attention import computed

    chunks = core.time // core.chunk_size
    kept = (core.batch, core.heads, chunks, core.head_dim)
    running = (core.batch, core.heads, core.head_dim)
    past = Past(
        keys=random(core, generator, *kept),
        values=random(core, generator, *kept),
        count=torch.full((core.batch,), chunks, device=core.device),
        running_key=random(core, generator, *running).float(),
        running_value=random(core, generator, *running).float(),
    )
    query, key = (random(core, generator, core.batch, 1, core.groups, core.head_dim) for _ in range(2))
    value = random(core, generator, core.batch, 1, core.heads, core.head_dim)
    call = ChunkCall(
        query=query,
        key=key,
        value=value,
        gate=random(core, generator, core.batch, 1, core.heads, core.head_dim).float().sigmoid(),
        chunk_size=core.chunk_size,
        scale=1 / math.sqrt(core.head_dim),
        rope_theta=10_000.0,
        past=past,
    )
    return {"default": _called(lambda: computed(call).output, [], False, nullcontext)}
