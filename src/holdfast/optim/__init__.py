"""Optimisers, and parts that attach to those of torch."""

from holdfast.optim.rewarming import EffectiveLR, attached, layers_of, scale_decay_groups, scale_invariance

__all__ = ["EffectiveLR", "attached", "layers_of", "scale_decay_groups", "scale_invariance"]
