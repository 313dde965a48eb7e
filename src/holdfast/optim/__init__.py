"""Optimisers, and parts that attach to those of torch."""

from holdfast.optim.baselines import (
    ContinualBackprop,
    Grokfast,
    HareTortoise,
    L2Init,
    ReDo,
    SpectralRegularization,
    reset_moments,
    shrink_and_perturb_,
)
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
    "ContinualBackprop",
    "EffectiveLR",
    "Grokfast",
    "HareTortoise",
    "L2Init",
    "NonFiniteParameter",
    "ProjectionWarning",
    "Projector",
    "ReDo",
    "SpectralRegularization",
    "attached",
    "layers_of",
    "reset_moments",
    "scale_decay_groups",
    "scale_invariance",
    "shrink_and_perturb_",
]
