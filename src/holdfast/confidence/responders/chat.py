"""Any model behind the OpenAI chat protocol whose server returns log-probabilities of the likeliest tokens."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable
from dataclasses import replace
from typing import Any

from holdfast.confidence.extraction import SPACES, NoLogprobs, read_top_logprobs
from holdfast.confidence.responders.endpoints import (
    FILTERED,
    REFUSAL,
    Attempts,
    backend_of,
    is_filtered,
    params_of,
    problem_of,
    raw_of,
    stream,
)
from holdfast.confidence.responders.interface import Answer, Ask, Backend
from holdfast.errors import ArgumentError, count_of
from holdfast.llm import AsyncEndpoint, Completion, Endpoint, EndpointError, TokenLogprobs
from holdfast.llm.completion import completion_of

TOP = 5
"""Likeliest tokens that an answer names."""

EMPTY_ANSWERS = 3
"""Empty answers without log-probabilities after which it is not the prompt that is odd, if no other had any."""

INSTEAD = (
    "Ask it through the systemone protocol if the server speaks it, run the model in process (huggingface), or draw "
    "answers at random and count them (sampled)"
)


class ChatResponder:
    """A model behind an endpoint that speaks the chat protocol.

    A label's score is the log-probability of all tokens together, among those that the server lists at the place of
    the answer, that spell it. One that is not listed has a bound for a score.

    Arguments:
        endpoint: the model, and how much may be asked. Its temperature does not matter where the server reports
            log-probabilities before sampling, as most do; 0 is the safe choice.
        top: tokens to list; most servers list 20 at most.
        max_tokens: of an answer; more than 1 for a model that begins with white space. `None`: the request says
            nothing of it, for servers that want it under another name, in `Endpoint.extra`.

    Errors:
        ArgumentError: the endpoint speaks another protocol.
    """

    def __init__(self, endpoint: Endpoint, *, top: int = 20, max_tokens: int | None = 1) -> None:
        if endpoint.protocol != "chat":
            raise ArgumentError("endpoint", "one that speaks the chat protocol", endpoint.protocol)
        self._endpoint = endpoint
        self._fields: dict[str, Any] = {"logprobs": True, "top_logprobs": count_of("top", top, 1)}
        if max_tokens is not None:
            self._fields["max_tokens"] = count_of("max_tokens", max_tokens, 1)
        self._proven, self._nothing = False, 0

    @property
    def backend(self) -> Backend:
        """Model, host and fields of the requests."""
        return backend_of(self._endpoint, "chat", params_of(self._endpoint, self._fields))

    def answer(self, asks: Iterable[Ask]) -> Generator[Answer, None, None]:
        """Answer prompts, as many at a time as the endpoint may; see `Responder.answer`.

        Errors:
            NoLogprobs: the server answers without log-probabilities, or with some that mean nothing.
            EndpointError: it refuses, or was busy or out of reach at every attempt.
            BudgetSpent: the budget is spent.
        """
        return stream(self._endpoint, self._ask, asks)

    async def _ask(self, line: AsyncEndpoint, ask: Ask) -> Answer:
        attempts = Attempts()

        def read(answer: Any) -> Answer:
            return self._read(ask, completion_of(answer))

        body = self._endpoint.body(ask.messages, **self._fields)
        expected = "a chat completion with log-probabilities"
        try:
            answer = await line.request(body, read, expected=expected, on_retry=attempts.note)
        except EndpointError as error:
            if is_filtered(error):
                answer = Answer(ask.key, problem=FILTERED, raw={"text": error.problem})
            elif error.status in (400, 403, 422) and "logprob" in error.problem:
                raise NoLogprobs(
                    f"log-probabilities are refused as they were asked for: {error.problem}. Ask for fewer than "
                    f"{self._fields['top_logprobs']} tokens if that is what it says. {INSTEAD}"
                ) from None
            else:
                raise
        return replace(answer, attempts=len(attempts.errors) + 1, errors=tuple(attempts.errors))

    def _read(self, ask: Ask, completion: Completion) -> Answer:
        """The reading in a completion.

        Errors:
            NoLogprobs: it has none, and no other had any.
            ValueError: it has none, though others had some.
        """
        raw = raw_of(completion)
        problem = problem_of(completion)
        place, before = _place(completion.logprobs)
        if problem in (REFUSAL, FILTERED):
            return Answer(ask.key, problem=problem, raw=raw)
        if place is None:
            self._nothing += bool(problem)
            if problem and (self._proven or self._nothing < EMPTY_ANSWERS):
                return Answer(ask.key, problem=problem, raw=raw)
            return self._without(f"the first {EMPTY_ANSWERS} answers are empty" if problem else "it names none")
        if not place.top:
            return self._without("it names that of the answer alone, and no others in top_logprobs")
        try:
            reading = read_top_logprobs(place.top, ask.labels)
        except NoLogprobs as error:
            return self._without(str(error))
        self._proven = True
        reading = replace(reading, mass=reading.mass * math.exp(min(before, 0.0)))
        likeliest = sorted(place.top, key=lambda token: -token[1])[:TOP]
        return Answer.of_reading(ask.key, reading, tokens=tuple(likeliest), raw=raw)

    def _without(self, problem: str) -> Answer:
        if self._proven:
            raise ValueError(problem)
        endpoint = self._endpoint
        raise NoLogprobs(
            f"{endpoint.model} at {endpoint.url} answers 200 without log-probabilities that can be used: {problem}. "
            f"Servers that do not support them may ignore the request for them. {INSTEAD}"
        )


def _place(tokens: Iterable[TokenLogprobs]) -> tuple[TokenLogprobs | None, float]:
    """The first token that is not white space, and the log-probability of all white space before it."""
    before = 0.0
    first = None
    for token in tokens:
        first = first or token
        if token.token.strip(SPACES):
            return token, before
        before += token.logprob if math.isfinite(token.logprob) else 0.0
    return first, 0.0
