"""A chat model as a list function: items go out as a numbered list, and the numbers come back in a new order.

Any server that speaks the OpenAI chat protocol will do (`POST {base_url}/chat/completions`): a provider's, or your own
vLLM, llama.cpp or Ollama. Failures of the network are tried again, malformed answers are sent back with what was wrong,
answers are kept in a file that outlives the program, and everything is counted. Together with `extrapolate`, a model
that can sort a window of 20 items sorts a list of any length.
"""

from __future__ import annotations

import email.utils
import hashlib
import itertools
import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock

from holdfast.errors import ArgumentError, HoldfastError, require
from holdfast.lists.errors import BadAnswer, ListFunctionError, show

if TYPE_CHECKING:
    import httpx

PASSING = (408, 409, 425, 429)
"""Statuses below 500 that a later attempt may not meet."""

Message = dict[str, str]


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


class BudgetSpent(ListFunctionError):
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
    """What was asked of the endpoint so far.

    Arguments:
        requests: HTTP requests that were sent, failed ones included.
        retries: those of them that repeat one that failed.
        repairs: those of them that send a malformed answer back.
        answers: lists that were answered by the model.
        cached: lists that were answered by what was kept.
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


class ChatFunction:
    """A list function that asks a chat model; called with many lists, it answers all of them, some at a time.

    Use it as `extrapolate(ChatFunction(...), capacity=20, batched=True)`. Lists without items, and with one item where
    the answer is an order, are answered without the model.

    Arguments:
        instruction: what to do with the items, in words: "Sort these cities from north to south."
        model: the model's name, as the server knows it.
        base_url: where the server is, up to and without `/chat/completions`.
        answer: `"order"`: the model gives the numbers of the items in the new order, each of them once, so that no
            item can be misspelt and equal ones stay apart; `"items"`: it gives the items themselves, each any number
            of times, for functions that drop or repeat some.
        describe: how an item is shown to the model; `None`: as JSON, and as its `str` where JSON has nothing for it.
        api_key_env: environment variable that holds the key; `None`: the server needs none. The key is read when it is
            needed, and is nowhere kept or printed.
        temperature: of the model's sampling; 0: its most likely answer; `None`: the server's default.
        concurrency: requests that are under way together.
        timeout_s: seconds to wait for one answer.
        attempts: how often one request is sent at most, where the server is busy or out of reach.
        first_wait_s: upper bound of the random wait before the second attempt; it doubles each time.
        longest_wait_s: the most that any wait comes to. A server that asks for more is taken to be closed.
        repairs: how often a malformed answer is sent back.
        cache: file in which answers are kept, one JSON object a line, by model, instruction and items; several programs
            may share it. `None`: they are kept in memory.
        max_requests: most HTTP requests; `None`: any number.
        max_cost: most that the tokens may cost: no request starts once it is reached, those under way are finished.
        price: of a million prompt tokens and of a million completion tokens, in any currency.
        extra: further fields of the request, for example `{"max_tokens": 500}`.

    Errors:
        ArgumentError: an argument cannot be used.
        MissingExtraError: httpx or tenacity is not installed.
    """

    def __init__(
        self,
        instruction: str,
        *,
        model: str,
        base_url: str = "https://api.openai.com/v1",
        answer: Literal["order", "items"] = "order",
        describe: Callable[[Any], str] | None = None,
        api_key_env: str | None = "OPENAI_API_KEY",
        temperature: float | None = 0.0,
        concurrency: int = 8,
        timeout_s: float = 120.0,
        attempts: int = 6,
        first_wait_s: float = 1.0,
        longest_wait_s: float = 60.0,
        repairs: int = 2,
        cache: str | Path | None = None,
        max_requests: int | None = None,
        max_cost: float | None = None,
        price: tuple[float, float] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        require("httpx", "llm")
        require("tenacity", "llm")
        if answer not in ("order", "items"):
            raise ArgumentError("answer", "'order' or 'items'", answer)
        if not base_url.startswith(("http://", "https://")):
            raise ArgumentError("base_url", "an address that starts with http:// or https://", base_url)
        for name, number, least in (
            ("concurrency", concurrency, 1),
            ("attempts", attempts, 1),
            ("repairs", repairs, 0),
            ("max_requests", max_requests, 0),
            ("max_cost", max_cost, 0),
            ("first_wait_s", first_wait_s, 0),
            ("longest_wait_s", longest_wait_s, 0),
        ):
            if number is not None and number < least:
                raise ArgumentError(name, f"at least {least}", number)
        if timeout_s <= 0:
            raise ArgumentError("timeout_s", "more than 0", timeout_s)
        if max_cost is not None and price is None:
            raise ArgumentError("price", "a price, as there is a max_cost", price)
        self.instruction = instruction
        self.model = model
        self.url = base_url.rstrip("/") + "/chat/completions"
        self.answer = answer
        self.describe = describe
        self.api_key_env = api_key_env
        self.concurrency = concurrency
        self.timeout_s = timeout_s
        self.attempts = attempts
        self.first_wait_s = first_wait_s
        self.longest_wait_s = longest_wait_s
        self.repairs = repairs
        self.max_requests = max_requests
        self.max_cost = max_cost
        self.price = price
        self._settings = {**({} if temperature is None else {"temperature": temperature}), **(extra or {})}
        self._cache = None if cache is None else AnswerFile(cache)
        self._found: dict[str, list[int] | BadAnswer] = {}
        self._lock = threading.Lock()
        self._usage = Usage(cost=None if price is None else 0.0)

    @property
    def usage(self) -> Usage:
        """What was asked of the endpoint so far."""
        return self._usage

    def __call__(self, lists: Sequence[Sequence[Any]]) -> list[list[Any]]:
        """Answers to many lists, in their order.

        Errors:
            BadAnswer: the model's answer to a list was malformed, and still so after `repairs` re-asks; the other
                lists are answered first. The list is not asked for again.
            BudgetSpent: `max_requests` or `max_cost` is reached.
            EndpointError: the endpoint refuses, or was busy or out of reach at every attempt.
            ArgumentError: the argument is no list of lists, two different items look the same to the model, or the
                environment variable of the key is not set.

        Whatever is raised, the answers that came before it are kept: nothing is paid for twice.
        """
        if isinstance(lists, str) or any(isinstance(each, str) or not isinstance(each, Sequence) for each in lists):
            expected = "a list of lists, as the function is called with many at once (batched=True)"
            raise ArgumentError("lists", expected, lists if isinstance(lists, str) else show(lists))
        questions = [_Question.of(self, query) for query in lists]
        known = {} if self._cache is None else self._cache.read()
        missing: dict[str, _Question] = {}
        for question in questions:
            found = self._found.get(question.key)
            if isinstance(found, BadAnswer):
                raise found
            if question.known is not None:
                self._found[question.key] = question.known
            elif found is not None:
                self._count(cached=1)
            elif question.key in known and question.fits(known[question.key]):
                self._found[question.key] = known[question.key]
                self._count(cached=1)
            elif question.key not in missing:
                missing[question.key] = question
        if missing:
            self._ask_all(list(missing.values()))
        return [[question.items[place] for place in self._places(question)] for question in questions]

    def _places(self, question: _Question) -> list[int]:
        found = self._found[question.key]
        if isinstance(found, BadAnswer):
            raise found
        return found

    def _ask_all(self, questions: Sequence[_Question]) -> None:
        import httpx

        key = self._key()
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        limits = httpx.Limits(max_connections=self.concurrency)
        with (
            httpx.Client(headers=headers, timeout=self.timeout_s, limits=limits) as client,
            ThreadPoolExecutor(min(self.concurrency, len(questions))) as pool,
        ):
            line = _Line(client, key, threading.Event())
            asked = [pool.submit(self._ask, line, question) for question in questions]
            try:
                for each in wait(asked, return_when=FIRST_EXCEPTION).done:
                    each.result()
            except BaseException:
                line.closing.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _ask(self, line: _Line, question: _Question) -> None:
        """Find the model's answer to one list, as places in it; malformed ones are sent back."""
        messages = [*question.messages]
        text, problem = "", ""
        for repair in range(self.repairs + 1):
            text, cut_off = self._post(line, messages, repair > 0)
            places, problem = question.read(text)
            if places is not None:
                self._count(answers=1)
                if self._cache is not None:
                    self._cache.append(question.record(places))
                self._found[question.key] = places
                return
            if cut_off:
                problem += ", and it was cut off before its end: it ran out of completion tokens"
            complaint = f"That cannot be used: {problem}. {question.wanted}"
            messages += [{"role": "assistant", "content": text}, {"role": "user", "content": complaint}]
        after = f" after {self.repairs} re-asks" if self.repairs else ""
        self._found[question.key] = BadAnswer(question.items, f"answered {text[:200]!r}{after}: {problem}")

    def _post(self, line: _Line, messages: list[Message], repair: bool) -> tuple[str, bool]:
        """Text of the model's next message, and whether it was cut off; tried again where that may help."""
        import tenacity

        body = {"model": self.model, "messages": messages, **self._settings}
        backoff = tenacity.wait_random_exponential(multiplier=self.first_wait_s, max=self.longest_wait_s)
        attempts = itertools.count()

        def send() -> tuple[str, bool]:
            attempt = next(attempts)
            self._start_request(line, retry=attempt > 0, repair=repair and attempt == 0)
            return self._send(line, body)

        def pause(state: tenacity.RetryCallState) -> float:
            told = _raised(state).retry_after_s
            # All who were told to come back at one time would come together.
            return backoff(state) if told is None else told + min(backoff(state), self.first_wait_s)

        def stop(state: tenacity.RetryCallState) -> bool:
            return state.attempt_number >= self.attempts or (_raised(state).retry_after_s or 0) > self.longest_wait_s

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, EndpointError) and error.passing),
            wait=pause,
            stop=stop,
            sleep=tenacity.sleep_using_event(line.closing),
            reraise=True,
        )
        return retrying(send)

    def _send(self, line: _Line, body: dict[str, Any]) -> tuple[str, bool]:
        import httpx

        try:
            response = line.client.post(self.url, json=body)
        except httpx.RequestError as error:
            raise EndpointError(f"no answer from {self.url}: {type(error).__name__} {error}".rstrip(), True) from error
        if not response.is_success:
            raise self._refusal(response, line.key)
        try:
            answer = response.json()
            choice = answer["choices"][0]
            text = _text(choice["message"].get("content"))
            cut_off = choice.get("finish_reason") == "length"
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise EndpointError(f"{self.url} answered with something other than a chat completion", True) from error
        self._charge(answer.get("usage"))
        return text, cut_off

    def _refusal(self, response: httpx.Response, key: str | None) -> EndpointError:
        text = response.text.strip()
        if key:
            text = text.replace(key, "***")
        text = text[:300]
        # A quota that is used up has the status of too many requests, and no wait mends it.
        passing = response.status_code in PASSING or response.status_code >= 500
        passing &= "insufficient_quota" not in text
        return EndpointError(
            f"{self.url} answered {response.status_code}: {text}", passing, _retry_after(response.headers)
        )

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

    def _start_request(self, line: _Line, *, retry: bool, repair: bool) -> None:
        if line.closing.is_set():
            raise EndpointError("given up, as another request failed")
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

    def _count(self, *, answers: int = 0, cached: int = 0) -> None:
        with self._lock:
            usage = self._usage
            self._usage = replace(usage, answers=usage.answers + answers, cached=usage.cached + cached)


@dataclass(frozen=True)
class _Line:
    """A connection to the endpoint, for the time of one call."""

    client: httpx.Client
    key: str | None = field(repr=False)
    closing: threading.Event
    """Set once a request has failed for good: the others need not be tried again."""


@dataclass(frozen=True)
class _Question:
    """One list as the model sees it. Answers are places in the list, so that they can be kept for items of any kind."""

    items: Sequence[Any]
    shown: tuple[str, ...]
    order: bool
    messages: tuple[Message, ...]
    wanted: str
    key: str
    model: str
    instruction: str

    @classmethod
    def of(cls, function: ChatFunction, items: Sequence[Any]) -> _Question:
        shown = tuple(_shown(item, function.describe) for item in items)
        order = function.answer == "order"
        if order:
            numbers = f"the numbers 1 to {len(items)}" if len(items) > 1 else "the number 1"
            wanted = f"Answer with nothing but a JSON list of {numbers}, each exactly once, in the new order."
        else:
            wanted = "Answer with nothing but a JSON list of items, each written exactly as above."
            _refuse_look_alikes(items, shown)
        numbered = "\n".join(f"{number}. {text}" for number, text in enumerate(shown, 1))
        messages = ({"role": "user", "content": f"{function.instruction}\n\nItems:\n{numbered}\n\n{wanted}"},)
        body = {"model": function.model, "messages": messages, **function._settings}
        key = hashlib.sha256(json.dumps(body, sort_keys=True, default=str).encode()).hexdigest()
        return cls(items, shown, order, messages, wanted, key, function.model, function.instruction)

    @property
    def known(self) -> list[int] | None:
        """The answer that needs no model."""
        if not self.items:
            return []
        return [0] if self.order and len(self.items) == 1 else None

    def fits(self, places: Any) -> bool:
        """Whether a kept answer is one to this list."""
        if not isinstance(places, list) or not all(type(place) is int for place in places):
            return False
        if self.order:
            return sorted(places) == list(range(len(self.items)))
        return all(0 <= place < len(self.items) for place in places)

    def record(self, places: list[int]) -> dict[str, Any]:
        """What is kept: the key and the answer, and the rest for a person who reads the file."""
        return {
            "key": self.key,
            "model": self.model,
            "instruction": self.instruction,
            "items": self.shown,
            "answer": places,
        }

    def read(self, text: str) -> tuple[list[int] | None, str]:
        """The answer in a model's message as places in the list, or what is wrong with it.

        Models think aloud and then answer: of the lists in the message, the last one that is well-formed counts.
        """
        problem = "there is no JSON list in it"
        for number, found in enumerate(reversed(list(_lists(text)))):
            places, wrong = self._places(found) if self.order else self._places_of_items(found)
            if places is not None:
                return places, ""
            problem = wrong if number == 0 else problem
        return None, problem

    def _places(self, found: list[Any]) -> tuple[list[int] | None, str]:
        size = len(self.items)
        numbers = [_whole(element) for element in found]
        strange = [element for element, number in zip(found, numbers, strict=True) if number is None]
        if strange:
            return None, f"{json.dumps(strange[0])} is not one of the numbers"
        outside = [number for number in numbers if number is not None and not 1 <= number <= size]
        if outside:
            return None, f"{outside[0]} is not one of the numbers 1 to {size}"
        twice = [number for number, count in Counter(numbers).items() if count > 1]
        left_out = [number for number in range(1, size + 1) if number not in numbers]
        problems = []
        if twice:
            problems.append(f"it repeats {', '.join(map(str, twice))}")
        if left_out:
            problems.append(f"it leaves out {', '.join(map(str, left_out))}")
        if problems:
            return None, " and ".join(problems)
        return [number - 1 for number in numbers if number is not None], ""

    def _places_of_items(self, found: list[Any]) -> tuple[list[int] | None, str]:
        # The first of equal items stands for all; a number may come back in quotes.
        place: dict[str, int] = {}
        for number, text in enumerate(self.shown):
            place.setdefault(text, number)
        places = []
        for element in found:
            text = _shown(element, None)
            at = place.get(text, place.get(str(element)))
            if at is None:
                return None, f"{text} is not one of the items"
            places.append(at)
        return places, ""


class AnswerFile:
    """Answers in a file, one JSON object a line, only ever appended to.

    A kill at any instant costs at most the line that was being written, which readers skip. Several threads and
    programs may write: each holds a lock (a second file, with `.lock` after the name) while it does.

    Arguments:
        path: the file; it is made, with its folder, at the first answer.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._answers: dict[str, Any] = {}
        self._read_to = 0

    def read(self) -> dict[str, Any]:
        """All answers by key, those that other programs wrote since the last time included."""
        with self._lock:
            if self.path.exists():
                with self.path.open("rb") as file:
                    file.seek(self._read_to)
                    lines = file.read()
                # What follows the last line break may still be on its way.
                whole = lines[: lines.rfind(b"\n") + 1]
                self._read_to += len(whole)
                for line in whole.splitlines():
                    try:
                        record = json.loads(line)
                        self._answers[record["key"]] = record["answer"]
                    except (ValueError, LookupError, TypeError):
                        continue
            return dict(self._answers)

    def append(self, record: dict[str, Any]) -> None:
        """Write one answer, and return once it is on the disk."""
        line = json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock, FileLock(f"{self.path}.lock"), self.path.open("a+b") as file:
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(end - 1)
                # A killed writer left half a line: it gets an end, so that only that one is lost.
                line = line if file.read(1) == b"\n" else b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


def _shown(item: Any, describe: Callable[[Any], str] | None) -> str:
    """An item on one line, in which no character can be taken for the end of it."""
    try:
        text = json.dumps(item if describe is None else describe(item), ensure_ascii=False)
    except (TypeError, ValueError):
        text = json.dumps(str(item), ensure_ascii=False)
    # Half a surrogate pair has no place in a request; its escape has.
    return text.encode("utf-8", "backslashreplace").decode()


def _refuse_look_alikes(items: Sequence[Any], shown: Sequence[str]) -> None:
    first: dict[str, Any] = {}
    for item, text in zip(items, shown, strict=True):
        if first.setdefault(text, item) != item:
            raise ArgumentError("describe", "different words for different items", f"{text} for two of them")


def _lists(text: str) -> Iterator[list[Any]]:
    """JSON lists in a text, outermost ones only; what a model thinks before it answers does not count."""
    text = re.sub(r"<think>.*?</think>", "", text, flags=re.DOTALL)
    decoder = json.JSONDecoder()
    start = text.find("[")
    while start >= 0:
        try:
            found, end = decoder.raw_decode(text, start)
            yield found
        except (ValueError, RecursionError):
            end = start + 1
        start = text.find("[", end)


def _whole(element: Any) -> int | None:
    """A whole number, also where it comes as text or with a point."""
    if isinstance(element, bool):
        return None
    if isinstance(element, int):
        return element
    if isinstance(element, float):
        return int(element) if element.is_integer() else None
    return int(element) if isinstance(element, str) and re.fullmatch(r"\d{1,9}", element.strip()) else None


def _text(content: Any) -> str:
    """Content of a message: a text, or a list of parts of which some are text, or nothing."""
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content)
    if content is not None and not isinstance(content, str):
        raise TypeError(content)
    return content or ""


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


def _raised(state: Any) -> EndpointError:
    error = state.outcome.exception()
    assert isinstance(error, EndpointError)
    return error
