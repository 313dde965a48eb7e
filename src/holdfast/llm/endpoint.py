"""A chat model behind an endpoint that speaks the OpenAI chat protocol (`POST {base_url}/chat/completions`).

A provider's will do, or your own vLLM, llama.cpp or Ollama. An `Endpoint` sends conversations, some at a time; tries
again what the network or a busy server spoiled; counts requests, tokens and their price; and stops where the budget
ends. The key is read from the environment when it is needed, and is nowhere kept or printed.
"""

from __future__ import annotations

import email.utils
import itertools
import json
import math
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from holdfast.errors import ArgumentError, count_of, require
from holdfast.llm.address import Address, Secrets, secrets_of
from holdfast.llm.completion import Completion, completion_of, tokens_of, words_of
from holdfast.llm.errors import BudgetSpent, EndpointError
from holdfast.llm.transport import LOGGERS, ClientTransport, HttpTransport, Reply, Transport

if TYPE_CHECKING:
    import tenacity

PASSING = (408, 409, 425, 429)
"""Statuses below 500 that a later attempt may not meet."""

Message = dict[str, str]
"""One turn of a conversation: `{"role": "user", "content": "..."}`."""

Item = TypeVar("Item")
Result = TypeVar("Result")


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


class EndpointOptions(TypedDict, total=False):
    """The arguments of `Endpoint`, for what passes them on."""

    model: str
    base_url: str
    api_key_env: str | None
    headers: Mapping[str, str]
    client: Any
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


DEFAULT_URL = "https://api.openai.com/v1"
DEFAULT_KEY = "OPENAI_API_KEY"

GRACE_S = 0.3
"""Seconds that requests under way get to come back once the user has interrupted."""


@dataclass(eq=False)
class Endpoint:
    """A chat model, and how much may be asked of it. Several users may share one: it counts for all of them.

    Arguments:
        model: the model's name, as the server knows it.
        base_url: where the server is, up to and without `/chat/completions`; it may have a query, and a user and a
            password, which are sent as basic authorization.
        api_key_env: environment variable that holds the key; `None`: the server needs none. It is not read where
            `headers` or `base_url` bring an authorization.
        headers: of every request, beside the usual ones.
        client: sends the requests in the place of an HTTP client: an object with `chat.completions.create`, such as
            `openai.OpenAI()` or `openai.AsyncOpenAI()`. It brings the address, the key and headers of its own.
        temperature: of the model's sampling; 0: its most likely answer; `None`: the server's default.
        extra: further fields of every request, for example `{"max_tokens": 500}`.
        concurrency: requests that are under way together.
        requests_per_minute: most requests that start in a minute, evenly spread; `None`: any number.
        timeout_s: seconds that one request may take, to the last byte of its answer.
        attempts: how often one request is sent at most, where the server is busy or out of reach.
        first_wait_s: upper bound of the random wait before the second attempt; it doubles each time.
        longest_wait_s: the most that any such wait comes to. A server that asks for more is taken to be closed.
        max_requests: most requests; `None`: any number.
        max_cost: most that the tokens may cost: no request starts once it is reached, those under way are finished.
        price: of a million prompt tokens and of a million completion tokens, in any currency.

    Errors:
        ArgumentError: an argument cannot be used, or two do not go together.
        MissingExtraError: httpx or tenacity is not installed.
    """

    model: str
    base_url: str = field(default=DEFAULT_URL, repr=False)
    api_key_env: str | None = DEFAULT_KEY
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    client: Any = field(default=None, repr=False)
    temperature: float | None = 0.0
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)
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
    _address: Address = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.client is None:
            require("httpx", "llm")
        require("tenacity", "llm")
        if not isinstance(self.model, str):
            raise ArgumentError("model", "the name of a model", self.model)
        self._address = Address.of(self.base_url)
        self._check_numbers()
        self._check_headers()
        try:
            json.dumps(dict(self.extra), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            problem = f"{type(error).__name__}: {error}"
            raise ArgumentError("extra", "fields that JSON can hold", problem) from None
        if self.client is not None:
            self._check_client()
        self._usage = Usage(cost=None if self.price is None else 0.0)

    def _check_numbers(self) -> None:
        for name, least in (("concurrency", 1), ("attempts", 1), ("max_requests", 0)):
            number = getattr(self, name)
            if number is not None or name != "max_requests":
                count_of(name, number, least)
        for name in ("max_cost", "first_wait_s", "longest_wait_s"):
            number = getattr(self, name)
            if not (_is_number(number) and number >= 0) and not (number is None and name == "max_cost"):
                raise ArgumentError(name, "at least 0", number)
        for name in ("timeout_s", "requests_per_minute"):
            number = getattr(self, name)
            if not (_is_number(number) and number > 0) and not (number is None and name == "requests_per_minute"):
                raise ArgumentError(name, "more than 0", number)
        if self.temperature is not None and not (_is_number(self.temperature) and self.temperature >= 0):
            raise ArgumentError("temperature", "a number of at least 0, or None", self.temperature)
        if self.price is not None:
            pair = isinstance(self.price, Sequence) and len(self.price) == 2
            if not pair or not all(_is_number(part) and 0 <= part < math.inf for part in self.price):
                raise ArgumentError("price", "two numbers of at least 0", self.price)
        if self.max_cost is not None and self.price is None:
            raise ArgumentError("price", "a price, as there is a max_cost", self.price)

    def _check_headers(self) -> None:
        if not isinstance(self.headers, Mapping):
            raise ArgumentError("headers", "a mapping of names to texts", type(self.headers).__name__)
        for name, value in self.headers.items():
            # What cannot be sent would show up in the error of the HTTP client, key and all.
            if not isinstance(name, str) or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
                raise ArgumentError("headers", "names of headers", name)
            if not isinstance(value, str) or not re.fullmatch(r"[!-~]([ -~\t]*[!-~])?|", value):
                raise ArgumentError("headers", "texts of plain characters", f"another value of {name}")
        if self._authorized and self.api_key_env not in (None, DEFAULT_KEY):
            raise ArgumentError("headers", "no authorization beside api_key_env", self.api_key_env)
        if self._address.authorization and (self._authorized or self.api_key_env not in (None, DEFAULT_KEY)):
            raise ArgumentError("base_url", "no user and password beside another key", self._address.shown)

    def _check_client(self) -> None:
        for name, value, default in (
            ("base_url", self.base_url, DEFAULT_URL),
            ("headers", dict(self.headers), {}),
        ):
            if value != default:
                raise ArgumentError(name, "none beside a client, which has its own", "one")
        if self.api_key_env not in (None, DEFAULT_KEY):
            raise ArgumentError("api_key_env", "none beside a client, which has its own key", self.api_key_env)
        try:
            callable_there = callable(self.client.chat.completions.create)
        except AttributeError:
            callable_there = False
        if not callable_there:
            expected = "an object with chat.completions.create, such as openai.OpenAI()"
            raise ArgumentError("client", expected, type(self.client).__name__)

    @property
    def url(self) -> str:
        """Where requests go, without keys and passwords."""
        if self.client is None:
            return self._address.shown
        base_url = getattr(self.client, "base_url", None)
        try:
            return Address.of(str(base_url)).shown
        except ArgumentError:
            return type(self.client).__name__

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

        The first that fails for good ends the others: what has not started stays so, waits are cut short, and requests
        under way are finished. An interrupt ends these too. So `talk` should keep each result where it outlives an
        error.

        Arguments:
            talk: a line to the endpoint and an item -> the result; it is called in threads.
            items: the items.

        Returns:
            The results in the order of the items.

        Errors:
            See `complete_all`; and what `talk` raises.
        """
        if not items:
            return []
        secrets, transport = self._open()
        line = Line(self, transport, secrets)
        talks = _Talks(line, talk, items)
        with secrets.kept_out_of_logs(*LOGGERS):
            try:
                talks.start(min(self.concurrency, len(items)))
                talks.ended.wait()
            except BaseException:  # an interrupt
                line.closing.set()
                talks.ended.wait(GRACE_S)
                transport.give_up()
                raise
            finally:
                transport.close()
        return talks.results()

    def hide(self, text: str) -> str:
        """A text in which no key and no password of this endpoint can be read."""
        key = "" if self.api_key_env is None else os.environ.get(self.api_key_env, "").strip()
        return self._secrets(key).hide(text)

    def count(self, *, answers: int = 0, cached: int = 0) -> None:
        """Count answers, which only those who ask can tell from requests."""
        with self._lock:
            usage = self._usage
            self._usage = replace(usage, answers=usage.answers + answers, cached=usage.cached + cached)

    @property
    def _authorized(self) -> bool:
        return any(name.lower() == "authorization" for name in self.headers)

    def _secrets(self, key: str) -> Secrets:
        of_client = getattr(self.client, "api_key", None)
        values = [key, *self._address.secrets, *secrets_of(self.headers)]
        return Secrets([*values, of_client] if isinstance(of_client, str) else values)

    def _open(self) -> tuple[Secrets, Transport]:
        """What must not be seen, and the way that requests take."""
        if self.client is not None:
            secrets = self._secrets("")
            return secrets, ClientTransport(self.client, self.url, secrets, self.timeout_s)
        headers = dict(self.headers)
        key = ""
        if self._address.authorization:
            headers["Authorization"] = self._address.authorization
        elif self.api_key_env is not None and not self._authorized:
            key = self._key(self.api_key_env)
            headers["Authorization"] = f"Bearer {key}"
        secrets = self._secrets(key)
        return secrets, HttpTransport(self._address, headers, secrets, self.timeout_s, self.concurrency)

    def _key(self, name: str) -> str:
        key = os.environ.get(name, "").strip()
        expected = "the name of an environment variable that holds the key, or None"
        if not key:
            raise ArgumentError("api_key_env", expected, f"{name}, which is not set")
        if not re.fullmatch(r"[!-~]+", key):
            # A header that cannot be sent would show up in the error, key and all.
            raise ArgumentError("api_key_env", expected, f"{name}, which holds spaces or odd characters")
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

    def _charge(self, answer: Any) -> bool:
        """Count the tokens that a body reports, whatever else it says; whether it reports any."""
        tokens = tokens_of(answer)
        if tokens is None:
            return False
        prompt, completion = tokens
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
        return True


class Line:
    """A connection to an endpoint, for the time of one `Endpoint.map`; used by several threads."""

    def __init__(self, endpoint: Endpoint, transport: Transport, secrets: Secrets) -> None:
        self.endpoint = endpoint
        self.closing = threading.Event()
        """Set once a request has failed for good: the others need not be tried again."""
        self._transport = transport
        self._secrets = secrets

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
        try:
            json.dumps(body, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ArgumentError("fields", "what JSON can hold", f"{type(error).__name__}: {error}") from None
        backoff = tenacity.wait_random_exponential(multiplier=endpoint.first_wait_s, max=endpoint.longest_wait_s)
        attempts = itertools.count()

        def send() -> Completion:
            attempt = next(attempts)
            if self.closing.wait(endpoint._turn_s()):
                raise EndpointError("given up, as another request failed")
            endpoint._start(retry=attempt > 0, repair=repair and attempt == 0)
            return self._read(self._transport.send(body))

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

    def _read(self, reply: Reply) -> Completion:
        """The completion in a reply, which is charged in any case."""
        url = self.endpoint.url
        try:
            answer = json.loads(reply.text)
        except (ValueError, RecursionError):
            answer = None
        metered = self.endpoint._charge(answer)
        words = words_of(self._secrets.hide(reply.text))
        if not 200 <= reply.status < 300:
            # A quota that is used up has the status of too many requests, and no wait mends it.
            passing = reply.status in PASSING or reply.status >= 500
            passing &= "insufficient_quota" not in reply.text
            raise EndpointError(f"{url} answered {reply.status}: {words}", passing, _retry_after(reply.headers))
        try:
            completion = completion_of(answer)
        except (ValueError, LookupError, TypeError, AttributeError):
            problem = f"{url} answered with something other than a chat completion: {words}"
            raise EndpointError(problem.rstrip(": "), True) from None
        if not metered and self.endpoint.max_cost is not None:
            raise EndpointError(f"{url} reports no usage, so that max_cost cannot be kept")
        return completion


class _Talks:
    """Threads that work through the items until all are done or one has failed. They do not keep the program alive."""

    def __init__(self, line: Line, talk: Callable[[Line, Any], Any], items: Sequence[Any]) -> None:
        self.ended = threading.Event()
        self._line, self._talk = line, talk
        self._items = iter(enumerate(items))
        self._results: list[Any] = [None] * len(items)
        self._errors: list[BaseException] = []
        self._lock = threading.Lock()
        self._working = 0

    def start(self, count: int) -> None:
        self._working = count
        for _ in range(count):
            threading.Thread(target=self._work, daemon=True).start()

    def results(self) -> list[Any]:
        if self._errors:
            raise self._errors[0]
        return self._results

    def _work(self) -> None:
        try:
            while not self._line.closing.is_set():
                with self._lock:
                    numbered = next(self._items, None)
                if numbered is None:
                    return
                self._results[numbered[0]] = self._talk(self._line, numbered[1])
        except BaseException as error:
            with self._lock:
                self._errors.append(error)
            self._line.closing.set()
        finally:
            with self._lock:
                self._working -= 1
                last = self._working == 0
            if last:
                self.ended.set()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait: it gives a number, or a date."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, seconds) if seconds < float("inf") else None


def _raised(state: tenacity.RetryCallState) -> EndpointError:
    error = None if state.outcome is None else state.outcome.exception()
    assert isinstance(error, EndpointError)
    return error
