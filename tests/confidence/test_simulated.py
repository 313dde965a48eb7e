"""A simulated observer behind text: what it answers depends on the prompt and on nothing that came before."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.confidence.observers import Observer
from holdfast.confidence.plan import Condition, Plan, TrialDesign, prompt_of
from holdfast.confidence.questions import Question
from holdfast.confidence.requests import first_requests, second_requests
from holdfast.confidence.responders import SimulatedResponder, simulated_questions
from holdfast.confidence.store import Run
from holdfast.confidence.templates import FORM, PLAIN, first_prompt
from holdfast.errors import ArgumentError


def log_odds(responder, messages):
    """Of the option at the first place."""
    scores = responder.read(messages).scores
    return float(scores[0] - scores[1])


def test_order_of_requests_does_not_matter():
    responder = SimulatedResponder(Observer(), seed=4)
    plan = Plan(tuple(simulated_questions(5)), TrialDesign(accuracies=(0.7,)))
    run = Run(responder.backend, plan)
    asks = [request.ask() for request in (*first_requests(run), *second_requests(run, np.zeros(5, int)))]
    forwards = {answer.key: answer.scores for answer in responder.answer(asks)}
    backwards = {answer.key: answer.scores for answer in responder.answer(reversed(asks))}
    assert forwards == backwards
    other = {answer.key: answer.scores for answer in SimulatedResponder(Observer(), seed=5).answer(asks)}
    assert all(forwards[key] != scores for key, scores in other.items())


def test_each_parameter_does_what_it_says():
    question = simulated_questions(1)[0]
    quiet = {"noise": 0.0}
    start = log_odds(SimulatedResponder(Observer(**quiet)), first_prompt(question, (0, 1), PLAIN))
    choice = 0 if start > 0 else 1
    toward = 1 if choice == 0 else -1
    worth = np.log(0.8 / 0.2)

    def moved(display, advice, **parameters):
        prompt = prompt_of(question, (0, 1), PLAIN, Condition(display, advice, 0.8), choice)
        return toward * (log_odds(SimulatedResponder(Observer(**quiet, **parameters)), prompt) - start)

    assert moved("hidden", "neutral") == pytest.approx(0)
    assert moved("shown", "neutral", bias=1.5) == pytest.approx(1.5)
    assert moved("shown_flipped", "neutral", bias=1.5) == pytest.approx(-1.5)
    assert moved("hidden", "neutral", bias=1.5, bias_other=2.0) == pytest.approx(0)
    assert moved("other", "neutral", bias=1.5, bias_other=0.5) == pytest.approx(0.5)
    assert moved("hidden", "same", weight_same=0.8, shift_same=0.1) == pytest.approx(0.8 * worth + 0.1)
    assert moved("hidden", "opposite", weight_opposite=2, shift_opposite=0.1) == pytest.approx(-2 * worth - 0.1)
    scaled = log_odds(SimulatedResponder(Observer(**quiet, scale=3.0)), first_prompt(question, (0, 1), PLAIN))
    assert scaled == pytest.approx(3 * start)
    for order in ((0, 1), (1, 0)):
        prompt = first_prompt(question, order, PLAIN)
        gain = log_odds(SimulatedResponder(Observer(**quiet, position=0.7)), prompt)
        assert gain - log_odds(SimulatedResponder(Observer(**quiet)), prompt) == pytest.approx(0.7)


def test_wordings_and_forms_differ_in_noise_alone():
    question = simulated_questions(1)[0]
    prompts = [first_prompt(question, (0, 1), template) for template in (PLAIN, FORM)]
    quiet = SimulatedResponder(Observer(noise=0.0))
    assert log_odds(quiet, prompts[0]) == log_odds(quiet, prompts[1])
    noisy = SimulatedResponder(Observer(noise=0.3))
    assert log_odds(noisy, prompts[0]) != log_odds(noisy, prompts[1])


def test_a_limit_censors_the_smaller_label():
    prompts = [first_prompt(question, (0, 1), PLAIN) for question in simulated_questions(60)]
    readings = [SimulatedResponder(Observer(clip=1.0)).read(prompt) for prompt in prompts]
    gaps = np.array([reading.scores[0] - reading.scores[1] for reading in readings])
    assert np.abs(gaps).max() == pytest.approx(1.0)
    limited = np.abs(gaps) > 1 - 1e-9
    assert 0 < limited.sum() < 60
    assert [reading.missing for reading in readings] == [
        ((1,) if gap > 0 else (0,)) if at_limit else () for gap, at_limit in zip(gaps, limited, strict=True)
    ]


def test_an_answer_key_decides_what_is_right():
    questions = [Question(str(number), f"Number {number}?", ("x", "y"), 0) for number in range(400)]
    responder = SimulatedResponder(Observer(), answers={question.text: "x" for question in questions})
    right = np.mean([log_odds(responder, first_prompt(question, (0, 1), PLAIN)) > 0 for question in questions])
    # Right in 77.7 % of cases, up to four standard errors of 400 draws.
    assert abs(right - 0.777) < 4 * (0.777 * 0.223 / 400) ** 0.5


def test_what_it_cannot_read_is_said():
    responder = SimulatedResponder(Observer())
    with pytest.raises(ArgumentError, match="a prompt of one of the templates"):
        responder.read([{"role": "user", "content": "Hello"}])
    three = Question("t", "Which?", ("x", "y", "z"))
    with pytest.raises(ArgumentError, match="two options"):
        responder.read(first_prompt(three, (0, 1, 2), PLAIN))
