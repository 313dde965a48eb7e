"""The settings that both benches of RAT share, defaults filled in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from holdfast.benches.rat.subjects import Shape
from holdfast.benches.sharpness.arms import check_sizes, device_of
from holdfast.errors import ArgumentError

Settings = TypeVar("Settings", bound=Any)


def filled(options: Settings) -> Settings:
    """With the defaults of the device.

    Errors:
        ArgumentError: a size is not positive or does not fit, or there is no such device.
    """
    device = device_of(options.device)
    gpu = device == "cuda"
    heads = (16 if gpu else 4) if options.heads is None else options.heads
    defaults = {
        "device": device,
        "heads": heads,
        "kv_heads": max(1, heads // 8),
        "head_dim": 128 if gpu else 64,
        "lengths": (4096, 16384, 131072) if gpu else (512, 2048),
        "tokens": 131072 if gpu else None,
        "batches": (512, 64, 1) if gpu else (32, 1),
        "dtype": "bfloat16" if gpu else "float32",
    }
    changes = {name: value for name, value in defaults.items() if getattr(options, name, 0) is None}
    full: Settings = replace(options, **changes)
    sizes = {"lengths": min(full.lengths), "chunk_sizes": min(full.chunk_sizes), "groups": full.groups}
    sizes |= {"batches": min(full.batches)} if hasattr(full, "batches") else {}
    check_sizes(full.heads, full.kv_heads, head_dim=full.head_dim, rounds=full.rounds, **sizes)
    if full.heads % full.groups:
        raise ArgumentError("groups", f"a number that divides heads = {full.heads}", full.groups)
    return full


def shape_of(options: Any) -> Shape:
    """The sizes of one sequence of the first length."""
    return Shape(
        device=options.device,
        dtype=options.dtype,
        batch=1,
        tokens=options.lengths[0],
        heads=options.heads,
        kv_heads=options.kv_heads,
        groups=options.groups,
        head_dim=options.head_dim,
        chunk_size=options.chunk_sizes[0],
    )
