"""A chat model as a list function: items go out as a numbered list, and the numbers come back in a new order.

`holdfast.llm` carries the questions: failures of the network are tried again, and everything is counted. Here they are
put into words, answers that cannot be relied on are sent back with what was wrong, and answers are kept in a file that
outlives the program. With `extrapolate`, a model that can sort a window of 20 items sorts a list of any length.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Unpack

from holdfast.errors import ArgumentError, count_of
from holdfast.lists.chat_answer import read_answer, whole_number
from holdfast.lists.errors import BadAnswer, show
from holdfast.llm import AnswerFile, Endpoint, EndpointOptions, Line, Message, Usage

Parse = Callable[[str], Sequence[Any] | None]
"""The list in a model's message; `None`: there is none."""


class ChatFunction:
    """A list function that asks a chat model; called with many lists, it answers all of them, some at a time.

    Use it as `extrapolate(Oracle(ChatFunction(...), batched=True), capacity=20)`. Lists without items, and with one
    item where the answer is an order, are answered without the model. Several threads may call it: no list is asked
    twice.

    Arguments:
        instruction: what to do with the items, in words: "Sort these cities from north to south."
        endpoint: the model. Or leave it out, and give the arguments of an `Endpoint` here.
        answer: `"order"`: the model gives the numbers of the items in the new order, each of them once, so that no
            item can be misspelt and equal ones stay apart; `"items"`: it gives the items themselves, each any number
            of times, for functions that drop or repeat some.
        describe: how an item is shown to the model; `None`: as JSON, and as its `str` where JSON has nothing for it.
        parse: the list in a message, where your model has a way of its own: text -> the numbers, or the items; `None`
            or a `ValueError`: none can be relied on. `None`: the one list in the message, in whatever dress; where
            several differ, or something after it may take it back, the model is asked again.
        repairs: how often an answer that cannot be used is sent back; one that was cut off cannot.
        cache: file in which answers are kept, one JSON object a line, by server, model, instruction and items; several
            programs may share it. `None`: they are kept in memory.
        options: of the `Endpoint`, such as `model`, `base_url`, `api_key_env`, `attempts`, `timeout_s`, `max_cost`.

    Errors:
        ArgumentError: an argument cannot be used, or there are both an endpoint and options of one, or neither.
        MissingExtraError: aiohttp or tenacity is not installed.
    """

    def __init__(
        self,
        instruction: str,
        *,
        endpoint: Endpoint | None = None,
        answer: Literal["order", "items"] = "order",
        describe: Callable[[Any], str] | None = None,
        parse: Parse | None = None,
        repairs: int = 2,
        cache: str | Path | None = None,
        **options: Unpack[EndpointOptions],
    ) -> None:
        if not isinstance(instruction, str):
            raise ArgumentError("instruction", "a text", type(instruction).__name__)
        if not isinstance(answer, str) or answer not in ("order", "items"):
            raise ArgumentError("answer", "'order' or 'items'", answer)
        for name, function in (("describe", describe), ("parse", parse)):
            if function is not None and not callable(function):
                raise ArgumentError(name, "a function, or None", function)
        if endpoint is None and "model" not in options:
            raise ArgumentError("model", "the name of a model, or an endpoint", None)
        if endpoint is not None and options:
            raise ArgumentError("endpoint", f"an endpoint, or {', '.join(options)}", "both")
        self.instruction = instruction
        self.endpoint = Endpoint(**options) if endpoint is None else endpoint
        """What is asked: it counts, and keeps to the budget."""
        self.answer = answer
        self.describe = describe
        self.parse = parse
        self.repairs = count_of("repairs", repairs)
        self._cache = None if cache is None else AnswerFile(cache)
        self._known: dict[str, list[int] | BadAnswer] = {}
        self._under_way: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    @property
    def usage(self) -> Usage:
        """What was asked of the endpoint so far."""
        return self.endpoint.usage

    def __call__(self, lists: Sequence[Sequence[Any]]) -> list[list[Any]]:
        """Answers to many lists, in their order.

        Errors:
            BadAnswer: the model's answer to a list cannot be used, and still so after `repairs` re-asks; the other
                lists are answered first. The list is not asked for again.
            BudgetSpent: `max_requests` or `max_cost` is reached.
            EndpointError: the endpoint refuses, or was busy or out of reach at every attempt.
            ArgumentError: the argument is no list of lists, two different items look the same to the model, the cache
                cannot be written, or the environment variable of the key is not set.

        Whatever is raised, the answers that came before it are kept: nothing is paid for twice.
        """
        return self.independent(lists, [0] * len(lists) if isinstance(lists, Sequence) else [])

    def independent(self, lists: Sequence[Sequence[Any]], numbers: Sequence[int]) -> list[list[Any]]:
        """Answers that are independent of each other wherever their numbers differ.

        Arguments:
            lists: the lists; one may be there several times.
            numbers: for each list which of its answers is wanted: 0 is the one that a plain call gives. Each is asked
                of the model once, and kept under its number.

        Errors:
            See `__call__`.
        """
        if not isinstance(lists, Sequence) or any(isinstance(xs, str) or not isinstance(xs, Sequence) for xs in lists):
            expected = "a list of lists, as the function is called with many at once (batched=True)"
            plain = isinstance(lists, Sequence) and not isinstance(lists, str)
            raise ArgumentError("lists", expected, show(lists) if plain else repr(lists))
        questions = [_Question.of(self, query, number) for query, number in zip(lists, numbers, strict=True)]
        waiting = questions
        first = True
        while waiting:
            waiting = self._answer(waiting, count=first)
            first = False
        return [[question.items[place] for place in self._places(question)] for question in questions]

    def _answer(self, questions: Sequence[_Question], *, count: bool) -> list[_Question]:
        """Ask for what nobody else is asking for, wait for what somebody is, and return what they failed to learn."""
        in_file = {} if self._cache is None else self._cache.read()
        missing: dict[str, _Question] = {}
        others: dict[str, threading.Event] = {}
        cached = 0
        with self._lock:
            for question in questions:
                known = self._known.get(question.key)
                if isinstance(known, BadAnswer):
                    raise known
            for question in questions:
                key = question.key
                if key in missing or key in others:
                    continue
                if question.trivial is not None:
                    self._known[key] = question.trivial
                elif key in self._known:
                    cached += 1
                elif key in in_file and question.fits(in_file[key]):
                    self._known[key] = in_file[key]
                    cached += 1
                elif key in self._under_way:
                    others[key] = self._under_way[key]
                else:
                    missing[key] = question
                    self._under_way[key] = threading.Event()
        try:
            if count and cached:
                self.endpoint.count(cached=cached)
            if missing and self._cache is not None:
                self._cache.prepare()
            self.endpoint.map(self._ask, list(missing.values()))
        finally:
            with self._lock:
                for key in missing:
                    self._under_way.pop(key).set()
        for event in others.values():
            event.wait()
        return [question for question in questions if question.key not in self._known]

    def _places(self, question: _Question) -> list[int]:
        known = self._known[question.key]
        if isinstance(known, BadAnswer):
            raise known
        return known

    def _ask(self, line: Line, question: _Question) -> None:
        """Learn the model's answer to one list, as places in it; what cannot be used is sent back."""
        messages = [*question.messages]
        text, problem = "", ""
        for repair in range(self.repairs + 1):
            completion = line.complete(messages, repair=repair > 0)
            text = completion.text or completion.refusal
            if completion.refusal:
                places, problem = None, f"it is a refusal ({completion.refusal})"
            else:
                places, problem = question.read(text, self.parse)
            if completion.cut_off:
                # What comes first may be a draft.
                places = None
                problem += f"{problem and ', and '}it was cut off before its end: it ran out of completion tokens"
            if places is not None:
                self._known[question.key] = places
                self.endpoint.count(answers=1)
                if self._cache is not None:
                    self._cache.append({name: self._without_secrets(part) for name, part in question.record(places)})
                return
            complaint = f"That cannot be used: {problem}. {question.wanted}"
            messages += [{"role": "assistant", "content": text}, {"role": "user", "content": complaint}]
        after = f" after {self.repairs} re-asks" if self.repairs else ""
        problem = f"answered {self.endpoint.hide(text)[:200]!r}{after}: {self.endpoint.hide(problem)}"
        self._known[question.key] = BadAnswer(question.items, problem)

    def _without_secrets(self, part: Any) -> Any:
        if isinstance(part, str):
            return self.endpoint.hide(part)
        return [self._without_secrets(text) for text in part] if isinstance(part, tuple) else part


@dataclass(frozen=True)
class _Question:
    """One list as the model sees it. Answers are places in the list, so that they can be kept for items of any kind."""

    items: Sequence[Any]
    shown: tuple[str, ...]
    order: bool
    messages: tuple[Message, ...]
    wanted: str
    key: str
    about: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, function: ChatFunction, items: Sequence[Any], number: int) -> _Question:
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
        endpoint = function.endpoint
        parse = getattr(function.parse, "__qualname__", "")
        asked = [endpoint.url, endpoint.body(messages), parse, number]
        key = hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()
        about = (("server", endpoint.url), ("model", endpoint.model), ("instruction", function.instruction))
        return cls(items, shown, order, messages, wanted, key, about)

    @property
    def trivial(self) -> list[int] | None:
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

    def record(self, places: list[int]) -> list[tuple[str, Any]]:
        """What is kept: the key and the answer, and the rest for a person who reads the file."""
        return [("key", self.key), *self.about, ("items", self.shown), ("answer", places)]

    def read(self, text: str, parse: Parse | None) -> tuple[list[int] | None, str]:
        """The answer in a model's message as places in the list, or what is wrong with it."""
        places = self._places if self.order else self._places_of_items
        if parse is None:
            return read_answer(text, order=self.order, places=places)
        try:
            answer = parse(text)
        except ValueError as error:
            return None, str(error) or "there is no list in it"
        except Exception as error:
            raise ArgumentError("parse", "a function of a text", f"{type(error).__name__}: {error}") from error
        if answer is None:
            return None, "there is no list in it"
        try:
            return places(list(answer))
        except TypeError:
            raise ArgumentError("parse", "a function that gives a list or None", type(answer).__name__) from None

    def _places(self, answer: list[Any]) -> tuple[list[int] | None, str]:
        size = len(self.items)
        numbers = [whole_number(element) for element in answer]
        strange = [element for element, number in zip(answer, numbers, strict=True) if number is None]
        if strange:
            return None, f"{_shown(strange[0], None)} is not one of the numbers"
        outside = [number for number in numbers if number is not None and not 1 <= number <= size]
        if outside:
            return None, f"{outside[0]} is not one of the numbers 1 to {size}"
        twice = [number for number, count in Counter(numbers).items() if count > 1]
        given = set(numbers)
        left_out = [number for number in range(1, size + 1) if number not in given]
        problems = []
        if twice:
            problems.append(f"it repeats {', '.join(map(str, twice))}")
        if left_out:
            problems.append(f"it leaves out {', '.join(map(str, left_out))}")
        if problems:
            return None, " and ".join(problems)
        return [number - 1 for number in numbers if number is not None], ""

    def _places_of_items(self, answer: list[Any]) -> tuple[list[int] | None, str]:
        # The first of equal items stands for all; a number may come back in quotes.
        place: dict[str, int] = {}
        for number, text in enumerate(self.shown):
            place.setdefault(text, number)
        places = []
        for element in answer:
            text = _shown(element, None)
            at = place.get(text)
            if at is None and isinstance(element, str):
                at = place.get(element)
            if at is None:
                return None, f"{text} is not one of the items"
            places.append(at)
        return places, ""


def _shown(item: Any, describe: Callable[[Any], str] | None) -> str:
    """An item on one line, in which no character can be taken for the end of it."""
    if describe is not None:
        try:
            item = describe(item)
        except Exception as error:
            raise ArgumentError("describe", "a function of every item", f"{type(error).__name__}: {error}") from error
    try:
        text = json.dumps(item, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = json.dumps(str(item), ensure_ascii=False)
    # Half a surrogate pair has no place in a request; its escape has.
    return text.encode("utf-8", "backslashreplace").decode()


def _refuse_look_alikes(items: Sequence[Any], shown: Sequence[str]) -> None:
    first: dict[str, Any] = {}
    for item, text in zip(items, shown, strict=True):
        try:
            alike = bool(first.setdefault(text, item) == item)
        except Exception:
            alike = first[text] is item
        if not alike:
            raise ArgumentError("describe", "different words for different items", f"{text} for two of them")
