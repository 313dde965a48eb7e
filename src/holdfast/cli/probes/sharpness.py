"""`holdfast probe sharpness`: on a function that yields logits, or on a model of transformers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.cli.parsing import FAILED, OK, ExplainedOptions, Target, as_typed, check_text, function_at
from holdfast.errors import ArgumentError, HoldfastError

if TYPE_CHECKING:
    from holdfast.nn import Normaliser
    from holdfast.probes.sharpness import ModelSharpnessReport, SharpnessReport

LENGTH = 1024
SIZES = (16, 64, 256, 1024, 4096)


@dataclass(frozen=True)
class SharpnessProbe(ExplainedOptions):
    """Measure how attention disperses as inputs grow, on your own model."""

    target: Target
    """A transformers model, by path or hub id; or a function that maps a size n to attention logits (rows, n) or
    (heads, rows, n), as file.py:name or module:name."""
    text: Path | None = None
    """For a model: file with a text for it to read; random tokens unless given."""
    length: int | None = None
    """For a model: tokens to read, 1024 unless given."""
    exclude_first_keys: int | None = None
    """For a model: measure attention conditional on not being at this many first tokens; none unless given."""
    lengths: tuple[int, ...] | None = None
    """For a function: sizes of its input, 16 64 256 1024 4096 unless given. If it has a function
    correct(n, weights) -> bools (rows,), errors are split in ordering and dispersion."""
    compare: tuple[str, ...] = ()
    """Normalisers to compare: plain, adaptive, hard, sparsemax, and with a number log-n:16, ssmax:0.43, yarn:4,
    llama4:8192, scale-invariant:10, entmax:1.5."""
    fail_above: float | None = None
    """Exit with status 1 if the mean H / ln n of some head is above this: of a function at its largest size."""


FOR_MODELS = ("text", "length", "exclude_first_keys")
FOR_FUNCTIONS = ("lengths",)


def run(options: SharpnessProbe) -> int:
    """Probe a function, which has a colon in its name, or a model."""
    function = ":" in options.target
    for name in FOR_MODELS if function else FOR_FUNCTIONS:
        if getattr(options, name) is not None:
            wanted, got = ("a model", "a function") if function else ("a function", "a model")
            flag = f"--{name.replace('_', '-')}"
            raise ArgumentError(flag, f"{wanted}, which alone has such an option", f"{got}, {options.target}")
    return _probe_function(options) if function else _probe_model(options)


def _show(options: SharpnessProbe, report: SharpnessReport | ModelSharpnessReport) -> None:
    options.show(report)


def _probe_function(options: SharpnessProbe) -> int:
    from holdfast.probes.sharpness import probe_sharpness

    normalisers = _normalisers(options.compare)
    logits_of = function_at(options.target)
    correct = getattr(logits_of, "correct", None)
    sizes = SIZES if options.lengths is None else options.lengths
    try:
        with as_typed(options, {"sizes": "--lengths"}):
            report = probe_sharpness(logits_of, sizes, normalisers=normalisers, correct=correct)
    except (HoldfastError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise ArgumentError("TARGET", "a function from a size to logits", f"{type(error).__name__}: {error}") from error
    _show(options, report)
    spread = [] if options.fail_above is None else report.violations(options.fail_above)
    if spread:
        worst = f"at n = {spread[0].size}, the worst head {spread[0].head}: {spread[0].entropy_share:.3f}"
        print(f"{_count(len(spread))} a mean H / ln n above {options.fail_above} ({worst})", file=sys.stderr)
    return FAILED if spread else OK


def _probe_model(options: SharpnessProbe) -> int:
    from holdfast.errors import require
    from holdfast.probes.load_model import load_model
    from holdfast.probes.sharpness import probe_model_sharpness

    check_text(options.text)
    normalisers = _normalisers(options.compare)
    if not sys.stderr.isatty():
        require("transformers.utils.logging", "hf").disable_progress_bar()
    model, tokens, read = load_model(options.target, options.text, options.length, usual=LENGTH)
    print(f"{read}, {tokens.shape[1]} of them", file=sys.stderr)
    report = probe_model_sharpness(
        model, tokens, normalisers=normalisers, exclude_first_keys=options.exclude_first_keys or 0
    )
    _show(options, report)
    spread = [] if options.fail_above is None else report.violations(options.fail_above)
    if spread:
        worst = f"{spread[0].part} layer {spread[0].layer}, head {spread[0].head}: {spread[0].entropy_share:.3f}"
        print(f"{_count(len(spread))} a mean H / ln n above {options.fail_above} ({worst})", file=sys.stderr)
    return FAILED if spread else OK


def _count(heads: int) -> str:
    return "1 head has" if heads == 1 else f"{heads} heads have"


_PARAMETERS: dict[str, tuple[str, type[int] | type[float]]] = {
    "log-n": ("train_length", int),
    "ssmax": ("scale", float),
    "yarn": ("extension", float),
    "llama4": ("floor_scale", float),
    "scale-invariant": ("tau", float),
    "entmax": ("alpha", float),
}
"""The parameter of a normaliser that a number on the command line stands for."""


def _normalisers(words: Sequence[str]) -> dict[str, Normaliser]:
    """Normalisers from words such as plain or log-n:16, each under its word."""
    from holdfast.nn import NORMALISERS

    normalisers = {}
    for word in words:
        name, colon, number = word.partition(":")
        if name not in NORMALISERS:
            raise ArgumentError("--compare", f"some of {', '.join(NORMALISERS)}", word)
        parameter, kind = _PARAMETERS.get(name, ("", float))
        if colon and not parameter:
            raise ArgumentError("--compare", f"{name} without a number", word)
        try:
            normalisers[word] = NORMALISERS[name](**{parameter: kind(number)} if colon else {})
        except ArgumentError as error:
            raise ArgumentError("--compare", f"{name}:NUMBER with {error.expected}", word) from error
        except (TypeError, ValueError) as error:  # a number that is missing where there is no default, or is none
            what = "a whole number" if kind is int else "a number"
            raise ArgumentError("--compare", f"{name}:NUMBER, {what} for {parameter}", word) from error
    return normalisers
