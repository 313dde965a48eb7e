"""`holdfast probe`: measure a failure on a model of one's own."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from holdfast.cli.parsing import FAILED, OK, Commands, choose, function_at, write_plot
from holdfast.errors import ArgumentError, HoldfastError

if TYPE_CHECKING:
    from holdfast.nn import Normaliser


@dataclass(frozen=True)
class SharpnessProbe:
    """Measure how attention disperses as inputs grow, on your own model."""

    target: tyro.conf.Positional[str]
    """A transformers model, by path or hub id; or a function that maps a size n to attention logits (rows, n) or
    (heads, rows, n), as file.py:name or module:name."""
    text: Path | None = None
    """For a model: a text file to read; by default random tokens."""
    length: int = 1024
    """For a model: tokens to read."""
    exclude_first_keys: int = 0
    """For a model: measure attention conditional on not being at this many first tokens."""
    sizes: tuple[int, ...] = (16, 64, 256, 1024, 4096)
    """For a function: input sizes to measure at. If it has a function correct(n, weights) -> bools (rows,), errors are
    split in ordering and dispersion."""
    compare: tuple[str, ...] = ()
    """Normalisers to compare: plain, adaptive, hard, sparsemax, and with a number log-n:16, ssmax:0.43, yarn:4,
    llama4:8192, scale-invariant:10, entmax:1.5."""
    fail_above: float | None = None
    """Exit with status 1 if the mean H / ln n of some head is above this: of a function at its largest size."""
    plot: Path | None = None
    """Picture to write (.png, .svg or .pdf)."""
    json: bool = False
    """Print JSON."""


def _probe_sharpness(options: SharpnessProbe) -> int:
    if ":" not in options.target:
        return _probe_model(options)
    from holdfast.probes.sharpness import probe_sharpness

    normalisers = _normalisers(options.compare)
    logits_of = function_at(options.target)
    correct = getattr(logits_of, "correct", None)
    try:
        report = probe_sharpness(logits_of, options.sizes, normalisers=normalisers, correct=correct)
    except (HoldfastError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise ArgumentError("TARGET", "a function from a size to logits", f"{type(error).__name__}: {error}") from error
    _show_probe(report, options)
    found = [] if options.fail_above is None else report.violations(options.fail_above)
    if found:
        where = f"at n = {found[0].size}, the worst head {found[0].head}: {found[0].entropy_share:.3f}"
        print(f"{_count(len(found))} a mean H / ln n above {options.fail_above} ({where})", file=sys.stderr)
    return FAILED if found else OK


def _probe_model(options: SharpnessProbe) -> int:
    from holdfast.errors import require
    from holdfast.probes.load_model import load_model
    from holdfast.probes.sharpness import probe_model_sharpness

    normalisers = _normalisers(options.compare)
    if not sys.stderr.isatty():
        require("transformers.utils.logging", "hf").disable_progress_bar()
    model, tokens, read = load_model(options.target, options.text, options.length)
    print(f"{read}, {tokens.shape[1]} of them", file=sys.stderr)
    report = probe_model_sharpness(
        model, tokens, normalisers=normalisers, exclude_first_keys=options.exclude_first_keys
    )
    _show_probe(report, options)
    found = [] if options.fail_above is None else report.violations(options.fail_above)
    if found:
        worst = f"layer {found[0].layer}, head {found[0].head}: {found[0].entropy_share:.3f}"
        print(f"{_count(len(found))} a mean H / ln n above {options.fail_above} ({worst})", file=sys.stderr)
    return FAILED if found else OK


def _count(heads: int) -> str:
    return "1 head has" if heads == 1 else f"{heads} heads have"


def _show_probe(report: Any, options: SharpnessProbe | ListsProbe) -> None:
    print(jsonlib.dumps(report.to_dict(), indent=1) if options.json else report)
    if options.plot is not None:
        write_plot(report, options.plot)


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

    found = {}
    for word in words:
        name, colon, number = word.partition(":")
        if name not in NORMALISERS:
            raise ArgumentError("--compare", f"some of {', '.join(NORMALISERS)}", word)
        parameter, kind = _PARAMETERS.get(name, ("", float))
        if colon and not parameter:
            raise ArgumentError("--compare", f"{name} without a number", word)
        try:
            found[word] = NORMALISERS[name](**{parameter: kind(number)} if colon else {})
        except ArgumentError as error:
            raise ArgumentError("--compare", f"{name}:NUMBER with {error.expected}", word) from error
        except (TypeError, ValueError) as error:  # a number that is missing where there is no default, or is none
            what = "a whole number" if kind is int else "a number"
            raise ArgumentError("--compare", f"{name}:NUMBER, {what} for {parameter}", word) from error
    return found


@dataclass(frozen=True)
class ListsProbe:
    """Measure, without labels, at which lengths a function on lists stops following its rule."""

    target: tyro.conf.Positional[str]
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
    plot: Path | None = None
    """Picture to write (.png, .svg or .pdf)."""
    json: bool = False
    """Print JSON."""


def _probe_lists(options: ListsProbe) -> int:
    from holdfast.lists import Oracle
    from holdfast.probes.lists import probe_filter_equivariance

    report = probe_filter_equivariance(
        Oracle(function_at(options.target), batched=options.batched),
        options.lengths,
        seed=options.seed,
        lists_per_length=options.lists,
        values=range(options.values),
    )
    _show_probe(report, options)
    found = [] if options.fail_above is None else report.violations(options.fail_above)
    if found:
        worst = f"worst at length {found[0].length}: {found[0].violation:.3f}"
        print(
            f"at {len(found)} of the lengths more than {options.fail_above} break the rule ({worst})", file=sys.stderr
        )
    return FAILED if found else OK


PROBES: Commands = {"lists": (ListsProbe, _probe_lists), "sharpness": (SharpnessProbe, _probe_sharpness)}


def probe(words: Sequence[str]) -> int:
    """Carry out `holdfast probe`."""
    return choose("probe", "probe", "Measure a failure on your own model. Probes", PROBES, words)
