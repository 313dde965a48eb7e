"""Power-propagation (solutions): an optimiser that leaves weights which can be pruned, and what prunes them."""

from holdfast.optim.power_propagation.optimizer import PowerProp
from holdfast.optim.power_propagation.pruning import (
    GradualPruning,
    apply_masks_,
    export_masks,
    magnitude_masks,
    pack_two_of_four_,
    two_of_four_masks,
)
from holdfast.optim.power_propagation.recipe import power_adamw
from holdfast.optim.power_propagation.selection import PowerPropWarning

__all__ = [
    "GradualPruning",
    "PowerProp",
    "PowerPropWarning",
    "apply_masks_",
    "export_masks",
    "magnitude_masks",
    "pack_two_of_four_",
    "power_adamw",
    "two_of_four_masks",
]
