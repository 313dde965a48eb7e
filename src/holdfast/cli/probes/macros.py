"""`holdfast probe macros`: on the Q values of an agent of one's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from holdfast.cli.parsing import OK, ExplainedOptions, OptionalTarget, function_at
from holdfast.errors import ArgumentError

if TYPE_CHECKING:
    from holdfast.probes.macros import LoggedValues
    from holdfast.rl.macros import Macros

FLAGS = {"function": "TARGET", "q": "TARGET", "mask": "TARGET", "action": "TARGET", "episode": "TARGET"}
FLAGS |= {"states": "--states", "macros": "--macros", "second": "--second"}
"""What the arguments of the probe are called here."""

SETTINGS = ("tolerance", "strength", "resamples", "seed")


@dataclass(frozen=True)
class MacrosProbe(ExplainedOptions):
    """Tell from logged Q values how many different actions your own agent has, and whether macros overload it."""

    target: OptionalTarget = None
    """Q values of all actions in logged states: a CSV file with columns q0, q1, … and perhaps action and episode; an
    .npz file with q and perhaps mask, action and episode; or a function or network from a batch of states to them, as
    file.py:name or module:name. Without it, an agent on a small grid with many useless macros."""
    second: Annotated[str | None, tyro.conf.arg(metavar="TARGET")] = None
    """The same of another agent, trained alike with another seed, in the same states: tells what differs between
    actions from what was not learnt."""
    states: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """For a function: its states, an .npy file with one in each row; or an .npz file with states and perhaps mask,
    action and episode."""
    macros: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File with the list of actions, JSON with primitives and macros, as Macros.to_json writes it."""
    output: Path | None = None
    """File to write the fitted matrix to (.npz), for load_similarity."""
    tolerance: float = 0.05
    """What groups may lose: of the differences between actions, and of the best one's lead."""
    strength: float = 10.0
    """c of the effective number of actions: 2 η / w of the penalty and the weight of an action's data."""
    resamples: int = 100
    """Of episodes, or of states where none are named."""
    seed: int = 0
    """Of all draws."""


def run(options: MacrosProbe) -> int:
    """Probe the values."""
    # What is typed wrong is said before anything is loaded.
    _check_output(options.output)
    from holdfast.probes.macros import MacrosSettings, probe_macros, similarity_of
    from holdfast.rl.macros import read_macros
    from holdfast.rl.similarity import save_similarity

    with _in_flags({name: f"--{name}" for name in SETTINGS}):
        settings = MacrosSettings(**{name: getattr(options, name) for name in SETTINGS})
    if options.target is None:
        values, macros = _demonstration(options)
        second = None
    else:
        with _in_flags({"path": "--macros"}):
            macros = None if options.macros is None else read_macros(options.macros)
        values = _values(options.target, options.states, "TARGET")
        second = None if options.second is None else _values(options.second, options.states, "--second")
    with _in_flags(FLAGS):
        report = probe_macros(values, second=second, macros=macros, settings=settings)
    options.show(report)
    if options.output is not None:
        with _in_flags({"path": "--output"}):
            save_similarity(options.output, similarity_of(report))
        print(f"similarity: {options.output}", file=sys.stderr)
    return OK


def _demonstration(options: MacrosProbe) -> tuple[LoggedValues, Macros | None]:
    for name in ("second", "states", "macros"):
        if getattr(options, name) is not None:
            raise ArgumentError(f"--{name}", "a TARGET, which alone has such an option", "none")
    from holdfast.probes.macros.demonstration import loops_on_a_grid

    return loops_on_a_grid(options.seed)


def _values(place: str, states: Path | None, flag: str) -> LoggedValues:
    """Of one agent.

    Arguments:
        place: a file or a function.
        states: a function's.
        flag: that it was given as.
    """
    from holdfast.probes.macros import ask_function, read_csv, read_npz

    readers = {".csv": read_csv, ".npz": read_npz}
    suffix = Path(place).suffix.lower()
    with _in_flags(dict.fromkeys(("TARGET", "path", "function", "q", "mask", "action", "episode"), flag)):
        if suffix in readers:
            if states is not None:
                raise ArgumentError("--states", "a function, which alone has states", place)
            return readers[suffix](Path(place))
        if ":" not in place:
            raise ArgumentError("path", "a file .csv or .npz, or a function as file.py:name or module:name", place)
        if states is None:
            raise ArgumentError("--states", "a file with the states to ask the function about", "none")
        function = function_at(place)
    with _in_flags(dict.fromkeys(("function", "q"), flag) | {"path": "--states", "states": "--states"}):
        return ask_function(function, states)


def _check_output(path: Path | None) -> None:
    """Refuse a file that could not be written, before anything is measured for it."""
    if path is not None and (path.suffix != ".npz" or not path.parent.is_dir()):
        raise ArgumentError("--output", "a path that ends in .npz, in a folder that is there", str(path))


@contextmanager
def _in_flags(flags: dict[str, str]) -> Iterator[None]:
    """Errors name what the user typed."""
    try:
        yield
    except ArgumentError as error:
        raise ArgumentError(flags.get(error.argument, error.argument), error.expected, error.got) from error
