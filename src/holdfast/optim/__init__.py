"""Optimisers, and parts that attach to those of torch."""

from holdfast.optim.rewarming import attached, layers_of, scale_decay_groups, scale_invariance

__all__ = ["attached", "layers_of", "scale_decay_groups", "scale_invariance"]
