"""The arguments of an endpoint, checked once: whom to ask, how, and how much may be asked."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from holdfast.errors import ArgumentError, count_of, require
from holdfast.llm.address import Address, Secrets, secrets_of
from holdfast.llm.client_transport import ClientTransport
from holdfast.llm.pace import TokenBucket
from holdfast.llm.transport import HttpTransport, Transport, proxy_of
from holdfast.llm.usage import Account, Usage

Message = dict[str, str]
"""One turn of a conversation: `{"role": "user", "content": "..."}`."""

DEFAULT_URL = "https://api.openai.com/v1"
DEFAULT_KEY = "OPENAI_API_KEY"

PATHS = {"chat": "/chat/completions", "systemone": "/systemone"}
"""Where a protocol is spoken, below the base."""


class EndpointOptions(TypedDict, total=False):
    """The arguments of `Endpoint`, for what passes them on."""

    model: str
    base_url: str
    api_key_env: str | None
    headers: Mapping[str, str]
    client: Any
    protocol: str
    temperature: float | None
    extra: Mapping[str, Any]
    concurrency: int
    requests_per_minute: float | None
    timeout_s: float
    deadline_s: float | None
    attempts: int
    first_wait_s: float
    longest_wait_s: float
    max_requests: int | None
    max_cost: float | None
    price: tuple[float, float] | None


@dataclass(eq=False)
class EndpointSettings:
    """A model behind an endpoint, and how much may be asked of it. Several users may share one: it counts for all.

    Arguments:
        model: the model's name, as the server knows it.
        base_url: where the server is, up to and without `/chat/completions`; it may have a query, and a user and a
            password, which are sent as basic authorization. Proxies that the environment names are used, but never
            to this machine itself.
        api_key_env: environment variable that holds the key; `None`: the server needs none. It is not read where
            `headers` or `base_url` bring an authorization.
        headers: of every request, beside the usual ones.
        client: sends the requests in the place of an HTTP client: an object with `chat.completions.create`, such as
            `openai.OpenAI()` or `openai.AsyncOpenAI()`. It brings the address, the key and headers of its own.
        protocol: what is spoken: `"chat"`, the OpenAI chat protocol, or `"systemone"`, whose requests name options and
            whose answers are their probabilities.
        temperature: of the model's sampling; 0: its most likely answer; `None`: the server's default.
        extra: further fields of every request, for example `{"max_tokens": 500}`.
        concurrency: requests that are under way together.
        requests_per_minute: most requests that start in a minute, evenly spread; `None`: any number.
        timeout_s: seconds that one request may take, to the last byte of its answer.
        deadline_s: seconds that a question may take with all attempts and waits; `None`: as long as they take.
        attempts: how often one request is sent at most, where the server is busy or out of reach.
        first_wait_s: upper bound of the random wait before the second attempt; it doubles each time.
        longest_wait_s: the most that any such wait comes to. A server that asks for more is taken to be closed.
        max_requests: most requests; `None`: any number.
        max_cost: most that the tokens may cost: no request starts once it is reached, those under way are finished.
        price: of a million prompt tokens and of a million completion tokens, in any currency.

    Errors:
        ArgumentError: an argument cannot be used, or two do not go together.
        MissingExtraError: aiohttp or tenacity is not installed.
    """

    model: str
    base_url: str = field(default=DEFAULT_URL, repr=False)
    api_key_env: str | None = DEFAULT_KEY
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    client: Any = field(default=None, repr=False)
    protocol: str = "chat"
    temperature: float | None = 0.0
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)
    concurrency: int = 8
    requests_per_minute: float | None = None
    timeout_s: float = 120.0
    deadline_s: float | None = None
    attempts: int = 6
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    max_requests: int | None = None
    max_cost: float | None = None
    price: tuple[float, float] | None = None
    account: Account = field(init=False, repr=False)
    """What was asked so far, and where the budget ends."""
    pace: TokenBucket = field(init=False, repr=False)
    """When the next request may start."""
    _address: Address = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.client is None:
            require("aiohttp", "llm")
        require("tenacity", "llm")
        if not isinstance(self.model, str):
            raise ArgumentError("model", "the name of a model", self.model)
        if self.protocol not in PATHS:
            raise ArgumentError("protocol", " or ".join(PATHS), self.protocol)
        self._address = Address.of(self.base_url, PATHS[self.protocol])
        self._check_numbers()
        self._check_headers()
        try:
            json.dumps(dict(self.extra), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            problem = f"{type(error).__name__}: {error}"
            raise ArgumentError("extra", "fields that JSON can hold", problem) from None
        if self.client is not None:
            self._check_client()
        self.account = Account(self.max_requests, self.max_cost, self.price)
        self.pace = TokenBucket(self.requests_per_minute)

    def _check_numbers(self) -> None:
        for name, least in (("concurrency", 1), ("attempts", 1), ("max_requests", 0)):
            number = getattr(self, name)
            if number is not None or name != "max_requests":
                count_of(name, number, least)
        for name in ("max_cost", "first_wait_s", "longest_wait_s"):
            number = getattr(self, name)
            if not (_is_number(number) and number >= 0) and not (number is None and name == "max_cost"):
                raise ArgumentError(name, "at least 0", number)
        for name in ("timeout_s", "deadline_s", "requests_per_minute"):
            number = getattr(self, name)
            if not (_is_number(number) and number > 0) and not (number is None and name != "timeout_s"):
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
            ("protocol", self.protocol, "chat"),
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

    def check(self) -> None:
        """See that the key is there, and that a proxy can be used, before anything is asked.

        Errors:
            ArgumentError: see `transport`.
        """
        self.transport()

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
        return self.account.usage

    def body(self, messages: Sequence[Message], **fields: Any) -> dict[str, Any]:
        """What is sent in the chat protocol: what decides the answer, and no secret.

        Arguments:
            messages: the conversation so far.
            fields: of this request, beside `extra` and before it.
        """
        temperature = {} if self.temperature is None else {"temperature": self.temperature}
        return {"model": self.model, "messages": messages, **temperature, **self.extra, **fields}

    def hide(self, text: str) -> str:
        """A text in which no key and no password of this endpoint can be read."""
        key = "" if self.api_key_env is None else os.environ.get(self.api_key_env, "").strip()
        return self._secrets(key).hide(text)

    def count(self, *, answers: int = 0, cached: int = 0) -> None:
        """Count answers, which only those who ask can tell from requests."""
        self.account.count(answers=answers, cached=cached)

    def transport(self) -> tuple[Secrets, Transport]:
        """What must not be seen, and the way that requests take; the key is read here.

        Errors:
            ArgumentError: the environment variable of the key is not set, or the proxy cannot be used.
        """
        if self.client is not None:
            secrets = self._secrets("")
            return secrets, ClientTransport(self.client, self.url, secrets)
        headers = dict(self.headers)
        key = ""
        if self._address.authorization:
            headers["Authorization"] = self._address.authorization
        elif self.api_key_env is not None and not self._authorized:
            key = _key_in(self.api_key_env)
            headers["Authorization"] = f"Bearer {key}"
        proxy = proxy_of(self._address)
        secrets = self._secrets(key, *(proxy.secrets if proxy else ()))
        return secrets, HttpTransport(self._address, proxy, headers, secrets, self.concurrency)

    @property
    def _authorized(self) -> bool:
        return any(name.lower() == "authorization" for name in self.headers)

    def _secrets(self, *more: str) -> Secrets:
        of_client = getattr(self.client, "api_key", None)
        values = [*more, *self._address.secrets, *secrets_of(self.headers)]
        return Secrets([*values, of_client] if isinstance(of_client, str) else values)


def _key_in(name: str) -> str:
    """The key that an environment variable holds."""
    key = os.environ.get(name, "").strip()
    expected = "the name of an environment variable that holds the key, or None"
    if not key:
        raise ArgumentError("api_key_env", expected, f"{name}, which is not set")
    if not re.fullmatch(r"[!-~]+", key):
        # A header that cannot be sent would show up in the error, key and all.
        raise ArgumentError("api_key_env", expected, f"{name}, which holds spaces or odd characters")
    return key


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
