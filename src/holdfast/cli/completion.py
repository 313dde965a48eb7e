"""Completion in shells: `holdfast --tyro-write-completion SHELL FILE`, by tyro, which knows all options."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Union

import tyro

from holdfast.cli.parsing import OK, REGISTRY, CommandLineError, Commands, say
from holdfast.errors import did_you_mean

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
    script = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(script):
        _everything().cli(prog="holdfast", args=[PRINT, rest[0]], registry=REGISTRY)
    # Shells take each line of a description for one more word to choose from.
    text = re.sub("(?m)^COMPLETION_SPEC = .*$", lambda line: line[0].replace("\\n", " "), script.getvalue())
    text = text.replace("complete -F ", "complete -o default -F ")  # where nothing fits, bash goes on with files
    if flag == PRINT or rest[1] == "-":
        say(text)
        return OK
    try:
        Path(rest[1]).write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandLineError(f"{flag}: cannot write {rest[1]}: {error.strerror}") from error
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
    from holdfast.cli.studies import List, Report
    from holdfast.cli.train import KINDS as TRAINED

    benches = {name: _nothing if bench.missing else asked(bench.load().Options) for name, bench in BENCHES.items()}
    app = tyro.extras.SubcommandApp()
    app.command(name="list")(List)
    app.command(name="run")(_run())
    app.command(name="report")(Report)
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
    except ImportError:
        return _nothing


def _nothing() -> None:
    """Nothing to complete."""


def _run() -> Any:
    """The options of `run`, and behind the name of each installed study those with its settings."""
    from holdfast.cli.studies import Run, installed_studies, options_for

    studies = [Annotated[options_for(study), tyro.conf.subcommand(study.name)] for study in installed_studies()]
    if not studies:
        return Run
    union: Any = Union[tuple(studies)]  # noqa: UP007
    field = ("study", Annotated[union, tyro.conf.arg(name="")], dataclasses.field(kw_only=True))
    options = dataclasses.make_dataclass("Run", [field], bases=(Run,), frozen=True)
    return Annotated[options, tyro.conf.OmitSubcommandPrefixes]
