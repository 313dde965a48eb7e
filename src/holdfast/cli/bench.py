"""`holdfast bench`: speed and memory side by side."""

from __future__ import annotations

import dataclasses
import json as jsonlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from holdfast.cli.parsing import OK, Commands, choose
from holdfast.errors import ArgumentError


@dataclass(frozen=True)
class SharpnessBench:
    """Adaptive-temperature attention against plain attention."""

    device: Literal["cpu", "cuda"] | None = None
    """Where to run; by default the GPU where there is one."""
    lengths: tuple[int, ...] | None = None
    """Numbers of keys; by default small ones on a CPU, 4096 and more on a GPU."""
    heads: int | None = None
    """Query heads; by default 4 on a CPU and 32 on a GPU."""
    kv_heads: int | None = None
    """Key heads; by default a quarter of the query heads."""
    head_dim: int | None = None
    """Dimensions of a head; by default 64 on a CPU and 128 on a GPU."""
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    """Of the inputs; by default float32 on a CPU and bfloat16 on a GPU."""
    repeats: int | None = None
    """Timed rounds; by default 5 on a CPU and 30 on a GPU."""
    json: bool = False
    """Print JSON."""
    output: Path | None = None
    """JSON file to write."""


def _bench_sharpness(options: SharpnessBench) -> int:
    from holdfast.benches.sharpness import bench_sharpness

    settings = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    as_json, output = settings.pop("json"), settings.pop("output")
    report = bench_sharpness(**settings, stream=sys.stderr)
    text = jsonlib.dumps(report.to_dict(), indent=1)
    if output is not None:
        try:
            output.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise ArgumentError("--output", "a file to write", f"{output} ({error.strerror})") from error
    print(text if as_json else report)
    return OK


BENCHES: Commands = {"sharpness": (SharpnessBench, _bench_sharpness)}


def bench(words: Sequence[str]) -> int:
    """Carry out `holdfast bench`."""
    return choose("bench", "bench", "Measure speed and memory side by side. Benches", BENCHES, words)
