"""Optimisers, and parts that attach to those of torch."""

from typing import TYPE_CHECKING

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
from holdfast.optim.power_propagation import (
    GradualPruning,
    PowerProp,
    PowerPropWarning,
    apply_masks_,
    export_masks,
    magnitude_masks,
    pack_two_of_four_,
    power_adamw,
    two_of_four_masks,
)
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
from holdfast.optim.second_order import (
    NonFiniteGradient,
    SecondOrder,
    SecondOrderWarning,
    Split,
    refuse_plain_sgd,
    second_order,
    split_parameters,
)

if TYPE_CHECKING:
    from holdfast.optim.rewarming.huggingface import HuggingFaceCallback as HuggingFaceCallback
    from holdfast.optim.rewarming.lightning import LightningCallback as LightningCallback

# Without the callbacks, so that `import *` needs none of the trainers.
__all__ = [
    "ContinualBackprop",
    "Cusum",
    "EffectiveLR",
    "GradualPruning",
    "Grokfast",
    "HareTortoise",
    "JsonLines",
    "L2Init",
    "NonFiniteGradient",
    "NonFiniteParameter",
    "PowerProp",
    "PowerPropWarning",
    "ProjectionWarning",
    "Projector",
    "ReDo",
    "Rewarm",
    "RewarmEvent",
    "RewarmOptions",
    "RewarmWarning",
    "SecondOrder",
    "SecondOrderWarning",
    "SpectralRegularization",
    "Split",
    "StepPart",
    "TensorBoard",
    "apply_masks_",
    "attached",
    "export_masks",
    "layer_groups",
    "layers_of",
    "magnitude_masks",
    "normalize_",
    "pack_two_of_four_",
    "power_adamw",
    "refuse_plain_sgd",
    "reset_moments",
    "scale_decay_groups",
    "scale_invariance",
    "second_order",
    "shrink_and_perturb_",
    "split_parameters",
    "two_of_four_masks",
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
