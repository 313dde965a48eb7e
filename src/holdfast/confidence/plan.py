"""What a run asks: a crossed design over a set of questions, counted and priced before the first request."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import cattrs

from holdfast.confidence.observers import ACCURACIES
from holdfast.confidence.questions import Question, check_questions
from holdfast.confidence.templates import PLAIN, Template, first_prompt, second_prompt, stated
from holdfast.confidence.trials import ADVICE, DISPLAYS, Advice, Display
from holdfast.errors import ArgumentError, count_of
from holdfast.llm import Message

BYTES_A_TOKEN = 3.5
"""Of English with numbers, for estimates."""

TOKENS_A_MESSAGE = 5
"""What a chat template adds to each, about."""

Neutral = Literal["masked", "absent"]

Orders = Literal["all", "listed"]


@dataclass(frozen=True)
class Condition:
    """One condition of stage 2.

    Arguments:
        display: what is said about the earlier answer.
        advice: which option the adviser names.
        accuracy: of the adviser; `None`: there is no adviser.
    """

    display: Display
    advice: Advice
    accuracy: float | None


@dataclass(frozen=True)
class TrialDesign:
    """The factors that are crossed within every question.

    Arguments:
        displays: of the earlier answer.
        advice: relative to the earlier answer.
        accuracies: of the adviser, as stated, in (0, 1].
        templates: wordings.
        orders: of the options. `"all"`: as many as a question has options, each of which moves them on by one place
            more, so that each option stands at each place once and an additive preference for a place cancels out in
            the mean; for two options as listed and the other way round. Two orders would not do for more: options in
            the middle stay there when the order is reversed. `"listed"`: as listed alone, at a Kth of the price; a
            preference for a place is then in all that is read, and nothing is calibrated.
        neutral: advice that names no option: masked, for each accuracy, or no adviser at all.

    Errors:
        ArgumentError: a factor has no level, one twice, or one that does not exist.
    """

    displays: tuple[Display, ...] = ("shown", "hidden", "other")
    advice: tuple[Advice, ...] = ADVICE
    accuracies: tuple[float, ...] = ACCURACIES
    templates: tuple[Template, ...] = (PLAIN,)
    orders: Orders = "all"
    neutral: Neutral = "masked"

    def __post_init__(self) -> None:
        levels: dict[str, tuple[Sequence[Any], Sequence[Any] | None]] = {
            "displays": (self.displays, DISPLAYS),
            "advice": (self.advice, ADVICE),
            "accuracies": (self.accuracies, None),
            "templates": (self.templates, None),
        }
        for name, (chosen, known) in levels.items():
            if not chosen or len(set(chosen)) < len(chosen) or (known and not set(chosen) <= set(known)):
                expected = f"some of {', '.join(map(str, known))}" if known else "at least one level"
                words = ", ".join(level.label if isinstance(level, Template) else str(level) for level in chosen)
                raise ArgumentError(f"TrialDesign.{name}", f"{expected}, each once", words or "none")
        # 1 and 1.0 are one level, and make one run.
        object.__setattr__(self, "accuracies", tuple(map(float, self.accuracies)))
        words = ", ".join(map(str, self.accuracies))
        if not all(0 < accuracy <= 1 for accuracy in self.accuracies):
            raise ArgumentError("TrialDesign.accuracies", "shares above 0 and up to 1", words)
        if len(set(map(stated, self.accuracies))) < len(self.accuracies):
            raise ArgumentError("TrialDesign.accuracies", "shares that read differently", words)
        if self.neutral not in ("masked", "absent"):
            raise ArgumentError("TrialDesign.neutral", "masked or absent", repr(self.neutral))
        if self.orders not in ("all", "listed"):
            raise ArgumentError("TrialDesign.orders", "all or listed", repr(self.orders))

    def turns(self, question: Question) -> range:
        """The orders in which the options of a question are shown, for `Question.order`."""
        return range(len(question.options) if self.orders == "all" else 1)

    @cached_property
    def cells(self) -> tuple[Condition, ...]:
        """All conditions of stage 2, in the order in which they are asked."""
        return tuple(
            Condition(display, advice, accuracy)
            for display in self.displays
            for advice in self.advice
            for accuracy in ((None,) if advice == "neutral" and self.neutral == "absent" else self.accuracies)
        )


PILOT = TrialDesign(accuracies=(0.6, 0.9))
"""With `PILOT_QUESTIONS` questions of two options 1,900 requests: enough where log-probabilities are available."""

PILOT_QUESTIONS = 50

PUBLISHED = TrialDesign(displays=("shown", "hidden"))
"""Conditions of the published experiment, which asked 2,000 questions of one model and 500 of the others."""


@dataclass(frozen=True)
class PlanCost:
    """What a plan will take.

    Arguments:
        first: requests of stage 1; exact.
        second: requests of stage 2; exact, but for questions whose first answer is unusable: these have no stage 2.
        prompt_tokens: about how many go in.
        completion_tokens: about how many come out.
        cost: of the tokens; `None`: no price was given.
        duplicates: requests of stage 1 that are sent once more; exact.
        samples: requests that make a reading.
    """

    first: int
    second: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    duplicates: int = 0
    samples: int = 1

    @property
    def requests(self) -> int:
        """Of both stages, and duplicates."""
        return self.first + self.second + self.duplicates

    def __str__(self) -> str:
        """Return it in a line."""
        tokens = f"about {self.prompt_tokens:,} prompt tokens and {self.completion_tokens:,} completion tokens"
        cost = "" if self.cost is None else f", about {self.cost:,.2f} at the price given"
        stages = f"{self.first:,} in stage 1, {self.second:,} in stage 2"
        stages += f", {self.duplicates:,} once more" if self.duplicates else ""
        each = f" for {self.requests // self.samples:,} readings, {self.samples} each" if self.samples > 1 else ""
        return f"{self.requests:,} requests{each} ({stages}), {tokens}{cost}"


@dataclass(frozen=True)
class Plan:
    """Questions and design: all that is asked, and in which order.

    Arguments:
        questions: what is asked, different from each other.
        design: the conditions of each.
        duplicates: requests of stage 1 that are sent once more, to measure by how much answers to equal prompts differ;
            see `holdfast.confidence.duplicates`.

    Errors:
        ArgumentError: the questions cannot be asked, or duplicates are no whole number.
    """

    questions: tuple[Question, ...]
    design: TrialDesign = PILOT
    duplicates: int = 0

    def __post_init__(self) -> None:
        check_questions(self.questions)
        count_of("Plan.duplicates", self.duplicates, 0)

    @property
    def first_requests(self) -> int:
        """Of stage 1."""
        return sum(len(self.design.turns(question)) for question in self.questions) * len(self.design.templates)

    @property
    def requests(self) -> int:
        """Of both stages, and duplicates."""
        return self.first_requests * (1 + len(self.design.cells)) + self.duplicates

    def estimate(
        self, price: tuple[float, float] | None = None, completion_tokens: int = 1, samples: int = 1
    ) -> PlanCost:
        """What it takes, known before the first request.

        Arguments:
            price: of a million prompt tokens and of a million completion tokens.
            completion_tokens: of each answer.
            samples: requests for each reading, where answers are drawn and counted.
        """
        design, size, size_1 = self.design, 0.0, 0.0
        turns = [len(design.turns(question)) for question in self.questions]
        lengths = sum(count * _length(question) for count, question in zip(turns, self.questions, strict=True))
        for template in design.templates:
            # Beside the question a prompt has the same length for all of them, but for the letter of a choice.
            question = self.questions[0]
            order = tuple(range(len(question.options)))
            prompts = [first_prompt(question, order, template)]
            prompts += [prompt_of(question, order, template, cell, 0) for cell in design.cells]
            beside = [_tokens(prompt) - _length(question) for prompt in prompts]
            size += sum(beside) * sum(turns) + len(prompts) * lengths
            size_1 += beside[0] * sum(turns) + lengths
        first, twice, every = (count * samples for count in (self.first_requests, self.duplicates, self.requests))
        size = samples * (size + size_1 * self.duplicates / self.first_requests)
        completion = every * completion_tokens
        cost = None if price is None else (size * price[0] + completion * price[1]) / 1e6
        return PlanCost(first, every - first - twice, round(size), completion, cost, twice, samples)

    def to_record(self) -> dict[str, Any]:
        """Plain values for JSON, the words of all templates included."""
        plain = cattrs.unstructure(self)
        assert isinstance(plain, dict)
        return plain

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> Plan:
        """A plan from what `to_record` made of it."""
        return cattrs.structure(record, cls)

    @cached_property
    def hash(self) -> str:
        """Of everything in it."""
        return hashlib.sha256(json.dumps(self.to_record(), sort_keys=True).encode()).hexdigest()


def prompt_of(
    question: Question, order: Sequence[int], template: Template, cell: Condition, choice: int
) -> list[Message]:
    """The conversation of one condition of stage 2, after a choice in stage 1."""
    rival = question.rival(choice)
    return second_prompt(
        question,
        order,
        template,
        cell.display,
        displayed={"hidden": None, "shown_flipped": rival}.get(cell.display, choice),
        advised=advised_option(question, cell, choice),
        accuracy=cell.accuracy,
    )


def advised_option(question: Question, cell: Condition, choice: int) -> int | None:
    """The option that the adviser names; `None`: none."""
    return {"same": choice, "opposite": question.rival(choice), "neutral": None}[cell.advice]


def _length(question: Question) -> float:
    """Tokens of a question with its options, about."""
    return len("".join([question.text, *question.options]).encode()) / BYTES_A_TOKEN


def _tokens(messages: Sequence[Message]) -> float:
    return sum(len(message["content"].encode()) / BYTES_A_TOKEN + TOKENS_A_MESSAGE for message in messages)
