"""Functions on lists that follow a rule at every length: check it, extend them by it, find them from examples.

A function is filter equivariant if deleting values before it or after it makes no difference:
`f . filter p == filter p . f` for every p (arXiv 2507.08796). Then its answers on short lists decide all others.
"""

from holdfast.lists.chat import ChatFunction
from holdfast.lists.check import (
    CheckReport,
    Classification,
    assert_filter_equivariant,
    check_filter_equivariance,
    check_injective_equivariance,
    check_map_equivariance,
    check_order_equivariance,
    check_order_invariance,
    check_positional,
    classify,
    filter_equivariance_test,
)
from holdfast.lists.errors import (
    AlienValue,
    BadAnswer,
    Cycle,
    ExpensivePlan,
    ListFunctionError,
    NotExtendable,
    OutOfBudget,
    Undetermined,
    WrongMultiplicity,
)
from holdfast.lists.extend import Calibration, Extended, Extension, PairTable, Ranking, Top, Votes, extrapolate, topk
from holdfast.lists.functions import FUNCTIONS
from holdfast.lists.oracle import Oracle
from holdfast.lists.synthesize import (
    FilterEquivariant,
    Hypothesis,
    Natural,
    OrderNatural,
    PermutationType,
    Synthesis,
    filter_equivariant,
    natural,
    order_natural,
    permutation_type,
    synthesize,
)

__all__ = [
    "FUNCTIONS",
    "AlienValue",
    "BadAnswer",
    "Calibration",
    "ChatFunction",
    "CheckReport",
    "Classification",
    "Cycle",
    "ExpensivePlan",
    "Extended",
    "Extension",
    "FilterEquivariant",
    "Hypothesis",
    "ListFunctionError",
    "Natural",
    "NotExtendable",
    "Oracle",
    "OrderNatural",
    "OutOfBudget",
    "PairTable",
    "PermutationType",
    "Ranking",
    "Synthesis",
    "Top",
    "Undetermined",
    "Votes",
    "WrongMultiplicity",
    "assert_filter_equivariant",
    "check_filter_equivariance",
    "check_injective_equivariance",
    "check_map_equivariance",
    "check_order_equivariance",
    "check_order_invariance",
    "check_positional",
    "classify",
    "extrapolate",
    "filter_equivariance_test",
    "filter_equivariant",
    "natural",
    "order_natural",
    "permutation_type",
    "synthesize",
    "topk",
]
