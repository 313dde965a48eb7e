"""Modules and functions that networks are made of."""

from holdfast.nn.temperature import (
    AdaptiveTemperature,
    CorrectionInactiveWarning,
    FitError,
    FitRecord,
    SizeCheck,
    adaptive_softmax,
    entropy_of,
    fit_temperature,
    inactive_share,
)

__all__ = [
    "AdaptiveTemperature",
    "CorrectionInactiveWarning",
    "FitError",
    "FitRecord",
    "SizeCheck",
    "adaptive_softmax",
    "entropy_of",
    "fit_temperature",
    "inactive_share",
]
