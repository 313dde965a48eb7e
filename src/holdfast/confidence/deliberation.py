"""Let a model reconsider without clinging to its answer or being talked out of it.

Steps that can be used alone: hide the earlier answer in the history (`mask_own_answer`), or say that it is another
model's (`attribute_to_other`); weigh advice by its accuracy outside of the model (`fuse`). `Reconsider` asks without a
history, calibrates and fuses; `ask_with` lets it ask whoever answers the probe.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from holdfast.confidence.observers import ideal
from holdfast.confidence.responders.interface import Ask, Responder
from holdfast.confidence.results import UnusableAnswers, refuse_little_mass
from holdfast.confidence.trials import Advice, FloatArray
from holdfast.errors import ArgumentError

Message: TypeAlias = Mapping[str, Any]
"""A chat message: `role` and `content`, and what else it has."""

AskLogOdds: TypeAlias = Callable[[list[dict[str, Any]]], float]
"""Log-odds that a model gives its first option after these messages."""

MASK = "xx"
"""What stands for a hidden answer."""


def mask_own_answer(messages: Sequence[Message], mask: str = MASK) -> list[dict[str, Any]]:
    """A history in which the model's earlier answers are hidden, and the next user turn says so.

    For an application that keeps the conversation and asks for a second thought: what it sends is masked, what it
    keeps and shows its user is not.

    Arguments:
        messages: of a chat; those of the role `assistant` are the model's.
        mask: what stands in their place. Where none follows, a user turn that says so is added.

    Returns:
        New messages; those given are left as they are. A history without an answer comes back unchanged.
    """
    return _rewritten(messages, mask, lambda _: f"(Your earlier answer has been masked as {mask}.)")


def attribute_to_other(messages: Sequence[Message], mask: str = MASK) -> list[dict[str, Any]]:
    """A history in which the model's earlier answers are hidden, and the next user turn quotes them as another model's.

    Arguments:
        messages: of a chat; those of the role `assistant` are the model's.
        mask: what stands in their place.

    Returns:
        New messages; those given are left as they are.
    """

    def note(answers: list[str]) -> str:
        quoted = "; ".join(answers)
        return f"(Your earlier answer has been masked as {mask}. A different language model answered: {quoted})"

    return _rewritten(messages, mask, note)


def fuse(log_odds: ArrayLike, advice: ArrayLike, accuracy: ArrayLike, temperature: float = 1.0) -> FloatArray:
    """Weigh advice as an ideal Bayesian observer does: add ln(a / (1 - a)), or take it away.

    Arguments:
        log_odds: that the model gave its answer before it saw the advice, on a question of two options.
        advice: `"same"`, `"opposite"` or `"neutral"`: whether it names that answer, the other one, or none.
        accuracy: how often the adviser is right, in (0, 1]; above .99 it counts as that.
        temperature: of the model, which its log-odds are divided by; see `fit_temperature`.

    Returns:
        Log-odds of the same answer; give it up where they are negative.

    Errors:
        ArgumentError: unknown advice, an accuracy outside (0, 1], a temperature that is not positive and finite.
    """
    if not 0 < temperature < math.inf:
        raise ArgumentError("temperature", "a positive number", temperature)
    return ideal(np.asarray(log_odds, np.float64) / temperature, advice, accuracy)


def ask_with(
    responder: Responder,
    labels: tuple[str, str] = ("A", "B"),
    *,
    options: tuple[str, str] | None = None,
    accept_bounds: bool = False,
) -> AskLogOdds:
    """What `Reconsider` asks with, from a model in process or behind an endpoint.

    Arguments:
        responder: for example `HuggingFaceResponder` or `ChatResponder`.
        labels: of the two options, as the prompts name them.
        options: their texts, for a responder that scores texts in the place of labels; left out: the labels.
        accept_bounds: take the least log-odds that an answer can have where a label is missing from the list of a
            server. A mind that holds fast to such an answer may then be changed by too little advice.

    Returns:
        A function of messages that sends one request and returns the log-odds of the first label.

    Errors:
        ArgumentError: the responder gives bare choices, which have no log-odds. When asked: content is no text.
        UnusableAnswers: when asked: the model refused, wants to write something other than a label, or only a bound
            of a label is known.
        HoldfastError: when asked: what the responder raises.
    """
    if responder.backend.source == "choices":
        raise ArgumentError("responder", "one that tells log-odds", "bare choices")

    def ask(messages: list[dict[str, Any]]) -> float:
        for message in messages:
            if not isinstance(message.get("content"), str):
                raise ArgumentError("messages", "messages whose content is text", repr(message))
        request = Ask("reconsider", tuple(messages), labels, options or labels)
        with closing(responder.answer([request])) as answers:
            answer = next(answers)
        if answer.problem:
            raise UnusableAnswers(f"no answer to reconsider: {answer.problem}")
        refuse_little_mass([answer], responder.backend.kind)
        if answer.missing and not accept_bounds:
            names = ", ".join(labels[place] for place in answer.missing)
            raise UnusableAnswers(
                f"only a bound of {names} is known, since it is not among the tokens that the server lists: ask for "
                "more of them, or accept bounds"
            )
        return answer.scores[0] - answer.scores[1]

    return ask


@dataclass(frozen=True)
class Reconsidered:
    """An answer after advice.

    Arguments:
        choice: 0 or 1, the option to answer with.
        probability: that it is right.
        log_odds: of the option 0, after the advice.
        first_choice: what the model answered before the advice.
        first_probability: that this is right, calibrated.
        model_choice: what the model itself would have said, with its answer and the advice before it; `None`: not
            asked.
        model_probability: that the model itself would have given its choice, calibrated likewise.
    """

    choice: int
    probability: float
    log_odds: float
    first_choice: int
    first_probability: float
    model_choice: int | None
    model_probability: float | None

    @property
    def changed(self) -> bool:
        """Whether the advice changed the answer."""
        return self.choice != self.first_choice


@dataclass(frozen=True)
class Reconsider:
    """Ask without a history, calibrate, and weigh advice outside of the model.

    Arguments:
        ask: messages in, log-odds of option 0 against option 1 out; see `ask_with`.
        temperature: of the model.
        labels: of the two options, as the prompts name them.
    """

    ask: AskLogOdds
    temperature: float = 1.0
    labels: tuple[str, str] = ("A", "B")

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ArgumentError("temperature", "a positive number", self.temperature)

    def __call__(
        self, messages: Sequence[Message], advised: int | None, accuracy: float, *, compare: bool = True
    ) -> Reconsidered:
        """Answer a question of two options after one line of advice.

        Arguments:
            messages: that ask the question and hold no answer to it.
            advised: option that the adviser names, 0 or 1; `None`: none.
            accuracy: how often the adviser is right.
            compare: ask the model too, with its first answer and the advice in the history: one call more.

        Errors:
            ArgumentError: there is no such option, or the model gave no number.
        """
        if advised not in (None, 0, 1):
            raise ArgumentError("advised", "0, 1 or None", advised)
        question = [dict(message) for message in messages]
        first = self._log_odds(question)
        chosen = 0 if first >= 0 else 1
        advice: Advice = "neutral" if advised is None else "same" if advised == chosen else "opposite"
        fused = float(fuse(abs(first), advice, accuracy))
        choice = chosen if fused >= 0 else 1 - chosen
        said = self._log_odds(self._with_advice(question, chosen, advised, accuracy)) if compare else None
        return Reconsidered(
            choice=choice,
            probability=float(expit(abs(fused))),
            log_odds=fused if chosen == 0 else -fused,
            first_choice=chosen,
            first_probability=float(expit(abs(first))),
            model_choice=None if said is None else (0 if said >= 0 else 1),
            model_probability=None if said is None else float(expit(abs(said))),
        )

    def _log_odds(self, messages: list[dict[str, Any]]) -> float:
        """What the model says, calibrated."""
        value = float(self.ask(messages))
        if math.isnan(value):
            raise ArgumentError("ask", "log-odds", "NaN")
        return value / self.temperature

    def _with_advice(
        self, question: list[dict[str, Any]], chosen: int, advised: int | None, accuracy: float
    ) -> list[dict[str, Any]]:
        """The history that an application would have sent."""
        named = MASK if advised is None else self.labels[advised]
        advice = f"Another model, which is right in {accuracy:.0%} of such questions, chose {named}."
        return [
            *question,
            {"role": "assistant", "content": self.labels[chosen]},
            {"role": "user", "content": f"{advice} What is your final answer? Reply with the letter only."},
        ]


def _rewritten(messages: Sequence[Message], mask: str, note: Callable[[list[str]], str]) -> list[dict[str, Any]]:
    """Hide what the assistant said, with a note at the head of the next user turn."""
    rewritten: list[dict[str, Any]] = []
    hidden: list[str] = []
    for message in messages:
        if not isinstance(message, Mapping):
            raise ArgumentError("messages", "a list of chat messages, each a dict with role and content", repr(message))
        role, content = message.get("role"), message.get("content")
        if role not in ("system", "developer", "user", "assistant", "tool"):
            raise ArgumentError("messages", "chat messages with a role", repr(role))
        copy = dict(message)
        if role == "assistant":
            if not isinstance(content, str):
                raise ArgumentError("messages", "assistant messages whose content is text", type(content).__name__)
            hidden.append(content)
            copy["content"] = mask
        elif role == "user" and hidden:
            if not isinstance(content, str):
                raise ArgumentError("messages", "user messages after an answer whose content is text", repr(content))
            copy["content"] = f"{note(hidden)}\n\n{content}"
            hidden = []
        rewritten.append(copy)
    if hidden:
        rewritten.append({"role": "user", "content": note(hidden)})
    return rewritten
