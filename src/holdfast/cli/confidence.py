"""`holdfast confidence`: how stubborn a language model is, and how easily swayed."""

from __future__ import annotations

import contextlib
import dataclasses
import json as jsonlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from holdfast.cli.parsing import OK, Commands, ExplainedOptions, choose, say
from holdfast.errors import ArgumentError, count_of

if TYPE_CHECKING:
    from holdfast.confidence import Observer, Question

Preset = Literal[
    "bayes",
    "choice_supportive",
    "opposition_sensitive",
    "both",
    "stubborn",
    "contrarian",
    "position_biased",
    "anchorer",
]


FLAGS = {
    "TrialDesign.accuracies": "--accuracies",
    "TrialDesign.displays": "--displays",
    "TrialDesign.templates": "--wordings",
    "api_key_env": "--key-env",
    "base_url": "--base-url",
    "chat": "--form",
    "concurrency": "--concurrency",
    "count": "--count",
    "device": "--device",
    "form": "--form",
    "max_cost": "--max-cost",
    "max_requests": "--max-requests",
    "port": "--port",
    "price": "--price",
    "questions": "--questions",
    "requests_per_minute": "--requests-per-minute",
    "run": "--run",
    "samples": "--samples",
    "seed": "--seed",
    "store": "--store",
    "target": "--target-accuracy",
    "temperature": "--temperature",
}
"""What arguments of the library are called on the command line."""


@dataclass(frozen=True)
class ServerFaults:
    """What the server does wrong: shares of requests, and switches."""

    busy: float = 0.0
    """Answered with 429."""
    broken: float = 0.0
    """Answered with 500 or 503."""
    dropped: float = 0.0
    """Connections closed without an answer."""
    slow: float = 0.0
    """Answered late."""
    slow_s: float = 1.0
    """Seconds that late answers take."""
    no_logprobs: float = 0.0
    """Answered without log-probabilities."""
    refusal: float = 0.0
    """Prompts that the model refuses, however often they are asked."""
    top: int = 20
    """Most tokens that are listed, whatever is asked for."""
    extra_tokens: bool = False
    """Go on after the label."""
    lower_case: bool = False
    """Write labels in small letters."""
    placeholders: bool = False
    """Report -9999 for every log-probability."""
    zeros: bool = False
    """Report 0 for every log-probability."""
    swapped_after: int = 0
    """Requests after which another version of the model answers; 0: never."""


@dataclass(frozen=True)
class ServeObserver:
    """Serve a simulated observer over HTTP, to try everything on before you pay for an endpoint."""

    preset: Preset = "both"
    """Who answers: an ideal Bayesian observer, or one with a bias."""
    set: tuple[str, ...] = ()
    """Parameters of the observer, as NAME=NUMBER, for example bias=2 noise=0.1."""
    questions: Path | None = None
    """JSONL file with questions and their answers, which the observer then knows as well as it knows any. It knows the
    latitudes that come with Holdfast; what is right of others comes from a hash of the question."""
    seed: int = 0
    """Of what the observer knows, of its noise, and of the faults."""
    host: str = "127.0.0.1"
    """Address to listen at."""
    port: int = 8077
    """Port to listen at; 0: a free one."""
    key_env: str | None = None
    """Environment variable with the key that requests must bring; they need none unless given."""
    faults: Annotated[ServerFaults, tyro.conf.arg(name="fault")] = field(default_factory=ServerFaults)


@dataclass(frozen=True)
class Analyze(ExplainedOptions):
    """Say what a store shows, without asking anybody: the report of the probe, from its answers so far."""

    store: tyro.conf.Positional[Path]
    """File that holdfast probe confidence wrote, or trials that --trials or simulate --output wrote."""
    run: str | None = None
    """Which run, where the store has several."""
    export: Path | None = None
    """File to write the requests to, for other programs: as JSON lines, one request on each, with its condition,
    messages, log-probabilities and choice."""
    trials: Path | None = None
    """File to write the trials to, as JSON lines, a column on each, which this command reads."""
    overwrite: bool = False
    """Replace these files if they are there."""
    seed: int = 0
    """Of the draws of questions that intervals come from."""


@dataclass(frozen=True)
class Simulate(ExplainedOptions):
    """Analyse trials of an observer whose biases are known, made on the spot."""

    preset: tyro.conf.Positional[Preset] = "both"
    """Who answers: an ideal Bayesian observer, or one with a bias."""
    set: tuple[str, ...] = ()
    """Parameters of the observer, as NAME=NUMBER, for example bias=2 noise=0.1."""
    count: int = 200
    """Questions to ask."""
    accuracies: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    """Of the adviser, as stated."""
    seed: int = 0
    """Of the evidence and the noise."""
    output: Path | None = None
    """File to write the trials to, which holdfast confidence analyze reads."""


@dataclass(frozen=True)
class Fuse:
    """Weigh advice outside of the model: what a probability becomes by it, after Bayes."""

    probability: Annotated[tyro.conf.Positional[float], tyro.conf.arg(metavar="PROBABILITY")]
    """That the model gave its own answer, on a question of two options."""
    advice: tyro.conf.Positional[Literal["same", "opposite", "neutral"]]
    """Whether the adviser names that answer, the other one, or none."""
    accuracy: Annotated[tyro.conf.Positional[float], tyro.conf.arg(metavar="ACCURACY")]
    """How often the adviser is right, as a share; above 0.99 it counts as that: nobody is never wrong."""
    temperature: float = 1.0
    """Of the model, as the report on it gives it: its log-odds are divided by that."""
    json: bool = False
    """Print JSON."""


@contextlib.contextmanager
def under_flags(more: Mapping[str, str]) -> Iterator[None]:
    """Errors about arguments of the library, under the names that they have on the command line.

    Arguments:
        more: names of this command, beside `FLAGS` and before it.
    """
    from holdfast.llm.errors import BudgetSpent

    names = {**FLAGS, **more}
    try:
        yield
    except BudgetSpent as error:
        raise BudgetSpent(names[error.limit], error.allowed, error.spent) from error
    except ArgumentError as error:
        name = "--set" if error.argument.startswith("Observer") else names.get(error.argument, error.argument)
        raise ArgumentError(name, error.expected.removesuffix(", or None"), error.got) from error


def refuse_same_files(paths: Mapping[str, Path | None]) -> None:
    """Refuse to write into a file that is another argument too.

    Arguments:
        paths: by their flags, those that are read first; `None`: not given.

    Errors:
        ArgumentError: two are the same.
    """
    known: dict[Path, str] = {}
    for flag, path in paths.items():
        if path is not None:
            other = known.setdefault(path.resolve(), flag)
            if other != flag:
                raise ArgumentError(flag, f"another file than that of {other}", str(path))


def observer_of(preset: str, changes: Sequence[str]) -> Observer:
    """An observer from a preset and words such as `bias=2`.

    Errors:
        ArgumentError: a word is no parameter with a number.
    """
    from holdfast.confidence.observers import PRESETS

    values: dict[str, float] = {}
    names = [parameter.name for parameter in dataclasses.fields(PRESETS[preset])]
    for word in changes:
        name, _, value = word.partition("=")
        try:
            values[name] = float(value)
        except ValueError:
            raise ArgumentError("--set", "NAME=NUMBER", word) from None
        if name not in names:
            raise ArgumentError("--set", f"one of {', '.join(names)}", name)
    return dataclasses.replace(PRESETS[preset], **values)


def refuse_more_options(flag: str, questions: Sequence[Question]) -> None:
    """Refuse what a simulated observer cannot answer.

    Errors:
        ArgumentError: a question has more than two options.
    """
    for question in questions:
        if len(question.options) != 2:
            expected = "questions of two options, as simulated observers answer no others"
            raise ArgumentError(flag, expected, f"{question.id!r} with {len(question.options)}")


def _analyze(options: Analyze) -> int:
    from holdfast.confidence import Store, analyze, export_requests, read_trials, results_of, write_trials
    from holdfast.probes.confidence import ConfidenceReport, report_of_results

    if not options.store.is_file():
        problem = "no regular file" if options.store.exists() else "not there"
        raise ArgumentError("STORE", "a file that the probe wrote", f"{options.store}, which is {problem}")
    count_of("--seed", options.seed)
    written = {"--export": options.export, "--trials": options.trials}
    refuse_same_files({"STORE": options.store, **written, "--plot": options.plot})
    for flag, path in written.items():
        if path is not None:
            _check_free(flag, path, options)
    if _holds_trials(options.store):
        for flag, given in (("--run", options.run), ("--export", options.export)):
            if given is not None:
                raise ArgumentError(flag, "none, as these are trials and no store", str(given))
        trials = read_trials(options.store)
        report = ConfidenceReport(analyze(trials, seed=options.seed), f"Trials in {options.store}.")
    else:
        store = Store(options.store)
        if options.export is not None:
            # Answers that nothing can be concluded from are written too.
            with _writing("--export", options.export):
                export_requests(store, options.export, options.run)
        results = results_of(store, options.run)
        trials, report = results.trials, report_of_results(results, seed=options.seed)
    if options.trials is not None:
        with _writing("--trials", options.trials):
            write_trials(trials, options.trials)
    options.show(report)
    return OK


def _holds_trials(path: Path) -> bool:
    """Whether a file begins as those of `write_trials` do."""
    from holdfast.confidence.trials_file import FORMAT

    with path.open("rb") as file:
        return FORMAT.encode() in file.readline(200)


def _simulate(options: Simulate) -> int:
    from holdfast.confidence import analyze, simulate, write_trials
    from holdfast.probes.confidence import ConfidenceReport

    count_of("--seed", options.seed)
    refuse_same_files({"--output": options.output, "--plot": options.plot})
    if options.output is not None and options.output.is_file() and not _holds_trials(options.output):
        raise ArgumentError(
            "--output", "a new file, or one with trials", f"{options.output}, which holds something else"
        )
    observer = observer_of(options.preset, options.set)
    trials = simulate(observer, options.count, options.seed, accuracies=options.accuracies)
    if options.output is not None:
        with _writing("--output", options.output):
            write_trials(trials, options.output)
    report = ConfidenceReport(analyze(trials, seed=options.seed), f"Truth: {observer}.")
    options.show(report)
    return OK


def _check_free(flag: str, path: Path, options: Analyze) -> None:
    """Whether a file may be written.

    Errors:
        ArgumentError: it is there, and not to be replaced.
    """
    if path.exists() and not options.overwrite:
        raise ArgumentError(flag, "a new file, or --overwrite", f"{path}, which is there")


@contextlib.contextmanager
def _writing(flag: str, path: Path) -> Iterator[None]:
    """What goes wrong with a file, as a user's mistake."""
    try:
        yield
    except OSError as error:
        raise ArgumentError(flag, "a path to write to", f"{path} ({error.strerror})") from error


def _fuse(options: Fuse) -> int:
    from scipy.special import expit, logit

    from holdfast.confidence import fuse

    if not 0 < options.probability < 1:
        raise ArgumentError("PROBABILITY", "a share above 0 and below 1", options.probability)
    fused = float(fuse(logit(options.probability), options.advice, options.accuracy, options.temperature))
    probability, keep = float(expit(fused)), fused >= 0
    if options.json:
        say(jsonlib.dumps({"probability": probability, "log_odds": fused, "keep": keep}))
    else:
        say(f"{probability:.4f} (log-odds {fused:+.3f}): {'keep' if keep else 'give up'} the answer")
    return OK


def _serve_observer(options: ServeObserver) -> int:
    from holdfast.confidence.observer_server import Faults, ObserverServer, latitude_answers, serving
    from holdfast.confidence.questions import read_questions
    from holdfast.confidence.responders.simulated import SimulatedResponder

    observer = observer_of(options.preset, options.set)
    count_of("--seed", options.seed)
    key = os.environ.get(options.key_env, "") if options.key_env else ""
    if options.key_env and not key:
        raise ArgumentError("--key-env", "an environment variable that holds a key", f"{options.key_env}, not set")
    answers = latitude_answers()
    questions = read_questions(options.questions) if options.questions else []
    refuse_more_options("--questions", questions)
    for question in questions:
        if question.answer is not None:
            answers[question.text] = question.options[question.answer]
    faults = Faults(**vars(options.faults), seed=options.seed)
    server = ObserverServer(SimulatedResponder(observer, options.seed, answers), faults, key)
    with serving(server, options.host, options.port) as base_url:
        say(f"{observer}\nserves at {base_url} (chat/completions and systemone) until it is interrupted")
        with contextlib.suppress(KeyboardInterrupt):  # the usual end of a server
            threading.Event().wait()
    seen = server.seen
    statuses = ", ".join(f"{count} with {status}" for status, count in sorted(seen.statuses.items())) or "none"
    say(f"{seen.requests} requests ({statuses}), up to {seen.most_at_once} waiting at once, {seen.repeated} repeated")
    say(f"{seen.hidden} hidden prompts held nothing of the first answer, {len(seen.leaks)} were refused")
    return OK


def _named(carry_out: Callable[[Any], int], **more: str) -> Callable[[Any], int]:
    """A command whose errors name its flags."""

    def named(options: Any) -> int:
        with under_flags(more):
            return carry_out(options)

    return named


COMMANDS: Commands = {
    "analyze": (Analyze, _named(_analyze, store="STORE", path="STORE", trials="STORE")),
    "fuse": (Fuse, _named(_fuse, accuracy="ACCURACY")),
    "serve-observer": (ServeObserver, _named(_serve_observer)),
    "simulate": (Simulate, _named(_simulate, accuracy="--accuracies", questions="--count")),
}


def confidence(words: Sequence[str]) -> int:
    """Carry out `holdfast confidence`."""
    return choose("confidence", "command", "Language models that change their minds. Commands", COMMANDS, words)
