"""Wordings of the two stages. What stage 2 says depends on what it displays, and on nothing else.

Stage 1 asks the question. Stage 2 is a new conversation: the question, the earlier answer or a mask in its place, who
gave it, one line of advice, and the request for a final answer. **Where the answer is hidden the prompt is a function
of question, order, template, accuracy and the letter that the adviser names**: `second_prompt` has no other way in.

The structure is that of arXiv 2507.03120 (doi 10.1038/s42256-026-01217-9); the words are ours.
"""

from __future__ import annotations

import hashlib
import json
import re
import string
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from holdfast.confidence.questions import LETTERS, Question
from holdfast.confidence.trials import Display
from holdfast.errors import ArgumentError
from holdfast.llm import Message

Form = Literal["chat", "flat"]
"""Turns of a conversation, the earlier answer in one of the assistant's; or one message of the user, for base models
and for chat templates that forbid a turn of the assistant before the last. An effect that the flat form does not show
comes from the role, not from the words."""

PLACEHOLDERS = {
    "answer": {"answer"},
    "hidden": {"mask"},
    "other": {"mask", "answer"},
    "advice": {"accuracy", "letter"},
}
"""What has to stand in some fields of a template, in braces; in the others nothing may."""


@dataclass(frozen=True)
class Template:
    """One wording of both stages.

    Arguments:
        name: of the wording, for people.
        first: asks for the first answer, below the question.
        answer: the earlier answer as the assistant gave it, with `{answer}`.
        shown: says that it is the model's own.
        hidden: says that it is masked, with `{mask}`.
        other: says that it is masked, and what another model chose, with `{mask}` and `{answer}`.
        advice: the adviser and its accuracy, with `{accuracy}` in percent and `{letter}`.
        final: asks for the final answer.
        cue: comes last in the flat form; the label is to follow it.
        mask: stands in the place of a letter.
        form: turns of a conversation, or one message.
        system: a system prompt; empty: none. In the flat form it comes first.
        earlier: how an earlier answer is displayed, its letter alone or with the text of the option.

    Errors:
        ArgumentError: a field lacks one of its placeholders, or has another.
    """

    name: str
    first: str
    answer: str
    shown: str
    hidden: str
    other: str
    advice: str
    final: str
    cue: str = ""
    mask: str = "xx"
    form: Form = "chat"
    system: str = ""
    earlier: Literal["letter", "letter_and_text"] = "letter"

    def __post_init__(self) -> None:
        for field in ("first", "answer", "shown", "hidden", "other", "advice", "final"):
            wanted = PLACEHOLDERS.get(field, set())
            try:
                used = {name for _, name, _, _ in string.Formatter().parse(getattr(self, field)) if name is not None}
            except ValueError as error:
                raise ArgumentError(f"Template.{field}", "a text with placeholders", str(error)) from None
            if used != wanted:
                expected = " and ".join(f"{{{name}}}" for name in sorted(wanted)) or "no placeholder"
                raise ArgumentError(f"Template.{field}", expected, repr(getattr(self, field)))
        if self.mask in LETTERS or not self.mask.strip():
            raise ArgumentError("Template.mask", "a text that is no label", repr(self.mask))

    @cached_property
    def hash(self) -> str:
        """Of all that it says: two templates of one name that differ have different ones."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    @property
    def label(self) -> str:
        """Name and hash."""
        return f"{self.name}:{self.hash}"


PLAIN = Template(
    name="plain",
    first="Reply with the letter only.",
    answer="My answer: {answer}",
    shown="Above is the answer you gave earlier.",
    hidden="The answer you gave earlier has been masked as {mask}.",
    other="The answer you gave earlier has been masked as {mask}. A different language model of similar size and "
    "accuracy chose {answer}.",
    advice="Advice model (accuracy {accuracy}% on questions like these) chose {letter}.",
    final="Which option is your final answer? Letter only.",
    cue="Answer:",
)
REVIEW = Template(
    name="review",
    first="Choose one option and give just its letter.",
    answer="I choose {answer}.",
    shown="You made the choice above when you were first asked.",
    hidden="You made a choice when you were first asked, but it is covered and reads {mask}.",
    other="You made a choice when you were first asked, but it is covered and reads {mask}. Another language model, "
    "about as large and as accurate as you, was asked too: its choice was {answer}.",
    advice="An adviser who is right on {accuracy}% of such questions recommends {letter}.",
    final="Now decide. Give just the letter of your option.",
    cue="I choose",
)
FORM = Template(
    name="form",
    first="Answer (one letter):",
    answer="Answer: {answer}",
    shown="Note: this first answer is your own.",
    hidden="Note: this first answer is your own; it is withheld, and {mask} stands in its place.",
    other="Note: this first answer is your own; it is withheld, and {mask} stands in its place. First answer of "
    "another model, comparable in size and accuracy: {answer}.",
    advice="Adviser's answer: {letter} (accuracy of the adviser: {accuracy}%).",
    final="Final answer (one letter):",
)
TEMPLATES = {template.name: template for template in (PLAIN, REVIEW, FORM)}
"""Three paraphrases: what differs between them is due to the wording."""


def first_prompt(question: Question, order: Sequence[int], template: Template) -> list[Message]:
    """The conversation of stage 1.

    Arguments:
        question: what is asked.
        order: the option at each place.
        template: how.
    """
    return _conversation(template, [("user", f"{_asked(question, order)}\n\n{template.first}")])


def second_prompt(
    question: Question,
    order: Sequence[int],
    template: Template,
    display: Display,
    *,
    displayed: int | None,
    advised: int | None,
    accuracy: float | None,
) -> list[Message]:
    """The conversation of stage 2.

    Arguments:
        question: what is asked.
        order: the option at each place.
        template: how.
        display: what is said about the earlier answer.
        displayed: the option that is displayed as the earlier answer, or another model's; `None` where it is hidden.
        advised: the option that the adviser names; `None`: a mask stands there.
        accuracy: of the adviser, in (0, 1]; `None`: there is no adviser.

    Errors:
        ArgumentError: an answer to display where it is to be hidden, or none where it is not; a named option without
            an adviser; an accuracy outside (0, 1].
    """
    if (displayed is None) != (display == "hidden"):
        raise ArgumentError("displayed", "an option, or None where the answer is hidden", f"{displayed} ({display})")
    if accuracy is None and advised is not None:
        raise ArgumentError("accuracy", "a number, as the adviser names an option", accuracy)
    if accuracy is not None and not 0 < accuracy <= 1:
        raise ArgumentError("accuracy", "a share above 0 and up to 1", accuracy)
    masked = {"mask": template.mask}
    answer = template.mask
    if displayed is not None:
        place = order.index(displayed)
        answer = LETTERS[place]
        if template.earlier == "letter_and_text":
            answer = f"{answer}) {question.options[displayed]}"
    if display == "other":
        said = template.other.format(**masked, answer=answer)
    else:
        said = template.hidden.format(**masked) if display == "hidden" else template.shown
    lines = [said]
    if accuracy is not None:
        letter = template.mask if advised is None else LETTERS[order.index(advised)]
        lines.append(template.advice.format(accuracy=stated(accuracy), letter=letter))
    own = answer if display in ("shown", "shown_flipped") else template.mask
    turns = [
        ("user", _asked(question, order)),
        ("assistant", template.answer.format(answer=own)),
        ("user", "\n".join([*lines, template.final])),
    ]
    return _conversation(template, turns)


def stated(accuracy: float) -> str:
    """An accuracy as prompts state it: in percent."""
    return f"{100 * accuracy:.6g}"


def _asked(question: Question, order: Sequence[int]) -> str:
    options = "\n".join(f"{LETTERS[place]}) {question.options[option]}" for place, option in enumerate(order))
    return f"{question.text}\n{options}"


def _conversation(template: Template, turns: Sequence[tuple[str, str]]) -> list[Message]:
    if template.form == "flat":
        parts = [template.system, *(text for _, text in turns)]
        text = "\n\n".join(part for part in parts if part)
        return [{"role": "user", "content": f"{text}\n{template.cue}" if template.cue else text}]
    system = [("system", template.system)] if template.system else []
    return [{"role": role, "content": text} for role, text in [*system, *turns]]


@dataclass(frozen=True)
class ReadPrompt:
    """What a prompt says, read from its text alone.

    Arguments:
        text: of the question.
        options: in the order in which they are shown.
        display: `None` in stage 1, as are the next ones; an answer shown as the model's own counts as `"shown"`.
        displayed: place of the answer displayed; `None` where it is hidden.
        advised: place of the option that the adviser names; `None`: none.
        accuracy: of the adviser; `None`: there is none.
    """

    text: str
    options: tuple[str, ...]
    display: Display | None = None
    displayed: int | None = None
    advised: int | None = None
    accuracy: float | None = None


def read_prompt(messages: Sequence[Message], template: Template) -> ReadPrompt | None:
    """What a prompt of this template says; `None` if it is not one."""
    text = "\x00".join(f"{message['role']}\x01{message['content']}" for message in messages)
    for display, pattern in _patterns(template).items():
        match = pattern.fullmatch(text)
        if match is not None:
            return _read(match, template, display)
    return None


def _read(match: re.Match[str], template: Template, display: Display | None) -> ReadPrompt:
    lines = match["options"].split("\n")
    options = tuple(line.partition(") ")[2] for line in lines)
    if display is None:
        return ReadPrompt(match["text"], options)
    said = match.groupdict()
    letter, accuracy = said["letter"], said["accuracy"]
    return ReadPrompt(
        text=match["text"],
        options=options,
        display=display,
        displayed=None if display == "hidden" else LETTERS.index(said["answer"][0]),
        advised=None if letter in (None, template.mask) else LETTERS.index(letter),
        accuracy=None if accuracy is None else float(accuracy) / 100,
    )


_PATTERNS: dict[Template, dict[Display | None, re.Pattern[str]]] = {}


def _patterns(template: Template) -> dict[Display | None, re.Pattern[str]]:
    """What the prompts of a template look like, by display; `None`: those of stage 1."""
    if template in _PATTERNS:
        return _PATTERNS[template]
    asked = r"(?P<text>.*?)\n(?P<options>A\) [^\n]*(?:\n[A-Z]\) [^\n]*)+)"
    letter = rf"(?P<letter>[A-Z]|{re.escape(template.mask)})"
    answer = r"(?P<answer>[A-Z](?:\) [^\n]*)?)"

    def written(field: str, **values: str) -> str:
        parts = string.Formatter().parse(getattr(template, field))
        return "".join(re.escape(text) + ("" if name is None else values[name]) for text, name, _, _ in parts)

    mask = re.escape(template.mask)
    advice = (
        rf"(?:\n{written('advice', accuracy='(?P<accuracy>[0-9.]+)', letter=letter)})?\n{re.escape(template.final)}"
    )
    own = {
        "shown": (written("answer", answer=answer), written("shown")),
        "hidden": (written("answer", answer=mask), written("hidden", mask=mask)),
        "other": (written("answer", answer=mask), written("other", mask=mask, answer=answer)),
    }
    flat = template.form == "flat"
    to_assistant, to_user = (r"\n\n", r"\n\n") if flat else ("\x00assistant\x01", "\x00user\x01")
    start = "user\x01" if flat or not template.system else f"system\x01{re.escape(template.system)}\x00user\x01"
    start += rf"{re.escape(template.system)}\n\n" if flat and template.system else ""
    end = rf"\n{re.escape(template.cue)}" if flat and template.cue else ""
    sources: dict[Any, str] = {None: rf"{start}{asked}\n\n{re.escape(template.first)}{end}"}
    for display, (first, said) in own.items():
        sources[display] = f"{start}{asked}{to_assistant}{first}{to_user}{said}{advice}{end}"
    _PATTERNS[template] = {display: re.compile(source, re.DOTALL) for display, source in sources.items()}
    return _PATTERNS[template]
