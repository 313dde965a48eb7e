"""What every bench reports: rows, the one ratio that matters, and where it was measured."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from holdfast.benches.harness.machine import commit, machine, versions

Row = Mapping[str, Any]
"""One measurement: plain values by column."""

WIDTH = 100
"""Of a printed table."""

_NONE = object()


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
        """Return the headline, a line each of its parts, a table and what failed."""
        return "\n".join(
            [*self.headline.split("; "), "", *table(self.rows), *(f"failed: {each}" for each in self.failures)]
        )


def finite(value: Any) -> Any:
    """Plain values as JSON has them: no infinity and no NaN, which stand as `None`."""
    if isinstance(value, Mapping):
        return {str(name): finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def table(rows: tuple[Row, ...] | list[Row], width: int = WIDTH) -> list[str]:
    """Lines of a table with one column for each name in the rows, numbers at the right.

    What is the same in all rows is said once, above. Where the columns are too many for the width, they are dealt out
    to blocks, each of which begins with the columns that say what a row is about: those before the first measured
    number.

    Arguments:
        rows: the measurements.
        width: of a line, which only a block of one column exceeds.
    """
    every = dict.fromkeys(name for row in rows for name in row)
    names = [name for name in every if any(row.get(name) not in (None, "") for row in rows)]
    same = (
        {}
        if len(rows) < 2
        else {n: rows[0][n] for n in names if all(row.get(n, _NONE) == rows[0].get(n) for row in rows)}
    )
    columns = {name: _column(name, [row.get(name) for row in rows]) for name in names if name not in same}
    measured = [name for name in columns if any(isinstance(row.get(name), float) for row in rows)]
    first = list(columns).index(measured[0]) if measured else len(columns)
    subject, further = list(columns)[:first], list(columns)[first:]
    blocks: list[list[str]] = [[*subject]]
    for name in further:
        wide = sum(len(columns[each][0]) + 2 for each in (*blocks[-1], name)) - 2
        if wide > width and len(blocks[-1]) > len(subject):
            blocks.append([*subject])
        blocks[-1].append(name)
    lines = (
        textwrap.wrap(f"in all rows: {', '.join(f'{n} {_cell(v)}' for n, v in same.items())}", width) if same else []
    )
    for number, block in enumerate(blocks):
        lines += [""] if number else []
        lines += ["  ".join(cells).rstrip() for cells in zip(*(columns[name] for name in block), strict=True)]
    return lines


def _column(name: str, values: list[Any]) -> list[str]:
    cells = [name, *map(_cell, values)]
    width = max(map(len, cells))
    numbers = all(value is None or isinstance(value, int | float) for value in values)
    return [cell.rjust(width) if numbers else cell.ljust(width) for cell in cells]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
