"""Keeping a network able to learn: effective learning rates, norms that are held, learning rates that rise again.

After arXiv 2507.20057 and 2407.01800.
"""

from holdfast.optim.rewarming.effective_lr import EffectiveLR
from holdfast.optim.rewarming.hooks import StepPart, attached
from holdfast.optim.rewarming.layers import Layer, layers_of, scale_decay_groups, scale_invariance, select
from holdfast.optim.rewarming.projection import NonFiniteParameter, ProjectionWarning, Projector

__all__ = [
    "EffectiveLR",
    "Layer",
    "NonFiniteParameter",
    "ProjectionWarning",
    "Projector",
    "StepPart",
    "attached",
    "layers_of",
    "scale_decay_groups",
    "scale_invariance",
    "select",
]
