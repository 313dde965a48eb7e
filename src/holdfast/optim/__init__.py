"""Optimisers, and parts that attach to those of torch."""

from holdfast.optim.rewarming import (
    EffectiveLR,
    NonFiniteParameter,
    ProjectionWarning,
    Projector,
    attached,
    layers_of,
    scale_decay_groups,
    scale_invariance,
)

__all__ = [
    "EffectiveLR",
    "NonFiniteParameter",
    "ProjectionWarning",
    "Projector",
    "attached",
    "layers_of",
    "scale_decay_groups",
    "scale_invariance",
]
