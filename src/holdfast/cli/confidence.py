"""`holdfast confidence`: how stubborn a language model is, and how easily swayed."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from holdfast.cli.parsing import OK, Commands, choose, say
from holdfast.errors import ArgumentError

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
    """Parameters of the observer that are to differ from the preset's, as NAME=NUMBER, for example bias=2 noise=0.1."""
    questions: Path | None = None
    """JSONL file with questions and their answers, which the observer then knows as well as it knows any. It knows the
    latitudes that come with Holdfast; what is right of others comes from a hash of the question."""
    seed: int = 0
    """Of what the observer knows, of its noise, and of the faults."""
    host: str = "127.0.0.1"
    """Address to listen at."""
    port: int = 8077
    """Port to listen at; 0: a free one."""
    key_env: str = ""
    """Environment variable with the key that requests must bring; empty: none."""
    faults: Annotated[ServerFaults, tyro.conf.arg(name="fault")] = field(default_factory=ServerFaults)


def _serve_observer(options: ServeObserver) -> int:
    from holdfast.confidence.observer_server import Faults, ObserverServer, latitude_answers, serving
    from holdfast.confidence.observers import PRESETS
    from holdfast.confidence.questions import read_questions
    from holdfast.confidence.responders.simulated import SimulatedResponder

    changes: dict[str, float] = {}
    names = [parameter.name for parameter in dataclasses.fields(PRESETS[options.preset])]
    for word in options.set:
        name, _, value = word.partition("=")
        try:
            changes[name] = float(value)
        except ValueError:
            raise ArgumentError("--set", "NAME=NUMBER", word) from None
        if name not in names:
            raise ArgumentError("--set", f"one of {', '.join(names)}", name)
    observer = dataclasses.replace(PRESETS[options.preset], **changes)
    key = os.environ.get(options.key_env, "") if options.key_env else ""
    if options.key_env and not key:
        raise ArgumentError("--key-env", "an environment variable that holds a key", f"{options.key_env}, not set")
    answers = latitude_answers()
    for question in read_questions(options.questions) if options.questions else []:
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
    say(f"{seen.requests} requests ({statuses}), {seen.most_at_once} at once at most, {seen.repeated} repeated")
    say(f"{seen.hidden} hidden prompts held nothing of the first answer, {len(seen.leaks)} were refused")
    return OK


COMMANDS: Commands = {"serve-observer": (ServeObserver, _serve_observer)}


def confidence(words: Sequence[str]) -> int:
    """Carry out `holdfast confidence`."""
    return choose("confidence", "command", "Language models that change their minds. Commands", COMMANDS, words)
