"""`holdfast list`, `run` and `report`."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json as jsonlib
import math
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro
from rich.markup import escape

from holdfast.cli.parsing import FAILED, OK
from holdfast.cli.reproduce import command, command_of, place, place_of
from holdfast.errors import ArgumentError, HoldfastError

if TYPE_CHECKING:
    from holdfast.lab.engines import Engine
    from holdfast.lab.run import Forecast, StudyRun
    from holdfast.lab.store import Store
    from holdfast.lab.study import Study
    from holdfast.lab.verdict import Verdict


@dataclass(frozen=True)
class List:
    """Show the installed studies: their questions, claims, scales and cost."""

    json: bool = False
    """Print JSON."""


@dataclass(frozen=True)
class Run:
    """Run studies: compute what the store lacks, judge the claims, write the report."""

    studies: tyro.conf.Positional[tuple[str, ...]] = ()
    """Names of installed studies, or paths of .py files that hold one."""
    all: bool = False
    """Run every installed study."""
    scale: Literal["quick", "laptop", "gpu", "paper"] = "quick"
    """How large: quick proves that everything runs, laptop gives honest evidence on small models."""
    seeds: int | None = None
    """Number of seeds, instead of the scale's own."""
    engine: Literal["local", "ray"] = "local"
    """Where trials run: processes on this machine, or a Ray cluster."""
    address: str | None = None
    """Address of a running Ray cluster; without it one is started on this machine."""
    workers: int | None = None
    """Trials at a time; by default one a core."""
    store: Path = Path("results")
    """Folder that results are read from and written to."""
    dry_run: bool = False
    """Only say which trials would be computed, and why."""
    json: bool = False
    """Print the verdicts as JSON."""


@dataclass(frozen=True)
class Report:
    """Write the report on what a store holds, without computing anything."""

    studies: tyro.conf.Positional[tuple[str, ...]] = ()
    """Studies to report on, by name, or by their .py file where they are not installed; by default all installed ones
    that were run into the store."""
    store: Path = Path("results")
    """Folder that results are read from."""
    output: Path | None = None
    """The page to write; by default report.html in the store."""
    json: bool = False
    """Print the verdicts as JSON."""


def run_options(words: Sequence[str]) -> type[Run]:
    """The options of `run`; where one study is named, its settings become flags with help and defaults."""
    names = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
    if len(names) != 1:
        return Run
    study = find_studies(names)[0]
    config = study.scales.get(_scale(words)) or next(iter(study.scales.values()))
    settings = dataclasses.field(default=config)
    options = dataclasses.make_dataclass("Run", [("config", type(config), settings)], bases=(Run,), frozen=True)
    options.__doc__ = f"{study.question}\n\n{Run.__doc__}"
    return options


def _scale(words: Sequence[str]) -> str:
    """The scale among unparsed words: the defaults of a study's settings depend on it."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "--scale":
            return following
        if word.startswith("--scale="):
            return word.removeprefix("--scale=")
    return Run.scale


def find_studies(names: Sequence[str]) -> list[Study[Any]]:
    from holdfast.lab.locate import find

    studies = [find(name) for name in dict.fromkeys(names)]
    known = [study.name for study in studies]
    if len(set(known)) < len(known):
        raise ArgumentError("STUDY", "studies with different names", ", ".join(known))
    return studies


def _installed() -> list[Study[Any]]:
    """All studies that load; one that does not is a warning, so that it cannot take the others with it."""
    from holdfast.lab.locate import LocateError, installed, load

    studies = []
    for point in installed().values():
        try:
            studies.append(load(point))
        except LocateError as error:
            warnings.warn(str(error), stacklevel=1)
    return studies


def list_studies(options: List) -> int:
    studies = _installed()
    if options.json:
        print(jsonlib.dumps([_describe(study) for study in studies], indent=1, ensure_ascii=False))
        return OK
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table

    console = Console(highlight=False)
    for study in studies:
        paper = f"  (arXiv {study.paper.arxiv})" if study.paper and study.paper.arxiv else ""
        console.print(f"[bold]{study.name}[/]{paper}\n{escape(study.question)}")
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        for scale in study.scales:
            table.add_row(scale, escape(study.cost.get(scale, "cost unknown")))
        table.add_row("claims", escape(_claims(study)))
        console.print(Padding.indent(table, 2))
        console.print()
    print("Run one:  holdfast run STUDY --scale quick      All settings:  holdfast run STUDY --help")
    return OK


def _claims(study: Study[Any]) -> str:
    """Names of the headline claims, or of all where none is, and how many others there are."""
    headline = [claim.name for claim in study.claims if claim.headline]
    names = headline or [claim.name for claim in study.claims]
    others = len(study.claims) - len(names)
    return (", ".join(names) or "none") + (f", and {others} more" if others else "")


def _describe(study: Study[Any]) -> dict[str, Any]:
    return {
        "name": study.name,
        "question": study.question,
        "paper": dataclasses.asdict(study.paper) if study.paper else None,
        "claims": {claim.name: claim.text for claim in study.claims},
        "scales": {scale: study.cost.get(scale, "") for scale in study.scales},
    }


@contextlib.contextmanager
def _named_as_flags() -> Iterator[None]:
    """What the lab calls by its arguments is a flag here."""
    from holdfast.lab.store import StoreError

    try:
        yield
    except StoreError as error:
        raise StoreError(f"--store: {error}") from error
    except ArgumentError as error:
        if error.argument not in ("scale", "seeds", "workers", "address"):
            raise
        raise ArgumentError(f"--{error.argument}", error.expected, error.got) from error


@_named_as_flags()
def run_studies(options: Run) -> int:
    from holdfast.lab.progress_bar import ProgressBar
    from holdfast.lab.run import Job, forecast, run
    from holdfast.lab.store import Store

    if options.all == bool(options.studies):
        raise ArgumentError("STUDY", "names of studies, or --all", "both" if options.all else "neither")
    config = getattr(options, "config", None)
    jobs = []
    for study in _installed() if options.all else find_studies(options.studies):
        if options.all and options.scale not in study.scales:
            warnings.warn(f"{study.name} has no scale {options.scale}; left out", stacklevel=1)
            continue
        jobs.append(Job.of(study, options.scale, config=config, seeds=options.seeds))
    if not jobs:
        raise ArgumentError("--scale", "a scale that some study has", options.scale)
    store = Store(options.store)
    if options.dry_run:
        return _foretell(forecast(jobs, store), options.json)
    with ProgressBar(sys.stderr) as listener:
        runs = run(jobs, store, _engine(options), listener)
    by_name = {item.job.study.name: item for item in runs}
    shown, unnamed = _known_runs(store, by_name, {})
    page = _write_page(shown, options.store / "report.html")
    _conclude(runs, page, options.json, unnamed)
    return FAILED if any(item.results.failures for item in runs) else OK


def _foretell(forecasts: Sequence[Forecast], as_json: bool) -> int:
    """Say for each trial whether it would be computed."""
    if as_json:
        rows = [
            {
                "study": item.study,
                "seed": item.trial.seed,
                "labels": dict(item.trial.labels),
                "compute": item.reason is not None,
                "reason": item.reason,
            }
            for item in forecasts
        ]
        print(jsonlib.dumps({"trials": rows}, indent=1, ensure_ascii=False))
        return OK
    for item in forecasts:
        labels = " ".join(f"{name}={value}" for name, value in item.trial.told_labels.items())
        seeds = "seed " + " ".join(map(str, item.trial.seeds))
        what = "reused" if item.reason is None else f"computed: {item.reason}"
        print(" ".join(word for word in (item.study, labels, seeds) if word) + f"  {what}")
    missing = sum(item.reason is not None for item in forecasts)
    print(f"{missing} of {len(forecasts)} trials would be computed")
    return OK


def _engine(options: Run) -> Engine:
    if options.engine == "ray":
        from holdfast.lab.engines import RayEngine

        return RayEngine(options.address, options.workers)
    if options.address is not None:
        raise ArgumentError("--address", "to be used with --engine ray", f"--engine {options.engine}")
    from holdfast.lab.engines import LocalEngine

    return LocalEngine(options.workers)


@_named_as_flags()
def report_studies(options: Report) -> int:
    from holdfast.lab.store import Store

    if not options.store.is_dir():
        raise ArgumentError("--store", "a folder with results", str(options.store))
    words = options.studies
    files = {study.name: study for study in find_studies([word for word in words if word.endswith(".py")])}
    names = [*files, *(word for word in words if not word.endswith(".py"))]
    runs, unnamed = _known_runs(Store(options.store), {}, files, names)
    page = _write_page(runs, options.output or options.store / "report.html")
    _conclude(runs, page, options.json, unnamed)
    return OK


def _known_runs(
    store: Store, fresh: Mapping[str, StudyRun], files: Mapping[str, Study[Any]], names: Sequence[str] = ()
) -> tuple[list[StudyRun], str]:
    """The latest run of each study in the store; those just made are taken as they are.

    Arguments:
        store: the store.
        fresh: runs just made, by the study's name.
        files: studies in files that the user has named.
        names: of the studies to show; all if empty.

    Returns:
        The runs, and a sentence on those whose files would have to be named.

    Errors:
        LocateError: there is nothing to show.
    """
    from holdfast.lab.locate import LocateError, find
    from holdfast.lab.run import Job, collect

    known = store.runs()
    for name in names:
        if name not in known:
            raise ArgumentError("STUDY", f"a study that was run into this store ({', '.join(known)})", name)
    runs, left_out, unnamed = [], [], []
    for name, record in sorted(known.items()):
        if names and name not in names:
            continue
        if name in fresh:
            runs.append(fresh[name])
            continue
        if record.source and name not in files:
            unnamed.append(name)
            continue
        try:
            study = files.get(name) or find(name)
            job = Job.of(study, record.scale, changes=record.overrides)
        except (LocateError, ArgumentError) as error:
            left_out.append(f"{name} is left out of the report: {error}")
            continue
        runs += collect([job], store)
    sentence = ""
    if unnamed:
        words = [record.source or name for name, record in sorted(known.items()) if not names or name in names]
        line = shlex.join(["holdfast", "report", *words])
        sentence = f"{', '.join(unnamed)} {'was' if len(unnamed) == 1 else 'were'} run from a file; name it:  {line}"
    if not runs:
        raise LocateError("; ".join([*left_out, *([sentence] if sentence else [])]))
    for reason in left_out:
        warnings.warn(reason, stacklevel=1)
    return runs, sentence


def _write_page(runs: Sequence[StudyRun], path: Path) -> Path:
    from holdfast.lab.report import Section, write_report

    try:
        return write_report([Section.of(item, command_of(item.job)) for item in runs], path)
    except OSError as error:
        raise HoldfastError(f"cannot write the report to {path}: {error.strerror or error}") from error


def _conclude(runs: Sequence[StudyRun], page: Path, as_json: bool, unnamed: str) -> None:
    if as_json:
        summary = {"report": place(page), "studies": [_summary(item) for item in runs]}
        print(jsonlib.dumps(summary, indent=1, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    from holdfast.lab.report import text

    table = Table("study", "claim", "verdict", box=None, pad_edge=False)
    table.add_column("effect [95 % interval]", no_wrap=True)
    table.add_column("seeds", justify="right")
    colours = {"supported": "green", "contradicted": "red", "inconclusive": "yellow"}
    for item in runs:
        for verdict in sorted(item.verdicts, key=lambda verdict: not verdict.headline):
            evidence = verdict.evidence
            effect = f"{text.effect(evidence)} {text.interval(evidence)}".strip()
            word = f"[{colours[verdict.status]}]{verdict.status}[/]"
            if verdict.reason:
                word += f": {escape(_reason(verdict, item.job.study))}"
            claim = f"[bold]{escape(verdict.claim)}[/]" if verdict.headline else escape(verdict.claim)
            table.add_row(item.job.study.name, claim, word, escape(effect), str(evidence.n))
    Console(highlight=False).print(table)
    for item in runs:
        failed = f", {len(item.results.failures)} failed" if item.results.failures else ""
        reused = len(item.results.outcomes) - item.computed
        print(f"{item.job.study.name} ({item.job.scale}): {item.computed} trials computed, {reused} reused{failed}")
    print(f"report: {page}")
    if unnamed:
        print(f"not in the report: {unnamed}")


def _reason(verdict: Verdict, study: Study[Any]) -> str:
    needs = verdict.evidence.needs
    return f"needs {command(place_of(study), needs, {})}" if needs else verdict.reason


def _summary(item: StudyRun) -> dict[str, Any]:
    """What is published: it names no folder of this machine."""
    from holdfast.lab.report.text import without_folders

    return {
        "study": item.job.study.name,
        "scale": item.job.scale,
        "command": without_folders(command_of(item.job)),
        "environments": list(item.environments),
        "computed": item.computed,
        "reused": len(item.results.outcomes) - item.computed,
        "failed": [
            {
                "seed": failure.trial.seed,
                "labels": dict(failure.trial.labels),
                "reason": without_folders(failure.reason),
            }
            for failure in item.results.failures
        ],
        "verdicts": [
            {
                "claim": verdict.claim,
                "text": verdict.text,
                "status": str(verdict.status),
                "headline": verdict.headline,
                "effect": _number(verdict.evidence.effect),
                "interval": [_number(verdict.evidence.low), _number(verdict.evidence.high)],
                "n": verdict.evidence.n,
                "test": verdict.evidence.test,
                "p_adjusted": verdict.p_adjusted,
                "reason": without_folders(_reason(verdict, item.job.study)),
                "paper": verdict.paper,
            }
            for verdict in item.verdicts
        ],
    }


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None
