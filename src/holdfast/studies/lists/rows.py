"""How claims read records: the rows that have a column, their numbers, and what must hold of every one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from holdfast.lab import Evidence, Results, exact

if TYPE_CHECKING:
    from holdfast.lab import Record


def rows_with(results: Results, column: str, **labels: Any) -> list[Record]:
    """Records that carry the labels and have a value in a column."""
    return [row for row in results.where(**labels) if row.get(column) is not None]


def number(row: Record, column: str) -> float:
    """The number in a column."""
    value = row[column]
    assert isinstance(value, int | float)
    return float(value)


def no_exception(
    column: str, holds: Callable[[Record], bool], test: str, *, cases: str = "", **labels: Any
) -> Callable[[Results], Evidence]:
    """A test for what must hold of every row.

    Arguments:
        column: rows without a value here are no cases.
        holds: whether a row agrees with the claim.
        test: what was checked.
        cases: column with the number of cases behind a row; otherwise a row is one case.
        labels: of the rows.
    """

    def judge(results: Results) -> Evidence:
        rows = rows_with(results, column, **labels)
        count = sum(int(number(row, cases)) for row in rows) if cases else len(rows)
        exceptions = sum(not holds(row) for row in rows)
        failed = results.failed(**labels)
        return exact(holds=exceptions == 0, effect=float(exceptions), n=count, test=test, failed=failed)

    return judge
