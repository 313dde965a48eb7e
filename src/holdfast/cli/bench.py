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
from holdfast.cli.parsing import FAILED, OK, CommandLineError, parse
from holdfast.errors import ArgumentError, MissingExtraError


def bench(words: Sequence[str]) -> int:
    """Carry out `holdfast bench`."""
    if not words or words[0] in ("-h", "--help"):
        print("usage: holdfast bench BENCH ...\n\nMeasure beside a named peer, in the same run. Benches:\n")
        width = max(map(len, BENCHES)) + 1
        for each in BENCHES.values():
            print(f"  {each.name:<{width}} {each.line}")
        print("\nMore: holdfast bench BENCH --help      All at once: python -m holdfast.benches --help")
        return OK
    chosen = BENCHES.get(words[0])
    if chosen is None:
        raise CommandLineError(f"no bench named {words[0]!r}; there are: {', '.join(BENCHES)}")
    if chosen.missing:
        raise MissingExtraError(f"{chosen.name} needs {', '.join(chosen.missing)}, which is not installed")
    asked = parse(_asked(chosen.load().Options), f"holdfast bench {chosen.name}", words[1:])
    if asked.output is not None:
        _check_writable(asked.output)
    report = chosen.run(asked.options, _show)
    text = jsonlib.dumps(report.to_dict(), indent=1)
    if asked.output is not None:
        asked.output.write_text(text + "\n", encoding="utf-8")
    print(text if asked.json else report)
    return FAILED if report.failures else OK


def _asked(options: type[Any]) -> Any:
    """The settings of a bench with `--json` and `--output`, under the description of the settings."""
    asked = dataclasses.make_dataclass(
        options.__name__,
        [
            ("options", Annotated[options, tyro.conf.arg(name="")]),
            ("json", Annotated[bool, tyro.conf.arg(help="Print JSON.")], False),
            ("output", Annotated[Path | None, tyro.conf.arg(help="JSON file to write.")], None),
        ],
    )
    asked.__doc__ = options.__doc__
    return asked


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
