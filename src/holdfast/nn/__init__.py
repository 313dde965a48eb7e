"""Modules and functions that networks are made of."""

from holdfast.nn.attention import RowStatistics, adaptive_attention, attention_statistics, attention_weights
from holdfast.nn.fit_temperature import FitError, fit_temperature
from holdfast.nn.list_comparator import ListComparator, train_list_comparator
from holdfast.nn.normalisers import (
    NORMALISERS,
    Adaptive,
    Entmax,
    Hard,
    Llama4,
    LogN,
    Normaliser,
    Plain,
    Rows,
    ScaleInvariant,
    Sparsemax,
    SSMax,
    YaRN,
)
from holdfast.nn.softmax import CorrectionInactiveWarning, adaptive_softmax, entropy_of, inactive_share
from holdfast.nn.temperature import AdaptiveTemperature, FitRecord, SizeCheck

__all__ = [
    "NORMALISERS",
    "Adaptive",
    "AdaptiveTemperature",
    "CorrectionInactiveWarning",
    "Entmax",
    "FitError",
    "FitRecord",
    "Hard",
    "ListComparator",
    "Llama4",
    "LogN",
    "Normaliser",
    "Plain",
    "RowStatistics",
    "Rows",
    "SSMax",
    "ScaleInvariant",
    "SizeCheck",
    "Sparsemax",
    "YaRN",
    "adaptive_attention",
    "adaptive_softmax",
    "attention_statistics",
    "attention_weights",
    "entropy_of",
    "fit_temperature",
    "inactive_share",
    "train_list_comparator",
]
