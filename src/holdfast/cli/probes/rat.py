"""`holdfast probe rat`: on a causal language model of transformers."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.cli.parsing import OK, ExplainedOptions, Target, check_text, refuse_given
from holdfast.errors import ArgumentError, count_of

if TYPE_CHECKING:
    from holdfast.probes.rat.reading import Progress

PATIENCE = 2.0
"""Seconds without a word before progress is shown."""

PARTS = ("locality", "cache", "chunks", "positions")


@dataclass(frozen=True)
class RATProbe(ExplainedOptions):
    """Measure what attention costs your language model as texts grow, and what RAT could change."""

    target: Target
    """A causal language model of transformers, by path or hub id."""
    text: Path | None = None
    """File with a text for the model to read; the source of Python's standard library unless given."""
    length: int | None = None
    """Tokens of each text, at most: how far cache, time and positions are measured. 1024 unless given, or as many as
    the model was made for."""
    texts: int = 8
    """Pieces of text, at most; intervals are over them."""
    parts: tuple[str, ...] = PARTS
    """What to measure: locality (where heads look), cache (bytes and time), chunks (keys merged), positions (loss)."""
    trained: int | None = None
    """Tokens that the model was trained for, where its configuration says something else."""
    chunk_size: int = 16
    """Tokens of a chunk of the RAT whose cache is compared."""
    chunk_sizes: tuple[int, ...] = (2, 4, 8, 16)
    """Tokens of the chunks that are merged."""
    window: int = 16
    """Last tokens that are never merged."""


def run(options: RATProbe) -> int:
    """Probe the model."""
    # What is typed wrong is said before a model is loaded.
    for part in options.parts:
        if part not in PARTS:
            raise ArgumentError("--parts", f"some of {', '.join(PARTS)}", part)
    if not options.parts:
        raise ArgumentError("--parts", f"some of {', '.join(PARTS)}", "none")
    for names, part in ((("chunk_size",), "cache"), (("chunk_sizes", "window"), "chunks")):
        if part not in options.parts:
            refuse_given(options, names, f"the part {part}", f"--parts {' '.join(options.parts)}")
    if options.length is not None:
        count_of("--length", options.length, least=8)
    for name, least in (("texts", 1), ("chunk_size", 1), ("window", 1)):
        count_of(f"--{name.replace('_', '-')}", getattr(options, name), least=least)
    for size in options.chunk_sizes:
        count_of("--chunk-sizes", size, least=1)
    if options.trained is not None:
        count_of("--trained", options.trained, least=8)
    check_text(options.text)
    from holdfast.errors import require
    from holdfast.probes.load_model import load_model_and_texts
    from holdfast.probes.rat import probe_rat

    if not sys.stderr.isatty():
        require("transformers.utils.logging", "hf").disable_progress_bar()
    model, tokens, read = load_model_and_texts(options.target, options.text, options.length, options.texts)
    print(f"{read}, {tokens.shape[0]} x {tokens.shape[1]} of them", file=sys.stderr)
    with _progress() as progress:
        report = probe_rat(
            model,
            tokens,
            parts=options.parts,
            trained=options.trained,
            chunk_size=options.chunk_size,
            chunk_sizes=options.chunk_sizes,
            window=options.window,
            progress=progress,
        )
    options.show(report)
    return OK


@contextmanager
def _progress() -> Iterator[Progress]:
    """Progress on standard error once a probe has taken a while: a bar on a terminal, a line a part elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    begun = time.monotonic()
    said = list[str]()
    columns = (TextColumn("{task.description:<9}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)

    def show(part: str, done: int, total: int) -> None:
        if time.monotonic() - begun < PATIENCE:
            return
        if not bar.console.is_terminal:
            if part not in said:
                said.append(part)
                print(f"{part} ...", file=sys.stderr)
            return
        if not said:
            bar.start()
        if part not in said:
            said.append(part)
            for task in bar.task_ids:
                bar.remove_task(task)
            bar.add_task(part, total=total)
        bar.update(bar.task_ids[-1], completed=done)

    try:
        yield show
    finally:
        bar.stop()
