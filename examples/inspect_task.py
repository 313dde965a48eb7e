"""Inspect: the trials as a task of Inspect AI, for any model that Inspect can ask for log-probabilities.

Needs `pip install inspect_ai`; written for and run with version 0.3.285.

    inspect eval examples/inspect_task.py --model openai/gpt-4o-mini -T count=50 -T store=answers.jsonl
    holdfast confidence analyze answers.jsonl

Each sample is a question: the solver asks it alone, in all orders, and then again in new conversations that show or
hide the first answer and bring advice. The scorer reads log-odds and keeps every answer in a store of Holdfast's own,
which `holdfast confidence analyze` reads. As a script it asks a simulated observer in the place of a model.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inspect_ai import Task, eval, task
from inspect_ai.dataset import Sample
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    GenerateConfig,
    Logprob,
    Logprobs,
    ModelOutput,
    ModelUsage,
    TopLogprob,
    get_model,
)
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.util import collect

from holdfast.confidence import (
    PILOT,
    PRESETS,
    Answer,
    Backend,
    NoLogprobs,
    Plan,
    Run,
    SimulatedResponder,
    Store,
    latitude_questions,
    read_questions,
    read_top_logprobs,
    results_of,
)
from holdfast.confidence.observer_server import latitude_answers
from holdfast.confidence.requests import Request, first_requests, second_requests
from holdfast.confidence.results import Units
from holdfast.errors import ArgumentError
from holdfast.probes.confidence import report_of_results

CONFIG = GenerateConfig(temperature=0.0, max_tokens=1, logprobs=True, top_logprobs=20)
ROLES = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}


@task
def change_of_mind(count: int = 50, questions: str | None = None, store: str = "inspect.jsonl") -> Task:
    """How stubborn a model is, and how easily swayed.

    Arguments:
        count: latitude questions to ask.
        questions: JSONL file with questions of two options to ask in their place.
        store: file that answers are kept in.
    """
    asked = read_questions(questions) if questions else latitude_questions(count)
    if any(len(question.options) != 2 for question in asked):
        raise ArgumentError("questions", "two options in each", "more in some")
    plan = Plan(tuple(asked), PILOT)
    samples = [
        Sample(input=question.text, choices=list(question.options), id=question.id, metadata={"place": place})
        for place, question in enumerate(asked)
    ]
    return Task(dataset=samples, solver=two_stages(plan), scorer=log_odds(plan, store), config=CONFIG)


@solver
def two_stages(plan: Plan) -> Solver:
    """Ask stage 1, and with the answer to it stage 2."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        this = _run_of(state, plan)
        first = list(first_requests(this))
        listed = await _asked(first)
        choice = Units.read(this, _answers(first, listed)).choice
        state.store.set("listed", listed | await _asked(list(second_requests(this, choice))))
        return state

    return solve


@scorer(metrics={"*": [mean(), stderr()]})
def log_odds(plan: Plan, path: str) -> Scorer:
    """Keep the answers, and score a question by what showing the first answer adds to its log-odds, in choices too."""
    store = Store(path)

    async def score(state: TaskState, target: Target) -> Score:
        this = _run_of(state, plan)
        first = list(first_requests(this))
        listed = state.store.get("listed")
        answers = _answers(first, listed)
        choice = Units.read(this, answers).choice
        chosen = int(choice[0])
        second = list(second_requests(this, choice))
        answers |= _answers(second, listed)
        # The run that is written down is that of all questions; keys of requests do not depend on the others.
        with store.writing(Run(this.backend, plan)) as record:
            known = store.answers()
            for request in (*first, *second):
                if request.key not in known:
                    record(answers[request.key], request.about(plan.design.cells))
        if chosen < 0:
            return Score.unscored(explanation="a tie in stage 1: the model has no first answer")
        neutral: dict[str, list[float]] = {"shown": [], "hidden": []}
        for request in second:
            cell = plan.design.cells[request.cell]
            if cell.advice == "neutral" and cell.display in neutral:
                place = request.question.order(request.turn).index(chosen)
                scores = answers[request.key].scores
                neutral[cell.display].append(scores[place] - scores[1 - place])
        means = {display: sum(values) / len(values) for display, values in neutral.items()}
        changed = {f"changed_{display}": float(value < 0) for display, value in means.items()}
        return Score(value={"choice_bias": means["shown"] - means["hidden"], **changed})

    return score


def _run_of(state: TaskState, plan: Plan) -> Run:
    """The run of one question."""
    backend = Backend(str(state.model), "inspect", params=CONFIG.model_dump(exclude_none=True))
    return Run(backend, Plan((plan.questions[state.metadata["place"]],), plan.design))


async def _asked(requests: Sequence[Request]) -> dict[str, list[tuple[str, float]]]:
    """Likeliest tokens at the place of each answer.

    Errors:
        NoLogprobs: there are none.
    """

    async def one(request: Request) -> tuple[str, list[tuple[str, float]]]:
        messages: list[ChatMessage] = [ROLES[said["role"]](content=said["content"]) for said in request.messages]
        output = await get_model().generate(messages)
        logprobs = output.choices[0].logprobs if output.choices else None
        if logprobs is None or not logprobs.content or not logprobs.content[0].top_logprobs:
            raise NoLogprobs(f"{output.model or 'the model'} answers without log-probabilities: {output.completion!r}")
        return request.key, [(token.token, token.logprob) for token in logprobs.content[0].top_logprobs]

    return dict(await collect(*(one(request) for request in requests)))


def _answers(requests: Sequence[Request], listed: dict[str, Any]) -> dict[str, Answer]:
    """Readings of requests by key."""
    answers = {}
    for request in requests:
        tokens = [(str(token), float(value)) for token, value in listed[request.key]]
        reading = read_top_logprobs(tokens, request.ask().labels)
        answers[request.key] = Answer.of_reading(request.key, reading, tokens=tuple(tokens[:5]))
    return answers


def observer_outputs(observer: SimulatedResponder) -> Any:
    """What Inspect's `mockllm` is to answer: log-probabilities of an observer."""

    def output(messages: list[ChatMessage], tools: Any, tool_choice: Any, config: GenerateConfig) -> ModelOutput:
        reading = observer.read([{"role": message.role, "content": message.text} for message in messages])
        pairs = sorted(zip(("A", "B"), map(float, reading.scores), strict=True), key=lambda pair: -pair[1])
        top = [TopLogprob(token=token, logprob=value) for token, value in pairs]
        said = Logprob(token=pairs[0][0], logprob=pairs[0][1], top_logprobs=top)
        message = ChatMessageAssistant(content=pairs[0][0], source="generate")
        choice = ChatCompletionChoice(message=message, stop_reason="stop", logprobs=Logprobs(content=[said]))
        # With a usage of its own Inspect does not look for a tokenizer on the network.
        return ModelOutput(model="observer", choices=[choice], usage=ModelUsage(output_tokens=1))

    return output


if __name__ == "__main__":
    observer = SimulatedResponder(PRESETS["both"], answers=latitude_answers())
    model = get_model("mockllm/model", custom_outputs=observer_outputs(observer))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answers.jsonl"
        [log] = eval(change_of_mind(30, store=str(path)), model=model, log_dir=folder, display="none")
        if log.status != "success" or log.results is None:
            raise SystemExit(log.error.message if log.error else log.status)
        for score in log.results.scores:
            print(f"{score.name} in Inspect's log: {score.metrics['mean'].value:.2f}")
        print(report_of_results(results_of(Store(path))))
