"""Trials as a file: JSON lines, the first of which says what they are, with one column on each of the others."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.confidence.trials import Readings, Trials
from holdfast.errors import ArgumentError

FORMAT = "holdfast-trials-1"
"""Stands in the first line."""


def write_trials(trials: Trials, path: Path | str) -> None:
    """Write trials, a column a line: `{"column": name, "shape": [...], "values": [...]}`, NaN as `null`.

    Arguments:
        trials: to write.
        path: of the file, which is replaced.
    """
    columns = {
        field.name: value
        for field in dataclasses.fields(trials)
        if isinstance(value := getattr(trials, field.name), np.ndarray)
    }
    for stage in ("stage_1", "stage_2"):
        readings: Readings = getattr(trials, stage)
        columns |= {f"{stage}.{field.name}": getattr(readings, field.name) for field in dataclasses.fields(readings)}
    lines: list[dict[str, Any]] = [{"format": FORMAT, "source": trials.source, "samples": trials.samples}]
    for name, values in columns.items():
        flat = values.ravel().tolist()
        if values.dtype.kind == "f":
            flat = [None if value != value else value for value in flat]
        lines.append({"column": name, "shape": values.shape, "values": flat})
    # Floats print as the shortest text that reads back as the same number.
    text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
    Path(path).write_text(text, encoding="utf-8")


def read_trials(path: Path | str) -> Trials:
    """Read what `write_trials` wrote.

    Errors:
        ArgumentError: it cannot be read, is no such file, a line is damaged, or the columns do not fit each other.
    """
    wrong = "trials as write_trials writes them"
    try:
        head, *lines = map(json.loads, Path(path).read_text(encoding="utf-8").splitlines())
        if head["format"] != FORMAT:
            raise ArgumentError("path", f"the format {FORMAT}", f"{path}: {head['format']}")
        raw = {line["column"]: (line["values"], tuple(line["shape"])) for line in lines}
        return _trials(head, raw)
    except ArgumentError:
        raise
    except (OSError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ArgumentError("path", wrong, f"{path}: {error!r}") from error


def _trials(head: dict[str, Any], raw: dict[str, tuple[list[Any], tuple[int, ...]]]) -> Trials:
    def column(name: str, kind: type | None = None) -> Any:
        values, shape = raw[name]
        # As a number `None` is NaN.
        return np.array(values, dtype=kind).reshape(shape)

    stages = [
        Readings(
            column(f"{stage}.scores", np.float64),
            column(f"{stage}.mass", np.float64),
            column(f"{stage}.censored", np.bool_),
        )
        for stage in ("stage_1", "stage_2")
    ]
    numbers = {name: column(name, np.int64) for name in ("choice", "answer", "options", "advised")}
    words = {name: column(name) for name in ("question", "template", "display", "advice", "invalid")}
    return Trials(
        **words,
        **numbers,
        stage_1=stages[0],
        stage_2=stages[1],
        accuracy=column("accuracy", np.float64),
        source=head["source"],
        samples=head["samples"],
    )
