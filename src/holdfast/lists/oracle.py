"""A list function as it is asked: copies in, lists out, many at a time, nothing twice, and all of it counted.

An `Oracle` holds the function with all that belongs to asking it. Whatever takes a list function takes an oracle in its
place, and makes one, with the defaults, of a function.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Any

from holdfast.errors import ArgumentError, HoldfastError
from holdfast.lists.errors import BadAnswer, OutOfBudget
from holdfast.lists.values import Key


class Oracle:
    """A list function, and how it is asked.

    The function gets a fresh list (or text) each time, so that it may change it. It may answer with a list, a tuple, a
    text, or anything with `tolist`, such as an array. Several threads may ask.

    A batched function that keeps answers of its own, as a `ChatFunction` does, is asked for independent ones through
    its method `independent(lists, numbers)`: answers with different numbers are not to come from one another.

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
        concurrency: calls of a coroutine function that are under way together; `None`: 8.
        key: what decides whether elements are the same value, see `values.Alphabet`, and not what to sort by; `None`:
            the elements themselves.
        progress: show a bar on a terminal where asking takes longer than two seconds.

    Errors:
        ArgumentError: a number is below 1, `timeout_s` is not positive, `function` cannot be called, or `concurrency`
            is given for one that is asked in another way.
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
        concurrency: int | None = None,
        key: Key = None,
        progress: bool = True,
    ) -> None:
        if not callable(function):
            raise ArgumentError("function", "a function of lists", function)
        for name, flag in (("batched", batched), ("progress", progress)):
            if not isinstance(flag, bool):
                raise ArgumentError(name, "True or False", type(flag).__name__)
        for name, number in (("capacity", capacity), ("max_queries", max_queries), ("concurrency", concurrency)):
            if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 1):
                raise ArgumentError(name, "at least 1", number)
        if timeout_s is not None and (not isinstance(timeout_s, int | float) or not timeout_s > 0):
            raise ArgumentError("timeout_s", "a positive number of seconds", timeout_s)
        if key is not None and not callable(key):
            raise ArgumentError("key", "a function of elements, or None", key)
        self.function = function
        self.is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004
        )
        if concurrency is not None and (batched or not self.is_async):
            raise ArgumentError("concurrency", "none but for a coroutine function of one list", concurrency)
        self.capacity = capacity
        self.batched = batched
        self.max_queries = max_queries
        self.timeout_s = timeout_s
        self.concurrency = 8 if concurrency is None else concurrency
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
        """Calls of the function: fewer than `queries` where it is batched; a batch that fails is called in parts."""
        self._lock = threading.Lock()
        self._promised = 0
        self._drawn: Counter[Any] = Counter()

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

    def ask(self, queries: Iterable[Sequence[Any]], *, fresh: bool | Sequence[bool] = False) -> list[list[Any]]:
        """The answers to many lists, in their order. A text is shown as a text.

        Arguments:
            queries: the lists.
            fresh: ask again what was answered before, each time that it is there, and keep the old answer; for all
                lists, or for each of them.

        Errors:
            BadAnswer: an answer is no list, or the function raised, or took too long. What was answered before is kept,
                and a batch that failed was asked in parts, to tell which list it was.
            OutOfBudget: `max_queries` would be passed; none of these lists was asked.
            ArgumentError: a list is longer than `capacity`.
        """
        answers: list[list[Any]] = []
        if not isinstance(queries, Iterable):
            raise ArgumentError("queries", "lists", type(queries).__name__)
        for answer in self._settle(list(queries), fresh, tolerant=False):
            assert not isinstance(answer, BadAnswer)
            answers.append(answer)
        return answers

    def attempt(self, queries: Sequence[Any], *, fresh: bool | Sequence[bool] = False) -> list[list[Any] | BadAnswer]:
        """The answers, or what is wrong with them: one that is bad leaves the others as they are.

        Arguments:
            queries: the lists.
            fresh: see `ask`.

        Errors:
            OutOfBudget, ArgumentError: see `ask`.
        """
        return self._settle(queries, fresh, tolerant=True)

    def _settle(
        self, queries: Sequence[Sequence[Any]], fresh: bool | Sequence[bool], *, tolerant: bool
    ) -> list[list[Any] | BadAnswer]:
        anew = [fresh] * len(queries) if isinstance(fresh, bool) else fresh
        names: list[Any] = []
        answers: dict[Any, list[Any] | BadAnswer] = {}
        missing: dict[Any, Sequence[Any]] = {}
        for position, (query, again) in enumerate(zip(queries, anew, strict=True)):
            if not hasattr(query, "__len__") or not isinstance(query, Iterable):
                raise ArgumentError("query", "a list, tuple or text", type(query).__name__)
            if self.capacity is not None and len(query) > self.capacity:
                raise ArgumentError("query", f"at most {self.capacity} elements", len(query))
            name = None if again else _name(query)
            names.append(position if name is None else name)
            if names[-1] in answers or names[-1] in missing:
                continue
            known = None if name is None else self.cache.get(name)
            if known is None:
                missing[names[-1]] = query
            else:
                answers[name] = known
        with self._lock:
            asked_for = self.queries + self._promised + len(missing)
            if self.max_queries is not None and asked_for > self.max_queries:
                raise OutOfBudget(self.max_queries, asked_for)
            self._promised += len(missing)
        left = len(missing)
        try:
            # One by one, so that what was answered before an error is counted and kept.
            together = self.batched or self.is_async
            for group in [list(missing)] if together and missing else [[name] for name in missing]:
                shown = [missing[name] for name in group]
                with self._lock:
                    self._promised -= len(group)
                    left -= len(group)
                    self.queries += len(group)
                    self.longest = max(self.longest, *map(len, shown))
                    self.elements += sum(map(len, shown))
                    numbers = [self._number(missing[name], anew=isinstance(name, int)) for name in group]
                errors: list[HoldfastError] = []
                for name, query, answer in zip(group, shown, self._answers(shown, numbers, tolerant), strict=False):
                    settled = answer if isinstance(answer, HoldfastError) else _as_list(query, answer)
                    if isinstance(settled, list):
                        answers[name] = settled
                        if not isinstance(name, int):
                            self.cache[name] = settled
                    elif tolerant and isinstance(settled, BadAnswer):
                        answers[name] = settled
                    else:
                        errors.append(settled)
                if errors:
                    # What ends everything says more than what one list met.
                    raise next((error for error in errors if not isinstance(error, BadAnswer)), errors[0])
        finally:
            with self._lock:
                self._promised -= left
        settled_answers = [answers[name] for name in names]
        return [answer if isinstance(answer, BadAnswer) else list(answer) for answer in settled_answers]

    def _number(self, query: Sequence[Any], *, anew: bool) -> int:
        """Which of its independent answers a list is asked for; 0: any."""
        if not anew:
            return 0
        name = _name(query)
        name = repr(query) if name is None else name
        self._drawn[name] += 1
        return self._drawn[name]

    def _answers(self, queries: Sequence[Sequence[Any]], numbers: Sequence[int], tolerant: bool) -> Sequence[Any]:
        """What the function answers, or the error in its place; after an error that is not tolerated, fewer."""
        if self.batched:
            return self._of_batch(queries, numbers, tolerant)
        with self._lock:
            self.calls += len(queries)
        if self.is_async:
            return self._together(queries)
        try:
            return [self._call(query, _copy(query)) for query in queries]
        except BadAnswer as error:
            return [error]

    def _of_batch(self, queries: Sequence[Sequence[Any]], numbers: Sequence[int], tolerant: bool) -> list[Any]:
        """The answers to one batch; to its halves, if it fails as a whole."""
        with self._lock:
            self.calls += 1
        try:
            answers = self._call(queries[0], [_copy(query) for query in queries], numbers)
            answers = answers.tolist() if hasattr(answers, "tolist") else answers
            if not isinstance(answers, list | tuple):
                raise _Mismatch(queries[0], f"returned {type(answers).__name__} for a batch of lists")
            if len(answers) != len(queries):
                problem = f"returned {len(answers)} answers to a batch of {len(queries)} lists"
                raise _Mismatch(queries[0], problem)
            return list(answers)
        except BadAnswer as error:
            # What never returns is not asked again in vain, nor is one that takes no batches.
            hopeless = not tolerant and isinstance(error, _Mismatch)
            if len(queries) == 1 or hopeless:
                return [error.plain() if isinstance(error, _Mismatch) else error]
        middle = len(queries) // 2
        first = self._of_batch(queries[:middle], numbers[:middle], tolerant)
        if not tolerant and any(isinstance(answer, HoldfastError) for answer in first):
            return first
        return first + self._of_batch(queries[middle:], numbers[middle:], tolerant)

    def _call(self, query: Sequence[Any], argument: Any, numbers: Sequence[int] = ()) -> Any:
        """Call the function once; `query` is what an error shows."""
        independent = getattr(self.function, "independent", None) if any(numbers) else None

        def work() -> Any:
            answer = self.function(argument) if independent is None else independent(argument, numbers)
            return asyncio.run(_awaited(answer)) if inspect.isawaitable(answer) else answer

        # A coroutine needs a thread without an event loop, as there is one in notebooks.
        aside = self.timeout_s is not None or self.is_async
        try:
            return _in_thread(work, self.timeout_s) if aside else work()
        except _TooSlow:
            raise _Late(query, f"did not return within {self.timeout_s} s") from None
        except HoldfastError:  # a refused key, a spent budget: nothing that another list would change
            raise
        except Exception as error:
            raise BadAnswer(query, f"raised {type(error).__name__}: {error}") from error

    def _together(self, queries: Sequence[Sequence[Any]]) -> list[Any]:
        """Calls of a coroutine function, some at a time."""

        stopped: HoldfastError | None = None

        async def awaited(query: Sequence[Any]) -> Any:
            try:
                return await self.function(_copy(query))
            except HoldfastError:
                raise
            except Exception as error:  # its own time-outs too
                raise BadAnswer(query, f"raised {type(error).__name__}: {error}") from error

        async def one(gate: asyncio.Semaphore, query: Sequence[Any]) -> Any:
            nonlocal stopped
            async with gate:
                if stopped is not None:
                    return stopped
                try:
                    return await asyncio.wait_for(awaited(query), _finite(self.timeout_s))
                except TimeoutError:
                    return BadAnswer(query, f"did not return within {self.timeout_s} s")
                except BadAnswer as error:
                    return error
                except HoldfastError as error:  # nothing that another list would change
                    stopped = error
                    return error

        async def every() -> list[Any]:
            gate = asyncio.Semaphore(self.concurrency)
            return await asyncio.gather(*(one(gate, query) for query in queries))

        # A coroutine that never gives way cannot be stopped from its own loop.
        rounds = -(-len(queries) // self.concurrency)
        limit = None if self.timeout_s is None else self.timeout_s * (rounds + 1)
        try:
            answers: list[Any] = _in_thread(lambda: asyncio.run(every()), limit)
        except _TooSlow:
            problem = f"did not return within {limit} s, it or a list asked with it"
            return [BadAnswer(query, problem) for query in queries]
        return answers


class _TooSlow(Exception):
    """A call took too long; not `TimeoutError`, which the function itself may raise."""


class _Mismatch(BadAnswer):
    """What came back from a batch is no list of as many answers."""

    def plain(self) -> BadAnswer:
        return BadAnswer(self.query, self.problem)


class _Late(_Mismatch):
    """A batch did not come back in time."""


def _finite(seconds: float | None) -> float | None:
    """A time limit as threads and event loops take it."""
    return None if seconds is None or seconds > threading.TIMEOUT_MAX else seconds


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
    thread.join(_finite(timeout_s))
    if raised:
        raise raised[0]
    if not returned:
        raise _TooSlow
    return returned[0]


def _name(query: Sequence[Any]) -> Any:
    """Under what a list is kept: with what tells equal elements apart; `None` where it cannot be hashed."""
    if isinstance(query, str):
        return query
    try:
        name = (tuple(query), tuple(map(_mark, query)))
        hash(name)
    except Exception:
        return None
    return name


def _mark(element: Any) -> Any:
    """What elements that are equal may differ in: 1 equals True, and 0.0 equals -0.0, alone and inside of others."""
    kind = type(element)
    if kind in (int, str, bytes, bool, type(None)) or (kind is float and element != 0):
        return kind
    return kind, repr(element)


def _copy(query: Sequence[Any]) -> Any:
    return query if isinstance(query, str) else list(query)


def _as_list(query: Sequence[Any], answer: Any) -> list[Any] | BadAnswer:
    """An answer as a list, or what is wrong with it."""
    if isinstance(answer, str):
        if not isinstance(query, str):
            return BadAnswer(query, f"returned the text {answer[:40]!r} instead of a list")
        return list(answer)
    if isinstance(answer, list | tuple):
        return list(answer)
    if hasattr(answer, "tolist"):
        plain = answer.tolist()
        if isinstance(plain, list):
            return plain
    return BadAnswer(query, f"returned {type(answer).__name__} instead of a list")
