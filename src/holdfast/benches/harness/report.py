"""What every bench reports: rows, the one ratio that matters, and where it was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from holdfast.benches.harness.machine import commit, machine, versions

Row = Mapping[str, Any]
"""One measurement: plain values by column."""


@dataclass(frozen=True)
class Report:
    """What a bench measured.

    Arguments:
        settings: what was asked for, defaults filled in.
        rows: the measurements, in one table.
        headline: the result in a phrase, with the setting that it holds for.
        ratio: the number in it, for a table of benches: what was measured divided by the peer.
        failures: what went wrong, one line a case; the rows of all other cases stand.
        bench: name in the registry.
        machine: processor, memory and GPU.
        versions: of Python and the packages.
        commit: of the code.
    """

    settings: dict[str, Any]
    rows: tuple[Row, ...]
    headline: str
    ratio: float | None
    failures: tuple[str, ...] = ()
    bench: str = ""
    machine: dict[str, Any] = field(default_factory=machine)
    versions: dict[str, str] = field(default_factory=versions)
    commit: str = field(default_factory=commit)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        plain = finite(asdict(self))
        assert isinstance(plain, dict)
        return plain

    def __str__(self) -> str:
        """Return the headline, a table and what failed."""
        return "\n".join([self.headline, "", *table(self.rows), *(f"failed: {each}" for each in self.failures)])


def finite(value: Any) -> Any:
    """Plain values as JSON has them: no infinity and no NaN, which stand as `None`."""
    if isinstance(value, Mapping):
        return {str(name): finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def table(rows: tuple[Row, ...] | list[Row]) -> list[str]:
    """Lines of a table with one column for each name in the rows, numbers at the right."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = []
    for name in names:
        values = [row.get(name) for row in rows]
        cells = [_cell(value) for value in values]
        width = max(len(name), *(len(cell) for cell in cells)) if cells else len(name)
        numbers = all(value is None or isinstance(value, int | float) for value in values)
        columns.append([cell.rjust(width) if numbers else cell.ljust(width) for cell in (name, *cells)])
    return ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
