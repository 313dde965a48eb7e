"""`holdfast train`: train a model of Holdfast's."""

from __future__ import annotations

import dataclasses
import json as jsonlib
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from holdfast.cli.parsing import INTERRUPTED, OK, CommandLineError, parse, say

if TYPE_CHECKING:
    from holdfast.models.language.recipe import Recipe


def train(words: Sequence[str]) -> int:
    """Carry out `holdfast train`."""
    if not words or words[0] in ("-h", "--help"):
        print("usage: holdfast train KIND ...\n\nTrain a model. Kinds:\n")
        for name, (line, _) in KINDS.items():
            print(f"  {name:<12} {line}")
        print("\nMore: holdfast train KIND --help")
        return OK
    if words[0] not in KINDS:
        raise CommandLineError(f"no kind named {words[0]!r}; there are: {', '.join(KINDS)}")
    return KINDS[words[0]][1](words[1:])


def _language(words: Sequence[str]) -> int:
    """Carry out `holdfast train language`."""
    from holdfast.models.language.recipe import Recipe
    from holdfast.models.language.run_folder import RunFolder
    from holdfast.models.language.train import train as train_language

    options = _language_options(Recipe)
    asked = parse(options, "holdfast train language", words)
    if asked.resume and RunFolder(asked.out).begun:  # what is not said again is as the run was begun
        begun = dataclasses.replace(asked, recipe=RunFolder(asked.out).recipe())
        asked = parse(options, "holdfast train language", words, begun)
    speaks = os.environ.get("RANK", "0") == "0"
    try:
        report = train_language(asked.recipe, asked.out, resume=asked.resume)
    except KeyboardInterrupt:
        again = shlex.join(["holdfast", "train", "language", "--out", str(asked.out), "--resume"])
        if speaks:
            print(f"holdfast: interrupted; it goes on from the last checkpoint with  {again}", file=sys.stderr)
        return INTERRUPTED
    finally:
        _leave_processes()
    if speaks:
        say(jsonlib.dumps(report, indent=1, ensure_ascii=False) if asked.json else _conclusion(report, asked.out))
    return OK


def _language_options(recipe: type[Recipe]) -> Any:
    """The settings of a run with the folder it writes to; made here, since a recipe is slow to load."""
    options = dataclasses.make_dataclass(
        "Language",
        [
            ("recipe", Annotated[recipe, tyro.conf.arg(name="")], dataclasses.field(default_factory=recipe)),
            ("out", Annotated[Path, tyro.conf.arg(help="New folder for the model.")], Path("language-model")),
            (
                "resume",
                Annotated[bool, tyro.conf.arg(help="Go on with the run in --out; its settings need not be repeated.")],
                False,
            ),
            ("json", Annotated[bool, tyro.conf.arg(help="Print the account of the run as JSON.")], False),
        ],
        frozen=True,
    )
    options.__doc__ = (
        "Train a language model on text with the Trainer of transformers.\n\n"
        "Several processes: torchrun --nproc-per-node N -m holdfast train language ..."
    )
    return Annotated[options, tyro.conf.OmitArgPrefixes]


def _conclusion(report: Mapping[str, Any], out: Path) -> str:
    """What came out, where it is, and what to do with it."""
    minutes, seconds = divmod(round(report["seconds"]), 60)
    generate = shlex.join(["holdfast", "generate", "--model", str(out)])
    return (
        f"{report['validation_bits_per_byte']:.3f} bits per byte on validation text, after {report['steps']} steps "
        f"({minutes} min {seconds} s, {report['parameters']:,} parameters)\n"
        f"model: {out}\n"
        f"generate with it:  {generate}"
    )


def _leave_processes() -> None:
    """End the group that a launcher's processes form: torch warns otherwise."""
    distributed = getattr(sys.modules.get("torch"), "distributed", None)
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


KINDS: Mapping[str, tuple[str, Callable[[Sequence[str]], int]]] = {
    "language": ("A language model on text; a run that was killed goes on exactly where it was.", _language),
}
"""What can be trained: a line about it, and what does so."""
