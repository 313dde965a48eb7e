"""Reconsider: a second thought after advice, in a chat application whose model clings and is easily swayed.

Without words the model is a stand-in, which does both; with the path or hub id of a causal language model of
transformers it is that one:

    python examples/reconsider.py [MODEL]

The adviser is right in 70 % of all questions, and everybody is told so. The two biases of the stand-in pull against
each other: to mask its answer lets its fear of criticism loose, and only with the advice weighed outside are both gone.
"""

import random
import re
import sys

import numpy as np
from scipy.special import log_expit, logit

from holdfast.confidence import (
    PRESETS,
    TEMPLATES,
    Answer,
    Backend,
    OptionReading,
    Reconsider,
    SimulatedResponder,
    ask_with,
    fit_temperature,
    latitude_questions,
    mask_own_answer,
)
from holdfast.confidence.templates import first_prompt

ACCURACY = 0.7
LABELS = "A", "B"


class StandIn:
    """A responder that knows some latitudes, adds 1 to the log-odds of an answer that it sees itself to have given,
    and takes criticism for 2.5 times what it is worth."""

    backend = Backend("stand-in", "example")

    def __init__(self, questions):
        answers = {question.text: question.options[question.answer] for question in questions}
        self.knows = SimulatedResponder(PRESETS["bayes"], answers=answers)

    def answer(self, asks):
        for ask in asks:
            scores = self.knows.read(ask.messages[:1]).scores
            value = first = scores[0] - scores[1]
            for message in ask.messages[1:]:
                advice = re.search(r"chose (A|B)\.", message["content"])
                if message["role"] == "assistant" and message["content"] in LABELS:
                    value += 1.0 if message["content"] == "A" else -1.0
                elif advice:
                    towards = 1 if advice[1] == "A" else -1
                    value += towards * logit(ACCURACY) * (0.8 if towards * first > 0 else 2.5)
            yield Answer.of_reading(ask.key, OptionReading(log_expit(np.array([value, -value])), 1.0))


def responder_of(questions):
    """Who answers. For a model behind an endpoint: `ChatResponder(Endpoint("name", base_url=...))`."""
    if len(sys.argv) < 2:
        return StandIn(questions)
    from holdfast.confidence.responders.huggingface import HuggingFaceResponder

    return HuggingFaceResponder.load(sys.argv[1])


def prompt_of(question):
    return first_prompt(question, (0, 1), TEMPLATES["plain"])


def history_of(question, answer, advised):
    """The conversation as an application keeps it, and shows it to its user."""
    advice = f"Another model, which is right in {ACCURACY:.0%} of such questions, chose {LABELS[advised]}."
    return [
        *prompt_of(question),
        {"role": "assistant", "content": LABELS[answer]},
        {"role": "user", "content": f"{advice} What is your final answer? Reply with the letter only."},
    ]


def loss(log_odds, right):
    """What a right answer lacks: minus the logarithm of the probability that it was given."""
    return -float(log_expit(log_odds if right == 0 else -log_odds))


if __name__ == "__main__":
    questions = latitude_questions(2000)
    ask = ask_with(responder_of(questions))

    # How much its confidence means, from questions whose answers are known.
    known, questions = questions[:1000], questions[1000:]
    first = np.array([ask(prompt_of(question)) for question in known])
    temperature = fit_temperature(np.abs(first), (first < 0) == [question.answer for question in known])
    reconsider = Reconsider(ask, temperature)

    draw = random.Random(0)
    ways = "first answer", "answer and advice in its history", "answer masked", "advice weighed outside"
    said = {way: [] for way in ways}
    for question in questions:
        advised = question.answer if draw.random() < ACCURACY else 1 - question.answer
        outcome = reconsider(prompt_of(question), advised, ACCURACY, compare=False)
        history = history_of(question, outcome.first_choice, advised)
        # What is sent is masked; what is kept, and shown to the user, is not.
        masked = mask_own_answer(history)
        first = logit(outcome.first_probability) * (1 if outcome.first_choice == 0 else -1)
        ends = first, ask(history) / temperature, ask(masked) / temperature, outcome.log_odds
        for values, log_odds in zip(said.values(), ends, strict=True):
            values.append((int(log_odds < 0) == question.answer, loss(log_odds, question.answer)))
    print(f"{len(questions):,} questions, temperature {temperature:.2f}\n{'':32}   right  log-loss")
    for name, values in said.items():
        right, lost = np.mean(values, axis=0)
        print(f"{name:32}  {right:6.1%}    {lost:.4f}")
