"""A simulated observer that answers prompts: it sees text alone, as a model behind an endpoint does."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from scipy.special import log_expit, ndtri

from holdfast.confidence.extraction import OptionReading
from holdfast.confidence.observers import Observer
from holdfast.confidence.questions import Question
from holdfast.confidence.responders.interface import Answer, Ask, Backend
from holdfast.confidence.templates import TEMPLATES, ReadPrompt, Template, read_prompt
from holdfast.errors import ArgumentError, count_of
from holdfast.llm import Message

BOTH_FORMS = tuple(replace(template, form=form) for template in TEMPLATES.values() for form in ("chat", "flat"))


def simulated_questions(count: int, seed: int = 0) -> list[Question]:
    """Questions about nothing, whose right option a simulated observer knows as well as it knows any.

    Arguments:
        count: how many.
        seed: of the questions.
    """
    texts = [f"Which card was drawn in round {number} of game {seed}?" for number in range(count_of("count", count, 1))]
    options = ("red", "black")
    return [
        Question(f"game {seed}, round {number}", text, options, options.index(_truth(text, options)))
        for number, text in enumerate(texts)
    ]


@dataclass(frozen=True)
class SimulatedResponder:
    """An observer with known parameters that answers questions of two options.

    Evidence comes from a hash of the question, so that it is the same in every order and stage; noise from a hash of
    the prompt, so that equal prompts have equal answers. The earlier answer that is displayed, who is said to have
    given it, and the advice are read from the text. Whether advice agrees is judged by what the observer itself
    answers in stage 1, the mean over both orders.

    Arguments:
        observer: its parameters.
        seed: of evidence and noise.
        answers: text of a question -> text of its right option; evidence about others is about a truth that comes from
            a hash too, as that of `simulated_questions` does.
        difficulty: what is known about a question -> how far apart its options are for the observer, in standard
            deviations of its percept; left out: drawn as for `holdfast.confidence.observers.draw_evidence`.
        templates: wordings that it can read.
    """

    observer: Observer
    seed: int = 0
    answers: Mapping[str, str] | None = None
    difficulty: Callable[[ReadPrompt], float] | None = None
    templates: tuple[Template, ...] = BOTH_FORMS

    @property
    def backend(self) -> Backend:
        """Its parameters, as those of a model."""
        params = {**asdict(self.observer), "seed": self.seed}
        return Backend("observer", "simulated", params=params, deterministic=True)

    def answer(self, asks: Iterable[Ask]) -> Generator[Answer, None, None]:
        """Answer one prompt after the other."""
        for ask in asks:
            reading = self.read(ask.messages)
            tokens = tuple(zip(ask.labels, map(float, reading.scores), strict=True))
            yield Answer.of_reading(ask.key, reading, tokens=tokens)

    def read(self, messages: Sequence[Message]) -> OptionReading:
        """Log-probabilities of the labels, A first; the smaller one is only a bound where the observer is clipped.

        Errors:
            ArgumentError: the prompt is of no known wording, or has another number of options than two.
        """
        for template in self.templates:
            prompt = read_prompt(messages, template)
            if prompt is not None:
                break
        else:
            raise ArgumentError("messages", "a prompt of one of the templates", json.dumps(list(messages))[:300])
        if len(prompt.options) != 2:
            raise ArgumentError("messages", "two options", len(prompt.options))
        value = self._log_odds(prompt, template, json.dumps(list(messages)))
        scores = np.array([log_expit(value), log_expit(-value)])
        clip = self.observer.clip
        missing = () if clip is None or abs(value) < clip else (int(scores.argmin()),)
        return OptionReading(scores, 1.0, missing)

    def _log_odds(self, prompt: ReadPrompt, template: Template, noise: str) -> float:
        """Log-odds of the option at the first place that it reports."""
        first = min(prompt.options)
        evidence = self._evidence(prompt)
        if prompt.display is None:
            reported = self._initial(evidence, prompt, template, prompt.options[0])
        else:
            orders = [self._initial(evidence, prompt, template, shown) for shown in prompt.options]
            choice = first if sum(orders) >= 0 else max(prompt.options)
            held = evidence + sum(
                weight if option == first else -weight for option, weight in self._pulls(prompt, choice)
            )
            reported = self._report(held, first == prompt.options[0], f"{self.seed} {noise}")
        return reported if first == prompt.options[0] else -reported

    def _evidence(self, prompt: ReadPrompt) -> float:
        """Calibrated log-odds of the option that is first by its text."""
        options = tuple(sorted(prompt.options))
        right = (self.answers or {}).get(prompt.text) or _truth(prompt.text, options)
        draws = _uniform(f"{self.seed} {json.dumps([prompt.text, options])}", 3)
        if self.difficulty is None:
            difficulty = -0.9 * (math.log(draws[0]) + math.log(draws[1]))  # gamma of shape 2
        else:
            difficulty = self.difficulty(prompt)
        percept = (0.5 if right == options[0] else -0.5) * difficulty + float(ndtri(draws[2]))
        return difficulty * percept

    def _initial(self, evidence: float, prompt: ReadPrompt, template: Template, shown: str) -> float:
        """Log-odds of the option that is first by its text, as stage 1 reports them with one option shown first."""
        name = json.dumps([self.seed, template.hash, prompt.text, sorted(prompt.options), shown])
        return self._report(evidence, shown == min(prompt.options), name)

    def _report(self, log_odds: float, listed_first: bool, noise: str) -> float:
        draw = np.array([ndtri(_uniform(noise, 1)[0])])
        return float(self.observer.report(np.array([log_odds]), np.array([listed_first]), draw)[0])

    def _pulls(self, prompt: ReadPrompt, choice: str) -> Iterable[tuple[str, float]]:
        """Options that display and advice pull to, and how much."""
        if prompt.displayed is not None:
            bias = self.observer.bias_other if prompt.display == "other" else self.observer.bias
            yield prompt.options[prompt.displayed], bias
        if prompt.advised is not None and prompt.accuracy is not None:
            advice = "same" if prompt.options[prompt.advised] == choice else "opposite"
            pull = self.observer.pull(np.array(["hidden"]), np.array([advice]), np.array([prompt.accuracy]))
            yield choice, float(pull[0])


def _truth(text: str, options: Sequence[str]) -> str:
    """The right one of two options, by a hash of the question."""
    ordered = sorted(options)
    return ordered[0] if _uniform(json.dumps([text, ordered]), 1)[0] < 0.5 else ordered[1]


def _uniform(text: str, count: int) -> list[float]:
    """Numbers between 0 and 1, both excluded, from a hash of a text."""
    digest = hashlib.sha256(text.encode()).digest()
    return [(int.from_bytes(digest[8 * place : 8 * place + 8]) + 0.5) / 2**64 for place in range(count)]
