"""The command line: `holdfast list`, `run`, `report`, `probe` and `bench`."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import itertools
import json as jsonlib
import math
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

import tyro
from rich.markup import escape

from holdfast import __version__
from holdfast.errors import ArgumentError, HoldfastError

if TYPE_CHECKING:
    from holdfast.lab.engine import Engine
    from holdfast.lab.run import StudyRun
    from holdfast.lab.store import Store
    from holdfast.lab.study import Study
    from holdfast.nn import Normaliser

OK, TRIAL_FAILED, USER_MISTAKE, INTERRUPTED = 0, 1, 2, 130


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
    json: bool = False
    """Print the verdicts as JSON."""


@dataclass(frozen=True)
class Report:
    """Write the report on what a store holds, without computing anything."""

    studies: tyro.conf.Positional[tuple[str, ...]] = ()
    """Studies to report on; by default all that were run into the store."""
    store: Path = Path("results")
    """Folder that results are read from."""
    output: Path | None = None
    """The page to write; by default report.html in the store."""
    json: bool = False
    """Print the verdicts as JSON."""


@dataclass(frozen=True)
class Probe:
    """Measure a failure on your own model: holdfast probe PROBE --help."""


@dataclass(frozen=True)
class SharpnessProbe:
    """Measure how attention disperses as inputs grow, on your own model."""

    target: tyro.conf.Positional[str]
    """A transformers model, by path or hub id; or a function that maps a size n to attention logits (rows, n) or
    (heads, rows, n), as file.py:name or module:name."""
    text: Path | None = None
    """For a model: a text file to read; by default random tokens."""
    length: int = 1024
    """For a model: tokens to read."""
    exclude_first_keys: int = 0
    """For a model: measure attention conditional on not being at this many first tokens."""
    sizes: tuple[int, ...] = (16, 64, 256, 1024, 4096)
    """For a function: input sizes to measure at. If it has a function correct(n, weights) -> bools (rows,), errors are
    split in ordering and dispersion."""
    compare: tuple[str, ...] = ()
    """Normalisers to compare: plain, adaptive, hard, sparsemax, and with a number log-n:16, ssmax:0.43, yarn:4,
    llama4:8192, scale-invariant:10, entmax:1.5."""
    fail_above: float | None = None
    """Exit with status 1 if the mean H / ln n of some head is above this: of a function at its largest size."""
    plot: Path | None = None
    """Picture to write (.png, .svg or .pdf)."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True)
class Bench:
    """Measure speed and memory side by side: holdfast bench BENCH --help."""


@dataclass(frozen=True)
class SharpnessBench:
    """Adaptive-temperature attention against plain attention."""

    device: Literal["cpu", "cuda"] | None = None
    """Where to run; by default the GPU where there is one."""
    lengths: tuple[int, ...] | None = None
    """Numbers of keys; by default small ones on a CPU, 4096 and more on a GPU."""
    heads: int | None = None
    """Query heads; by default 4 on a CPU and 32 on a GPU."""
    kv_heads: int | None = None
    """Key heads; by default a quarter of the query heads."""
    head_dim: int | None = None
    """Dimensions of a head; by default 64 on a CPU and 128 on a GPU."""
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    """Of the inputs; by default float32 on a CPU and bfloat16 on a GPU."""
    repeats: int | None = None
    """Timed rounds; by default 5 on a CPU and 30 on a GPU."""
    json: bool = False
    """Print JSON."""
    output: Path | None = None
    """JSON file to write."""


class CommandLineError(HoldfastError):
    """Words on the command line that cannot be parsed."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 ok, 1 a trial failed, 2 the user's mistake, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    warnings.showwarning = _show_warning
    with contextlib.suppress(ValueError):  # signals can be set in the main thread only
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        status = _dispatch(words)
    except HoldfastError as error:
        print(f"holdfast: error: {' '.join(str(error).split())}", file=sys.stderr)
        status = USER_MISTAKE
    except KeyboardInterrupt:
        message = "holdfast: interrupted; finished trials are kept and the same command computes the rest"
        print(message, file=sys.stderr)
        status = INTERRUPTED
    except BrokenPipeError:  # whoever read the output has had enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = OK
    sys.exit(status)


def _dispatch(words: list[str]) -> int:
    if words == ["--version"]:
        print(f"holdfast {__version__}")
        return OK
    if words[:1] == ["run"]:
        options = _run_options(words[1:])
        program = "holdfast run" if options is Run else f"holdfast run {words[1]}"
        return _run(_parse(options, program, words[1:]))
    if words[:1] == ["probe"]:
        return _probe(words[1:])
    if words[:1] == ["bench"]:
        return _bench(words[1:])
    command = _parse(_COMMANDS, "holdfast", words or ["--help"])
    return _list(command) if isinstance(command, List) else _report(command)


_COMMANDS = (
    Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Run, tyro.conf.subcommand("run")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Probe, tyro.conf.subcommand("probe")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
)


def _parse(options: Any, program: str, words: Sequence[str]) -> Any:
    """Parse with tyro; what it rejects becomes one line instead of a box."""
    stream = io.StringIO()
    try:
        with contextlib.redirect_stderr(stream):
            return tyro.cli(options, prog=program, args=list(words))
    except SystemExit as stop:
        if not stop.code:
            raise
        box = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue()).splitlines()[1:]
        message = itertools.takewhile(lambda line: "───" not in line, box)
        text = " ".join(" ".join(line.strip("│ ") for line in message).split())
        # An optional value fails once for each type it could have; the flag and the word are what helps.
        text = re.sub(
            r"Error parsing (\S+): no type matching (?:\{None\}\|)?(\S+) could .*? from \['(.*?)'\].*",
            r"\1: expected \2, got '\3'",
            text,
        )
        raise CommandLineError(f"{text.rstrip('.')}. See: {program} --help") from None


def _run_options(words: Sequence[str]) -> type[Run]:
    """The options of `run`; where one study is named, its settings become flags with help and defaults."""
    names = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
    if len(names) != 1:
        return Run
    study = _find(names)[0]
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


def _find(names: Sequence[str]) -> list[Study[Any]]:
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


def _list(options: List) -> int:
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
        table.add_row("claims", ", ".join(escape(claim.name) for claim in study.claims) or "none")
        console.print(Padding.indent(table, 2))
        console.print()
    print("Run one:  holdfast run STUDY --scale quick      All settings:  holdfast run STUDY --help")
    return OK


def _describe(study: Study[Any]) -> dict[str, Any]:
    return {
        "name": study.name,
        "question": study.question,
        "paper": dataclasses.asdict(study.paper) if study.paper else None,
        "claims": {claim.name: claim.text for claim in study.claims},
        "scales": {scale: study.cost.get(scale, "") for scale in study.scales},
    }


def _run(options: Run) -> int:
    from holdfast.lab.progress_bar import ProgressBar
    from holdfast.lab.run import Job, run
    from holdfast.lab.store import Store

    if options.all == bool(options.studies):
        raise ArgumentError("STUDY", "names of studies, or --all", "both" if options.all else "neither")
    config = getattr(options, "config", None)
    jobs = []
    for study in _installed() if options.all else _find(options.studies):
        if options.all and options.scale not in study.scales:
            warnings.warn(f"{study.name} has no scale {options.scale}; left out", stacklevel=1)
            continue
        jobs.append(Job.of(study, options.scale, config=config, seeds=options.seeds))
    if not jobs:
        raise ArgumentError("--scale", "a scale that some study has", options.scale)
    store = Store(options.store)
    with ProgressBar(sys.stderr) as listener:
        runs = run(jobs, store, _engine(options), listener)
    page = _write_page(_known_runs(store, runs), options.store / "report.html")
    _conclude(runs, page, options.json)
    return TRIAL_FAILED if any(item.results.failures for item in runs) else OK


def _engine(options: Run) -> Engine:
    if options.engine == "ray":
        from holdfast.lab.engine_ray import RayEngine

        return RayEngine(options.address, options.workers)
    if options.address is not None:
        raise ArgumentError("--address", "to be used with --engine ray", f"--engine {options.engine}")
    from holdfast.lab.engine_local import LocalEngine

    return LocalEngine(options.workers)


def _report(options: Report) -> int:
    from holdfast.lab.store import Store

    if not options.store.is_dir():
        raise ArgumentError("--store", "a folder with results", str(options.store))
    runs = _known_runs(Store(options.store), [], options.studies)
    page = _write_page(runs, options.output or options.store / "report.html")
    _conclude(runs, page, options.json)
    return OK


def _known_runs(store: Store, fresh: Sequence[StudyRun], names: Sequence[str] = ()) -> list[StudyRun]:
    """The latest run of each study in the store; those just made are taken as they are."""
    from holdfast.lab.locate import LocateError, find
    from holdfast.lab.run import Job, collect

    ready = {item.job.study.name: item for item in fresh}
    known = store.runs()
    for name in names:
        if name not in known:
            raise ArgumentError("STUDY", f"a study that was run into this store ({', '.join(known)})", name)
    runs = []
    for name, record in sorted(known.items()):
        if names and name not in names:
            continue
        if name in ready:
            runs.append(ready[name])
            continue
        try:
            study = find(record.source or name)
            job = Job.of(study, record.scale, changes=record.overrides)
        except (LocateError, ArgumentError) as error:
            warnings.warn(f"{name} is left out of the report: {error}", stacklevel=1)
            continue
        runs += collect([job], store)
    return runs


def _write_page(runs: Sequence[StudyRun], path: Path) -> Path:
    from holdfast.lab.report import write_report
    from holdfast.lab.store import StoreError

    try:
        return write_report([item.section for item in runs], path)
    except OSError as error:
        raise StoreError(f"cannot write the report to {path}: {error.strerror or error}") from error


def _conclude(runs: Sequence[StudyRun], page: Path, as_json: bool) -> None:
    if as_json:
        summary = {"report": str(page), "studies": [_summary(item) for item in runs]}
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
        for verdict in item.verdicts:
            found = verdict.evidence
            effect = f"{text.effect(found)} {text.interval(found)}".strip()
            word = f"[{colours[verdict.status]}]{verdict.status}[/]"
            if verdict.reason:
                word += f": {escape(verdict.reason)}"
            table.add_row(item.job.study.name, escape(verdict.claim), word, escape(effect), str(found.n))
    Console(highlight=False).print(table)
    for item in runs:
        failed = f", {len(item.results.failures)} failed" if item.results.failures else ""
        reused = len(item.results.outcomes) - item.computed
        print(f"{item.job.study.name} ({item.job.scale}): {item.computed} trials computed, {reused} reused{failed}")
    print(f"report: {page}")


def _summary(item: StudyRun) -> dict[str, Any]:
    return {
        "study": item.job.study.name,
        "scale": item.job.scale,
        "command": item.section.command,
        "environments": list(item.environments),
        "computed": item.computed,
        "reused": len(item.results.outcomes) - item.computed,
        "failed": [
            {"seed": failure.trial.seed, "labels": dict(failure.trial.labels), "reason": failure.reason}
            for failure in item.results.failures
        ],
        "verdicts": [
            {
                "claim": verdict.claim,
                "text": verdict.text,
                "status": str(verdict.status),
                "effect": _number(verdict.evidence.effect),
                "interval": [_number(verdict.evidence.low), _number(verdict.evidence.high)],
                "n": verdict.evidence.n,
                "test": verdict.evidence.test,
                "p_adjusted": verdict.p_adjusted,
                "reason": verdict.reason,
                "paper": verdict.paper,
            }
            for verdict in item.verdicts
        ],
    }


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


def _probe(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print("usage: holdfast probe PROBE ...\n\nMeasure a failure on your own model. Probes:\n")
        for name, (options, _) in _PROBES.items():
            print(f"  {name:<12} {options.__doc__}")
        print("\nMore: holdfast probe PROBE --help")
        return OK
    if words[0] not in _PROBES:
        raise CommandLineError(f"no probe named {words[0]!r}; there are: {', '.join(_PROBES)}")
    options, measure = _PROBES[words[0]]
    return measure(_parse(options, f"holdfast probe {words[0]}", words[1:]))


def _probe_sharpness(options: SharpnessProbe) -> int:
    if ":" not in options.target:
        return _probe_model(options)
    from holdfast.probes.sharpness import probe_sharpness

    normalisers = _normalisers(options.compare)
    logits_of = _function(options.target)
    correct = getattr(logits_of, "correct", None)
    try:
        report = probe_sharpness(logits_of, options.sizes, normalisers=normalisers, correct=correct)
    except (HoldfastError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise ArgumentError("TARGET", "a function from a size to logits", f"{type(error).__name__}: {error}") from error
    _show_probe(report, options)
    found = [] if options.fail_above is None else report.violations(options.fail_above)
    if found:
        where = f"at n = {found[0].size}, the worst head {found[0].head}: {found[0].entropy_share:.3f}"
        print(f"{_count(len(found))} a mean H / ln n above {options.fail_above} ({where})", file=sys.stderr)
    return TRIAL_FAILED if found else OK


def _probe_model(options: SharpnessProbe) -> int:
    from holdfast.errors import require
    from holdfast.probes._load_model import load_model
    from holdfast.probes.model_sharpness import probe_model_sharpness

    normalisers = _normalisers(options.compare)
    if not sys.stderr.isatty():
        require("transformers.utils.logging", "hf").disable_progress_bar()
    model, tokens, read = load_model(options.target, options.text, options.length)
    print(f"{read}, {tokens.shape[1]} of them", file=sys.stderr)
    report = probe_model_sharpness(
        model, tokens, normalisers=normalisers, exclude_first_keys=options.exclude_first_keys
    )
    _show_probe(report, options)
    found = [] if options.fail_above is None else report.violations(options.fail_above)
    if found:
        worst = f"layer {found[0].layer}, head {found[0].head}: {found[0].entropy_share:.3f}"
        print(f"{_count(len(found))} a mean H / ln n above {options.fail_above} ({worst})", file=sys.stderr)
    return TRIAL_FAILED if found else OK


def _count(heads: int) -> str:
    return "1 head has" if heads == 1 else f"{heads} heads have"


def _show_probe(report: Any, options: SharpnessProbe) -> None:
    print(jsonlib.dumps(report.to_dict(), indent=1) if options.json else report)
    if options.plot is not None:
        _plot(report, options.plot)


_PARAMETERS: dict[str, tuple[str, type[int] | type[float]]] = {
    "log-n": ("train_length", int),
    "ssmax": ("scale", float),
    "yarn": ("extension", float),
    "llama4": ("floor_scale", float),
    "scale-invariant": ("tau", float),
    "entmax": ("alpha", float),
}
"""The parameter of a normaliser that a number on the command line stands for."""


def _normalisers(words: Sequence[str]) -> dict[str, Normaliser]:
    """Normalisers from words such as plain or log-n:16, each under its word."""
    from holdfast.nn import NORMALISERS

    found = {}
    for word in words:
        name, colon, number = word.partition(":")
        if name not in NORMALISERS:
            raise ArgumentError("--compare", f"some of {', '.join(NORMALISERS)}", word)
        parameter, kind = _PARAMETERS.get(name, ("", float))
        if colon and not parameter:
            raise ArgumentError("--compare", f"{name} without a number", word)
        try:
            found[word] = NORMALISERS[name](**{parameter: kind(number)} if colon else {})
        except ArgumentError as error:
            raise ArgumentError("--compare", f"{name}:NUMBER with {error.expected}", word) from error
        except (TypeError, ValueError) as error:  # a number that is missing where there is no default, or is none
            what = "a whole number" if kind is int else "a number"
            raise ArgumentError("--compare", f"{name}:NUMBER, {what} for {parameter}", word) from error
    return found


_PROBES: dict[str, tuple[type[Any], Callable[[Any], int]]] = {"sharpness": (SharpnessProbe, _probe_sharpness)}


def _bench(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print("usage: holdfast bench BENCH ...\n\nMeasure speed and memory side by side. Benches:\n")
        for name, (options, _) in _BENCHES.items():
            print(f"  {name:<12} {options.__doc__}")
        print("\nMore: holdfast bench BENCH --help")
        return OK
    if words[0] not in _BENCHES:
        raise CommandLineError(f"no bench named {words[0]!r}; there are: {', '.join(_BENCHES)}")
    options, measure = _BENCHES[words[0]]
    return measure(_parse(options, f"holdfast bench {words[0]}", words[1:]))


def _bench_sharpness(options: SharpnessBench) -> int:
    from holdfast.benches.sharpness import bench_sharpness

    settings = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    as_json, output = settings.pop("json"), settings.pop("output")
    report = bench_sharpness(**settings, stream=sys.stderr)
    text = jsonlib.dumps(report.to_dict(), indent=1)
    if output is not None:
        try:
            output.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise ArgumentError("--output", "a file to write", f"{output} ({error.strerror})") from error
    print(text if as_json else report)
    return OK


_BENCHES: dict[str, tuple[type[Any], Callable[[Any], int]]] = {"sharpness": (SharpnessBench, _bench_sharpness)}


def _function(place: str) -> Callable[..., Any]:
    """A function named as `file.py:name` or `module:name`."""
    from holdfast.lab.locate import load_file

    source, _, name = place.rpartition(":")
    if not source or not name.isidentifier():
        raise ArgumentError("TARGET", "file.py:name or module:name", place)
    if source.endswith(".py") and not Path(source).is_file():
        raise ArgumentError("TARGET", "the path of a file", f"{source}, which is not there")
    try:
        module = load_file(Path(source)) if source.endswith(".py") else importlib.import_module(source)
    except Exception as error:
        raise ArgumentError("TARGET", f"{source} to load", f"{type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ArgumentError("TARGET", f"a function {name} in {source}", "none")
    return function  # type: ignore[no-any-return]


def _plot(report: Any, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    report.plot(figure.subplots())
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise ArgumentError("--plot", "a path to write a .png, .svg or .pdf to", f"{path} ({error})") from error
    print(f"picture: {path}", file=sys.stderr)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"holdfast: warning: {' '.join(str(message).split())}", file=file or sys.stderr)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
