"""A list function as it is asked: copies in, lists out, many at a time, nothing twice, and all of it counted.

An `Oracle` holds the function with all that belongs to asking it. Whatever takes a list function takes an oracle in its
place, and makes one, with the defaults, of a function.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Any

from holdfast.errors import ArgumentError, HoldfastError
from holdfast.lists.errors import BadAnswer, OutOfBudget
from holdfast.lists.values import Key


class Oracle:
    """A list function, and how it is asked.

    The function gets a fresh list (or text) each time, so that it may change it. It may answer with a list, a tuple, a
    text, or anything with `tolist`, such as an array.

    Arguments:
        function: list -> list; or with `batched` a list of lists -> their answers in the same order; or a coroutine
            function of either kind.
        capacity: most elements that it may be shown; `None`: any number.
        batched: the function takes many lists at once.
        max_queries: most lists that it may be shown in total; `None`: any number.
        cache: where answers are kept, by list: a dict of your own outlives this object; `None`: an empty one.
            Lists with elements that cannot be hashed are asked anew each time.
        timeout_s: seconds after which a call counts as one that never returns; `None`: wait for ever. Its thread cannot
            be ended, and goes on behind the scenes.
        concurrency: calls of a coroutine function that are under way together.
        key: what decides whether elements are the same value, see `values.Alphabet`, and not what to sort by; `None`:
            the elements themselves.
        progress: show a bar on a terminal where asking takes longer than two seconds.

    Errors:
        ArgumentError: a number is below 1, `timeout_s` is not positive, or `function` cannot be called.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        capacity: int | None = None,
        batched: bool = False,
        max_queries: int | None = None,
        cache: MutableMapping[Any, list[Any]] | None = None,
        timeout_s: float | None = None,
        concurrency: int = 8,
        key: Key = None,
        progress: bool = True,
    ) -> None:
        if not callable(function):
            raise ArgumentError("function", "a function of lists", function)
        for name, number in (("capacity", capacity), ("max_queries", max_queries), ("concurrency", concurrency)):
            if number is not None and (not isinstance(number, int) or number < 1):
                raise ArgumentError(name, "at least 1", number)
        if timeout_s is not None and not timeout_s > 0:
            raise ArgumentError("timeout_s", "a positive number of seconds", timeout_s)
        self.function = function
        self.is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004
        )
        self.capacity = capacity
        self.batched = batched
        self.max_queries = max_queries
        self.timeout_s = timeout_s
        self.concurrency = concurrency
        self.key = key
        self.progress = progress
        self.cache: MutableMapping[Any, list[Any]] = {} if cache is None else cache
        self.queries = 0
        """Lists that the function was shown."""
        self.longest = 0
        """Elements of the longest of them."""
        self.elements = 0
        """Elements of all of them."""
        self.calls = 0
        """Calls of the function: fewer than `queries` where it is batched."""

    @classmethod
    def of(cls, f: Callable[..., Any]) -> Oracle:
        """An oracle as it is; a function as an oracle.

        Errors:
            ArgumentError: `f` cannot be called.
        """
        if isinstance(f, cls):
            return f
        if not callable(f):
            raise ArgumentError("f", "a function of lists", f)
        return cls(f)

    def __call__(self, query: Sequence[Any]) -> list[Any]:
        """The answer to one list; see `ask`."""
        return self.ask([query])[0]

    def ask(self, queries: Iterable[Sequence[Any]], *, fresh: bool = False) -> list[list[Any]]:
        """The answers to many lists, in their order. A text is shown as a text.

        Arguments:
            queries: the lists.
            fresh: ask again what was answered before, and forget it.

        Errors:
            BadAnswer: an answer is no list, or the function raised, or took too long.
            OutOfBudget: `max_queries` would be passed; none of these lists was asked.
            ArgumentError: a list is longer than `capacity`.
        """
        wanted = [(query, _name(query)) for query in queries]
        answers: dict[Any, list[Any]] = {}
        missing: list[tuple[Sequence[Any], Any]] = []
        for position, (query, name) in enumerate(wanted):
            if self.capacity is not None and len(query) > self.capacity:
                raise ArgumentError("query", f"at most {self.capacity} elements", len(query))
            name = position if name is None else name
            wanted[position] = (query, name)
            if name in answers:
                continue
            known = None if fresh or isinstance(name, int) else self.cache.get(name)
            answers[name] = [] if known is None else known
            if known is None:
                missing.append((query, name))
        if self.max_queries is not None and self.queries + len(missing) > self.max_queries:
            raise OutOfBudget(self.max_queries, self.queries + len(missing))
        # One by one, so that what was answered before an error is counted and kept.
        together = self.batched or self.is_async
        for group in [missing] if together and missing else [[question] for question in missing]:
            self._count([query for query, _ in group])
            for (query, name), answer in zip(group, self._answers([query for query, _ in group]), strict=True):
                answers[name] = _as_list(query, answer)
                if not fresh and not isinstance(name, int):
                    self.cache[name] = answers[name]
        return [list(answers[name]) for _, name in wanted]

    def attempt(self, queries: Sequence[Any], *, fresh: bool = False) -> list[list[Any] | BadAnswer]:
        """The answers, or what is wrong with them: one that is bad leaves the others as they are.

        Arguments:
            queries: the lists.
            fresh: ask again what was answered before, and forget it.

        Errors:
            OutOfBudget, ArgumentError: see `ask`.
        """
        if len(queries) > 1 and not (self.batched or self.is_async):
            return [answer for query in queries for answer in self.attempt([query], fresh=fresh)]
        try:
            return [*self.ask(queries, fresh=fresh)]
        except BadAnswer as error:
            if len(queries) == 1:
                return [error]
        # Of a batch the error does not know which list it was: it is looked for by halves.
        middle = len(queries) // 2
        return self.attempt(queries[:middle], fresh=fresh) + self.attempt(queries[middle:], fresh=fresh)

    def _count(self, queries: Sequence[Sequence[Any]]) -> None:
        self.queries += len(queries)
        self.longest = max(self.longest, *map(len, queries))
        self.elements += sum(map(len, queries))
        self.calls += 1 if self.batched else len(queries)

    def _answers(self, queries: Sequence[Sequence[Any]]) -> Sequence[Any]:
        if self.batched:
            together: list[Any] = [_copy(query) for query in queries]
            answers = self._call(queries[0], together)
            answers = answers.tolist() if hasattr(answers, "tolist") else answers
            if not isinstance(answers, list | tuple):
                raise BadAnswer(queries[0], f"returned {type(answers).__name__} for a batch of lists")
            if len(answers) != len(queries):
                raise BadAnswer(queries[0], f"returned {len(answers)} answers to a batch of {len(queries)} lists")
            return answers
        if self.is_async:
            return self._together(queries)
        return [self._call(query, _copy(query)) for query in queries]

    def _call(self, query: Sequence[Any], argument: Any) -> Any:
        """Call the function once; `query` is what an error shows."""

        def work() -> Any:
            answer = self.function(argument)
            return asyncio.run(_awaited(answer)) if inspect.isawaitable(answer) else answer

        # A coroutine needs a thread without an event loop, as there is one in notebooks.
        aside = self.timeout_s is not None or self.is_async
        try:
            return _in_thread(work, self.timeout_s) if aside else work()
        except _TooSlow:
            raise BadAnswer(query, f"did not return within {self.timeout_s} s") from None
        except HoldfastError:  # a refused key, a spent budget: nothing that another list would change
            raise
        except Exception as error:
            raise BadAnswer(query, f"raised {type(error).__name__}: {error}") from error

    def _together(self, queries: Sequence[Sequence[Any]]) -> list[Any]:
        """Calls of a coroutine function, some at a time."""

        async def awaited(query: Sequence[Any]) -> Any:
            try:
                return await self.function(_copy(query))
            except HoldfastError:
                raise
            except Exception as error:  # its own time-outs too
                raise BadAnswer(query, f"raised {type(error).__name__}: {error}") from error

        async def one(gate: asyncio.Semaphore, query: Sequence[Any]) -> Any:
            async with gate:
                try:
                    return await asyncio.wait_for(awaited(query), self.timeout_s)
                except TimeoutError:
                    raise BadAnswer(query, f"did not return within {self.timeout_s} s") from None

        async def every() -> list[Any]:
            gate = asyncio.Semaphore(self.concurrency)
            return await asyncio.gather(*(one(gate, query) for query in queries))

        # A coroutine that never gives way cannot be stopped from its own loop.
        rounds = -(-len(queries) // self.concurrency)
        limit = None if self.timeout_s is None else self.timeout_s * (rounds + 1)
        try:
            answers: list[Any] = _in_thread(lambda: asyncio.run(every()), limit)
        except _TooSlow:
            raise BadAnswer(queries[0], f"did not return within {limit} s, it or a list asked with it") from None
        return answers


class _TooSlow(Exception):
    """A call took too long; not `TimeoutError`, which the function itself may raise."""


async def _awaited(answer: Awaitable[Any]) -> Any:
    return await answer


def _in_thread(work: Callable[[], Any], timeout_s: float | None) -> Any:
    """Run in a thread that does not keep the program alive."""
    returned: list[Any] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            returned.append(work())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if raised:
        raise raised[0]
    if not returned:
        raise _TooSlow
    return returned[0]


def _name(query: Sequence[Any]) -> Any:
    """Under what a list is kept: with its types, for 1 equals True; `None` where it cannot be hashed."""
    if isinstance(query, str):
        return query
    name = (tuple(query), tuple(map(type, query)))
    try:
        hash(name)
    except TypeError:
        return None
    return name


def _copy(query: Sequence[Any]) -> Any:
    return query if isinstance(query, str) else list(query)


def _as_list(query: Sequence[Any], answer: Any) -> list[Any]:
    """An answer as a list."""
    if isinstance(answer, str):
        if not isinstance(query, str):
            raise BadAnswer(query, f"returned the text {answer[:40]!r} instead of a list")
        return list(answer)
    if isinstance(answer, list | tuple):
        return list(answer)
    if hasattr(answer, "tolist"):
        plain = answer.tolist()
        if isinstance(plain, list):
            return plain
    raise BadAnswer(query, f"returned {type(answer).__name__} instead of a list")
