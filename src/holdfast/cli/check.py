"""`holdfast check`: every probe that applies to a model, on one card."""

from __future__ import annotations

import contextlib
import json as jsonlib
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from holdfast.cli.parsing import (
    FAILED,
    INTERRUPTED,
    OK,
    PATIENT,
    Device,
    OptionalTarget,
    as_typed,
    device_named,
    parse,
    say,
)
from holdfast.errors import ArgumentError

if TYPE_CHECKING:
    from holdfast.card import Card, CheckSettings
    from holdfast.card.run import Step
    from holdfast.card.target import Target
    from holdfast.card.watchdog import Watchdog

FOLDER = Path("holdfast-check")
"""Cards lie below it, in a folder named after the target."""

SHIPPED = "shipped"
"""What the models that come with the package are called there."""

GRACE_S = 20.0
"""Seconds over the budget after which a check that heeds no alarm is ended from outside."""

HTML, JSON, FINDINGS = "card.html", "card.json", "findings"

WEIGHTS = (".pt", ".pth", ".bin", ".safetensors", ".ckpt")
"""Files that are another checkpoint of the target's network, and no target by themselves."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """Find out what will break when a model leaves the conditions it was made for: all probes, on one card.

    A rule of one list function alone is searched for by holdfast lists check.
    """

    target: OptionalTarget = None
    """A transformers model (a folder or an id); file.py:name or module:name of a function that makes a network or a
    policy, or of a list function; the file of a policy; a log of Q values (.csv, .npz); a folder of checkpoints; or the
    address of an endpoint. Unless given, the language model and the policy that come with the package."""
    checkpoint: tuple[Path, ...] = ()
    """Weights of the network that TARGET makes: one file, or several of one training in their order."""
    factory: str | None = None
    """A function that makes a fresh network, for a folder of checkpoints; as file.py:name or module:name."""
    data: str | None = None
    """A function that returns a loader, or inputs and targets, for a network; as file.py:name or module:name."""
    peak: float | None = None
    """The highest learning rate of the network's training."""
    current: float | None = None
    """The learning rate that its training has come to."""
    optimizer: Annotated[str, tyro.conf.arg(metavar="NAME")] = "adam"
    """That of its training: adam, adamw, sgd or rmsprop."""
    text: Path | None = None
    """File with a text for language models to read; the source of Python's standard library unless given."""
    model: str | None = None
    """Name of the model, for an endpoint that serves several."""
    demonstrations: str | None = None
    """Trajectories that the policy was trained on."""
    second: Annotated[Path | None, tyro.conf.arg(metavar="TARGET")] = None
    """For a log of Q values: that of another agent in the same states, trained alike with another seed. Only its values
    can say that the actions do not overload the first."""
    probes: tuple[str, ...] = ()
    """Only these."""
    budget: float = 300.0
    """Seconds for all probes together."""
    seed: int = 0
    """Of everything that is drawn."""
    device: Device = "cpu"
    """Where models run: cpu, cuda, cuda:1, … or auto."""
    store: Path | None = None
    """Folder that finished findings are kept in; what it holds is not measured again. Unless given, findings beside the
    card."""
    output: Path | None = None
    """Folder to write card.html and card.json to; unless given, one named after the target below holdfast-check."""
    fresh: bool = False
    """Measure anew what is in the store."""
    json: bool = False
    """Print JSON."""
    fail_on: str | None = None
    """Rules that make the exit status 1, with commas: fails, not-run, sharpness, sharpness=not-told or
    plasticity.learning-speed<0.8."""
    against: str | None = None
    """The card of an earlier check, another target, or another checkpoint of the same network, to compare with."""


def check(words: Sequence[str]) -> int:
    """Parse the words after `holdfast check` and carry them out."""
    options = parse(Check, "holdfast check", words)
    os.environ.setdefault(*PATIENT)
    place = {"store": "--output"} if options.store is None else {}
    try:
        with as_typed(options, {"card": "--against", **place}):
            return _check(options, shlex.join(["holdfast", "check", *words]))
    except KeyboardInterrupt:
        then = "with --fresh it begins anew" if options.fresh else "the same command goes on from them"
        print(f"holdfast: interrupted; finished probes are kept and {then}", file=sys.stderr)
        return INTERRUPTED


def _check(options: Check, command: str) -> int:
    from holdfast.card import CheckSettings, checks
    from holdfast.card.checking import load_targets
    from holdfast.card.fail_on import broken_by, rules_of, without_figure
    from holdfast.card.target import Kind
    from holdfast.card.watchdog import Watchdog
    from holdfast.lab.locate import function_at

    names = tuple(one.name for one in checks.CHECKS)
    rules = [] if options.fail_on is None else rules_of(options.fail_on, names)
    given = ((options.text, "--text"), (options.second, "--second"))
    for path, flag in (*given, *((path, "--checkpoint") for path in options.checkpoint)):
        if path is not None and not path.exists():
            raise ArgumentError(flag, "a file", f"{path}, which is not there")
    folder = options.output or FOLDER / _slug(options.target or SHIPPED)
    before = _card_in(folder)
    kept = Path.cwd() / folder  # a target may go to another folder
    with Watchdog() as watch, _own_output():
        watch.expect("loading what is to be checked", options.budget + GRACE_S)
        settings = CheckSettings(
            budget_s=options.budget,
            seed=options.seed,
            device=str(device_named(options.device)),
            text=options.text,
            data=None if options.data is None else function_at(options.data, "--data"),
            optimizer=options.optimizer,
            peak=options.peak,
            current=options.current,
            demonstrations=options.demonstrations,
            second=options.second,
        )
        factory = None if options.factory is None else function_at(options.factory, "--factory")

        def load(target: str | None, checkpoints: Sequence[Path]) -> list[Target]:
            watch.expect("loading what is to be checked", options.budget + GRACE_S)
            return load_targets(
                target,
                settings,
                checkpoints=checkpoints,
                factory=factory,
                model=options.model,
                probes=options.probes,
            )

        targets = load(options.target, options.checkpoint)
        if before is not None and [one.name for one in targets] != [one.name for one in before.subjects]:
            held = ", ".join(one.name for one in before.subjects)
            raise ArgumentError("--output", "a folder without the card of another target", f"{folder}, that of {held}")
        if any(one.kind is Kind.ENDPOINT for one in targets):
            command = _without_secrets(command, options.target or "", targets[0].name)
        other, others = _against(options, load)
        if others:  # both within the budget
            settings = replace(settings, budget_s=settings.budget_s / 2)
        card = _measured(targets, settings, options, kept, command, watch)
        if others:
            other = _measured(others, settings, options, kept, "", watch)
    _write(card, other, kept)
    _show(card, other, options.json)
    print(f"card: {folder / HTML}", file=sys.stderr if options.json else sys.stdout)
    for line in without_figure(card, rules):
        print(f"holdfast: warning: {line}", file=sys.stderr)
    broken = broken_by(card, rules)
    for line in broken:
        print(f"holdfast: failed: {line}", file=sys.stderr)
    return FAILED if broken else OK


def _against(
    options: Check, load: Callable[[str | None, Sequence[Path]], list[Target]]
) -> tuple[Card | None, list[Target]]:
    """The card to compare with, or what is to be checked for it."""
    from holdfast.card import Card

    if options.against is None:
        return None, []
    path = Path(options.against)
    if path.suffix == ".json" or (path / JSON).is_file():
        return Card.read(path), []
    if path.is_file() and path.suffix in WEIGHTS and ":" in (options.target or ""):
        found = load(options.target, [path])
        return None, [replace(found[0], name=path.name)]
    try:
        return None, load(options.against, ())
    except ArgumentError as error:
        raise ArgumentError("--against", f"a card, or a target ({error.expected})", error.got) from error


def _measured(
    targets: list[Target], settings: CheckSettings, options: Check, folder: Path, command: str, watch: Watchdog
) -> Card:
    from holdfast.card.run import check_targets

    store = options.store or folder / FINDINGS
    end = time.monotonic() + settings.budget_s
    with _progress() as show:

        def tell(step: Step) -> None:
            watch.expect(f"the probe {step.check.name}", max(0.0, end - time.monotonic()) + GRACE_S)
            show(step)

        def leave() -> None:
            """End the process: the target swallows whatever would stop it. What is finished is on the disk."""
            said = "holdfast: the target does not let itself be stopped; finished probes are kept"
            print(said, file=sys.stderr, flush=True)
            watch.__exit__()
            os._exit(INTERRUPTED)

        return check_targets(
            targets,
            settings,
            probes=options.probes,
            store=store,
            fresh=options.fresh,
            tell=tell,
            command=command,
            last=leave,
        )


@contextlib.contextmanager
def _own_output() -> Iterator[None]:
    """A target may print, from C too, and the output is the card's: what it writes goes to standard error."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[Step], None]]:
    """A line a probe, and on a terminal a bar below the lines."""
    if not sys.stderr.isatty():
        yield lambda step: print(step, file=sys.stderr, flush=True)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, highlight=False)
    columns = (BarColumn(), TextColumn("{task.completed}/{task.total} probes"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        task = bar.add_task("", total=None)

        def tell(step: Step) -> None:
            console.print(str(step), markup=False)
            bar.update(task, completed=step.number - 1, total=step.total)

        yield tell


def _show(card: Card, other: Card | None, as_json: bool) -> None:
    from holdfast.card import compare

    comparison = None if other is None else compare(card, other)
    if as_json:
        document: dict[str, Any] = card.to_dict()
        if comparison is not None:
            document["against"] = comparison.to_dict()
        say(jsonlib.dumps(document, indent=1, ensure_ascii=False))
        return
    if comparison is not None:
        say(comparison)
    say(card)


def _card_in(folder: Path) -> Card | None:
    """The card that is to be replaced.

    Errors:
        ArgumentError: there is something else in its place.
    """
    from holdfast.card import Card

    expected = "a folder for the card, or one with an earlier card"
    if folder.exists() and not folder.is_dir():
        raise ArgumentError("--output", expected, f"{folder}, a file")
    if not (folder / JSON).exists():
        if (folder / HTML).exists():
            raise ArgumentError("--output", expected, f"{folder}, whose {HTML} has no {JSON} beside it")
        return None
    try:
        return Card.read(folder)
    except ArgumentError as error:
        raise ArgumentError("--output", expected, f"{folder}, whose {JSON} is no card ({error.got})") from error


def _write(card: Card, other: Card | None, folder: Path) -> Path:
    """Write the card; a reader sees the old files or the new ones, never a half."""
    from holdfast.card import compare
    from holdfast.card.page import render
    from holdfast.lab import files

    document = card.to_dict()
    if other is not None:
        document["against"] = compare(card, other).to_dict()
    page = render(card, other, _docs(folder))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        contents = ((HTML, page.encode("utf-8", "replace")), (JSON, files.to_bytes(document)))
        for name, content in contents:
            temporary = folder / f".{name}.{os.getpid()}.tmp"
            files.write(temporary, content)
            temporary.replace(folder / name)
    except OSError as error:
        raise ArgumentError("--output", "a folder that can be written", f"{folder} ({error})") from error
    return folder / HTML


def _docs(folder: Path) -> str:
    """Where the documentation's pages are, as seen from the card: known in a checkout only."""
    root = next((up for up in Path(__file__).resolve().parents if (up / "pyproject.toml").is_file()), None)
    if root is None or not folder.resolve().is_relative_to(root):
        return ""
    for pages, ending in ((root / "site", ".html"), (root / "docs", ".md")):
        if (pages / f"index{ending}").is_file():
            return f"{Path(os.path.relpath(pages, folder.resolve())).as_posix()}/{{page}}{ending}"
    return ""


def _slug(target: str) -> str:
    """A name for a folder."""
    shown = re.sub(r"//[^/?#]*@", "//", target).split("?")[0]
    return re.sub(r"[^\w.-]+", "-", shown).strip("-.") or "target"


def _without_secrets(command: str, target: str, name: str) -> str:
    """A command with the address as it may be shown."""
    return command.replace(shlex.quote(target), shlex.quote(name))
