"""Optimisers, and parts that attach to those of torch."""

from holdfast.optim.rewarming import (
    EffectiveLR,
    JsonLines,
    NonFiniteParameter,
    ProjectionWarning,
    Projector,
    StepPart,
    TensorBoard,
    attached,
    layers_of,
    normalize_,
    scale_decay_groups,
    scale_invariance,
)

__all__ = [
    "EffectiveLR",
    "JsonLines",
    "NonFiniteParameter",
    "ProjectionWarning",
    "Projector",
    "StepPart",
    "TensorBoard",
    "attached",
    "layers_of",
    "normalize_",
    "scale_decay_groups",
    "scale_invariance",
]
