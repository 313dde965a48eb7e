"""A model behind an endpoint, for callers who are not asynchronous: a thin layer over `AsyncEndpoint`.

A provider's will do, or your own vLLM, llama.cpp or Ollama. An `Endpoint` sends conversations, some at a time; tries
again what the network or a busy server spoiled; counts requests, tokens and their price; and stops where the budget
ends. The key is read from the environment when it is needed, and is nowhere kept or printed.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from holdfast.llm.async_endpoint import AsyncEndpoint
from holdfast.llm.background import background_loop, in_thread, running
from holdfast.llm.completion import Completion
from holdfast.llm.errors import EndpointError
from holdfast.llm.settings import EndpointSettings, Message

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(eq=False)
class Endpoint(EndpointSettings):
    """A model behind an endpoint: its settings, and what blocks until it has answered.

    Arguments:
        model: and all others are those of `EndpointSettings`.

    Errors:
        ArgumentError: an argument cannot be used, or two do not go together.
        MissingExtraError: aiohttp or tenacity is not installed.
    """

    def open(self) -> AsyncEndpoint:
        """The same for the asynchronous: `async with endpoint.open() as model:`."""
        return AsyncEndpoint(self)

    def complete(self, messages: Sequence[Message], **fields: Any) -> Completion:
        """The model's next message in one conversation; see `complete_all`."""
        return self.complete_all([messages], **fields)[0]

    def complete_all(self, conversations: Sequence[Sequence[Message]], **fields: Any) -> list[Completion]:
        """The model's next message in many conversations, in their order.

        Arguments:
            conversations: all of them, as they are so far.
            fields: of these requests, beside `extra` and before it, for example `max_tokens=1, logprobs=True`.

        Errors:
            BudgetSpent: `max_requests` or `max_cost` is reached.
            EndpointError: the endpoint refuses, or was busy or out of reach at every attempt.
            ArgumentError: the environment variable of the key is not set.
        """

        async def ask(model: AsyncEndpoint, messages: Sequence[Message]) -> Completion:
            completion = await model.complete(messages, **fields)
            self.count(answers=1)
            return completion

        return _in_order(self.each(ask, conversations)) if conversations else []

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

        async def ask(model: AsyncEndpoint, item: Item) -> Result:
            return await in_thread(talk, Line(model, asyncio.get_running_loop()), item)

        return _in_order(self.each(ask, items)) if items else []

    def each(
        self, ask: Callable[[AsyncEndpoint, Item], Awaitable[Result]], items: Iterable[Item]
    ) -> Iterator[tuple[int, Result]]:
        """Do for many items what takes one request or several each; see `AsyncEndpoint.each`.

        Arguments:
            ask: an open line and an item -> the result; it is called in the event loop, and must not block.
            items: the items.

        Returns:
            Numbers of items and results, as they come.
        """
        model = self.open()
        results: queue.SimpleQueue[tuple[int, Result] | None] = queue.SimpleQueue()
        unused = asyncio.Semaphore(self.concurrency)

        async def ask_one(item: Item) -> Result:
            await unused.acquire()
            return await ask(model, item)

        async def work() -> None:
            try:
                async with model:
                    async for result in model.each(ask_one, items):
                        results.put(result)
            finally:
                results.put(None)

        with running(work(), model.end) as future:
            while (result := results.get()) is not None:
                yield result
                background_loop().call_soon_threadsafe(unused.release)
            future.result()


def _in_order(results: Iterable[tuple[int, Result]]) -> list[Result]:
    return [result for _, result in sorted(results, key=lambda numbered: numbered[0])]


class Line:
    """A line to an endpoint, for the time of one `Endpoint.map`; it is used from threads."""

    def __init__(self, model: AsyncEndpoint, loop: asyncio.AbstractEventLoop) -> None:
        self._model, self._loop = model, loop

    def complete(self, messages: Sequence[Message], *, repair: bool = False, **fields: Any) -> Completion:
        """The model's next message; see `AsyncEndpoint.complete`."""
        future = asyncio.run_coroutine_threadsafe(self._model.complete(messages, repair=repair, **fields), self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise EndpointError("given up, as another request failed") from None
