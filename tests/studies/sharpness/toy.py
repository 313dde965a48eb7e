"""The study of sharpness at toy size."""

from __future__ import annotations

from typing import Any

from holdfast.studies.sharpness.bounds import BoundsConfig
from holdfast.studies.sharpness.control import ControlConfig
from holdfast.studies.sharpness.needle import NeedleConfig
from holdfast.studies.sharpness.retrieve import RetrieveConfig
from holdfast.studies.sharpness.study import SharpnessConfig
from holdfast.studies.sharpness.trained_with import TrainedWithConfig

TRAINED: dict[str, Any] = {
    "steps": 70,
    "batch_size": 16,
    "width": 16,
    "sizes": (16, 64),
    "sets": 40,
    "large_sets": 20,
    "fit_sizes": (16, 32, 64),
    "fit_sets": 64,
}
TOY = SharpnessConfig(
    seeds=2,
    retrieve=RetrieveConfig(**TRAINED),
    trained_with=TrainedWithConfig(**TRAINED),
    control=ControlConfig(**TRAINED),
    needle=NeedleConfig(fit_rows=64, sizes=(16, 256, 1024, 131072)),
    bounds=BoundsConfig(rows=20, row_sizes=(2, 16, 64), sizes=(64, 256), dim=16, heads=2),
)
