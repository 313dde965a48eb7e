"""Does a function keep a law? Checks that find the smallest counterexample."""

from holdfast.lists.check.report import (
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

__all__ = [
    "CheckReport",
    "Classification",
    "assert_filter_equivariant",
    "check_filter_equivariance",
    "check_injective_equivariance",
    "check_map_equivariance",
    "check_order_equivariance",
    "check_order_invariance",
    "check_positional",
    "classify",
    "filter_equivariance_test",
]
