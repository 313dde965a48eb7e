"""Optimisers, and parts that attach to those of torch."""

from typing import TYPE_CHECKING

from holdfast.optim.rewarming import (
    Cusum,
    EffectiveLR,
    JsonLines,
    NonFiniteParameter,
    ProjectionWarning,
    Projector,
    Rewarm,
    RewarmEvent,
    RewarmOptions,
    RewarmWarning,
    StepPart,
    TensorBoard,
    attached,
    layer_groups,
    layers_of,
    normalize_,
    scale_decay_groups,
    scale_invariance,
)

if TYPE_CHECKING:
    from holdfast.optim.rewarming.huggingface import HuggingFaceCallback
    from holdfast.optim.rewarming.lightning import LightningCallback

__all__ = [
    "Cusum",
    "EffectiveLR",
    "HuggingFaceCallback",
    "JsonLines",
    "LightningCallback",
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
]


def __getattr__(name: str) -> object:
    """The callbacks, each of which needs a library that not everybody has."""
    if name == "LightningCallback":
        from holdfast.optim.rewarming.lightning import LightningCallback

        return LightningCallback
    if name == "HuggingFaceCallback":
        from holdfast.optim.rewarming.huggingface import HuggingFaceCallback

        return HuggingFaceCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
