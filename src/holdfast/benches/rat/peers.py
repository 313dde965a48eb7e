"""What RAT is compared with: PyTorch's fused attention by its best kernel for the shape, fla, the official layer."""

from __future__ import annotations

import contextlib
import importlib
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from holdfast.benches.harness.timing import Arm, on_gpu

KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}

TRIES = 3


def sdpa(query: Tensor, key: Tensor, value: Tensor, *, causal: bool) -> Tensor:
    """PyTorch's fused attention, where key heads may be fewer than query heads."""
    gqa = query.shape[1] != key.shape[1]
    return scaled_dot_product_attention(query, key, value, is_causal=causal, enable_gqa=gqa)


def best(call: Callable[[], object], device: str) -> tuple[str, Callable[[], AbstractContextManager[object]]]:
    """The kernel that is fastest on a GPU, by name, and what chooses it; a CPU has only one."""
    if device != "cuda":
        return "usual", nullcontext
    times: dict[str, float] = {}
    for name, kernel in KERNELS.items():
        with contextlib.suppress(RuntimeError), warnings.catch_warnings(), sdpa_kernel(kernel):
            warnings.simplefilter("ignore")  # PyTorch warns about every reason why a kernel refuses
            call()
            times[name] = min(on_gpu(call) for _ in range(TRIES))
    if not times:
        return "usual", nullcontext
    fastest = min(times, key=lambda name: times[name])
    return fastest, lambda: sdpa_kernel(KERNELS[fastest])


def of_fla(query: Tensor, key: Tensor, value: Tensor, gate: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Of flash-linear-attention where it is installed: its attention, and the gated recurrence without chunks.

    Arguments:
        query: (batch, time, heads, dim), like the others.
        key: likewise.
        value: likewise.
        gate: likewise, forget gates.
    """
    if find_spec("fla") is None or not query.is_cuda:
        return {}
    attention = importlib.import_module("fla.ops.attn").parallel_attn
    hgrn = importlib.import_module("fla.ops.hgrn").chunk_hgrn
    entering, logarithm = ((1 - gate) * value).flatten(2), gate.log().flatten(2)
    return {
        "fla-attention": lambda: attention(query, key, value),
        "fla-hgrn": lambda: hgrn(entering, logarithm)[0],
    }


def official_layer(
    checkout: Path, dim: int, heads: int, chunk_size: int, time: int, dtype: torch.dtype
) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """The layer that came with the paper, from a checkout of CLAIRE-Labo/RAT, on a GPU.

    It has norm and residual in it, which ours has not, and its own precision: bfloat16 under autocast.
    """
    with _first_on_path(checkout):
        layer_of = importlib.import_module("src.model.backbone.rat").RAT
        positions_of = importlib.import_module("src.model.embedding.pe").InterRoPE
    layer = layer_of(dim, num_head=heads, chunk_size=chunk_size, ngroups=2, layer_id=0).cuda()
    # The published initialisation needs the project's configuration; any numbers do for timing.
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.02)
    # PyTorch counts the arguments of a mask, and would count `self` of a bound method.
    mask = layer.block_causal_mask
    layer.block_causal_mask = lambda b, h, q_idx, kv_idx: mask(b, h, q_idx, kv_idx)
    chunks = -(-time // chunk_size)
    positions = positions_of(dim // heads, max_num_chunk=chunks, chunk_size=chunk_size, device="cuda")
    _, turns = positions(0, time, "cuda", dtype)

    def call(x: Tensor) -> Tensor:
        with torch.autocast("cuda", dtype=torch.bfloat16), torch.set_grad_enabled(x.requires_grad):
            output: Tensor = layer(x, **turns)
        return output

    return layer, call


@contextlib.contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder.expanduser()))
    try:
        yield
    finally:
        sys.path.remove(str(folder.expanduser()))


def stepped(call: Callable[[], Tensor], inputs: list[Any], gradient: Tensor) -> Callable[[], object]:
    """Forward and backward of a call."""
    return lambda: torch.autograd.grad(call(), inputs, gradient)


def graphed(arm: Arm) -> Arm:
    """An arm as a CUDA graph, without the gaps between launches."""
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), arm.setting():
        arm.call()
        with torch.cuda.graph(graph):
            arm.call()
    return Arm(graph.replay)
