"""A chat model as a list function: items go out as a numbered list, and the numbers come back in a new order.

`holdfast.llm` carries the questions: failures of the network are tried again, and everything is counted. Here they are
put into words, malformed answers are sent back with what was wrong, and answers are kept in a file that outlives the
program. Together with `extrapolate`, a model that can sort a window of 20 items sorts a list of any length.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Unpack

from holdfast.errors import ArgumentError
from holdfast.lists.errors import BadAnswer, show
from holdfast.llm import AnswerFile, Endpoint, EndpointOptions, Line, Message, Usage


class ChatFunction:
    """A list function that asks a chat model; called with many lists, it answers all of them, some at a time.

    Use it as `extrapolate(Oracle(ChatFunction(...), batched=True), capacity=20)`. Lists without items, and with one
    item where the answer is an order, are answered without the model.

    Arguments:
        instruction: what to do with the items, in words: "Sort these cities from north to south."
        endpoint: the model. Or leave it out, and give the arguments of an `Endpoint` here.
        answer: `"order"`: the model gives the numbers of the items in the new order, each of them once, so that no
            item can be misspelt and equal ones stay apart; `"items"`: it gives the items themselves, each any number
            of times, for functions that drop or repeat some.
        describe: how an item is shown to the model; `None`: as JSON, and as its `str` where JSON has nothing for it.
        repairs: how often a malformed answer is sent back.
        cache: file in which answers are kept, one JSON object a line, by model, instruction and items; several programs
            may share it. `None`: they are kept in memory.
        options: of the `Endpoint`, such as `model`, `base_url`, `api_key_env`, `attempts`, `timeout_s`, `max_cost`.

    Errors:
        ArgumentError: an argument cannot be used, or there are both an endpoint and options of one, or neither.
        MissingExtraError: httpx or tenacity is not installed.
    """

    def __init__(
        self,
        instruction: str,
        *,
        endpoint: Endpoint | None = None,
        answer: Literal["order", "items"] = "order",
        describe: Callable[[Any], str] | None = None,
        repairs: int = 2,
        cache: str | Path | None = None,
        **options: Unpack[EndpointOptions],
    ) -> None:
        if answer not in ("order", "items"):
            raise ArgumentError("answer", "'order' or 'items'", answer)
        if repairs < 0:
            raise ArgumentError("repairs", "at least 0", repairs)
        if endpoint is None and "model" not in options:
            raise ArgumentError("model", "the name of a model, or an endpoint", None)
        if endpoint is not None and options:
            raise ArgumentError("endpoint", f"an endpoint, or {', '.join(options)}", "both")
        self.instruction = instruction
        self.endpoint = Endpoint(**options) if endpoint is None else endpoint
        """What is asked: it counts, and keeps to the budget."""
        self.answer = answer
        self.describe = describe
        self.repairs = repairs
        self._cache = None if cache is None else AnswerFile(cache)
        self._known: dict[str, list[int] | BadAnswer] = {}

    @property
    def usage(self) -> Usage:
        """What was asked of the endpoint so far."""
        return self.endpoint.usage

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
        if isinstance(lists, str) or any(isinstance(xs, str) or not isinstance(xs, Sequence) for xs in lists):
            expected = "a list of lists, as the function is called with many at once (batched=True)"
            raise ArgumentError("lists", expected, lists if isinstance(lists, str) else show(lists))
        questions = [_Question.of(self, query) for query in lists]
        in_file = {} if self._cache is None else self._cache.read()
        missing: dict[str, _Question] = {}
        for question in questions:
            known = self._known.get(question.key)
            if isinstance(known, BadAnswer):
                raise known
            if question.trivial is not None:
                self._known[question.key] = question.trivial
            elif known is not None:
                self.endpoint.count(cached=1)
            elif question.key in in_file and question.fits(in_file[question.key]):
                self._known[question.key] = in_file[question.key]
                self.endpoint.count(cached=1)
            elif question.key not in missing:
                missing[question.key] = question
        self.endpoint.map(self._ask, list(missing.values()))
        return [[question.items[place] for place in self._places(question)] for question in questions]

    def _places(self, question: _Question) -> list[int]:
        known = self._known[question.key]
        if isinstance(known, BadAnswer):
            raise known
        return known

    def _ask(self, line: Line, question: _Question) -> None:
        """Learn the model's answer to one list, as places in it; malformed ones are sent back."""
        messages = [*question.messages]
        text, problem = "", ""
        for repair in range(self.repairs + 1):
            completion = line.complete(messages, repair=repair > 0)
            text = completion.text
            places, problem = question.read(text)
            if places is not None:
                self.endpoint.count(answers=1)
                if self._cache is not None:
                    self._cache.append(question.record(places))
                self._known[question.key] = places
                return
            if completion.cut_off:
                problem += ", and it was cut off before its end: it ran out of completion tokens"
            complaint = f"That cannot be used: {problem}. {question.wanted}"
            messages += [{"role": "assistant", "content": text}, {"role": "user", "content": complaint}]
        after = f" after {self.repairs} re-asks" if self.repairs else ""
        self._known[question.key] = BadAnswer(question.items, f"answered {text[:200]!r}{after}: {problem}")


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
        body = function.endpoint.body(messages)
        key = hashlib.sha256(json.dumps(body, sort_keys=True, default=str).encode()).hexdigest()
        return cls(items, shown, order, messages, wanted, key, function.endpoint.model, function.instruction)

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
        for number, answer in enumerate(reversed(list(_lists(text)))):
            places, wrong = self._places(answer) if self.order else self._places_of_items(answer)
            if places is not None:
                return places, ""
            problem = wrong if number == 0 else problem
        return None, problem

    def _places(self, answer: list[Any]) -> tuple[list[int] | None, str]:
        size = len(self.items)
        numbers = [_whole(element) for element in answer]
        strange = [element for element, number in zip(answer, numbers, strict=True) if number is None]
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

    def _places_of_items(self, answer: list[Any]) -> tuple[list[int] | None, str]:
        # The first of equal items stands for all; a number may come back in quotes.
        place: dict[str, int] = {}
        for number, text in enumerate(self.shown):
            place.setdefault(text, number)
        places = []
        for element in answer:
            text = _shown(element, None)
            at = place.get(text, place.get(str(element)))
            if at is None:
                return None, f"{text} is not one of the items"
            places.append(at)
        return places, ""


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
            value, end = decoder.raw_decode(text, start)
            yield value
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
