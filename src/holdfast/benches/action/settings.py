"""The shapes that both benches measure, and the settings that they share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import torch

from holdfast.benches.sharpness.arms import device_of
from holdfast.errors import ArgumentError, count_of
from holdfast.nn import XLSTM_SIZES, BackboneConfig, XLSTMConfig

Settings = TypeVar("Settings", bound=Any)

SIZES = {
    "toy": XLSTMConfig(dim=32, layers=2, heads=2),
    "0.4M": XLSTMConfig(dim=128, layers=4, heads=4),
    "1.7M": XLSTMConfig(dim=256, layers=4, heads=4),
    **XLSTM_SIZES,
}
"""By number of parameters; from 16M on those of arXiv 2410.22391."""

TOKENS = 3
"""Of a timestep: observation, return-to-go, reward."""


def filled(options: Settings, defaults: dict[str, tuple[Any, Any]]) -> Settings:
    """With the defaults of the device.

    Arguments:
        options: of a bench.
        defaults: of each setting that is `None`, on a CPU and on a GPU.

    Errors:
        ArgumentError: a number that is not positive, no such size, or no such device.
    """
    device = device_of(options.device)
    chosen = {name: both[device == "cuda"] for name, both in defaults.items() if getattr(options, name) is None}
    full: Settings = replace(options, device=device, **chosen)
    for size in full.sizes:
        if size not in SIZES:
            raise ArgumentError("sizes", f"some of {', '.join(SIZES)}", size)
    for name in ("batches", "lengths", "rounds", "window", "recompute"):
        values = getattr(full, name, ())
        for number in values if isinstance(values, tuple) else (values,):
            count_of(name, number, least=1)
    return full


def transformer_of(shape: XLSTMConfig) -> BackboneConfig:
    """The transformer of about as many parameters that arXiv 2410.22391 compares with: as wide, half as many layers."""
    return BackboneConfig(
        mixers=("attention",) * max(1, shape.layers // 2), dim=shape.dim, heads=max(1, shape.dim // 64)
    )


def dtype_of(name: str) -> torch.dtype:
    """By its name."""
    dtype: torch.dtype = getattr(torch, name)
    return dtype
