"""The requests of a run, one after the other: those of one question together, since they begin alike."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from holdfast.confidence.plan import Condition, prompt_of
from holdfast.confidence.questions import LETTERS, Question
from holdfast.confidence.responders.interface import Ask
from holdfast.confidence.store import Keys, Run
from holdfast.confidence.templates import Template, first_prompt
from holdfast.confidence.trials import IntArray
from holdfast.llm import Message


@dataclass(frozen=True)
class Request:
    """One request of a plan.

    Arguments:
        question: what is asked.
        template: how.
        turn: places that the options have moved on from the order in which they are listed; see `Question.order`.
        unit: number of question and template.
        cell: number of the condition of stage 2; -1: stage 1.
        key: in the store.
        messages: the conversation.
        duplicate: how often it was sent before.
    """

    question: Question
    template: Template
    turn: int
    unit: int
    cell: int
    key: str
    messages: list[Message]
    duplicate: int = 0

    def ask(self) -> Ask:
        """What the responder gets."""
        order = self.question.order(self.turn)
        options = tuple(self.question.options[option] for option in order)
        return Ask(self.key, tuple(self.messages), tuple(LETTERS[: len(order)]), options)

    def about(self, cells: Sequence[Condition]) -> dict[str, Any]:
        """Words for people who read the store."""
        stage: dict[str, Any] = {"stage": 1} if self.cell < 0 else {"stage": 2, **vars(cells[self.cell])}
        order = f"moved on by {self.turn}" if self.turn else "as listed"
        if self.duplicate:
            stage["duplicate"] = self.duplicate
        return {"question": self.question.id, "template": self.template.label, "order": order, **stage}


def first_requests(this: Run) -> Iterator[Request]:
    """Requests of stage 1."""
    for question, template, turn, unit, keys in _places(this):
        messages = first_prompt(question, question.order(turn), template)
        yield Request(question, template, turn, unit, -1, keys.of(messages), messages)


def second_requests(this: Run, choice: IntArray) -> Iterator[Request]:
    """Requests of stage 2.

    Arguments:
        this: the run.
        choice: (units) option chosen in stage 1 by question and template; those with -1 have no stage 2.
    """
    for question, template, turn, unit, keys in _places(this):
        chosen, order = int(choice[unit]), question.order(turn)
        if chosen >= 0:
            for number, cell in enumerate(this.plan.design.cells):
                messages = prompt_of(question, order, template, cell, chosen)
                yield Request(question, template, turn, unit, number, keys.of(messages), messages)


def duplicate_requests(this: Run) -> Iterator[tuple[Request, Request]]:
    """Requests of stage 1 and their duplicates: the first ones, and these again where more are wanted than there are.

    The duplicates of a pilot serve a larger run of the same questions too.
    """
    for number, first in enumerate(itertools.islice(itertools.cycle(first_requests(this)), this.plan.duplicates)):
        duplicate = number // this.plan.first_requests + 1
        yield first, replace(first, key=f"{first.key}-{duplicate}", duplicate=duplicate)


def _places(this: Run) -> Iterator[tuple[Question, Template, int, int, Keys]]:
    """Question, template, turn, number of question and template, and keys."""
    design = this.plan.design
    keys = [Keys(this.backend, template) for template in design.templates]
    for place, question in enumerate(this.plan.questions):
        for turn in design.turns(question):
            for number, template in enumerate(design.templates):
                yield question, template, turn, place * len(keys) + number, keys[number]
