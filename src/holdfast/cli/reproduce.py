"""The command that runs a study again as it was run."""

from __future__ import annotations

import dataclasses
import enum
import re
import shlex
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.lab.run import Job, StudyRun
    from holdfast.lab.study import Study

STORE = Path("results")
"""Where results are unless the user says otherwise."""


@dataclass(frozen=True)
class Typed:
    """What the user typed, so that the commands which are shown work where they are read.

    Arguments:
        studies: the word for each study, by its name.
        store: the store.
        flags: further options that hold for another try.
    """

    studies: Mapping[str, str] = field(default_factory=dict)
    store: Path = STORE
    flags: Sequence[str] = ()

    def to_complete(self, job: Job) -> str:
        """The command for what the run left out."""
        return command_of(job, self._word(job.study), self._store())

    def to_enlarge(self, job: Job, scale: str) -> str:
        """The command for a larger scale."""
        return command(self._word(job.study), scale, {}, self._store())

    def to_retry(self, job: Job) -> str:
        """The command that computes only what has failed."""
        only = ["--only", *job.only] if job.only else []
        return command_of(job, self._word(job.study), [*self._store(), *self.flags, *only, "--failed"])

    def published(self, run: StudyRun) -> str:
        """The command that stands in what others read: it names no folder of this machine."""
        word = self.studies.get(run.job.study.name)
        relative = word is not None and not Path(word).is_absolute()
        only = ["--only", *run.job.only] if run.job.only and run.results.left_out else []
        return command_of(run.job, word if relative else None, only)

    def published_larger(self, run: StudyRun) -> dict[str, str]:
        """Commands for the scales that claims of a run need, and under "" that for the parts that it left out."""
        word = self.studies.get(run.job.study.name)
        shown = Typed({} if word is None or Path(word).is_absolute() else {run.job.study.name: word})
        needed = {verdict.evidence.needs for verdict in run.verdicts if verdict.evidence.needs}
        commands = {scale: shown.to_enlarge(run.job, scale) for scale in sorted(needed)}
        return commands | {"": shown.to_complete(run.job)}

    def _word(self, study: Study[Any]) -> str:
        return self.studies.get(study.name) or place_of(study)

    def _store(self) -> list[str]:
        return [] if self.store == STORE else ["--store", str(self.store)]


def command_of(job: Job, word: str | None = None, flags: Sequence[str] = ()) -> str:
    """The command line that runs a job.

    Arguments:
        job: the job.
        word: what to call its study; by default its name, or its file as seen from here.
        flags: further options.
    """
    if job.timeout is not None:
        flags = [*flags, "--timeout", f"{job.timeout:g}"]
    return command(word or place_of(job.study), job.scale, job.overrides, flags, job.study.scales[job.scale])


def place_of(study: Study[Any]) -> str:
    """What to call a study on the command line: its name, or its file as seen from here."""
    from holdfast.lab.locate import source_of

    source = source_of(study)
    return place(Path(source)) if source else study.name


def place(path: Path) -> str:
    """A file as seen from here, or its name only if it lies elsewhere: what is published names no folder of a user."""
    path, here = path.absolute(), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else path.name


def command(
    study: str, scale: str, changes: Mapping[str, Any], flags: Sequence[str] = (), default: object = None
) -> str:
    """The command line that runs a study.

    Arguments:
        study: its name, or the path of its file.
        scale: the scale.
        changes: settings that differ from the scale's, by dotted name.
        flags: further options.
        default: the scale's configuration.
    """
    options, choices = _options(changes, "", default)
    at_scale = ["--scale", scale]
    # A choice of a type is no flag: behind one that takes several words it would be one of them.
    words = [*flags, *options, *at_scale, *choices] if choices else [*at_scale, *flags, *options]
    return shlex.join(["holdfast", "run", study, *words])


def _options(changes: Mapping[str, Any], prefix: str, default: object) -> tuple[list[str], list[str]]:
    """Flags that change settings, and the choices of types, each with the flags that are its own."""
    from holdfast.lab.settings import is_settings

    flags: list[str] = []
    choices: list[str] = []
    chosen: dict[str, dict[str, Any]] = {}
    for setting, value in changes.items():
        head, _, rest = setting.partition(".")
        if rest and _is_choice(default, head):
            chosen.setdefault(head, {})[rest] = value
            continue
        name = f"{prefix}{setting}".replace("_", "-")
        if is_settings(value):
            inner, further = _options(_of_its_own(value), f"{prefix}{setting}.", None)
            choices += [f"config.{name}:{_hyphenated(type(value).__name__)}", *inner, *further]
        elif value is None and is_settings(
            reduce(lambda at, part: getattr(at, part, None), setting.split("."), default)
        ):
            choices.append(f"config.{name}:none")
        elif name == "seeds":
            flags += ["--seeds", str(value)]
        elif isinstance(value, bool):
            head, _, last = name.rpartition(".")
            flags.append(f"--config.{name}" if value else f"--config.{head}{'.' * bool(head)}no-{last}")
        elif isinstance(value, str) and _text(value).startswith("-"):
            flags.append(f"--config.{name}={_text(value)}")
        else:
            flags += [f"--config.{name}", *_words(value)]
    for head, of_choice in chosen.items():
        kind = getattr(default, head)
        own, further = _options(of_choice, f"{prefix}{head}.", kind)
        choices += [f"config.{prefix}{head}:{_hyphenated(type(kind).__name__)}".replace("_", "-"), *own, *further]
    return flags, choices


def _is_choice(config: object, name: str) -> bool:
    """Whether a setting may be one of several dataclasses, or none: its own settings then follow the choice."""
    from holdfast.lab.settings import hints

    options = typing.get_args(hints(type(config)).get(name))
    return any(dataclasses.is_dataclass(option) for option in options)


def _of_its_own(value: Any) -> dict[str, Any]:
    """Settings of a dataclass that are not its type's defaults."""
    from holdfast.lab.settings import is_settings, overrides

    changes: dict[str, Any] = {}
    for item in dataclasses.fields(value):
        setting, factory = getattr(value, item.name), item.default_factory
        default = item.default if factory is dataclasses.MISSING else factory()
        if is_settings(setting) and default is dataclasses.MISSING:
            inner = _of_its_own(setting)
        elif is_settings(setting) and type(setting) is type(default):
            inner = overrides(setting, default)
        else:
            if type(setting) is not type(default) or repr(setting) != repr(default):
                changes[item.name] = setting
            continue
        changes |= {f"{item.name}.{name}": inner_value for name, inner_value in inner.items()}
    return changes


def _hyphenated(name: str) -> str:
    """A type's name as a choice on the command line: `AdamW` is `adam-w`."""
    return re.sub(r"((?<=[a-z0-9])[A-Z]|(?!^)[A-Z](?=[a-z]))", r"-\1", name).lower().replace("_", "-")


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
