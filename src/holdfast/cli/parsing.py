"""What all commands share: exit statuses, words to options, functions and pictures by path."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import json as jsonlib
import os
import re
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from holdfast.errors import ArgumentError, HoldfastError, did_you_mean

if TYPE_CHECKING:
    import torch

OK, FAILED, USER_MISTAKE, INTERRUPTED = 0, 1, 2, 130

Target = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TARGET")]
"""What a command is for, under the name that errors give it."""

OptionalTarget = Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="TARGET")]
"""The same where the package has something that it can be for."""

Device = Annotated[str, tyro.conf.arg(metavar="DEVICE")]
"""Where PyTorch computes: cpu, cuda, cuda:1, …, or auto, which is cuda where there is one."""

PATIENT = ("OMP_WAIT_POLICY", "passive")
"""A variable of the environment and its value, unless it is set, before torch is loaded: threads of OpenMP that spin
while they wait for each other take a busy machine's time from the very ones that they wait for, and small models run
many times slower."""

Commands = Mapping[str, tuple[type[Any], Callable[[Any], int]]]
"""Options of each command by its name, and what carries them out and returns the exit status."""


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """How a command shows a report: for people, as JSON, as a picture."""

    plot: Path | None = None
    """File to write a picture to: .png, .svg or .pdf."""
    json: bool = False
    """Print JSON."""

    def show(self, report: Any) -> None:
        """Print the report, and draw it where a picture is wanted."""
        say(jsonlib.dumps(report.to_dict(), indent=1) if self.json else self.text_of(report))
        if self.plot is not None:
            write_plot(report, self.plot)

    def text_of(self, report: Any) -> str:
        """The report for people."""
        return str(report)


REGISTRY = tyro.constructors.ConstructorRegistry()
"""How types are shown in help, where tyro's way is hard to read."""

_asking: list[tyro.constructors.PrimitiveTypeInfo] = []


@REGISTRY.primitive_rule
def _several(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[Any] | tyro.constructors.UnsupportedTypeAnnotationError | None:
    """Several words are `INT ...` and not `[INT [INT ...]]`; all else is as tyro has it."""
    if info.type_origin is not tuple or _asking:
        return None
    _asking.append(info)
    try:
        spec = tyro.constructors.ConstructorRegistry.get_primitive_spec(info)
    finally:
        _asking.pop()
    if not isinstance(spec, tyro.constructors.PrimitiveConstructorSpec):
        return spec
    return dataclasses.replace(spec, metavar=re.sub(r"\[(.+?) \[(?:\1 )?\.\.\.\]\]", r"\1 ...", spec.metavar))


def say(text: object) -> None:
    """Print what a command found. Whoever reads it may have had enough: the exit status is still the command's."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # What the interpreter flushes at its end must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@dataclass(frozen=True, kw_only=True)
class ExplainedOptions(ReportOptions):
    """A report whose columns are explained on demand."""

    explain: bool = False
    """Say after the report what each column means."""

    def text_of(self, report: Any) -> str:
        """The report for people, and what its columns mean, or that this can be asked for."""
        return f"{report}\n\n{report.explain() if self.explain else '--explain says what each column means.'}"


class CommandLineError(HoldfastError):
    """Words on the command line that cannot be parsed."""


def parse(options: Any, program: str, words: Sequence[str], default: Any = tyro.MISSING_NONPROP) -> Any:
    """Parse with tyro; what it rejects becomes one line instead of a box.

    Arguments:
        options: what describes them, such as a dataclass.
        program: what help calls the command.
        words: to be parsed.
        default: options that hold where the words say nothing; by default those that `options` declares.
    """
    stream = io.StringIO()
    try:
        with contextlib.redirect_stderr(stream):
            parsed = tyro.cli(options, prog=program, args=list(words), default=default, registry=REGISTRY)
    except SystemExit as stop:
        if not stop.code:
            raise
        box = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue()).splitlines()[1:]
        told = itertools.takewhile(lambda line: "───" not in line, box)
        text = " ".join(" ".join(line.strip("│ ") for line in told).split())
        message = _reworded(text, options)
        raise CommandLineError(f"{message}{'' if message[-1] in '.?' else '.'} See: {program} --help") from None
    if isinstance(parsed, ExplainedOptions) and parsed.json and parsed.explain:
        raise ArgumentError("--explain", "a report for people", "--json")
    if isinstance(parsed, ReportOptions) and parsed.plot is not None:
        check_plot(parsed.plot)
    return parsed


def check_text(path: Path | None) -> None:
    """Refuse a text that is not there, before a model is loaded for it."""
    if path is not None and not path.is_file():
        raise ArgumentError(
            "--text", "a file of text", f"{path}, which is {'no file' if path.exists() else 'not there'}"
        )


@contextlib.contextmanager
def as_typed(options: Any, others: Mapping[str, str] | None = None) -> Iterator[None]:
    """Errors name what the user typed: an option as its flag, a word without a flag in capitals.

    Arguments:
        options: as parsed.
        others: what arguments of another name are called on the command line.
    """
    try:
        yield
    except ArgumentError as error:
        name = error.argument.removesuffix("_s")  # seconds, where help says the unit
        word = (others or {}).get(error.argument) or _words_of(type(options)).get(name, error.argument)
        raise ArgumentError(word, error.expected, error.got) from error


def _words_of(options: type[Any]) -> dict[str, str]:
    """What the fields of a dataclass are called on the command line."""
    hints = typing.get_type_hints(options, include_extras=True)
    marker = typing.get_args(tyro.conf.Positional[int])[1]
    return {
        name: name.upper() if marker in typing.get_args(hint) else f"--{name.replace('_', '-')}"
        for name, hint in hints.items()
    }


def refuse_given(options: Any, names: Iterable[str], expected: str, got: str) -> None:
    """Refuse options that would be ignored.

    Arguments:
        options: as parsed.
        names: of those that do not apply; they count as given where their value is not the default.
        expected: what they apply to.
        got: what there is instead.

    Errors:
        ArgumentError: one of them is given.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(options)}
    for name in names:
        if getattr(options, name) != defaults[name]:
            raise ArgumentError(f"--{name.replace('_', '-')}", f"{expected}, which alone has such an option", got)


def _reworded(text: str, options: Any) -> str:
    """An error of tyro's in a few words, with what may have been meant."""
    if found := re.fullmatch(r"Unrecognized options: (.*)", text):
        words = found[1].split(", ")
        flags = [word for word in words if word.startswith("-")]
        if not flags:
            return f"too many words: {' '.join(words)}"
        known_flags = _flags_of(options)
        return " ".join(f"no option {flag}.{did_you_mean(flag, known_flags)}" for flag in flags)
    if found := re.fullmatch(r"invalid choice '(.*)' for argument '(.*?)'\. Expected one of \((.*?),?\)\.?", text):
        choices = re.findall(r"'(.*?)'", found[3])
        return f"{found[2]}: expected one of {', '.join(choices)}, got {found[1]}.{did_you_mean(found[1], choices)}"
    if found := re.fullmatch(r"Missing value for argument '(.*?)'.*", text):
        return f"a value is missing: {found[1]}"
    # What a dataclass of settings refuses names its option already.
    text = re.sub(r"Error parsing [\w.]+: (?=--)", "", text)
    kinds = {"INT": r"invalid literal for int\(\) with base 10", "FLOAT": "could not convert string to float"}
    for kind, refused in kinds.items():
        text = re.sub(rf"Error parsing (\S+): {refused}: (.*)", rf"\1: expected {kind}, got \2", text)
    # An optional value fails once for each type it could have; the flag and the word are what helps.
    return re.sub(
        r"Error parsing (\S+): no type matching (?:\{None\}\|)?\{?(.+?)\}? could .*? from \[(.*?)\].*",
        r"\1: expected \2, got \3",
        text,
    )


def _flags_of(options: Any) -> list[str]:
    """The flags that its help tells."""
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream), contextlib.suppress(SystemExit):
        tyro.cli(options, args=["--help"])
    return re.findall(r"(?<![\w-])--[a-z][\w.-]*", stream.getvalue())


def known(kind: str, word: str, names: Iterable[str]) -> str:
    """The word, if it is one of the names.

    Errors:
        CommandLineError: it is not; says which is meant, where one is close, and which there are.
    """
    names = list(names)
    if word not in names:
        raise CommandLineError(f"no {kind} named {word!r}.{did_you_mean(word, names)} There are: {', '.join(names)}")
    return word


def choose(group: str, kind: str, title: str, commands: Commands, words: Sequence[str]) -> int:
    """Carry out one of a group of commands, such as `holdfast probe sharpness`; without a name, show them all.

    Arguments:
        group: the first word.
        kind: what the second word names.
        title: what stands above the names.
        commands: the commands by name.
        words: the words after the first.
    """
    if not words or words[0] in ("-h", "--help"):
        print(f"usage: holdfast {group} {kind.upper()} ...\n\n{title}:\n")
        width = max(12, *map(len, commands))
        for name, (options, _) in commands.items():
            print(f"  {name:<{width}} {(options.__doc__ or '').splitlines()[0]}")
        print(f"\nMore: holdfast {group} {kind.upper()} --help")
        return OK
    options, carry_out = commands[known(kind, words[0], commands)]
    parsed = parse(options, f"holdfast {group} {words[0]}", words[1:])
    with as_typed(parsed):
        return carry_out(parsed)


def function_at(place: str) -> Callable[..., Any]:
    """A function named as `file.py:name` or `module:name`."""
    from holdfast.lab.locate import function_at

    return function_at(place, "TARGET")


def device_named(name: str) -> torch.device:
    """A device that this machine has; `auto` is cuda where there is one.

    Errors:
        ArgumentError: there is no such device.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ArgumentError("--device", "a device of PyTorch, such as cpu or cuda, or auto", name) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ArgumentError("--device", "cpu, since this machine has no CUDA device", name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ArgumentError("--device", f"one of the {torch.cuda.device_count()} CUDA devices of this machine", name)
    return device


def check_plot(path: Path) -> None:
    """Refuse a picture that could not be written, before anything is measured for it."""
    from matplotlib.backend_bases import FigureCanvasBase

    known = FigureCanvasBase.get_supported_filetypes()
    if path.suffix.lower().lstrip(".") not in known:
        raise ArgumentError("--plot", "a path that ends in .png, .svg or .pdf", str(path))
    if not path.parent.is_dir():
        raise ArgumentError("--plot", "a path in a folder that is there", str(path))


def write_plot(report: Any, path: Path) -> None:
    """Draw a probe's report into a file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    report.plot(figure.subplots())
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise ArgumentError("--plot", "a path to write a .png, .svg or .pdf to", f"{path} ({error})") from error
    print(f"picture: {path}", file=sys.stderr)
