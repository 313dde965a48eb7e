"""An endpoint asked from one event loop: the one place where requests are sent, tried again and read.

`Endpoint` is the same for callers who are not asynchronous.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from holdfast.errors import ArgumentError
from holdfast.llm.completion import Completion, completion_of, words_of
from holdfast.llm.errors import EndpointError
from holdfast.llm.retries import refusal_of, retrying
from holdfast.llm.settings import EndpointSettings, Message
from holdfast.llm.transport import Reply

Item = TypeVar("Item")
Result = TypeVar("Result")

LOGGERS = ("aiohttp.client", "aiohttp.internal", "asyncio", "httpx", "httpcore", "openai", "openai._base_client")
"""Loggers that may write addresses and headers."""


class AsyncEndpoint:
    """An open line to a model: `async with AsyncEndpoint(settings) as model:`.

    Once a request has failed for good, or the block is left, what has not started stays so.

    Arguments:
        settings: whom to ask, and how much may be asked; the counts are kept there.

    Errors:
        ArgumentError: the environment variable of the key is not set.
    """

    def __init__(self, settings: EndpointSettings) -> None:
        self.settings = settings
        self.secrets, self._transport = settings.transport()
        self._closing = asyncio.Event()
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._under_way: set[asyncio.Task[Any]] = set()
        self._open = contextlib.ExitStack()

    async def __aenter__(self) -> AsyncEndpoint:
        self._open.enter_context(self.secrets.kept_out_of_logs(*LOGGERS))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()
        for task in list(self._under_way):
            task.cancel()
        with self._open:
            await self._transport.close()

    def end(self) -> None:
        """Start nothing more and cut waits short; requests under way are finished."""
        self._closing.set()

    async def complete(self, messages: Sequence[Message], *, repair: bool = False, **fields: Any) -> Completion:
        """The model's next message in one conversation; the request is sent again where that may help.

        Arguments:
            messages: the conversation so far.
            repair: the last message sends a malformed answer back; it is counted as such.
            fields: of the request, beside `extra` of the settings and before it.

        Errors:
            See `request`.
        """
        body = self.settings.body(messages, **fields)
        return await self.request(body, completion_of, expected="a chat completion", repair=repair)

    async def request(
        self,
        body: Mapping[str, Any],
        read: Callable[[Any], Result],
        *,
        expected: str,
        repair: bool = False,
        on_retry: Callable[[EndpointError], None] = lambda error: None,
    ) -> Result:
        """Send a body until its answer can be read.

        Arguments:
            body: what is sent, as JSON.
            read: parsed answer -> what it says; a `ValueError`, `LookupError`, `TypeError` or `AttributeError` of it
                means that the server sent something else.
            expected: what `read` reads, for the message of that error.
            repair: counted as one that sends a malformed answer back.
            on_retry: called with the error of every attempt that is followed by another.

        Errors:
            BudgetSpent: `max_requests` or `max_cost` is reached.
            EndpointError: the endpoint refuses, or was busy or out of reach at every attempt.
            ArgumentError: JSON cannot hold the body.
        """
        settings = self.settings
        try:
            json.dumps(body, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ArgumentError("fields", "what JSON can hold", f"{type(error).__name__}: {error}") from None
        attempts = itertools.count()
        end = time.monotonic() + settings.deadline_s if settings.deadline_s is not None else float("inf")
        earlier: EndpointError | None = None

        def remember(error: EndpointError) -> None:
            nonlocal earlier
            earlier = error
            on_retry(error)

        async def attempt() -> Result:
            number = next(attempts)
            async with self._slots:
                pause = settings.pace.take()
                if time.monotonic() + pause >= end:
                    late = f"no turn to ask {settings.url} within deadline_s of {settings.deadline_s:g} s"
                    raise earlier or EndpointError(late)
                await self._wait(pause)
                settings.account.start(retry=number > 0, repair=repair and number == 0)
                left = end - time.monotonic()
                try:
                    reply = await self._send(body, min(settings.timeout_s, left))
                except TimeoutError:
                    # An attempt that the deadline cuts short says less than the one before it.
                    if earlier is not None and left < settings.timeout_s:
                        raise earlier from None
                    late = f"not whole within {min(settings.timeout_s, left):.3g} s"
                    raise EndpointError(f"no answer from {settings.url}: {late}", True) from None
            return self._read(reply, read, expected)

        persistent = retrying(
            attempts=settings.attempts,
            first_wait_s=settings.first_wait_s,
            longest_wait_s=settings.longest_wait_s,
            deadline_s=settings.deadline_s,
            sleep=self._wait,
            on_retry=remember,
        )
        return await persistent(attempt)

    async def each(
        self, ask: Callable[[Item], Awaitable[Result]], items: Iterable[Item]
    ) -> AsyncIterator[tuple[int, Result]]:
        """Do for many items what takes one request or several each, `concurrency` of them at a time.

        Arguments:
            ask: an item -> its result.
            items: the items; they are taken when their turn comes.

        Returns:
            Numbers of items and results, as they come. A result counts as under way until the next one is asked for,
            so that no more than `concurrency` can be lost. After a failure those of requests that were under way come
            too, and then the error.

        Errors:
            What `ask` raises.
        """
        numbered = enumerate(items)
        results: asyncio.Queue[tuple[int, Result, asyncio.Event] | None] = asyncio.Queue()
        errors: list[BaseException] = []

        async def work() -> None:
            try:
                while not self._closing.is_set() and (taken := next(numbered, None)) is not None:
                    used = asyncio.Event()
                    results.put_nowait((taken[0], await ask(taken[1]), used))
                    await used.wait()
            except BaseException as error:
                errors.append(error)
                self.end()
            finally:
                results.put_nowait(None)

        workers = [asyncio.create_task(work()) for _ in range(self.settings.concurrency)]
        try:
            ended = 0
            while ended < len(workers):
                result = await results.get()
                if result is None:
                    ended += 1
                else:
                    yield result[:2]
                    result[2].set()
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        if errors:
            raise errors[0]

    async def _send(self, body: Mapping[str, Any], seconds: float) -> Reply:
        task = asyncio.current_task()
        assert task is not None
        self._under_way.add(task)
        try:
            async with asyncio.timeout(seconds if seconds < float("inf") else None):
                return await self._transport.send(body)
        finally:
            self._under_way.discard(task)

    def _read(self, reply: Reply, read: Callable[[Any], Result], expected: str) -> Result:
        """What a reply says; it is charged in any case."""
        settings = self.settings
        try:
            answer = json.loads(reply.text)
        except (ValueError, RecursionError):
            answer = None
        metered = settings.account.charge(answer)
        if not 200 <= reply.status < 300:
            raise refusal_of(reply, settings.url, self.secrets.hide)
        try:
            result = read(answer)
        except (ValueError, LookupError, TypeError, AttributeError):
            words = words_of(self.secrets.hide(reply.text))
            problem = f"{settings.url} answered with something other than {expected}: {words}"
            raise EndpointError(problem.rstrip(": "), True, status=reply.status) from None
        if not metered and settings.max_cost is not None:
            raise EndpointError(f"{settings.url} reports no usage, so that max_cost cannot be kept")
        return result

    async def _wait(self, seconds: float) -> None:
        if not self._closing.is_set() and seconds > 0:
            await event_within(self._closing, seconds)
        if self._closing.is_set():
            raise EndpointError("given up, as another request failed")


async def event_within(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, and no longer than so many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
