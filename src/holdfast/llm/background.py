"""What is asynchronous, run for callers who are not: one event loop in a thread that does not keep the program alive.

And the other way round: blocking functions in threads, for callers who must not wait.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

Result = TypeVar("Result")

GRACE_S = 0.3
"""Seconds that requests under way get to come back once the user has interrupted."""

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


@contextlib.contextmanager
def running(work: Coroutine[Any, Any, Result], end: Callable[[], None]) -> Iterator[concurrent.futures.Future[Result]]:
    """A coroutine that runs in the background loop; whoever leaves the block before it has ended, ends it.

    Arguments:
        work: the coroutine.
        end: called in the loop when the block is left early; after a moment of grace `work` is cancelled.
    """
    loop = background_loop()
    future = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        yield future
    finally:
        if not future.done():
            loop.call_soon_threadsafe(end)
            concurrent.futures.wait([future], GRACE_S)
            future.cancel()


async def in_thread(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function in a new thread, which ends with the program even if the function does not."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(settler: Callable[[Any], None], outcome: Any) -> None:
        if not future.done():  # it may have been given up meanwhile
            settler(outcome)

    def call() -> None:
        settler: Callable[[Any], None]
        outcome: Any
        try:
            settler, outcome = future.set_result, function(*arguments)
        except StopIteration as error:  # which no future can hold
            settler, outcome = future.set_exception, RuntimeError(f"StopIteration: {error}")
        except BaseException as error:
            settler, outcome = future.set_exception, error
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
            loop.call_soon_threadsafe(settle, settler, outcome)

    threading.Thread(target=call, daemon=True).start()
    return await future
