"""What no RAT can be faster than on a GPU: bytes divided by the speed of a copy, products by that of a product."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from holdfast.benches.harness.timing import on_gpu
from holdfast.benches.rat.subjects import Shape

PRODUCT = 8192
"""Rows and columns of the matrices that are multiplied to measure."""

COPIED = 1 << 30
"""Bytes that are copied to measure."""

TRIES = 5


@dataclass(frozen=True)
class Machine:
    """What a GPU does at best.

    Arguments:
        bytes_s: bytes read and written in a second by a copy.
        flops: of products of matrices in a second, in half precision, of random numbers.
    """

    bytes_s: float
    flops: float

    @classmethod
    def measured(cls, bytes_s: float | None = None, flops: float | None = None) -> Machine:
        """As given, and the rest as it is measured now."""
        if bytes_s is None:
            source = torch.zeros(COPIED, dtype=torch.uint8, device="cuda")
            target = torch.empty_like(source)
            bytes_s = 2 * COPIED / (1e-3 * min(on_gpu(lambda: target.copy_(source)) for _ in range(TRIES)))
        if flops is None:
            left, right = torch.randn(2, PRODUCT, PRODUCT, device="cuda", dtype=torch.bfloat16)
            flops = 2 * PRODUCT**3 / (1e-3 * min(on_gpu(lambda: left @ right) for _ in range(TRIES)))
        return cls(bytes_s, flops)


def floor_ms(subject: str, shape: Shape, machine: Machine) -> float:
    """Milliseconds: bytes that must move and products that must be made, one after the other.

    The core's products are those of attention divided by the chunk size, halved by causality; a backward pass makes
    two and a half times as many. Bytes are those of inputs and outputs, of gates in float32 included, and in decoding
    of the cache.
    """
    size = torch.finfo(getattr(torch, shape.dtype)).bits // 8
    dim, tokens = shape.heads * shape.head_dim, shape.batch * shape.tokens
    width = shape.groups * shape.head_dim
    if subject == "decode":
        closed = shape.tokens // shape.chunk_size
        of_sequence = 2 * closed * dim * size + 4 * dim * 4 + (3 * dim + 2 * width) * size
        return 1e3 * shape.batch * of_sequence / machine.bytes_s
    products = 2.0 * tokens * dim * shape.tokens / shape.chunk_size
    moved = tokens * (2 * (dim + width) * size + 4 * dim)
    train = subject in ("train", "layer-train")
    if subject.startswith("layer"):
        # Projections, whose backward pass makes twice as many products; the output gate and the input.
        weights = dim * (3 * dim + 2 * width) + dim * dim
        moved += tokens * 2 * dim * size + weights * size
        projections = 2.0 * tokens * weights * (3 if train else 1)
    else:
        projections = 0.0
    if train:
        products *= 3.5
        moved *= 3
    return 1e3 * (moved / machine.bytes_s + (products + projections) / machine.flops)
