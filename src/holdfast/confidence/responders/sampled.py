"""Any model behind the chat protocol, without log-probabilities: answers are drawn at random and counted."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from typing import Any

from holdfast.confidence.extraction import read_choice, read_samples
from holdfast.confidence.responders.endpoints import (
    FILTERED,
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
from holdfast.llm import AsyncEndpoint, Completion, Endpoint, EndpointError
from holdfast.llm.completion import completion_of

NO_OPTION = "no option named"
"""The problem of an answer that cannot be read as one of the labels."""

KEPT = 60
"""Characters of an answer that are kept for people."""


class SampledResponder:
    """A model behind an endpoint that speaks the chat protocol, asked several times.

    With n answers that name an option, k of them the same, its share is (k + 1/2) / (n + K/2) for K options. A single
    sample is a bare choice. Neither is ever pooled with log-probabilities.

    Arguments:
        endpoint: the model, and how much may be asked. Its temperature should be that of the model itself, 1.
        samples: requests for each reading; 1: the choice alone.
        max_tokens: of an answer. `None`: the request says nothing of it, for models that think first or want it under
            another name, in `Endpoint.extra`.

    Errors:
        ArgumentError: the endpoint speaks another protocol, or samples at temperature 0, where all are the same.
    """

    def __init__(self, endpoint: Endpoint, *, samples: int = 20, max_tokens: int | None = 16) -> None:
        if endpoint.protocol != "chat":
            raise ArgumentError("endpoint", "one that speaks the chat protocol", endpoint.protocol)
        self._endpoint, self._samples = endpoint, count_of("samples", samples, 1)
        if samples > 1 and endpoint.temperature == 0:
            raise ArgumentError(
                "endpoint", "a temperature above 0, usually 1, to draw several answers", "temperature 0"
            )
        self._fields: dict[str, Any] = {}
        if max_tokens is not None:
            self._fields["max_tokens"] = count_of("max_tokens", max_tokens, 1)

    @property
    def backend(self) -> Backend:
        """Model, host, fields of the requests, and how many make a reading."""
        params = params_of(self._endpoint, self._fields)
        if self._samples == 1:
            return backend_of(self._endpoint, "sampled", params, "choices")
        return backend_of(self._endpoint, "sampled", params, "sampled", self._samples)

    def answer(self, asks: Iterable[Ask]) -> Generator[Answer, None, None]:
        """Answer prompts, as many at a time as the endpoint may; see `Responder.answer`.

        Errors:
            EndpointError: the endpoint refuses, or was busy or out of reach at every attempt.
            BudgetSpent: the budget is spent.
        """
        return stream(self._endpoint, self._ask, asks)

    async def _ask(self, line: AsyncEndpoint, ask: Ask) -> Answer:
        attempts = Attempts()
        drawn = [self._draw(line, ask, attempts) for _ in range(self._samples)]
        completions = await asyncio.gather(*drawn)
        answer = self._count(ask, completions)
        return replace(answer, attempts=len(attempts.errors) + len(drawn), errors=tuple(attempts.errors))

    async def _draw(self, line: AsyncEndpoint, ask: Ask, attempts: Attempts) -> Completion:
        body = self._endpoint.body(ask.messages, **self._fields)
        try:
            return await line.request(body, completion_of, expected="a chat completion", on_retry=attempts.note)
        except EndpointError as error:
            if is_filtered(error):
                return Completion("", False, {"finish_reason": FILTERED}, error.problem)
            raise

    def _count(self, ask: Ask, completions: Sequence[Completion]) -> Answer:
        named = [named_label(completion.text, ask.labels) for completion in completions]
        problems = [
            problem_of(completion) or NO_OPTION
            for completion, label in zip(completions, named, strict=True)
            if label is None
        ]
        texts = Counter(completion.text[:KEPT] for completion in completions)
        raw = {**raw_of(completions[0]), "text": dict(texts.most_common(10)), "problems": dict(Counter(problems))}
        if len(problems) == len(named):
            return Answer(ask.key, problem=Counter(problems).most_common(1)[0][0], raw=raw)
        counts = [named.count(place) for place in range(len(ask.labels))]
        if self._samples == 1:
            return Answer.of_reading(ask.key, read_choice(counts.index(1), len(counts)), raw=raw)
        return Answer.of_reading(ask.key, read_samples(counts, len(named)), raw=raw)


def named_label(text: str, labels: Sequence[str]) -> int | None:
    """Place of the label that an answer begins with, or consists of; `None`: there is none.

    White space, brackets, quotes and emphasis around it do not count, nor does its case unless two labels differ in
    case alone. A word that begins with a label, or a label that may be an article ("A city in the north"), is none.
    """
    match = re.match(
        r"""[\s*_`"'(\[{<#]*(?:(?:final )?answer:?[\s*_`"'(\[]*)?([^\W_]+)(?=[).:,;*_`"'\]}>!]|\s*$|\s*\n)""",
        text,
        re.I,
    )
    if match is None:
        return None
    word = match[1]
    by_case = len({label.casefold() for label in labels}) < len(labels)
    for place, label in enumerate(labels):
        if word == label or (not by_case and word.casefold() == label.casefold()):
            return place
    return None
