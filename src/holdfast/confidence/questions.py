"""Questions with options to choose from, and sets of them in files, which are checked before anything is asked."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from holdfast.errors import ArgumentError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""Labels of options, in the order in which they are shown."""

KEYS = ("id", "question", "options", "answer")
"""Of a question in a file."""

LISTED = 12
"""Problems that one message lists; the rest are counted."""


@dataclass(frozen=True)
class Question:
    """A question and its options.

    Arguments:
        id: its name, different from that of every other question of a set.
        text: what is asked, without the options.
        options: at least two, at most 26, all different.
        answer: index of the right one; `None` where it is not known.
    """

    id: str
    text: str
    options: tuple[str, ...]
    answer: int | None = None

    @cached_property
    def content(self) -> str:
        """Hash of what is asked, the answer left out."""
        return hashlib.sha256(json.dumps([self.text, self.options]).encode()).hexdigest()[:16]

    def order(self, turn: int) -> tuple[int, ...]:
        """Option at each place once the options have moved on in a circle by so many places: 0 is as listed, and 1 for
        two options the other way round. Over all turns each option stands at each place once."""
        count = len(self.options)
        return tuple((place + turn) % count for place in range(count))

    def rival(self, chosen: int) -> int:
        """The option that stands against a chosen one, in opposing advice and where a false answer is displayed.

        With two options it is the other one. Otherwise it depends on the question alone, and on no reading of a model:
        what a model nearly chose would be easier to follow.
        """
        if len(self.options) == 2:
            return 1 - chosen
        step = 1 + int(self.content, 16) % (len(self.options) - 1)
        return (chosen + step) % len(self.options)


def problems_of(questions: Sequence[Question]) -> list[str]:
    """Everything that makes a set unusable, one line a problem, with the question that it is about."""
    if not questions:
        return ["there are no questions"]
    problems: list[str] = []
    repeated = [name for name, count in Counter(question.id for question in questions).items() if count > 1]
    problems += [f"{name!r} is the id of several questions" for name in repeated]
    first: dict[tuple[str, tuple[str, ...]], str] = {}
    for question in questions:
        problems += [f"{question.id!r}: {problem}" for problem in _problems_of_one(question)]
        # With its options in another order it is the same question, which is asked in several orders anyway.
        other = first.setdefault((question.text, tuple(sorted(question.options))), question.id)
        if other != question.id:
            problems.append(f"{question.id!r} asks the same as {other!r}")
    return problems


def check_questions(questions: Sequence[Question], argument: str = "questions") -> None:
    """See that a set can be asked.

    Errors:
        ArgumentError: it cannot; all problems are named in one message, those beyond a dozen counted.
    """
    _complain(problems_of(questions), argument)


def read_questions(path: str | Path) -> list[Question]:
    """Questions from a file of JSON lines, `{"id": "q1", "question": "…", "options": ["…", "…"], "answer": 0}`.

    `answer` is the index of the right option from 0, null or left out where it is not known; a number for `id` will do.
    Empty lines are skipped. A key of another name is refused: misspelt, an answer would be taken for unknown.

    Errors:
        ArgumentError: the file cannot be read, or the set cannot be asked; all problems are named in one message.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError("questions", "a file of JSON lines in UTF-8", f"{path} ({error})") from None
    questions: list[Question] = []
    problems: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            problems.append(f"line {number} is not JSON")
            continue
        question = _question_of(record)
        if isinstance(question, str):
            problems.append(f"line {number}: {question}")
        else:
            questions.append(question)
    _complain([*problems, *(problems_of(questions) if questions or not problems else [])], str(path))
    return questions


def write_questions(path: str | Path, questions: Iterable[Question]) -> None:
    """Write a set that `read_questions` reads."""
    lines = [
        json.dumps(
            {"id": question.id, "question": question.text, "options": question.options, "answer": question.answer},
            ensure_ascii=False,
        )
        for question in questions
    ]
    Path(path).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _question_of(record: Any) -> Question | str:
    """A question, or what is wrong with its record."""
    if not isinstance(record, dict):
        return "not an object"
    for key in record:
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            meant = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(KEYS)}"
            return f"unknown key {key!r} ({meant})"
    name, text, options, answer = (record.get(key) for key in KEYS)
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    if not isinstance(name, str) or not name:
        return "no id"
    if not isinstance(text, str):
        return f"{name!r} has no question"
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        return f"the options of {name!r} are no list of texts"
    if answer is not None and (not isinstance(answer, int) or isinstance(answer, bool)):
        return f"the answer of {name!r} is neither an index nor null"
    return Question(name, text, tuple(options), answer)


def _problems_of_one(question: Question) -> list[str]:
    options = [option.strip() for option in question.options]
    problems = []
    if not question.text.strip():
        problems.append("the question is empty")
    if not 2 <= len(options) <= len(LETTERS):
        problems.append(f"{len(options)} options, where 2 to {len(LETTERS)} can be asked")
    if "" in options:
        problems.append("an option is empty")
    # Equal but for case would be told apart by nothing that a reader minds.
    equal = [
        option for option, count in Counter(option.casefold() for option in options if option).items() if count > 1
    ]
    problems += [f"several options are {option!r}" for option in equal]
    if question.answer is not None and not 0 <= question.answer < len(options):
        problems.append(f"answer {question.answer} is none of the options 0 to {len(options) - 1}")
    return problems


def _complain(problems: Sequence[str], argument: str) -> None:
    if problems:
        more = f"; and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
        raise ArgumentError(argument, "questions that can be asked", "; ".join(problems[:LISTED]) + more)
