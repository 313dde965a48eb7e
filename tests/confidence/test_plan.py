"""A plan is counted and priced before it is asked."""

from __future__ import annotations

import itertools
import json

import pytest

from holdfast.confidence.latitude import latitude_questions
from holdfast.confidence.plan import PILOT, PILOT_QUESTIONS, PUBLISHED, Plan, TrialDesign
from holdfast.confidence.questions import Question
from holdfast.confidence.requests import duplicate_requests, first_requests, second_requests
from holdfast.confidence.responders import Backend
from holdfast.confidence.store import Run
from holdfast.confidence.templates import TEMPLATES
from holdfast.errors import ArgumentError

BACKEND = Backend("m", "chat")


def requests(plan):
    run = Run(BACKEND, plan)
    units = len(plan.questions) * len(plan.design.templates)
    again = [duplicate for _, duplicate in duplicate_requests(run)]
    return [*first_requests(run), *second_requests(run, [0] * units), *again]


def test_the_pilot_is_1900_requests():
    estimate = Plan(tuple(latitude_questions(PILOT_QUESTIONS)), PILOT).estimate()
    assert (estimate.first, estimate.second, estimate.requests) == (100, 1800, 1900)


def test_the_published_design_is_144000_second_requests_in_both_orders():
    plan = Plan(tuple(latitude_questions(2000)), PUBLISHED)
    assert plan.estimate().second == 2 * 72_000


@pytest.mark.parametrize(
    "design",
    [
        PILOT,
        TrialDesign(displays=("shown_flipped",), advice=("neutral", "same"), orders="listed", accuracies=(1.0,)),
        TrialDesign(neutral="absent", templates=tuple(TEMPLATES.values()), accuracies=(0.6, 0.7, 0.9)),
    ],
)
def test_as_many_requests_as_counted_all_different(design):
    questions = (*latitude_questions(3), Question("k", "Which?", ("1", "2", "3", "4")))
    plan = Plan(questions, design, duplicates=17)
    every = requests(plan)
    assert len(every) == plan.requests == len({request.key for request in every})


@pytest.mark.parametrize("duplicates", [0, 100])
def test_tokens_and_cost_follow_the_prompts(duplicates):
    plan = Plan(tuple(latitude_questions(20)), PILOT, duplicates=duplicates)
    tokens = sum(
        len(message["content"].encode()) / 3.5 + 5 for request in requests(plan) for message in request.messages
    )
    estimate = plan.estimate(price=(2.0, 8.0), completion_tokens=3)
    assert estimate.prompt_tokens == pytest.approx(tokens, rel=0.02)
    assert estimate.completion_tokens == 3 * plan.requests
    assert estimate.cost == pytest.approx((2 * estimate.prompt_tokens + 8 * estimate.completion_tokens) / 1e6, rel=1e-4)
    again = f", {duplicates} once more" if duplicates else ""
    assert str(estimate).startswith(f"{760 + duplicates} requests (40 in stage 1, 720 in stage 2{again}), about ")
    assert plan.estimate(samples=3).duplicates == 3 * duplicates
    assert plan.estimate(samples=3).requests == 3 * plan.requests
    assert f" requests for {plan.requests} readings, 3 each (120 in stage 1, " in str(plan.estimate(samples=3))
    assert plan.estimate().cost is None


def test_requests_of_one_question_and_order_follow_each_other():
    plan = Plan(tuple(latitude_questions(5)), PILOT)
    run = Run(BACKEND, plan)
    places = [(request.question.id, request.turn) for request in second_requests(run, [1] * 5)]
    changes = sum(one != other for one, other in itertools.pairwise(places))
    assert changes == 2 * 5 - 1


def test_a_plan_survives_json():
    design = TrialDesign(neutral="absent", templates=tuple(TEMPLATES.values()), accuracies=(1, 0.5))
    plan = Plan((Question("a", "é?", ("1", "2", "3")), Question("b", "?", ("1", "2"), 0)), design, duplicates=3)
    again = Plan.of_record(json.loads(json.dumps(plan.to_record())))
    assert again == plan
    assert again.hash == plan.hash


@pytest.mark.parametrize(
    "levels",
    [
        {"displays": ()},
        {"displays": ("seen",)},
        {"advice": ("same", "same")},
        {"accuracies": (70,)},
        {"accuracies": (0.0,)},
        {"accuracies": (0.6, 0.6000000001)},
        {"orders": "reversed"},
        {"templates": ()},
        {"neutral": "none"},
    ],
)
def test_levels_that_do_not_exist_are_refused(levels):
    with pytest.raises(ArgumentError, match=f"TrialDesign.{next(iter(levels))}"):
        TrialDesign(**levels)
