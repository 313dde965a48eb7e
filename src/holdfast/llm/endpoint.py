"""A chat model behind an endpoint that speaks the OpenAI chat protocol (`POST {base_url}/chat/completions`).

A provider's will do, or your own vLLM, llama.cpp or Ollama. An `Endpoint` sends conversations, some at a time; tries
again what the network or a busy server spoiled; counts requests, tokens and their price; and stops where the budget
ends. The key is read from the environment when it is needed, and is nowhere kept or printed.
"""

from __future__ import annotations

import email.utils
import itertools
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from holdfast.errors import ArgumentError, HoldfastError, require

if TYPE_CHECKING:
    import httpx
    import tenacity

PASSING = (408, 409, 425, 429)
"""Statuses below 500 that a later attempt may not meet."""

Message = dict[str, str]
"""One turn of a conversation: `{"role": "user", "content": "..."}`."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class EndpointError(HoldfastError):
    """The endpoint did not answer, or refused to.

    Arguments:
        problem: what happened, in words, without the key.
        passing: a later attempt may succeed.
        retry_after_s: seconds after which the server asks to be tried again.
    """

    def __init__(self, problem: str, passing: bool = False, retry_after_s: float | None = None) -> None:
        super().__init__(problem, passing, retry_after_s)
        self.problem, self.passing, self.retry_after_s = problem, passing, retry_after_s

    def __str__(self) -> str:
        return self.problem


class BudgetSpent(HoldfastError):
    """No further request is allowed: `max_requests` or `max_cost` is spent.

    Arguments:
        limit: name of the limit.
        allowed: its value.
        spent: what was spent.
    """

    def __init__(self, limit: str, allowed: float, spent: float) -> None:
        super().__init__(limit, allowed, spent)
        self.limit, self.allowed, self.spent = limit, allowed, spent

    def __str__(self) -> str:
        return f"{self.limit}: {self.allowed:g} are allowed, {self.spent:g} are spent; answers so far are kept"


@dataclass(frozen=True)
class Usage:
    """What was asked of an endpoint so far.

    Arguments:
        requests: HTTP requests that were sent, failed ones included.
        retries: those of them that repeat one that failed.
        repairs: those of them that send a malformed answer back.
        answers: questions that the model answered.
        cached: questions that were answered by what was kept.
        prompt_tokens: tokens that went in, as the server counts them.
        completion_tokens: tokens that came out.
        cost: price of these tokens; `None` if no price was given.
    """

    requests: int = 0
    retries: int = 0
    repairs: int = 0
    answers: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None


@dataclass(frozen=True)
class Completion:
    """The model's next message.

    Arguments:
        text: its text; empty where it has none.
        cut_off: it ran out of completion tokens before its end.
        choice: all that the server says of it, such as the log-probabilities of its tokens where they were asked for.
    """

    text: str
    cut_off: bool
    choice: Mapping[str, Any] = field(repr=False)


class EndpointOptions(TypedDict, total=False):
    """The arguments of `Endpoint`, for what passes them on."""

    model: str
    base_url: str
    api_key_env: str | None
    temperature: float | None
    extra: Mapping[str, Any]
    concurrency: int
    requests_per_minute: float | None
    timeout_s: float
    attempts: int
    first_wait_s: float
    longest_wait_s: float
    max_requests: int | None
    max_cost: float | None
    price: tuple[float, float] | None


@dataclass(eq=False)
class Endpoint:
    """A chat model, and how much may be asked of it. Several users may share one: it counts for all of them.

    Arguments:
        model: the model's name, as the server knows it.
        base_url: where the server is, up to and without `/chat/completions`.
        api_key_env: environment variable that holds the key; `None`: the server needs none.
        temperature: of the model's sampling; 0: its most likely answer; `None`: the server's default.
        extra: further fields of every request, for example `{"max_tokens": 500}`.
        concurrency: requests that are under way together.
        requests_per_minute: most requests that start in a minute, evenly spread; `None`: any number.
        timeout_s: seconds to wait for one answer.
        attempts: how often one request is sent at most, where the server is busy or out of reach.
        first_wait_s: upper bound of the random wait before the second attempt; it doubles each time.
        longest_wait_s: the most that any such wait comes to. A server that asks for more is taken to be closed.
        max_requests: most HTTP requests; `None`: any number.
        max_cost: most that the tokens may cost: no request starts once it is reached, those under way are finished.
        price: of a million prompt tokens and of a million completion tokens, in any currency.

    Errors:
        ArgumentError: an argument cannot be used.
        MissingExtraError: httpx or tenacity is not installed.
    """

    model: str
    base_url: str = "https://api.openai.com/v1"
    api_key_env: str | None = "OPENAI_API_KEY"
    temperature: float | None = 0.0
    extra: Mapping[str, Any] = field(default_factory=dict)
    concurrency: int = 8
    requests_per_minute: float | None = None
    timeout_s: float = 120.0
    attempts: int = 6
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    max_requests: int | None = None
    max_cost: float | None = None
    price: tuple[float, float] | None = None
    _usage: Usage = field(init=False, repr=False)
    _lock: threading.Lock = field(init=False, repr=False, default_factory=threading.Lock)
    _next_start: float = field(init=False, repr=False, default=0.0)

    def __post_init__(self) -> None:
        require("httpx", "llm")
        require("tenacity", "llm")
        if not self.base_url.startswith(("http://", "https://")):
            raise ArgumentError("base_url", "an address that starts with http:// or https://", self.base_url)
        for name, least in (
            ("concurrency", 1),
            ("attempts", 1),
            ("max_requests", 0),
            ("max_cost", 0),
            ("first_wait_s", 0),
            ("longest_wait_s", 0),
        ):
            number = getattr(self, name)
            if number is not None and number < least:
                raise ArgumentError(name, f"at least {least}", number)
        for name in ("timeout_s", "requests_per_minute"):
            number = getattr(self, name)
            if number is not None and number <= 0:
                raise ArgumentError(name, "more than 0", number)
        if self.max_cost is not None and self.price is None:
            raise ArgumentError("price", "a price, as there is a max_cost", self.price)
        self._usage = Usage(cost=None if self.price is None else 0.0)

    @property
    def url(self) -> str:
        """Where requests go."""
        return self.base_url.rstrip("/") + "/chat/completions"

    @property
    def usage(self) -> Usage:
        """What was asked so far."""
        return self._usage

    def body(self, messages: Sequence[Message], **fields: Any) -> dict[str, Any]:
        """What is sent: what decides the answer, and no secret.

        Arguments:
            messages: the conversation so far.
            fields: of this request, beside `extra` and before it.
        """
        temperature = {} if self.temperature is None else {"temperature": self.temperature}
        return {"model": self.model, "messages": messages, **temperature, **self.extra, **fields}

    def complete(self, messages: Sequence[Message], **fields: Any) -> Completion:
        """The model's next message in one conversation; see `complete_all`."""
        return self.complete_all([messages], **fields)[0]

    def complete_all(self, conversations: Sequence[Sequence[Message]], **fields: Any) -> list[Completion]:
        """The model's next message in many conversations, in their order.

        Arguments:
            conversations: each of them so far.
            fields: of these requests, beside `extra` and before it, for example `max_tokens=1, logprobs=True`.

        Errors:
            BudgetSpent: `max_requests` or `max_cost` is reached.
            EndpointError: the endpoint refuses, or was busy or out of reach at every attempt.
            ArgumentError: the environment variable of the key is not set.
        """

        def talk(line: Line, messages: Sequence[Message]) -> Completion:
            completion = line.complete(messages, **fields)
            self.count(answers=1)
            return completion

        return self.map(talk, conversations)

    def map(self, talk: Callable[[Line, Item], Result], items: Sequence[Item]) -> list[Result]:
        """Do for many items what takes one request or several each, `concurrency` of them at a time.

        The first that fails for good ends the others: what has not started stays so, and waits are cut short. So `talk`
        should keep each result where it outlives an error.

        Arguments:
            talk: a line to the endpoint and an item -> the result; it is called in threads.
            items: the items.

        Returns:
            The results in the order of the items.

        Errors:
            See `complete_all`; and what `talk` raises.
        """
        import httpx

        if not items:
            return []
        key = self._key()
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        limits = httpx.Limits(max_connections=self.concurrency)
        with (
            httpx.Client(headers=headers, timeout=self.timeout_s, limits=limits) as client,
            ThreadPoolExecutor(min(self.concurrency, len(items))) as pool,
        ):
            line = Line(self, client, key)
            talks = [pool.submit(talk, line, item) for item in items]
            try:
                for done in wait(talks, return_when=FIRST_EXCEPTION).done:
                    done.result()
            except BaseException:
                line.closing.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            return [done.result() for done in talks]

    def count(self, *, answers: int = 0, cached: int = 0) -> None:
        """Count answers, which only those who ask can tell from requests."""
        with self._lock:
            usage = self._usage
            self._usage = replace(usage, answers=usage.answers + answers, cached=usage.cached + cached)

    def _key(self) -> str | None:
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "").strip()
        expected = "the name of an environment variable that holds the key, or None"
        if not key:
            raise ArgumentError("api_key_env", expected, f"{self.api_key_env}, which is not set")
        if not re.fullmatch(r"[!-~]+", key):
            # A header that cannot be sent would show up in the error, key and all.
            raise ArgumentError("api_key_env", expected, f"{self.api_key_env}, which holds spaces or odd characters")
        return key

    def _turn_s(self) -> float:
        """Take the next turn, and say in how many seconds it is."""
        if self.requests_per_minute is None:
            return 0.0
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next_start)
            self._next_start = start + 60 / self.requests_per_minute
            return start - now

    def _start(self, *, retry: bool, repair: bool) -> None:
        """Count a request, if the budget has room for it."""
        with self._lock:
            usage = self._usage
            if self.max_requests is not None and usage.requests >= self.max_requests:
                raise BudgetSpent("max_requests", self.max_requests, usage.requests)
            if self.max_cost is not None and (usage.cost or 0.0) >= self.max_cost:
                raise BudgetSpent("max_cost", self.max_cost, usage.cost or 0.0)
            self._usage = replace(
                usage,
                requests=usage.requests + 1,
                retries=usage.retries + retry,
                repairs=usage.repairs + repair,
            )

    def _charge(self, tokens: Any) -> None:
        try:
            prompt, completion = int(tokens["prompt_tokens"]), int(tokens["completion_tokens"])
        except (TypeError, LookupError, ValueError):
            if self.max_cost is not None:
                raise EndpointError(f"{self.url} reports no usage, so that max_cost cannot be kept") from None
            return
        with self._lock:
            cost = None
            if self.price is not None:
                cost = (self._usage.cost or 0.0) + (prompt * self.price[0] + completion * self.price[1]) / 1e6
            self._usage = replace(
                self._usage,
                prompt_tokens=self._usage.prompt_tokens + prompt,
                completion_tokens=self._usage.completion_tokens + completion,
                cost=cost,
            )


class Line:
    """A connection to an endpoint, for the time of one `Endpoint.map`; used by several threads."""

    def __init__(self, endpoint: Endpoint, client: httpx.Client, key: str | None) -> None:
        self.endpoint = endpoint
        self.closing = threading.Event()
        """Set once a request has failed for good: the others need not be tried again."""
        self._client = client
        self._key = key

    def complete(self, messages: Sequence[Message], *, repair: bool = False, **fields: Any) -> Completion:
        """The model's next message; the request is sent again where that may help.

        Arguments:
            messages: the conversation so far.
            repair: the last message sends a malformed answer back; it is counted as such.
            fields: of the request, beside `Endpoint.extra` and before it.

        Errors:
            See `Endpoint.complete_all`.
        """
        import tenacity

        endpoint = self.endpoint
        body = endpoint.body(messages, **fields)
        backoff = tenacity.wait_random_exponential(multiplier=endpoint.first_wait_s, max=endpoint.longest_wait_s)
        attempts = itertools.count()

        def send() -> Completion:
            attempt = next(attempts)
            if self.closing.wait(endpoint._turn_s()):
                raise EndpointError("given up, as another request failed")
            endpoint._start(retry=attempt > 0, repair=repair and attempt == 0)
            return self._send(body)

        def pause(state: tenacity.RetryCallState) -> float:
            told = _raised(state).retry_after_s
            # All who were told to come back at one time would come together.
            return backoff(state) if told is None else told + min(backoff(state), endpoint.first_wait_s)

        def stop(state: tenacity.RetryCallState) -> bool:
            too_long = (_raised(state).retry_after_s or 0) > endpoint.longest_wait_s
            return state.attempt_number >= endpoint.attempts or too_long

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, EndpointError) and error.passing),
            wait=pause,
            stop=stop,
            sleep=tenacity.sleep_using_event(self.closing),
            reraise=True,
        )
        return retrying(send)

    def _send(self, body: dict[str, Any]) -> Completion:
        import httpx

        url = self.endpoint.url
        try:
            response = self._client.post(url, json=body)
        except httpx.RequestError as error:
            raise EndpointError(f"no answer from {url}: {type(error).__name__} {error}".rstrip(), True) from error
        if not response.is_success:
            raise self._refusal(response)
        try:
            answer = response.json()
            choice = answer["choices"][0]
            completion = Completion(_text(choice["message"].get("content")), _cut_off(choice), choice)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise EndpointError(f"{url} answered with something other than a chat completion", True) from error
        self.endpoint._charge(answer.get("usage"))
        return completion

    def _refusal(self, response: httpx.Response) -> EndpointError:
        text = response.text.strip()
        if self._key:
            text = text.replace(self._key, "***")
        text = text[:300]
        # A quota that is used up has the status of too many requests, and no wait mends it.
        passing = response.status_code in PASSING or response.status_code >= 500
        passing &= "insufficient_quota" not in text
        problem = f"{self.endpoint.url} answered {response.status_code}: {text}"
        return EndpointError(problem, passing, _retry_after(response.headers))


def _text(content: Any) -> str:
    """Content of a message: a text, or a list of parts of which some are text, or nothing."""
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content)
    if content is not None and not isinstance(content, str):
        raise TypeError(content)
    return content or ""


def _cut_off(choice: Mapping[str, Any]) -> bool:
    return choice.get("finish_reason") == "length"


def _retry_after(headers: httpx.Headers) -> float | None:
    """Seconds that a server asks to wait: it gives a number, or a date."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if seconds < float("inf") else None


def _raised(state: tenacity.RetryCallState) -> EndpointError:
    error = None if state.outcome is None else state.outcome.exception()
    assert isinstance(error, EndpointError)
    return error
