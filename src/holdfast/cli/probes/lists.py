"""`holdfast probe lists`: on any function from a list to a list."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from holdfast.cli.parsing import FAILED, OK, ExplainedOptions, Target, function_at
from holdfast.errors import ArgumentError, count_of


@dataclass(frozen=True)
class ListsProbe(ExplainedOptions):
    """Measure, without labels, at which lengths a function on lists stops following its rule."""

    target: Target
    """A function from a list to a list, as file.py:name or module:name."""
    lengths: tuple[int, ...] = (3, 6, 12, 24)
    """Elements of the random lists."""
    lists: int = 60
    """Lists of each length."""
    values: int = 128
    """Lists hold different integers from 0 up to this number, without it."""
    batched: bool = False
    """The function takes many lists at once."""
    seed: int = 0
    """Of the lists, and of the values that are deleted."""
    fail_above: float | None = None
    """Exit with status 1 if at some length more than this share of the lists break the rule."""


def run(options: ListsProbe) -> int:
    """Probe the function."""
    from holdfast.lists import Oracle
    from holdfast.probes.lists import probe_filter_equivariance

    if options.fail_above is not None and not 0 <= options.fail_above <= 1:
        raise ArgumentError("--fail-above", "a share from 0 to 1", options.fail_above)
    count_of("--values", options.values, least=1)
    report = probe_filter_equivariance(
        Oracle(function_at(options.target), batched=options.batched),
        options.lengths,
        seed=options.seed,
        lists_per_length=options.lists,
        values=range(options.values),
    )
    options.show(report)
    broken = [] if options.fail_above is None else report.violations(options.fail_above)
    if broken:
        worst = f"worst at length {broken[0].length}: {broken[0].violation:.3f}"
        print(
            f"at {len(broken)} of the lengths more than {options.fail_above} break the rule ({worst})", file=sys.stderr
        )
    return FAILED if broken else OK
