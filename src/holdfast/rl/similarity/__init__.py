"""Which actions are alike, a penalty that lets them share credit, and how to learn the one through the other."""

from holdfast.rl.similarity.files import StoredSimilarity, load_similarity, read_similarity, save_similarity
from holdfast.rl.similarity.matrix import SimilarityMatrix, checked_similarity, sinkhorn
from holdfast.rl.similarity.measures import effective_actions, similar_groups, spectral_actions
from holdfast.rl.similarity.meta import (
    InnerStep,
    MetaGradientError,
    MetaStep,
    meta_gradient,
    meta_step,
    outer_loss,
    preconditioner,
)
from holdfast.rl.similarity.penalty import SimilarityWarning, check_strength, masp_penalty

__all__ = [
    "InnerStep",
    "MetaGradientError",
    "MetaStep",
    "SimilarityMatrix",
    "SimilarityWarning",
    "StoredSimilarity",
    "check_strength",
    "checked_similarity",
    "effective_actions",
    "load_similarity",
    "masp_penalty",
    "meta_gradient",
    "meta_step",
    "outer_loss",
    "preconditioner",
    "read_similarity",
    "save_similarity",
    "similar_groups",
    "sinkhorn",
    "spectral_actions",
]
