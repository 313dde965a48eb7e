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

from holdfast.cli.parsing import INTERRUPTED, OK, known, parse, say
from holdfast.errors import require

if TYPE_CHECKING:
    from holdfast.models.training.recipe import Recipe


def train(words: Sequence[str]) -> int:
    """Carry out `holdfast train`."""
    if not words or words[0] in ("-h", "--help"):
        print("usage: holdfast train KIND ...\n")
        print("Train a model; a run that was killed goes on exactly where it was. Kinds:\n")
        for name, (line, _) in KINDS.items():
            print(f"  {name:<12} {line}")
        print("\nMore: holdfast train KIND --help")
        return OK
    return KINDS[known("kind", words[0], KINDS)][1](words[1:])


def _language(words: Sequence[str]) -> int:
    """Carry out `holdfast train language`."""
    from holdfast.models.language.recipe import LanguageRecipe
    from holdfast.models.language.train import train as train_language

    return _carry_out(words, language_options, LanguageRecipe, train_language, _language_conclusion)


def _action(words: Sequence[str]) -> int:
    """Carry out `holdfast train action`."""
    require("accelerate", "hf")
    from holdfast.models.action.recipe import ActionRecipe
    from holdfast.models.action.train import train as train_action
    from holdfast.models.action.trajectories import report_on
    from holdfast.models.training.run_folder import RunFolder
    from holdfast.rl.training_data import read_training_data, source_of

    def run(recipe: ActionRecipe, out: Path, *, resume: bool) -> dict[str, Any]:
        RunFolder(out).check(resume=resume)
        data = read_training_data(recipe.data, returns=recipe.model.returns)
        if os.environ.get("RANK", "0") == "0":
            print(report_on(data, bins=recipe.model.bins), file=sys.stderr)
        return train_action(recipe, source_of(recipe, data), out, resume=resume)

    return _carry_out(words, action_options, ActionRecipe, run, _action_conclusion)


def _rainbow(words: Sequence[str]) -> int:
    """Carry out `holdfast train rainbow`."""
    require("gymnasium", "macros")
    from holdfast.rl.rainbow.recipe import RainbowRecipe
    from holdfast.rl.rainbow.train import train as train_rainbow

    return _carry_out(words, rainbow_options, RainbowRecipe, train_rainbow, _rainbow_conclusion)


def _carry_out(
    words: Sequence[str],
    options_of: Callable[[Any], Any],
    recipe: type[Recipe],
    run: Callable[..., dict[str, Any]],
    conclusion: Callable[[Mapping[str, Any], Path], str],
) -> int:
    """Train what the words ask for.

    Arguments:
        words: of the command line, after the kind.
        options_of: the options, for a class of recipes.
        recipe: that class.
        run: trains by a recipe, into a folder.
        conclusion: what to say in the end, of the account and the folder.
    """
    from holdfast.models.training.run_folder import RunFolder

    command, options = f"holdfast train {recipe.kind}", options_of(recipe)
    asked = parse(options, command, words)
    if asked.resume and RunFolder(asked.output).begun:  # what is not said again is as the run was begun
        begun = recipe.from_dict(RunFolder(asked.output).beginning()["recipe"])
        asked = parse(options, command, words, dataclasses.replace(asked, recipe=begun))
    speaks, done = os.environ.get("RANK", "0") == "0", False
    try:
        report = run(asked.recipe, asked.output, resume=asked.resume)
        done = True
    except KeyboardInterrupt:
        again = shlex.join([*command.split(), "--output", str(asked.output), "--resume"])
        if speaks:
            print(f"holdfast: interrupted; it goes on from the last checkpoint with  {again}", file=sys.stderr)
        return INTERRUPTED
    finally:
        _leave_processes(together=done)
    if speaks:
        say(jsonlib.dumps(report, indent=1, ensure_ascii=False) if asked.json else conclusion(report, asked.output))
    return OK


def options_of(kind: str) -> Any:
    """The options of one of the kinds.

    Errors:
        MissingExtraError: what loads its recipes is not installed.
    """
    if kind == "language":
        from holdfast.models.language.recipe import LanguageRecipe

        return language_options(LanguageRecipe)
    if kind == "action":
        from holdfast.models.action.recipe import ActionRecipe

        return action_options(ActionRecipe)
    require("gymnasium", "macros")
    from holdfast.rl.rainbow.recipe import RainbowRecipe

    return rainbow_options(RainbowRecipe)


def language_options(recipe: type[Recipe]) -> Any:
    """The options of `holdfast train language`.

    Arguments:
        recipe: the class of its recipes.
    """
    return _options(
        recipe,
        Path("language-model"),
        "Train a language model on text with the Trainer of transformers.\n\n"
        "Several processes: torchrun --nproc-per-node N -m holdfast train language ...",
    )


def action_options(recipe: type[Recipe]) -> Any:
    """The options of `holdfast train action`.

    Arguments:
        recipe: the class of its recipes.
    """
    return _options(
        recipe,
        Path("action-model"),
        "Train a policy for many domains on trajectories, with Accelerate.\n\n"
        "Several processes: torchrun --nproc-per-node N -m holdfast train action ...",
    )


def rainbow_options(recipe: type[Recipe]) -> Any:
    """The options of `holdfast train rainbow`.

    Arguments:
        recipe: the class of its recipes.
    """
    return _options(
        recipe,
        Path("rainbow-agent"),
        "Train Rainbow on a game, with macro-actions if you like, and the similarity penalty between actions.",
    )


def _options(recipe: type[Recipe], output: Path, help: str) -> Any:
    """The settings of a run with the folder it writes to; made here, since a recipe is slow to load."""
    options = dataclasses.make_dataclass(
        recipe.kind.capitalize(),
        [
            ("recipe", Annotated[recipe, tyro.conf.arg(name="")], dataclasses.field(default_factory=recipe)),
            ("output", Annotated[Path, tyro.conf.arg(help="Folder to write the model to; a new one.")], output),
            (
                "resume",
                Annotated[
                    bool, tyro.conf.arg(help="Go on with the run in --output; its settings need not be repeated.")
                ],
                False,
            ),
            ("json", Annotated[bool, tyro.conf.arg(help="Print JSON.")], False),
        ],
        frozen=True,
    )
    options.__doc__ = help
    return Annotated[options, tyro.conf.OmitArgPrefixes]


def _language_conclusion(report: Mapping[str, Any], out: Path) -> str:
    """What came out, where it is, and what to do with it."""
    minutes, seconds = divmod(round(report["seconds"]), 60)
    generate = shlex.join(["holdfast", "generate", str(out)])
    return (
        f"{report['validation_bits_per_byte']:.3f} bits per byte on validation text, after {report['steps']} steps "
        f"({minutes} min {seconds} s, {report['parameters']:,} parameters)\n"
        f"model: {out}\n"
        f"generate with it:  {generate}"
    )


def _action_conclusion(report: Mapping[str, Any], out: Path) -> str:
    """What came out, and where it is."""
    minutes, seconds = divmod(round(report["seconds"]), 60)
    each = ", ".join(f"{name} {loss:.3f}" for name, loss in report["domains"].items())
    return (
        f"{report['validation_loss']:.3f} nats a dimension of an action on validation data ({each}), after "
        f"{report['steps']} steps ({minutes} min {seconds} s, {report['parameters']:,} parameters)\n"
        f"model: {out / 'policy.safetensors'}"
    )


def _rainbow_conclusion(report: Mapping[str, Any], out: Path) -> str:
    """What came out, and where it is."""
    minutes, seconds = divmod(round(report["seconds"]), 60)
    score = "no game has ended" if report["score"] is None else f"mean return of the last games {report['score']:.2f}"
    return (
        f"{score}, after {report['steps']:,} primitive steps in {report['decisions']:,} decisions and "
        f"{report['updates']:,} updates ({minutes} min {seconds} s, {report['actions']} actions, "
        f"{report['parameters']:,} parameters)\n"
        f"agent: {out / 'agent.pt'}"
    )


def _leave_processes(*, together: bool) -> None:
    """End the group that a launcher's processes form.

    Arguments:
        together: wait for the others, since one that leaves early can abort; not after an error, of which the others
            know nothing: they would wait for this one elsewhere, for ever.
    """
    distributed = getattr(sys.modules.get("torch"), "distributed", None)
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        if together:
            distributed.barrier()
        distributed.destroy_process_group()


KINDS: Mapping[str, tuple[str, Callable[[Sequence[str]], int]]] = {
    "action": ("A policy for many domains, on trajectories.", _action),
    "language": ("A language model, on text.", _language),
    "rainbow": ("An agent for games, with macro-actions.", _rainbow),
}
"""What can be trained: a line about it, and what does so."""
