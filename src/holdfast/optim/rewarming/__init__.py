"""Keeping a network able to learn: effective learning rates, norms that are held, learning rates that rise again.

After arXiv 2507.20057 and 2407.01800.
"""

from holdfast.optim.rewarming.cusum import Cusum
from holdfast.optim.rewarming.effective_lr import EffectiveLR
from holdfast.optim.rewarming.groups import layer_groups
from holdfast.optim.rewarming.hooks import StepPart, attached
from holdfast.optim.rewarming.layers import Layer, layers_of, scale_decay_groups, scale_invariance, select
from holdfast.optim.rewarming.normalize import normalize_
from holdfast.optim.rewarming.projection import NonFiniteParameter, ProjectionWarning, Projector
from holdfast.optim.rewarming.schedule import Rewarm, RewarmEvent, RewarmOptions, RewarmWarning
from holdfast.optim.rewarming.writers import JsonLines, TensorBoard

__all__ = [
    "Cusum",
    "EffectiveLR",
    "JsonLines",
    "Layer",
    "NonFiniteParameter",
    "ProjectionWarning",
    "Projector",
    "Rewarm",
    "RewarmEvent",
    "RewarmOptions",
    "RewarmWarning",
    "StepPart",
    "TensorBoard",
    "attached",
    "layer_groups",
    "layers_of",
    "normalize_",
    "scale_decay_groups",
    "scale_invariance",
    "select",
]
