"""What responders behind an endpoint share: the first request goes alone, attempts are noted, problems have names."""

from __future__ import annotations

import itertools
import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from holdfast.confidence.responders.interface import Answer, Ask, Backend
from holdfast.confidence.trials import Source
from holdfast.llm import AsyncEndpoint, Completion, Endpoint, EndpointError

REFUSAL, FILTERED, CUT_OFF, EMPTY = "refusal", "content_filter", "length", "empty"
"""Why one request has no reading though the endpoint answered."""


def backend_of(
    endpoint: Endpoint, kind: str, params: Mapping[str, Any], source: Source = "logprobs", samples: int = 0
) -> Backend:
    """What readings of an endpoint depend on.

    Arguments:
        endpoint: who is asked.
        kind: how.
        params: of the requests.
        source: of the scores.
        samples: answers drawn for each reading.
    """
    host = urlsplit(endpoint.url).netloc or endpoint.url
    return Backend(endpoint.model, kind, host, dict(params), source, samples)


def params_of(endpoint: Endpoint, fields: Mapping[str, Any]) -> dict[str, Any]:
    """What a chat request says beside model and messages."""
    body = endpoint.body([], **fields)
    return {name: value for name, value in body.items() if name not in ("model", "messages")}


def stream(
    endpoint: Endpoint, ask_one: Callable[[AsyncEndpoint, Ask], Awaitable[Answer]], asks: Iterable[Ask]
) -> Generator[Answer, None, None]:
    """Answers as they come.

    The first request is answered before the second goes out: what a back end cannot do shows there, at the price of
    one request.

    Arguments:
        endpoint: who is asked.
        ask_one: asks for one answer.
        asks: requests.
    """
    waiting = iter(asks)

    async def timed(line: AsyncEndpoint, ask: Ask) -> Answer:
        started = time.perf_counter()
        answer = await ask_one(line, ask)
        endpoint.count(answers=1)
        return replace(answer, seconds=round(time.perf_counter() - started, 6))

    for part in (itertools.islice(waiting, 1), waiting):
        for _, answer in endpoint.each(timed, part):
            yield answer


class Attempts:
    """Errors of the attempts of one question that were followed by another, a word each."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def note(self, error: EndpointError) -> None:
        """Add the error of one attempt."""
        if error.status is None:
            self.errors.append("no answer")
        else:
            self.errors.append("malformed" if error.status < 300 else str(error.status))


def problem_of(completion: Completion) -> str:
    """Why a completion says nothing; empty: it says something."""
    if completion.finish_reason == FILTERED:
        return FILTERED
    if completion.refusal:
        return REFUSAL
    if completion.text:
        return ""
    return CUT_OFF if completion.cut_off else EMPTY


def is_filtered(error: EndpointError) -> bool:
    """Whether a provider's filter refused a prompt, which concerns that one alone."""
    return error.status == 400 and FILTERED in error.problem


def raw_of(completion: Completion) -> dict[str, Any]:
    """What is kept of a completion beside its scores."""
    raw = {
        "model": completion.model,
        "system_fingerprint": completion.fingerprint,
        "finish_reason": completion.finish_reason,
        "text": completion.text or completion.refusal,
    }
    return {name: value for name, value in raw.items() if value}
