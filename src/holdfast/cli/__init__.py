"""The command line: `holdfast check`, `list`, `run`, `report`, `probe`, `train`, `serve`, `bench`, `lists`,
`generate`, `confidence`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Annotated, TextIO

import tyro

from holdfast import __version__
from holdfast.cli.bench import bench
from holdfast.cli.check import Check, check
from holdfast.cli.confidence import confidence
from holdfast.cli.generate import Generate, generate
from holdfast.cli.lists import lists
from holdfast.cli.parsing import INTERRUPTED, OK, USER_MISTAKE, parse
from holdfast.cli.probes import probe
from holdfast.cli.serve import serve
from holdfast.cli.studies import List, Report, Run, list_studies, report_studies, run_options, run_studies
from holdfast.cli.train import train
from holdfast.errors import HoldfastError


@dataclass(frozen=True)
class Probe:
    """Measure a failure on your own model: holdfast probe PROBE --help."""


@dataclass(frozen=True)
class Train:
    """Train a model: holdfast train KIND --help."""


@dataclass(frozen=True)
class Serve:
    """Serve a model to other programs: holdfast serve KIND --help."""


@dataclass(frozen=True)
class Bench:
    """Measure speed and memory side by side: holdfast bench BENCH --help."""


@dataclass(frozen=True)
class Lists:
    """Check, extend and find list functions: holdfast lists COMMAND --help."""


@dataclass(frozen=True)
class Confidence:
    """Ask how stubborn a language model is: holdfast confidence COMMAND --help."""


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
    if words == ["--version"]:
        print(f"holdfast {__version__}")
        return OK
    if words[:1] == ["run"]:
        options = run_options(words[1:])
        program = "holdfast run" if options is Run else f"holdfast run {words[1]}"
        return run_studies(parse(options, program, words[1:]))
    groups = {
        "check": check,
        "probe": probe,
        "train": train,
        "serve": serve,
        "bench": bench,
        "lists": lists,
        "generate": generate,
        "confidence": confidence,
    }
    if words and words[0] in groups:
        return groups[words[0]](words[1:])
    command = parse(_COMMANDS, "holdfast", words or ["--help"])
    return list_studies(command) if isinstance(command, List) else report_studies(command)


_COMMANDS = (
    Annotated[Check, tyro.conf.subcommand("check")]
    | Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Run, tyro.conf.subcommand("run")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Probe, tyro.conf.subcommand("probe")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Serve, tyro.conf.subcommand("serve")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
    | Annotated[Lists, tyro.conf.subcommand("lists")]
    | Annotated[Generate, tyro.conf.subcommand("generate")]
    | Annotated[Confidence, tyro.conf.subcommand("confidence")]
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
