"""`holdfast list`, `run` and `report`."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json as jsonlib
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.markup import escape

from holdfast.cli.outcome import compare, conclude, foretell, tell_costs, tell_skipped
from holdfast.cli.parsing import FAILED, OK
from holdfast.cli.reproduce import STORE, Typed
from holdfast.errors import ArgumentError, HoldfastError, MissingExtraError, did_you_mean, missing_line

if TYPE_CHECKING:
    from holdfast.lab.engines import Engine
    from holdfast.lab.run import Job, StudyRun
    from holdfast.lab.store import Store
    from holdfast.lab.study import Study


Studies = Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[STUDY ...]")]

SCALE_HELP = "How large: quick proves that everything runs, laptop gives honest evidence on small models."


@dataclass(frozen=True)
class List:
    """Show the installed studies: their questions, claims, scales and cost."""

    json: bool = False
    """Print JSON."""


@dataclass(frozen=True)
class Run:
    """Run studies: compute what the store lacks, judge the claims, write the report."""

    studies: Studies = ()
    """Names of installed studies, or paths of .py files that hold one."""
    all: bool = False
    """Run every installed study."""
    scale: Annotated[Literal["quick", "laptop", "gpu", "paper"], tyro.conf.arg(help=SCALE_HELP)] = "quick"
    seeds: int | None = None
    """Number of seeds, instead of the scale's own."""
    only: tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]] = ()
    """Compute these parts only: PART, or STUDY/PART."""
    failed: bool = False
    """Compute only the trials that failed last time."""
    fresh: bool = False
    """Compute all trials anew; an old result gives way once the new one is there."""
    timeout: float | None = None
    """Seconds that a trial may take; unless given, what its part says, or as long as it takes."""
    retries: int = 1
    """How often a trial is tried again after its worker died."""
    engine: Literal["local", "ray"] = "local"
    """Where trials run: processes on this machine, or a Ray cluster."""
    address: str | None = None
    """Address of a running Ray cluster; without it one is started on this machine."""
    workers: int | None = None
    """Trials at a time; one a core unless given."""
    store: Path = STORE
    """Folder that results are kept in; what it holds is not computed again."""
    dry_run: bool = False
    """Only say which trials would be computed, and why."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True)
class Report:
    """Write the report on what a store holds, without computing anything."""

    studies: Studies = ()
    """Studies to report on, by name, or by their .py file where they are not installed; unless given, all installed
    ones that were run into the store."""
    store: Path = STORE
    """Folder that results are kept in."""
    output: Path | None = None
    """File to write the page to; report.html in the store unless given."""
    against: Path | None = None
    """Another store to compare the verdicts with; its results are taken as they are, even of code that has changed."""
    json: bool = False
    """Print JSON."""


def run_options(words: Sequence[str]) -> type[Run]:
    """The options of `run`; where one study is named, its settings become flags with help and defaults."""
    names = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
    if len(names) != 1:
        return Run
    study = find_studies(names)[0]
    scales = tuple(study.scales)
    scale = _scale(words) or (Run.scale if Run.scale in scales else scales[0])
    if scale not in scales:
        # The error names the study, and the words after a lone --scale are for the parser to refuse.
        hint = did_you_mean(scale, scales)
        expected = f"a scale that {study.name} has ({', '.join(scales)})"
        raise ArgumentError("--scale", expected, f"{scale}.{hint}".rstrip("."))
    return options_for(study, scale)


def options_for(study: Study[Any], scale: str = "") -> type[Run]:
    """The options of `run` for one study.

    Arguments:
        study: whose settings become flags.
        scale: one of its scales, whose settings are the defaults; its first unless given.
    """
    scale = scale or next(iter(study.scales))
    config = study.scales[scale]
    # What the study has is offered, and no other scale.
    scales = Annotated[Literal[tuple(study.scales)], tyro.conf.arg(help=SCALE_HELP)]  # type: ignore[valid-type]
    fields = [
        ("config", type(config), dataclasses.field(default=config)),
        ("scale", scales, dataclasses.field(default=scale)),
    ]
    options = dataclasses.make_dataclass("Run", fields, bases=(Run,), frozen=True)
    options.__doc__ = f"{study.question}\n\n{Run.__doc__}"
    return options


def _scale(words: Sequence[str]) -> str:
    """The scale among unparsed words, or an empty text: the defaults of a study's settings depend on it."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "--scale":
            return following if not following.startswith("-") else ""
        if word.startswith("--scale="):
            return word.removeprefix("--scale=")
    return ""


def find_studies(names: Sequence[str]) -> list[Study[Any]]:
    from holdfast.lab.locate import find

    for name in names:
        if name.endswith(".py") and not Path(name).is_file():
            raise ArgumentError("STUDY", "a .py file or the name of a study", f"{name}, which is not there")
    studies = [find(name) for name in dict.fromkeys(names)]
    known = [study.name for study in studies]
    if len(set(known)) < len(known):
        raise ArgumentError("STUDY", "studies with different names", ", ".join(known))
    return studies


def installed_studies() -> list[Study[Any]]:
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
    studies = installed_studies()
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
        if error.argument not in ("scale", "seeds", "workers", "address", "fresh", "timeout", "retries"):
            raise
        raise ArgumentError(f"--{error.argument}", error.expected, error.got) from error


@_named_as_flags()
def run_studies(options: Run) -> int:
    from holdfast.lab.progress_bar import ProgressBar
    from holdfast.lab.run import Choice, Job, forecast, run
    from holdfast.lab.store import Store

    if options.all == bool(options.studies):
        raise ArgumentError("STUDY", "names of studies, or --all", "both" if options.all else "neither")
    config = getattr(options, "config", None)
    choice = Choice(options.failed, options.fresh, options.retries)
    studies = installed_studies() if options.all else find_studies(options.studies)
    typed = _typed(options, studies)
    parts = _parts(options, studies)
    jobs = []
    for study in studies:
        if not parts.get(study.name, True):  # none of its parts is named: the study is left as it is
            continue
        if options.all and options.scale not in study.scales:
            warnings.warn(f"{study.name} has no scale {options.scale}; left out", stacklevel=1)
            continue
        only = parts.get(study.name)
        job = Job.of(study, options.scale, config=config, seeds=options.seeds, only=only, timeout=options.timeout)
        jobs.append(job)
    if not jobs:
        raise ArgumentError("--scale", "a scale that some study has", options.scale)
    jobs, skipped = _able(jobs, refuse=not options.all)
    tell_skipped(skipped)
    store = Store(options.store)
    if options.dry_run:
        foretell(forecast(jobs, store, choice), options.json)
        return OK
    tell_costs(jobs)
    with ProgressBar(sys.stderr, store) as listener:
        runs = run(jobs, store, _engine(options), listener, choice)
        listener.say("drawing the report")
        by_name = {item.job.study.name: item for item in runs}
        shown, unnamed = _known_runs(store, by_name, {})
        page = _write_page(shown, options.store / "report.html", typed)
    conclude(runs, page, options.json, unnamed, typed, skipped)
    return FAILED if any(item.failed for item in runs) else OK


def _able(jobs: Sequence[Job], *, refuse: bool) -> tuple[list[Job], dict[str, dict[str, dict[str, str]]]]:
    """The jobs of which something can be computed here, and by study and part what the others lack.

    Arguments:
        jobs: all of them.
        refuse: a job of which nothing can be computed was asked for by name.

    Errors:
        MissingExtraError: nothing of a job that was asked for can be computed, or of all jobs.
    """
    skipped = {job.study.name: lacking for job in jobs if (lacking := job.lacking())}
    able = []
    for job in jobs:
        lacking = skipped.get(job.study.name, {})
        wanted = [part for part in job.study.parts if job.only is None or part.name in job.only]
        if not lacking or any(part.name not in lacking and any(part.labelled_trials(job.config)) for part in wanted):
            able.append(job)
        elif refuse or job.only:
            what = f"part {' and '.join(lacking)} of {job.study.name}" if job.only else job.study.name
            raise MissingExtraError(f"{what}: {missing_line(*lacking.values())}")
    if not able:
        missing = itertools.chain.from_iterable(parts.values() for parts in skipped.values())
        raise MissingExtraError(f"no study can be run: {missing_line(*missing)}")
    return able, skipped


def _typed(options: Run, studies: Sequence[Study[Any]]) -> Typed:
    """What the user typed, as far as another try needs it."""
    words = (
        {} if options.all else dict(zip([study.name for study in studies], dict.fromkeys(options.studies), strict=True))
    )
    flags = []
    for name in ("engine", "address", "workers", "retries"):
        value = getattr(options, name)
        if value != getattr(Run, name):
            flags += [f"--{name}", str(value)]
    return Typed(words, options.store, flags)


def _parts(options: Run, studies: Sequence[Study[Any]]) -> dict[str, list[str]]:
    """The parts that `--only` names, by study; empty where it is not given.

    Errors:
        ArgumentError: a word names no part.
    """
    words = [word for group in options.only for word in group]
    if options.only and not words:
        raise ArgumentError("--only", "names of parts", "none")
    parts: dict[str, list[str]] = {study.name: [] for study in studies} if words else {}
    for word in words:
        name, _, part = word.rpartition("/")
        having = [
            study for study in studies if name in ("", study.name) and part in [part.name for part in study.parts]
        ]
        if not having:
            known = "; ".join(f"{study.name}: {', '.join(part.name for part in study.parts)}" for study in studies)
            hint = did_you_mean(part, [part.name for study in studies for part in study.parts])
            raise ArgumentError("--only", f"PART or STUDY/PART ({known})", f"{word}.{hint}".rstrip("."))
        for study in having:
            parts[study.name].append(part)
    return parts


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
        raise ArgumentError("--store", "a folder with results", f"{options.store}, which is not there")
    words = options.studies
    paths = [word for word in dict.fromkeys(words) if word.endswith(".py")]
    files = {study.name: study for study in find_studies(paths)}
    typed = Typed(dict(zip(files, paths, strict=True)), options.store)
    names = [*files, *(word for word in words if not word.endswith(".py"))]
    runs, unnamed = _known_runs(Store(options.store), {}, files, names)
    others = {} if options.against is None else _other_runs(options.against, runs)
    page = _write_page(runs, options.output or options.store / "report.html", typed, others, options.against)
    if options.against is not None and not options.json:
        compare(runs, others, options.against)
    conclude(runs, page, options.json, unnamed, typed)
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
            job = Job.of(study, record.scale, changes=record.overrides, only=record.only, timeout=record.timeout)
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


def _other_runs(folder: Path, runs: Sequence[StudyRun]) -> dict[str, StudyRun]:
    """What another store says of the same studies, by their names, each at the scale that it was run at there.

    Errors:
        ArgumentError: there is no such store, or it has none of the studies.
    """
    from holdfast.lab.run import Job, collect
    from holdfast.lab.store import Store

    if not folder.is_dir():
        raise ArgumentError("--against", "a folder with results", f"{folder}, which is not there")
    store = Store(folder)
    try:
        known = store.runs()
    except HoldfastError as error:
        raise ArgumentError("--against", "a store with results", str(error)) from error
    others = {}
    for item in runs:
        study = item.job.study
        if study.name not in known:
            continue
        record = known[study.name]
        try:
            job = Job.of(study, record.scale, changes=record.overrides, only=record.only)
        except ArgumentError as error:
            warnings.warn(f"{study.name} of {folder} is not compared: {error}", stacklevel=1)
            continue
        [others[study.name]] = collect([job], store, outdated=True)
    if not others:
        expected = f"a store with {' or '.join(item.job.study.name for item in runs)}"
        raise ArgumentError("--against", expected, f"{folder} with {', '.join(known) or 'nothing'}")
    return others


def _write_page(
    runs: Sequence[StudyRun],
    path: Path,
    typed: Typed,
    others: Mapping[str, StudyRun] | None = None,
    against: Path | None = None,
) -> Path:
    from holdfast.lab.report import Other, Section, write_report
    from holdfast.lab.report.links import links

    sections = []
    for item in runs:
        other = (others or {}).get(item.job.study.name)
        section = Section.of(
            item,
            typed.published(item),
            larger=typed.published_larger(item),
            against=Other(other.job.scale, other.verdicts) if other else None,
            links=links(item.job.study, path),
        )
        sections.append(section)
    try:
        return write_report(sections, path, against.absolute().name if against else "")
    except OSError as error:
        raise HoldfastError(f"cannot write the report to {path}: {error.strerror or error}") from error
