"""Environments and policies: experts and their data, evaluation; macro-actions, and how alike ones share credit.

What acts on environments needs gymnasium, and is loaded when it is asked for.
"""

from holdfast.rl.macros import Macros, MacroWarning, all_sequences, mined, random_macros, read_macros, repeat
from holdfast.rl.similarity import (
    InnerStep,
    MetaGradientError,
    MetaStep,
    SimilarityMatrix,
    SimilarityWarning,
    check_strength,
    effective_actions,
    masp_penalty,
    meta_gradient,
    meta_step,
    outer_loss,
    preconditioner,
    similar_groups,
    spectral_actions,
)

__all__ = [
    "InnerStep",
    "MacroWarning",
    "Macros",
    "MetaGradientError",
    "MetaStep",
    "SimilarityMatrix",
    "SimilarityWarning",
    "all_sequences",
    "check_strength",
    "effective_actions",
    "masp_penalty",
    "meta_gradient",
    "meta_step",
    "mined",
    "outer_loss",
    "preconditioner",
    "random_macros",
    "read_macros",
    "repeat",
    "similar_groups",
    "spectral_actions",
]
