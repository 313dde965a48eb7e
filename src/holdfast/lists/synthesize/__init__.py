"""Find list functions from examples, and list whole classes of them, computed from the law that they follow."""

from holdfast.lists.synthesize.natural import EMPTY, IDENTITY, REVERSE, Natural, inflate, natural, natural_sums
from holdfast.lists.synthesize.ordered import OrderNatural, order_natural, order_natural_sums
from holdfast.lists.synthesize.synthesis import CLASSES, Family, Hypothesis, Synthesis
from holdfast.lists.synthesize.synthesize import synthesize
from holdfast.lists.synthesize.tables import (
    FilterEquivariant,
    PermutationType,
    filter_equivariant,
    gluable_share,
    permutation_type,
)
from holdfast.lists.synthesize.version_space import Contradiction

__all__ = [
    "CLASSES",
    "EMPTY",
    "IDENTITY",
    "REVERSE",
    "Contradiction",
    "Family",
    "FilterEquivariant",
    "Hypothesis",
    "Natural",
    "OrderNatural",
    "PermutationType",
    "Synthesis",
    "filter_equivariant",
    "gluable_share",
    "inflate",
    "natural",
    "natural_sums",
    "order_natural",
    "order_natural_sums",
    "permutation_type",
    "synthesize",
]
