"""Environments and policies: experts and their data, evaluation; macro-actions, and how alike ones share credit.

What acts on environments needs gymnasium, and is loaded when it is asked for.
"""

from typing import TYPE_CHECKING

from holdfast.errors import require
from holdfast.rl.macros import Macros, MacroWarning, all_sequences, mined, random_macros, read_macros, repeat
from holdfast.rl.similarity import (
    InnerStep,
    MetaGradientError,
    MetaStep,
    SimilarityMatrix,
    SimilarityWarning,
    StoredSimilarity,
    check_strength,
    effective_actions,
    load_similarity,
    masp_penalty,
    meta_gradient,
    meta_step,
    outer_loss,
    preconditioner,
    read_similarity,
    save_similarity,
    similar_groups,
    spectral_actions,
)

if TYPE_CHECKING:
    from holdfast.rl.macro_actions import (
        Decisions,
        EpisodeOver,
        InvalidReward,
        MacroActions,
        decisions,
        macro_vector_env,
    )

__all__ = [
    "Decisions",
    "EpisodeOver",
    "InnerStep",
    "InvalidReward",
    "MacroActions",
    "MacroWarning",
    "Macros",
    "MetaGradientError",
    "MetaStep",
    "SimilarityMatrix",
    "SimilarityWarning",
    "StoredSimilarity",
    "all_sequences",
    "check_strength",
    "decisions",
    "effective_actions",
    "load_similarity",
    "macro_vector_env",
    "masp_penalty",
    "meta_gradient",
    "meta_step",
    "mined",
    "outer_loss",
    "preconditioner",
    "random_macros",
    "read_macros",
    "read_similarity",
    "repeat",
    "save_similarity",
    "similar_groups",
    "spectral_actions",
]

_NEED_GYMNASIUM = ("Decisions", "EpisodeOver", "InvalidReward", "MacroActions", "decisions", "macro_vector_env")


def __getattr__(name: str) -> object:
    """What needs gymnasium."""
    if name not in _NEED_GYMNASIUM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    require("gymnasium", "rl")
    from holdfast.rl import macro_actions

    return getattr(macro_actions, name)
