"""The command that runs a study again as it was run."""

from __future__ import annotations

import enum
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.lab.run import Job
    from holdfast.lab.study import Study


def command_of(job: Job) -> str:
    """The command line that runs a job."""
    return command(place_of(job.study), job.scale, job.overrides)


def place_of(study: Study[Any]) -> str:
    """What to call a study on the command line: its name, or its file as seen from here."""
    from holdfast.lab.locate import source_of

    source = source_of(study)
    return place(Path(source)) if source else study.name


def place(path: Path) -> str:
    """A file as seen from here, or its name only if it lies elsewhere: what is published names no folder of a user."""
    path, here = path.absolute(), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else path.name


def command(study: str, scale: str, changes: Mapping[str, Any]) -> str:
    """The command line that runs a study.

    Arguments:
        study: its name, or the path of its file.
        scale: the scale.
        changes: settings that differ from the scale's, by dotted name.
    """
    words = ["holdfast", "run", study, "--scale", scale]
    for setting, value in changes.items():
        name = setting.replace("_", "-")
        if name == "seeds":
            words += ["--seeds", str(value)]
        elif isinstance(value, bool):
            head, _, last = name.rpartition(".")
            flag = f"{head}." if head else ""
            words.append(f"--config.{name}" if value else f"--config.{flag}no-{last}")
        elif isinstance(value, str) and _text(value).startswith("-"):
            words.append(f"--config.{name}={_text(value)}")
        else:
            words += [f"--config.{name}", *_words(value)]
    return shlex.join(words)


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _words(item)
    elif isinstance(value, Mapping):
        for pair in value.items():
            yield from _words(pair)
    else:
        yield _text(value)


def _text(value: Any) -> str:
    return value.name if isinstance(value, enum.Enum) else str(value)
