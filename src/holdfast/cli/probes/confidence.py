"""`holdfast probe confidence`: on a model in process, one behind an endpoint, or a simulated observer."""

from __future__ import annotations

import json as jsonlib
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from holdfast.cli.confidence import (
    Preset,
    observer_of,
    refuse_more_options,
    refuse_same_files,
    under_flags,
)
from holdfast.cli.parsing import FAILED, OK, Device, ExplainedOptions, OptionalTarget, device_named, say
from holdfast.errors import ArgumentError, count_of

if TYPE_CHECKING:
    from holdfast.confidence import Plan, Question, Responder, Store
    from holdfast.confidence.responders.huggingface import HuggingFaceResponder
    from holdfast.llm.settings import EndpointOptions

QUESTIONS = 200
"""Asked unless it is a pilot, or their number is given."""

PILOT_OF_DIFFICULTY = 100
"""Questions that `--target-accuracy` asks first."""


@dataclass(frozen=True)
class EndpointFlags:
    """How a model behind an endpoint is asked."""

    model: str | None = None
    """A model behind an endpoint, by the name that the server knows."""
    base_url: str | None = None
    """Where the server is, up to and without /chat/completions; OpenAI's own unless given."""
    backend: Literal["chat", "systemone", "sampled"] = "chat"
    """chat: log-probabilities of the chat protocol. systemone: probabilities of that protocol. sampled: answers drawn
    at random and counted, for servers that tell neither."""
    samples: int = 20
    """For sampled: requests for each reading; 1: the choice alone."""
    key_env: str | None = None
    """Environment variable with the key; unless given OPENAI_API_KEY for OpenAI's own server, and none for others."""
    concurrency: int = 8
    """Requests under way together."""
    requests_per_minute: float | None = None
    """Most requests that start in a minute."""
    max_requests: int | None = None
    """Stop after this many requests; answers are kept, and the same command goes on."""
    price: tuple[float, float] | None = None
    """Of a million prompt tokens and of a million completion tokens."""
    max_cost: float | None = None
    """Stop once tokens have cost this much."""


@dataclass(frozen=True)
class LocalFlags:
    """How a model in process is loaded."""

    device: Device = "auto"
    """Where a model in process runs: cpu, cuda, cuda:1, … or auto."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of its weights; auto: as they are stored."""


@dataclass(frozen=True)
class ConfidenceProbe(LocalFlags, EndpointFlags, ExplainedOptions):
    """Ask whether a language model clings to its own answers, and how much it is swayed by advice."""

    target: OptionalTarget = None
    """A causal language model of transformers, by path or hub id; or give --model or --observer."""
    observer: Preset | None = None
    """Ask a simulated observer with known biases, to see what the probe makes of it before you pay for anything."""
    set: tuple[str, ...] = ()
    """Parameters of the observer, as NAME=NUMBER, for example bias=2 noise=0.1."""
    questions: Path | None = None
    """JSONL file with questions, {"id": "q1", "question": "...", "options": ["...", "..."], "answer": 0} each; on
    which latitude cities lie unless given."""
    count: int | None = None
    """Questions to ask: 200, or 50 for a pilot, unless given; of a file all, or the first ones."""
    pilot: bool = False
    """A small run: fewer questions, and two stated accuracies instead of six."""
    target_accuracy: float | None = None
    """Ask 100 latitudes first, and choose how far apart the options of the others are so that about this share of the
    first answers is right; 0.75 is best."""
    displays: tuple[Literal["shown", "hidden", "other", "shown_flipped"], ...] = ("shown", "hidden", "other")
    """What is said of the earlier answer: shown, hidden, said to be another model's, or the other option shown as its
    own."""
    accuracies: tuple[float, ...] | None = None
    """Stated accuracies of the adviser: 0.5 to 1 by tenths, or 0.6 0.9 for a pilot, unless given."""
    wordings: tuple[Literal["plain", "review", "form"], ...] = ("plain",)
    """Paraphrases of the prompts; each asks everything once more."""
    duplicates: int | None = None
    """Prompts of stage 1 that are asked once more, to see by how much answers to equal prompts differ: 20 unless given
    where a model tells log-probabilities, 0 for others; 0: none."""
    form: Literal["chat", "flat"] | None = None
    """chat: the earlier answer in a turn of the assistant. flat: all in one message. Unless given, chat where the
    model can be asked so."""
    thinking: bool = True
    """Let the model think first, if it does; --no-thinking tells its chat template not to."""
    store: Path = Path("confidence.jsonl")
    """File that answers are kept in; what it holds is not asked again."""
    seed: int = 0
    """Of the choice of latitudes, and of the draws that intervals come from."""
    dry_run: bool = False
    """Only say how many requests it would take and what they would cost."""
    fail_on_bias: bool = False
    """Exit with status 1 if any departure from an ideal observer was found."""


def run(options: ConfidenceProbe) -> int:
    """Ask, and report."""
    with under_flags({"model": "--model" if options.target is None else "TARGET", "tokenizer": "TARGET"}):
        return _run(options)


def _run(options: ConfidenceProbe) -> int:
    from holdfast.confidence import Store
    from holdfast.confidence.latitude import ATTRIBUTION

    _check(options)
    questions = _questions(options)
    if options.observer is not None:
        refuse_more_options("--observer", questions)
    plan = _plan(options, questions, options.form or "chat")
    if options.dry_run:
        # Nothing is loaded for it: the number of requests does not depend on what the model is.
        _tell_cost(options, plan)
        return OK
    store = Store(options.store)
    store.check()
    responder, form = _responder(options, questions)
    store.prepare()
    if options.questions is None:
        _tell(ATTRIBUTION)
    if options.target_accuracy is not None:
        questions = _of_difficulty(options, options.target_accuracy, responder, store, form)
    return _probe(options, responder, _plan(options, questions, form), store)


def _probe(options: ConfidenceProbe, responder: Responder, plan: Plan, store: Store) -> int:
    from holdfast.probes.confidence import probe_confidence

    report = probe_confidence(responder, plan, store, tell=_tell, price=options.price, seed=options.seed)
    options.show(report)
    flags = report.analysis.flags if options.fail_on_bias else ()
    if flags:
        _tell(f"departures from an ideal observer: {', '.join(flags)}")
    return FAILED if flags else OK


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def _check(options: ConfidenceProbe) -> None:
    """Flags that do not go together.

    Errors:
        ArgumentError: there are such.
    """
    named = {"a model": options.target, "--model": options.model, "--observer": options.observer}
    given = [name for name, value in named.items() if value is not None]
    if options.base_url is not None and options.model is None:
        raise ArgumentError("--model", "the name of the model, as there is a --base-url", "none")
    if len(given) != 1:
        raise ArgumentError("TARGET", "one of a model, --model and --observer", " and ".join(given) or "none")
    for flags, who, place in ((EndpointFlags, "--model", options.model), (LocalFlags, "a model", options.target)):
        for flag in fields(flags):
            if place is None and getattr(options, flag.name) != flag.default:
                name = f"--{flag.name.replace('_', '-')}"
                raise ArgumentError(name, f"{who}, which alone has such an option", given[0])
    if options.set and options.observer is None:
        raise ArgumentError("--set", "an --observer that has parameters", given[0])
    _check_numbers(options)
    refuse_same_files({"--questions": options.questions, "--store": options.store, "--plot": options.plot})
    if options.backend == "systemone" and options.form == "chat":
        raise ArgumentError("--form", "flat, as the systemone protocol takes a text", "chat")
    if options.duplicates and _draws(options):
        raise ArgumentError("--duplicates", "log-probabilities, whose noise is not known", "--backend sampled")
    if options.target_accuracy is not None and options.questions is not None:
        raise ArgumentError("--target-accuracy", "the latitudes, whose difficulty can be chosen", "--questions")


def _check_numbers(options: ConfidenceProbe) -> None:
    """Numbers that are looked at nowhere else before requests are paid for.

    Errors:
        ArgumentError: one cannot be used.
    """
    _duplicates(options)
    count_of("--seed", options.seed)
    count_of("--samples", options.samples, 1)
    if options.count is not None:
        count_of("--count", options.count, 1)
    if options.target_accuracy is not None and not 0.5 < options.target_accuracy < 1:
        raise ArgumentError("--target-accuracy", "a share between 0.5 and 1", options.target_accuracy)
    if options.max_cost is not None and options.price is None:
        raise ArgumentError("--max-cost", "a --price, of which the cost follows", "none")
    if options.price is not None and min(options.price) < 0:
        raise ArgumentError("--price", "two numbers of at least 0", options.price)


def _questions(options: ConfidenceProbe) -> list[Question]:
    """From the file, or latitudes."""
    from holdfast.confidence import PILOT_QUESTIONS, latitude_questions, read_questions

    if options.questions is None:
        count = options.count or (PILOT_QUESTIONS if options.pilot else QUESTIONS)
        return latitude_questions(count, options.seed)
    questions = read_questions(options.questions)
    count = options.count or (min(PILOT_QUESTIONS, len(questions)) if options.pilot else len(questions))
    if count > len(questions):
        raise ArgumentError("--count", f"at most {len(questions)}, as many as {options.questions} has", count)
    return questions[:count]


def _plan(options: ConfidenceProbe, questions: list[Question], form: Literal["chat", "flat"]) -> Plan:
    from holdfast.confidence import PILOT, TEMPLATES, Plan, TrialDesign

    base = PILOT if options.pilot else TrialDesign()
    design = replace(
        base,
        displays=options.displays,
        accuracies=options.accuracies or base.accuracies,
        templates=tuple(replace(TEMPLATES[name], form=form) for name in options.wordings),
    )
    return Plan(tuple(questions), design, _duplicates(options))


def _duplicates(options: ConfidenceProbe) -> int:
    """As many as wanted, or as are worth sending."""
    from holdfast.confidence.duplicates import DUPLICATES

    if options.duplicates is not None:
        return count_of("--duplicates", options.duplicates, 0)
    return 0 if options.observer is not None or _draws(options) else DUPLICATES


def _draws(options: ConfidenceProbe) -> bool:
    """Whether answers are drawn at random."""
    return options.model is not None and options.backend == "sampled"


def _samples(options: ConfidenceProbe) -> int:
    """Requests for each reading."""
    return options.samples if _draws(options) else 1


def _tell_cost(options: ConfidenceProbe, plan: Plan) -> None:
    """What a dry run says."""
    cost = plan.estimate(options.price, samples=_samples(options))
    before = 0 if options.target_accuracy is None else _requests_for_difficulty(options)
    if options.json:
        known = {"requests": cost.requests, "first": cost.first, "second": cost.second}
        known |= {"duplicates": cost.duplicates, "before": before, "samples": cost.samples}
        tokens = {"prompt_tokens": cost.prompt_tokens, "completion_tokens": cost.completion_tokens, "cost": cost.cost}
        say(jsonlib.dumps({**known, **tokens}, indent=1))
        return
    say(f"at most {before:,} requests to find the difficulty, and then\n{cost}" if before else cost)


def _requests_for_difficulty(options: ConfidenceProbe) -> int:
    return 2 * PILOT_OF_DIFFICULTY * _samples(options)


def _of_difficulty(
    options: ConfidenceProbe, target: float, responder: Responder, store: Store, form: Literal["chat", "flat"]
) -> list[Question]:
    """As many latitudes, of the difficulty at which the model is right as often as wanted."""
    from holdfast.confidence import TEMPLATES, find_difference, latitude_questions

    after = _plan(options, _questions(options), form).estimate(options.price, samples=_samples(options))
    _tell(f"at most {_requests_for_difficulty(options):,} requests to find the difficulty, and then {after}")
    template = replace(TEMPLATES[options.wordings[0]], form=form)
    difficulty = find_difference(
        responder, store, target, pilot=PILOT_OF_DIFFICULTY, seed=options.seed + 1, template=template
    )
    _tell(str(difficulty))
    return latitude_questions(len(_questions(options)), options.seed, difficulty.difference)


def _responder(options: ConfidenceProbe, questions: list[Question]) -> tuple[Responder, Literal["chat", "flat"]]:
    """Who answers, and how prompts are written for it."""
    if options.observer is not None:
        return _observer(options, questions), options.form or "chat"
    if options.model is not None:
        return _endpoint(options), options.form or ("flat" if options.backend == "systemone" else "chat")
    local = _local(options)
    chat = local.backend.params["chat"]
    if options.form == "chat" and not chat:
        raise ArgumentError("--form", "flat, as the model has no chat template", "chat")
    return local, options.form or ("chat" if chat else "flat")


def _observer(options: ConfidenceProbe, questions: list[Question]) -> Responder:
    from holdfast.confidence import SimulatedResponder
    from holdfast.confidence.observer_server import latitude_answers

    answers = latitude_answers()
    answers |= {
        question.text: question.options[question.answer] for question in questions if question.answer is not None
    }
    assert options.observer is not None
    return SimulatedResponder(observer_of(options.observer, options.set), options.seed, answers)


def _local(options: ConfidenceProbe) -> HuggingFaceResponder:
    from holdfast.confidence.responders.huggingface import HuggingFaceResponder
    from holdfast.errors import require

    if not sys.stderr.isatty():
        require("transformers.utils.logging", "hf").disable_progress_bar()
    assert options.target is not None
    return HuggingFaceResponder.load(
        options.target,
        device=str(device_named(options.device)),
        dtype=options.dtype,
        chat_template_kwargs=_template_kwargs(options),
    )


def _template_kwargs(options: ConfidenceProbe) -> dict[str, bool]:
    """For the chat template of a model that can think first."""
    return {} if options.thinking else {"enable_thinking": False}


def _endpoint(options: ConfidenceProbe) -> Responder:
    from holdfast.confidence import ChatResponder, SampledResponder, SystemOneResponder
    from holdfast.llm import Endpoint

    template = _template_kwargs(options)
    settings: EndpointOptions = {
        "model": options.model or "",
        "protocol": "systemone" if options.backend == "systemone" else "chat",
        "temperature": 1.0 if options.backend == "sampled" else 0.0,
        "extra": {"chat_template_kwargs": template} if template else {},
        "concurrency": options.concurrency,
        "requests_per_minute": options.requests_per_minute,
        "max_requests": options.max_requests,
        "max_cost": options.max_cost,
        "price": options.price,
    }
    if options.base_url is not None:
        settings["base_url"] = options.base_url
    if options.base_url is not None or options.key_env is not None:
        # The key of OpenAI is not sent to another server because it happens to be there.
        settings["api_key_env"] = options.key_env
    endpoint = Endpoint(**settings)
    endpoint.check()
    if options.backend == "sampled":
        return SampledResponder(endpoint, samples=options.samples)
    return SystemOneResponder(endpoint) if options.backend == "systemone" else ChatResponder(endpoint)
