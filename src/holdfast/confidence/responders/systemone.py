"""Any model behind `/v1/systemone`: a question with named options goes in, and their probabilities come out.

Options are scored by their texts; the service puts a template of its own around them, so that log-odds are not to be
compared with those of another back end.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from holdfast.confidence.extraction import NoLogprobs, OptionReading
from holdfast.confidence.responders.endpoints import FILTERED, REFUSAL, Attempts, backend_of, is_filtered, stream
from holdfast.confidence.responders.interface import Answer, Ask, Backend
from holdfast.errors import ArgumentError
from holdfast.llm import AsyncEndpoint, Endpoint, EndpointError

NAME = "answer"
"""Of the one question in a request."""

MOST_OPTIONS = 26

LEAST = 2.0**-24
"""What a probability of exactly 0 is taken to be below: 1 minus it is 1 in single precision."""

ROUNDING = 0.02
"""How far probabilities may be from 1 together, since a service may round them."""


class SystemOneResponder:
    """A model behind an endpoint that speaks the systemone protocol.

    Arguments:
        endpoint: the model, with `protocol="systemone"`.
        instructions: of every request, beside the prompt; empty: none.

    Errors:
        ArgumentError: the endpoint speaks another protocol.
    """

    def __init__(self, endpoint: Endpoint, *, instructions: str = "") -> None:
        if endpoint.protocol != "systemone":
            raise ArgumentError("endpoint", "one that speaks the systemone protocol", endpoint.protocol)
        self._endpoint, self._instructions = endpoint, instructions

    @property
    def backend(self) -> Backend:
        """Model, host and fields of the requests."""
        instructions = {"instructions": self._instructions} if self._instructions else {}
        return backend_of(self._endpoint, "systemone", {**self._endpoint.extra, **instructions})

    def answer(self, asks: Iterable[Ask]) -> Generator[Answer, None, None]:
        """Answer prompts, as many at a time as the endpoint may; see `Responder.answer`.

        Errors:
            ArgumentError: a conversation of several messages, or a question of more than 26 options.
            NoLogprobs: the server does not speak the protocol.
            EndpointError: it refuses, or was busy or out of reach at every attempt.
            BudgetSpent: the budget is spent.
        """
        return stream(self._endpoint, self._ask, asks)

    async def _ask(self, line: AsyncEndpoint, ask: Ask) -> Answer:
        attempts = Attempts()
        try:
            answer = await line.request(
                self._body(ask),
                lambda answer: _read(ask, answer),
                expected="probabilities of the options",
                on_retry=attempts.note,
            )
        except EndpointError as error:
            if is_filtered(error):
                answer = Answer(ask.key, problem=FILTERED, raw={"text": error.problem})
            elif error.status in (404, 405, 501):
                raise NoLogprobs(
                    f"the server does not speak the systemone protocol: {error.problem}. Ask it through the chat "
                    "protocol with log-probabilities (chat), run the model in process (huggingface), or draw answers "
                    "at random and count them (sampled)"
                ) from None
            else:
                raise
        return replace(answer, attempts=len(attempts.errors) + 1, errors=tuple(attempts.errors))

    def _body(self, ask: Ask) -> dict[str, Any]:
        if len(ask.messages) != 1:
            problem = f"{len(ask.messages)} messages for the systemone protocol, which takes a text"
            raise ArgumentError("form", "the flat form, which has one message", problem)
        if len(ask.options) > MOST_OPTIONS:
            raise ArgumentError("options", f"at most {MOST_OPTIONS} for the systemone protocol", len(ask.options))
        question: dict[str, Any] = {"type": "choice", "criteria": dict.fromkeys(ask.options)}
        if self._instructions:
            question["instructions"] = self._instructions
        state = ask.messages[0]["content"]
        return {"model": self._endpoint.model, "state": state, "questions": {NAME: question}, **self._endpoint.extra}


def _read(ask: Ask, answer: Any) -> Answer:
    """The reading in an answer.

    Its `confidence` is (max - 1/n) / (1 - 1/n), and not a probability: it is left alone.

    Errors:
        ValueError, LookupError, TypeError, AttributeError: it is something else.
    """
    said = answer["answers"][NAME]
    names = ("model", "system_fingerprint", "usage")
    raw = {name: answer[name] for name in names if isinstance(answer.get(name), str | Mapping)}
    if said["type"] == REFUSAL:
        return Answer(ask.key, problem=REFUSAL, raw=raw)
    values = np.array([float(said["probabilities"][option]) for option in ask.options])
    if not (values >= 0).all() or not abs(values.sum() - 1) <= ROUNDING:
        raise ValueError("no probabilities")
    missing = tuple(int(place) for place in np.flatnonzero(values == 0))
    reading = OptionReading(np.log(np.where(values == 0, LEAST, values)), math.nan, missing)
    tokens = sorted(zip(ask.options, map(float, reading.scores), strict=True), key=lambda option: -option[1])
    return Answer.of_reading(ask.key, reading, tokens=tuple(tokens), raw=raw)
