"""What all probes share: states put back, tables for people, numbers for JSON."""

from __future__ import annotations

import math
import random
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from holdfast.optim.rewarming.graph import buffers_kept


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Put back the random states of torch (all devices in use), Python and numpy's global generator."""
    numpy = sys.modules.get("numpy")
    python_state = random.getstate()
    numpy_state = numpy.random.get_state() if numpy is not None else None
    cuda: bool = torch.cuda.is_initialized()
    devices = range(torch.cuda.device_count()) if cuda else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python_state)
        if numpy is not None:
            numpy.random.set_state(numpy_state)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout off; afterwards each part is in its own mode again, for parts of a model in training may be frozen.

    Buffers that a forward changes in evaluation mode too are put back.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with buffers_kept(model):
            yield
    finally:
        for module, training in modes:
            module.training = training


def jsonable(value: Any) -> Any:
    """Replace tuples by lists, and numbers that JSON lacks by None."""
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [jsonable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, names: Sequence[str] = ()) -> list[str]:
    """Lines of aligned columns: numbers to the right, the columns called `names` to the left."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    left = [title in names for title in header]
    return [
        "  ".join(
            cell.ljust(width) if to_left else cell.rjust(width)
            for cell, width, to_left in zip(line, widths, left, strict=True)
        ).rstrip()
        for line in (header, *rows)
    ]


def explained(meanings: Mapping[str, str]) -> str:
    """Columns and what they mean, a line each."""
    width = max(map(len, meanings))
    return "\n".join(f"{column:<{width}}  {meaning}" for column, meaning in meanings.items())


def listed(title: str, words: Sequence[str]) -> str:
    """A title and a list, on lines of at most 100 columns."""
    return textwrap.fill(f"{title}: {', '.join(words)}", width=100, subsequent_indent="  ")


def shown(value: float, form: str) -> str:
    """A number for a table; a dash where there is none."""
    return "-" if math.isnan(value) else format(value, form)


def percent(share: float) -> str:
    """A share for a table."""
    return "-" if math.isnan(share) else f"{100 * share:.0f}%"


def size(number: int | float) -> str:
    """Bytes for people."""
    for unit in ("bytes", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if number >= 100 or unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:,.1f} GiB"
