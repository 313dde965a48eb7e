"""Numbers, settings and tables as text."""

from __future__ import annotations

import csv
import dataclasses
import enum
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from holdfast.lab.trial import Record
from holdfast.lab.verdict import Evidence

NOTHING = "–"
LOG_LIMIT = 8_000
"""The most characters that the page shows of one log."""

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_TERMINAL_CODES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
# An absolute path of two names or more, in quotes (then it may have spaces) or bare, but no part of an address (https:)
# or of a relative path. Folders of Windows, too.
_PATH = re.compile(
    r"""(["'])(?:/|[A-Za-z]:[\\/])(?:[^"'\n/\\]+[/\\]+)+([^"'\n/\\]*)(?=\1)"""
    r"""|(?<![\w.~:/…\\<-])(?:/|[A-Za-z]:[\\/])(?:[^\s"'/\\:,;()<>\[\]]+[/\\]+)+([^\s"'/\\:,;()<>\[\]]*)"""
)
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def number(value: float, decimals: int | None = None, *, sign: bool = False) -> str:
    """A number for reading: three significant digits, or a fixed count of decimals; NaN is a dash.

    Arguments:
        value: the number.
        decimals: digits after the point; chosen from the size of the number if not given.
        sign: whether a positive number gets a plus.
    """
    if math.isnan(value):
        return NOTHING
    plus = "+" if sign and value > 0 else ""
    if math.isinf(value):
        return f"{plus}∞" if value > 0 else "−∞"
    size = abs(value)
    if decimals is not None and decimals <= 6 and size < 1e6:
        text = f"{value:.{decimals}f}"
        # "-0.00" would claim a side of zero that the digits shown do not have.
        text = text.lstrip("-") if float(text) == 0 else text
    elif value == int(value) and size < 1e6:
        text = str(int(value))
    elif 1e-4 <= size < 1e6:
        text = f"{value:.{max(0, 2 - math.floor(math.log10(size)))}f}"
    else:
        mantissa, exponent = f"{value:.2e}".split("e")
        text = f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    return plus + text.replace("-", "−")


def has_interval(evidence: Evidence) -> bool:
    """Whether there is a spread to show."""
    return math.isfinite(evidence.low) and math.isfinite(evidence.high) and evidence.low < evidence.high


def is_exact(evidence: Evidence) -> bool:
    """Whether there was no chance in it: an enumeration, an identity."""
    return evidence.p_value is not None and evidence.low == evidence.high == evidence.effect


def effect(evidence: Evidence) -> str:
    """The effect with as many digits as its interval justifies; a difference carries its sign."""
    return number(evidence.effect, _decimals(evidence), sign="difference" in evidence.test)


def interval(evidence: Evidence) -> str:
    """The 95 % interval in brackets, or an empty string where there is none."""
    if not has_interval(evidence):
        return ""
    decimals = _decimals(evidence)
    return f"[{number(evidence.low, decimals)}, {number(evidence.high, decimals)}]"


def _decimals(evidence: Evidence) -> int | None:
    if not has_interval(evidence):
        return None
    # Two significant digits of the half width: more would be noise, fewer would hide the width.
    return max(0, 1 - math.floor(math.log10((evidence.high - evidence.low) / 2)))


def p_value(value: float | None) -> str:
    """A p-value for reading: `< 0.001`, `0.012`, `0.34`, or a dash."""
    if value is None or math.isnan(value):
        return NOTHING
    if value < 0.001:
        return "< 0.001"
    return f"{value:.3f}" if value < 0.0995 else f"{value:.2f}"


def count(n: int, noun: str) -> str:
    """A count with its noun: `1 seed`, `2 seeds`."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def counted(evidence: Evidence) -> str:
    """What an effect rests on: `5 seeds`, `19,608 cases`."""
    noun = evidence.counts
    return f"{evidence.n:,} {noun.removesuffix('s') if evidence.n == 1 else noun}"


def ranges(numbers: Sequence[int]) -> str:
    """Whole numbers with runs folded: `0–4, 7`."""
    runs: list[list[int]] = []
    for n in sorted(set(numbers)):
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ", ".join(str(low) if low == high else f"{low}–{high}" for low, high in runs)


def flatten(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of nested dataclasses and mappings as (dotted name, text)."""
    prefix = f"{name}." if name else ""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for item in dataclasses.fields(value):
            yield from flatten(getattr(value, item.name), prefix + item.name)
    elif isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from flatten(inner, f"{prefix}{key}")
    elif isinstance(value, list | tuple) and any(_nested(inner) for inner in value):
        for i, inner in enumerate(value):
            yield from flatten(inner, f"{prefix}{i}")
    else:
        yield name, _leaf(value)


def _nested(value: Any) -> bool:
    return isinstance(value, Mapping) or (dataclasses.is_dataclass(value) and not isinstance(value, type))


def _leaf(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return _leaf(value.value)
    if isinstance(value, list | tuple):
        return ", ".join(map(_leaf, value)) or NOTHING
    if isinstance(value, set | frozenset):
        return ", ".join(sorted(map(_leaf, value))) or NOTHING
    if isinstance(value, Mapping):
        return NOTHING
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    # A memory address differs between two runs of the same settings.
    return _ADDRESS.sub("", str(value))


def clean(text: str) -> str:
    """Text without terminal codes and without characters that HTML cannot hold."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROL.sub("", _TERMINAL_CODES.sub("", text))


def without_folders(text: str) -> str:
    """Text in which a file of somebody's machine has lost its folders: `/home/me/study.py` becomes `…/study.py`."""
    return _PATH.sub(lambda match: f"{match[1] or ''}…/{match[2] or match[3]}", text)


def shorten(text: str, limit: int) -> str:
    """The beginning of a text that is longer than its limit."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def log_tail(text: str, limit: int = LOG_LIMIT) -> str:
    """The end of a log, which is where the reason stands, without folders of the machine that it comes from.

    Arguments:
        text: the log.
        limit: the most characters to show.
    """
    text = without_folders(clean(text[-4 * limit :]).strip("\n"))
    return text if len(text) <= limit else f"[…]\n{text[-limit:]}"


def to_csv(rows: Sequence[Record]) -> str:
    """Rows as CSV; the columns are those of all rows, in the order in which they first appear.

    Text loses the folders of the machine that it comes from, as everywhere on the page.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([without_folders(column) for column in columns])
    for row in rows:
        cells = (row.get(column, "") for column in columns)
        writer.writerow([without_folders(cell) if isinstance(cell, str) else cell for cell in cells])
    return buffer.getvalue()


def file_name(*parts: str) -> str:
    """A file name from free text."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", "-".join(parts)).strip("-.") or "data"
