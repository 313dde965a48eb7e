"""Numbers of whole tensors where each process holds a part of them: `DTensor`, as FSDP2 and tensor parallelism use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

ROW = 4096
"""Entries whose squares are added one by one."""


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor, without its gradient: the same memory."""
    detached: Any = tensor.detach()
    value: Tensor = detached.to_local() if is_sharded(tensor) else detached
    return value


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a `DTensor`. Torch's distributed package is not loaded to find out."""
    return hasattr(tensor, "placements") and hasattr(tensor, "to_local")


def norms(weights: Sequence[Tensor], values: Sequence[Tensor]) -> Float[Tensor, " weights"]:
    """Frobenius norms of whole tensors; no value is read by the host.

    Arguments:
        weights: tell how the values are shared out.
        values: of this process, of the shapes of `local(weight)`, on one device.
    """
    on_cpu = values[0].device.type == "cpu"
    parts = torch.stack([_norm(value) for value in values] if on_cpu else list(torch._foreach_norm(list(values))))
    if not any(is_sharded(weight) for weight in weights):
        return parts
    return summed(weights, parts.square()).sqrt()


def _norm(value: Tensor) -> Tensor:
    """On a CPU torch adds all squares of a float32 tensor one by one: 4e-5 off at 2 million entries, 4e-3 at 50.

    Norms of rows, and the norm of these, are exact to rounding and take no longer.
    """
    flat = value.permute(sorted(range(value.ndim), key=value.stride, reverse=True)).reshape(-1)  # as it lies in memory
    cut = flat.numel() // ROW * ROW
    rows = torch.linalg.vector_norm(flat[:cut].view(-1, ROW), dim=1)
    norm: Tensor = torch.linalg.vector_norm(torch.cat([rows, flat[cut:].abs()]) if cut else flat)
    return norm


def summed(weights: Sequence[Tensor], parts: Float[Tensor, " weights"]) -> Float[Tensor, " weights"]:
    """Sums over all processes that share a tensor, one collective for all tensors that are shared out alike.

    Arguments:
        weights: see `norms`.
        parts: the sums of this process.
    """
    alike: dict[Any, list[int]] = {}
    for number, weight in enumerate(weights):
        if is_sharded(weight):
            alike.setdefault((weight.device_mesh, weight.placements), []).append(number)  # type: ignore[attr-defined]
    for (mesh, placements), numbers in alike.items():
        from torch.distributed.tensor import DTensor, Partial, Replicate

        # Of a dimension of the mesh along which a tensor is repeated, each process has the whole sum already.
        kinds = [Replicate() if placement.is_replicate() else Partial("sum") for placement in placements]
        where = torch.tensor(numbers, device=parts.device)
        total = DTensor.from_local(parts[where], mesh, kinds, run_check=False).full_tensor()
        parts = parts.index_copy(0, where, total)
    return parts


def alike(tensors: Sequence[Tensor]) -> dict[tuple[torch.device, torch.dtype], list[int]]:
    """Positions of the tensors of each device and dtype, which can be computed in one go."""
    found: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for number, tensor in enumerate(tensors):
        found.setdefault((tensor.device, tensor.dtype), []).append(number)
    return found


def exact(values: Sequence[Tensor]) -> list[Tensor]:
    """Values of less than 32 bits as float32; others as they are, in the same memory."""
    return [value.float() if value.dtype in (torch.bfloat16, torch.float16) else value for value in values]
