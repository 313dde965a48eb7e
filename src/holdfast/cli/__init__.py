"""The command line: `holdfast check`, `list`, `run`, `report`, `probe`, `train`, `serve`, `bench`, `lists`,
`generate`, `confidence`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import TextIO

from holdfast import __version__
from holdfast.cli.bench import bench
from holdfast.cli.check import check
from holdfast.cli.completion import PRINT, SHELLS, WRITE, complete
from holdfast.cli.confidence import confidence
from holdfast.cli.generate import generate
from holdfast.cli.lists import lists
from holdfast.cli.parsing import INTERRUPTED, OK, USER_MISTAKE, CommandLineError, known, parse
from holdfast.cli.probes import probe
from holdfast.cli.serve import serve
from holdfast.cli.studies import List, Report, Run, list_studies, report_studies, run_options, run_studies
from holdfast.cli.train import train
from holdfast.errors import HoldfastError, did_you_mean


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 ok, 1 a trial failed, 2 the user's mistake, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    warnings.showwarning = _show_warning
    with contextlib.suppress(ValueError):  # signals can be set in the main thread only
        signal.signal(signal.SIGTERM, _interrupt)
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # not under nohup
            signal.signal(signal.SIGHUP, _interrupt)
    status = OK
    try:
        status = _dispatch(words)
        sys.stdout.flush()
    except HoldfastError as error:
        print(f"holdfast: error: {' '.join(str(error).split())}", file=sys.stderr)
        status = USER_MISTAKE
    except KeyboardInterrupt:
        then = (
            "with --fresh the same command begins anew" if "--fresh" in words else "the same command computes the rest"
        )
        print(f"holdfast: interrupted; finished trials are kept and {then}", file=sys.stderr)
        status = INTERRUPTED
    except BrokenPipeError:  # whoever read the output has had enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def _dispatch(words: list[str]) -> int:
    first, *rest = words or ["--help"]
    if first in ("-h", "--help"):
        print(_help())
        return OK
    if first == "--version":
        print(f"holdfast {__version__}")
        return OK
    if first in (WRITE, PRINT):
        return complete(words)
    if first.startswith("-"):
        hint = did_you_mean(first, ("--help", "--version", WRITE, PRINT))
        raise CommandLineError(f"expected a command, got {first}.{hint} See: holdfast --help")
    _, carry_out = COMMANDS[known("command", first, COMMANDS)]
    return carry_out(rest)


def _list(words: Sequence[str]) -> int:
    return list_studies(parse(List, "holdfast list", words))


def _run(words: Sequence[str]) -> int:
    options = run_options(words)
    program = "holdfast run" if options is Run else f"holdfast run {words[0]}"
    return run_studies(parse(options, program, words))


def _report(words: Sequence[str]) -> int:
    return report_studies(parse(Report, "holdfast report", words))


COMMANDS: Mapping[str, tuple[str, Callable[[Sequence[str]], int]]] = {
    "check": ("Ask all probes at once: what will break when this leaves its conditions?", check),
    "list": ("Show the installed studies: their questions, claims, scales and cost.", _list),
    "run": ("Run studies: compute what the store lacks, judge the claims, write the report.", _run),
    "report": ("Write the report on what a store holds, without computing anything.", _report),
    "probe": ("Measure a failure on your own model.", probe),
    "train": ("Train a model of Holdfast's.", train),
    "serve": ("Serve a model to other programs.", serve),
    "bench": ("Measure speed and memory beside a named peer.", bench),
    "lists": ("Check, extend and find functions on lists.", lists),
    "generate": ("Continue a text with a language model.", generate),
    "confidence": ("Ask how stubborn a language model is.", confidence),
}
"""What can be done: a line about it, and what does so."""


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {line}" for name, (line, _) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: holdfast [-h] [--version] COMMAND ...",
            "",
            "Neural networks that hold up: methods, probes and studies. Commands:",
            "",
            *lines,
            "",
            "  -h, --help  show this, or what a command takes: holdfast COMMAND --help",
            "  --version   show the version",
            f"  {WRITE} SHELL FILE",
            f"              write a file that completes commands in {', '.join(SHELLS)}",
        ]
    )


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"holdfast: warning: {' '.join(str(message).split())}", file=file or sys.stderr)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
