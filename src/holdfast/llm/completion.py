"""What an answer of the chat protocol says: the model's message, what it cost, or the provider's refusal."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

WORDS = 300
"""Characters of a provider's words that a message shows."""


@dataclass(frozen=True)
class TokenLogprobs:
    """One token of an answer.

    Arguments:
        token: its text.
        logprob: its natural log-probability; NaN where the server gives none.
        top: the likeliest tokens at its place, as the server lists them, with theirs.
    """

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Completion:
    """The model's next message.

    Arguments:
        text: its text; empty where it has none.
        cut_off: it ran out of completion tokens before its end.
        choice: all that the server says of it, such as the log-probabilities of its tokens where they were asked for.
        refusal: why the model or the provider's filter gave no answer, in their words; empty where they did.
        model: name that the server gives the model that answered; empty: none.
        fingerprint: the server's name for the version and set-up of the model; empty: none.
    """

    text: str
    cut_off: bool
    choice: Mapping[str, Any] = field(repr=False)
    refusal: str = ""
    model: str = ""
    fingerprint: str = ""

    @property
    def finish_reason(self) -> str:
        """Why the answer ended, in the server's word; empty: it does not say."""
        return _word(self.choice.get("finish_reason"))

    @property
    def logprobs(self) -> tuple[TokenLogprobs, ...]:
        """Log-probabilities of the tokens of the answer; none where the server sent none."""
        logprobs = self.choice.get("logprobs")
        content = logprobs.get("content") if isinstance(logprobs, Mapping) else None
        if not isinstance(content, list):
            return ()
        return tuple(
            TokenLogprobs(*_token(entry), tuple(map(_token, _entries(entry.get("top_logprobs")))))
            for entry in _entries(content)
        )


def completion_of(answer: Any) -> Completion:
    """The message in a parsed body.

    Errors:
        ValueError, LookupError, TypeError, AttributeError: it is no chat completion.
    """
    choice = answer["choices"][0]
    message = choice["message"]
    reason = choice.get("finish_reason")
    refusal = message.get("refusal")
    if not isinstance(refusal, str) or not refusal:
        refusal = "the provider's filter stopped the answer" if reason == "content_filter" else ""
    return Completion(
        _text(message.get("content")),
        reason in ("length", "max_tokens"),
        choice,
        refusal,
        _word(answer.get("model")),
        _word(answer.get("system_fingerprint")),
    )


def tokens_of(answer: Any) -> tuple[int, int] | None:
    """Prompt and completion tokens that a parsed body reports; `None`: it reports none that could be.

    Whatever the rest of the body is like: what is malformed is billed as well.
    """
    usage = answer.get("usage") if isinstance(answer, Mapping) else None
    if not isinstance(usage, Mapping):
        return None
    prompt = _count(usage, "prompt_tokens", "input_tokens")
    completion = _count(usage, "completion_tokens", "output_tokens")
    total = _count(usage, "total_tokens")
    if prompt is None and completion is None and total is None:
        return None
    if completion is None:
        completion = max((total or 0) - (prompt or 0), 0)
    if prompt is None:
        prompt = max((total or 0) - completion, 0)
    return prompt, completion


def words_of(text: str) -> str:
    """A provider's words in a body, on one line: its message where there is one, else what it sent."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return _short(text)
    while isinstance(body, list) and body:
        body = body[0]
    if isinstance(body, Mapping) and (problems := _problems(body.get("detail"))):
        return _short(problems)
    error = body.get("error", body) if isinstance(body, Mapping) else body
    message = error.get("message") if isinstance(error, Mapping) else error
    if not isinstance(message, str):
        return _short(text)
    code = error.get("code") if isinstance(error, Mapping) else None
    return _short(f"{message} ({code})" if isinstance(code, str) and code not in message else message)


def _problems(detail: Any) -> str:
    """What a server of typed requests finds wrong with one, each with its place."""
    if isinstance(detail, str):
        return detail
    problems = []
    for problem in _entries(detail):
        place = ".".join(map(str, problem["loc"])) if isinstance(problem.get("loc"), list) else ""
        problems.append(f"{place}: {problem.get('msg')}" if place else str(problem.get("msg")))
    return "; ".join(problems)


def _entries(listed: Any) -> list[Mapping[str, Any]]:
    return [entry for entry in listed if isinstance(entry, Mapping)] if isinstance(listed, list) else []


def _token(entry: Mapping[str, Any]) -> tuple[str, float]:
    logprob = entry.get("logprob")
    number = isinstance(logprob, int | float) and not isinstance(logprob, bool)
    return _word(entry.get("token")), float(logprob) if number else math.nan  # type: ignore[arg-type]


def _word(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= WORDS else f"{words[:WORDS]}..."


def _count(usage: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        number = usage.get(name)
        if isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number) and number >= 0:
            return math.ceil(number)
    return None


def _text(content: Any) -> str:
    """Content of a message: a text, or a list of parts of which some are text, or nothing."""
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content)
    if content is not None and not isinstance(content, str):
        raise TypeError(content)
    return content or ""
