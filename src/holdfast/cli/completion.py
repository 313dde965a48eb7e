"""Completion in shells: `holdfast --tyro-write-completion SHELL FILE`, by tyro, which knows all options."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import tyro

from holdfast.cli.parsing import OK, REGISTRY, CommandLineError, Commands
from holdfast.errors import MissingExtraError, did_you_mean

SHELLS = ("bash", "zsh", "fish", "tcsh")

WRITE, PRINT = "--tyro-write-completion", "--tyro-print-completion"
"""Flags of tyro's, which every program made with it has."""


def complete(words: Sequence[str]) -> int:
    """Write the file that teaches a shell to complete `holdfast`.

    Arguments:
        words: the flag, the shell and, with `WRITE`, the file.

    Errors:
        CommandLineError: there is no such shell, or no file is named.
    """
    flag, *rest = words
    if len(rest) != (2 if flag == WRITE else 1):
        wanted = "SHELL FILE, with - for standard output" if flag == WRITE else "SHELL"
        raise CommandLineError(f"{flag}: expected {wanted}, got {' '.join(rest) or 'nothing'}")
    if rest[0] not in SHELLS:
        hint = did_you_mean(rest[0], SHELLS)
        raise CommandLineError(f"{flag}: expected one of {', '.join(SHELLS)}, got {rest[0]}.{hint}".rstrip("."))
    try:
        with contextlib.suppress(SystemExit):
            _everything().cli(prog="holdfast", args=list(words), registry=REGISTRY)
    except OSError as error:
        raise CommandLineError(f"{flag}: cannot write {rest[-1]}: {error.strerror}") from error
    return OK


def _everything() -> tyro.extras.SubcommandApp:
    """All commands with their options; of those whose packages are missing the names."""
    from holdfast.benches import BENCHES
    from holdfast.cli.bench import asked
    from holdfast.cli.confidence import COMMANDS as CONFIDENCE
    from holdfast.cli.generate import Generate
    from holdfast.cli.lists import COMMANDS as LISTS
    from holdfast.cli.probes import PROBES
    from holdfast.cli.serve import KINDS as SERVED
    from holdfast.cli.studies import List, Report, Run
    from holdfast.cli.train import KINDS as TRAINED

    benches = {name: _nothing if bench.missing else asked(bench.load().Options) for name, bench in BENCHES.items()}
    app = tyro.extras.SubcommandApp()
    app.command(name="list")(List)
    app.command(name="run")(_with_names(Run))
    app.command(name="report")(_with_names(Report))
    app.command(_group(_options(PROBES)), name="probe")
    app.command(_group({kind: _of_training(kind) for kind in TRAINED}), name="train")
    app.command(_group(_options(SERVED)), name="serve")
    app.command(_group(benches), name="bench")
    app.command(_group(_options(LISTS)), name="lists")
    app.command(name="generate")(Generate)
    app.command(_group(_options(CONFIDENCE)), name="confidence")
    return app


def _group(commands: Mapping[str, Any]) -> tyro.extras.SubcommandApp:
    app = tyro.extras.SubcommandApp()
    for name, options in commands.items():
        app.command(name=name)(options)
    return app


def _options(commands: Commands) -> dict[str, Any]:
    return {name: options for name, (options, _) in commands.items()}


def _of_training(kind: str) -> Any:
    from holdfast.cli.train import options_of

    try:
        return options_of(kind)
    except MissingExtraError:
        return _nothing


def _nothing() -> None:
    """Nothing to complete."""


def _with_names(options: type[Any]) -> type[Any]:
    """The same options, with the installed studies as words to choose from."""
    from holdfast.lab.locate import installed

    names = tuple(installed())
    if not names:
        return options
    known = tuple[Literal[names], ...]  # type: ignore[valid-type]
    studies = ("studies", tyro.conf.Positional[known], dataclasses.field(default=()))
    return dataclasses.make_dataclass(options.__name__, [studies], bases=(options,), frozen=True)
