"""`holdfast bench`: speed, memory and accuracy beside a named peer."""

from __future__ import annotations

import dataclasses
import json as jsonlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from holdfast.benches import BENCHES
from holdfast.cli.parsing import FAILED, OK, as_typed, known, parse
from holdfast.errors import ArgumentError, MissingExtraError, missing_line


def bench(words: Sequence[str]) -> int:
    """Carry out `holdfast bench`."""
    if not words or words[0] in ("-h", "--help"):
        print("usage: holdfast bench BENCH ...\n\nMeasure beside a named peer, in the same run. Benches:\n")
        width = max(map(len, BENCHES)) + 1
        for each in BENCHES.values():
            print(f"  {each.name:<{width}} {each.line}")
        print("\nMore: holdfast bench BENCH --help      All at once: python -m holdfast.benches --help")
        return OK
    chosen = BENCHES[known("bench", words[0], BENCHES)]
    if chosen.missing:
        raise MissingExtraError(f"{chosen.name}: {missing_line(chosen.missing)}")
    settings = parse(asked(chosen.load().Options), f"holdfast bench {chosen.name}", words[1:])
    if settings.output is not None:
        _check_writable(settings.output)
    with as_typed(settings.options):
        report = chosen.run(settings.options, _show)
    text = jsonlib.dumps(report.to_dict(), indent=1)
    if settings.output is not None:
        settings.output.write_text(text + "\n", encoding="utf-8")
    print(text if settings.json else report)
    return FAILED if report.failures else OK


def asked(options: type[Any]) -> Any:
    """The settings of a bench with `--json` and `--output`, under the description of the settings."""
    made = dataclasses.make_dataclass(
        options.__name__,
        [
            ("options", Annotated[options, tyro.conf.arg(name="")]),
            ("json", Annotated[bool, tyro.conf.arg(help="Print JSON.")], False),
            ("output", Annotated[Path | None, tyro.conf.arg(help="File to write the report to, as JSON.")], None),
        ],
    )
    made.__doc__ = options.__doc__
    return made


def _check_writable(path: Path) -> None:
    """Say so before the bench, not after it."""
    try:
        path.open("a").close()
    except OSError as error:
        raise ArgumentError("--output", "a file to write", f"{path} ({error.strerror})") from error


def _show(row: Mapping[str, Any]) -> None:
    """On a terminal, tell what is measured by now."""
    if sys.stderr.isatty():
        values = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values())
        print(" ".join(values), file=sys.stderr)
