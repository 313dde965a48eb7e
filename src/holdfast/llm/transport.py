"""How one request travels: over HTTP, or through a client object of the caller's. Both end in time.

All that is asynchronous runs in one event loop, in a thread of its own that does not keep the program alive.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import inspect
import json
import os
import ssl
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

from holdfast.errors import ArgumentError
from holdfast.llm.address import Address, Secrets
from holdfast.llm.errors import EndpointError

MOST_BYTES = 1 << 26
"""Bytes of the longest body that is read."""

LOGGERS = ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.proxy", "openai", "openai._base_client")
"""Loggers that write addresses and headers."""


@dataclass(frozen=True)
class Reply:
    """What came back.

    Arguments:
        status: of HTTP.
        text: the body.
        headers: with names in small letters.
    """

    status: int
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Transport(Protocol):
    """Carries requests, from several threads at once."""

    def send(self, body: Mapping[str, Any]) -> Reply:
        """Send one request, and wait for the whole of its answer.

        Errors:
            EndpointError: there was none, or not in time, or `give_up` was called.
        """

    def give_up(self) -> None:
        """End all requests that are under way, now."""

    def close(self) -> None:
        """Leave nothing open."""


class _UnderWay:
    """Requests that are under way, each as a future."""

    def __init__(self, timeout_s: float, shown: str) -> None:
        self._futures: set[concurrent.futures.Future[Reply]] = set()
        self._lock = threading.Lock()
        self.timeout_s = None if timeout_s == float("inf") else timeout_s
        self.shown = shown

    def wait(self, future: concurrent.futures.Future[Reply]) -> Reply:
        with self._lock:
            self._futures.add(future)
        try:
            return future.result(self.timeout_s)
        except concurrent.futures.CancelledError:
            raise EndpointError("given up, as another request failed") from None
        except TimeoutError:
            future.cancel()
            raise EndpointError(f"no answer from {self.shown}: not whole within {self.timeout_s:g} s", True) from None
        finally:
            with self._lock:
                self._futures.discard(future)

    def give_up(self) -> None:
        with self._lock:
            futures = list(self._futures)
        for future in futures:
            future.cancel()


class HttpTransport:
    """POST requests to one address, over connections that are kept.

    Arguments:
        address: where they go.
        headers: of every request.
        secrets: what errors must not show.
        timeout_s: seconds that a request may take from its start to the last byte of its answer.
        connections: most of them that are open together.

    Errors:
        ArgumentError: a proxy that the environment names cannot be used.
    """

    def __init__(
        self, address: Address, headers: Mapping[str, str], secrets: Secrets, timeout_s: float, connections: int
    ) -> None:
        import httpx

        self._address, self._secrets = address, secrets
        limits = httpx.Limits(max_connections=connections)
        try:
            self._client = httpx.AsyncClient(headers=dict(headers), timeout=None, limits=limits, verify=_certificates())
        except (ImportError, ValueError) as error:
            raise ArgumentError("base_url", "proxies in the environment that can be used", str(error)) from None
        self._under_way = _UnderWay(timeout_s, address.shown)

    def send(self, body: Mapping[str, Any]) -> Reply:
        content = json.dumps(body, allow_nan=False).encode()
        return self._under_way.wait(asyncio.run_coroutine_threadsafe(self._post(content), background_loop()))

    def give_up(self) -> None:
        self._under_way.give_up()

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._client.aclose(), background_loop())

    async def _post(self, content: bytes) -> Reply:
        import httpx

        shown = self._address.shown
        try:
            async with self._client.stream(
                "POST", self._address.url, content=content, headers={"Content-Type": "application/json"}
            ) as response:
                parts, size = [], 0
                async for part in response.aiter_bytes():
                    size += len(part)
                    if size > MOST_BYTES:
                        raise EndpointError(f"{shown} answered with more than {MOST_BYTES >> 20} MiB")
                    parts.append(part)
                text = b"".join(parts).decode(response.charset_encoding or "utf-8", "replace")
                headers = {name.lower(): value for name, value in response.headers.items()}
                return Reply(response.status_code, text, headers)
        except (httpx.RequestError, httpx.InvalidURL, httpx.StreamError, LookupError, RuntimeError) as error:
            words = self._secrets.hide(f"{type(error).__name__} {error}".rstrip())
            raise EndpointError(f"no answer from {shown}: {words}", True) from None


@cache
def _certificates() -> ssl.SSLContext:
    """Whom to trust; it takes a while to load, and is the same for all requests."""
    import httpx

    return httpx.create_ssl_context()


class ClientTransport:
    """Requests through an object that has `chat.completions.create`, as the clients of OpenAI and of others do.

    Arguments:
        client: the object; its `create` may be a coroutine function. Its own attempts are turned off where it has
            `with_options`, for attempts are counted here.
        shown: how errors name it.
        secrets: what errors must not show.
        timeout_s: seconds that a request may take.
    """

    def __init__(self, client: Any, shown: str, secrets: Secrets, timeout_s: float) -> None:
        with contextlib.suppress(Exception):
            client = client.with_options(max_retries=0)
        self._create: Callable[..., Any] = client.chat.completions.create
        self._shown, self._secrets = shown, secrets
        self._under_way = _UnderWay(timeout_s, shown)

    def send(self, body: Mapping[str, Any]) -> Reply:
        future: concurrent.futures.Future[Reply] = concurrent.futures.Future()

        def settle(settled: Callable[[], None]) -> None:
            # It may have been given up meanwhile.
            with contextlib.suppress(concurrent.futures.InvalidStateError):
                settled()

        def work() -> None:
            try:
                answer = self._create(**body)
                if inspect.isawaitable(answer):
                    answer = asyncio.run_coroutine_threadsafe(_awaited(answer), background_loop()).result()
                reply = Reply(200, json.dumps(_plain(answer), default=_plain))
            except BaseException as error:
                problem = self._problem(error)
                if isinstance(problem, Reply):
                    settle(lambda: future.set_result(problem))
                else:
                    settle(lambda: future.set_exception(problem))
            else:
                settle(lambda: future.set_result(reply))

        threading.Thread(target=work, daemon=True).start()
        return self._under_way.wait(future)

    def give_up(self) -> None:
        self._under_way.give_up()

    def close(self) -> None:
        """The client is the caller's, and stays open."""

    def _problem(self, error: BaseException) -> Reply | EndpointError:
        """What a client raised: a refusal of the server as the reply that it was, anything else as an error."""
        words = self._secrets.hide(f"{type(error).__name__}: {error}")
        status = getattr(error, "status_code", None)
        response = getattr(error, "response", None)
        if isinstance(status, int):
            headers = getattr(response, "headers", None) or {}
            text = getattr(response, "text", None)
            plain = {str(name).lower(): str(value) for name, value in dict(headers).items()}
            return Reply(status, text if isinstance(text, str) and text else words, plain)
        passing = any(word in type(error).__name__ for word in ("Timeout", "Connect", "Connection"))
        return EndpointError(f"no answer from {self._shown}: {words}", passing)


def _plain(answer: Any) -> Any:
    """An answer, or a part of one, as dicts and lists."""
    for name in ("model_dump", "to_dict", "dict"):
        convert = getattr(answer, name, None)
        if callable(convert) and not isinstance(answer, type):
            return convert()
    if isinstance(answer, Mapping):
        return dict(answer)
    return answer if isinstance(answer, str | int | float | list | None) else vars(answer)


async def _awaited(answer: Awaitable[Any]) -> Any:
    return await answer


_loops: dict[int, asyncio.AbstractEventLoop] = {}
_loops_lock = threading.Lock()


def background_loop() -> asyncio.AbstractEventLoop:
    """The event loop of this process, running in a thread of its own."""
    with _loops_lock:
        loop = _loops.get(os.getpid())  # a forked process has the loop of its parent, and not its thread
        if loop is None:
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="holdfast-llm", daemon=True).start()
            _loops[os.getpid()] = loop
        return loop
