"""Requests for other programs: each line complete in itself, and the same numbers as the trials."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from holdfast.confidence import (
    PRESETS,
    Plan,
    SimulatedResponder,
    Store,
    TrialDesign,
    export_requests,
    request_records,
    results_of,
    run,
    simulated_questions,
)
from holdfast.confidence.responders import Answer
from holdfast.errors import ArgumentError

PLAN = Plan(tuple(simulated_questions(4)), TrialDesign(accuracies=(0.6, 0.9)), duplicates=3)


class Changed:
    """An observer of whose answers one is changed."""

    def __init__(self, number=-1, change=lambda answer: answer, **backend):
        self.observer, self.number, self.change = SimulatedResponder(PRESETS["both"]), number, change
        self.backend = dataclasses.replace(self.observer.backend, **backend)

    def answer(self, asks):
        for number, answer in enumerate(self.observer.answer(asks)):
            yield self.change(answer) if number == self.number else answer


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store.jsonl")


def test_there_is_a_line_for_each_request_with_all_that_it_says(store, tmp_path):
    results = run(PLAN, Changed(), store)
    assert export_requests(store, tmp_path / "requests.jsonl") == PLAN.requests
    records = [json.loads(line) for line in (tmp_path / "requests.jsonl").read_text().splitlines()]
    assert records == list(request_records(store))
    assert len({record["key"] for record in records}) == len(records) == PLAN.requests
    trials = results.trials
    place = {question.id: question for question in PLAN.questions}
    means: dict[tuple, list[float]] = {}
    for record in records:
        question = place[record["question"]]
        assert record["options"] == list(question.options)
        shown = [record["options"][option] for option in record["order"]]
        text = record["messages"][0]["content"]
        assert all(f"{label}) {option}" in text for label, option in zip(record["labels"], shown, strict=True))
        scores = [record["log_probabilities"][label] for label in record["labels"]]
        assert record["choice"] == record["order"][int(np.argmax(scores))]
        assert record["correct"] == (record["choice"] == question.answer)
        by_option = dict(zip(record["order"], scores, strict=True))
        if record["stage"] == 2:
            cell = record["question"], record["display"], record["advice"], record["accuracy"]
            means.setdefault(cell, []).append(by_option[0] - by_option[1])
    for row in range(len(trials)):
        cell = trials.question[row], trials.display[row], trials.advice[row], trials.accuracy[row]
        sign = 1 if trials.choice[row] == 0 else -1
        assert np.mean(means[cell]) == pytest.approx(sign * trials.final_log_odds[row])
    assert [record["duplicate"] for record in records].count(1) == 3
    assert {record["display"] for record in records if record["stage"] == 1} == {None}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda answer: Answer(answer.key, problem="refusal"), {"problem": "refusal", "log_probabilities": None}),
        (lambda answer: dataclasses.replace(answer, scores=(-0.7, -0.7)), {"choice": None, "correct": None}),
        (lambda answer: dataclasses.replace(answer, missing=(1,)), {"bounds": ["B"]}),
        (lambda answer: dataclasses.replace(answer, mass=math.nan), {"mass": None}),
    ],
)
def test_what_is_missing_is_said(store, change, expected):
    run(PLAN, Changed(1, change), store)
    record = list(request_records(store))[1]
    assert {name: record[name] for name in expected} == expected
    if "log_probabilities" in expected:
        assert (record["choice"], record["correct"]) == (None, None)


def test_bare_choices_have_no_log_probabilities(store):
    run(PLAN, Changed(source="choices"), store)
    records = list(request_records(store))
    assert {record["log_probabilities"] is None for record in records} == {True}
    assert None not in {record["choice"] for record in records}


def test_questions_without_a_known_answer_are_neither_right_nor_wrong(store):
    questions = tuple(dataclasses.replace(question, answer=None) for question in PLAN.questions)
    run(dataclasses.replace(PLAN, questions=questions), Changed(), store)
    assert {(record["answer"], record["correct"]) for record in request_records(store)} == {(None, None)}


def test_of_a_run_that_was_cut_off_what_is_there_is_written(store, tmp_path):
    class Gone(Exception):
        pass

    def leave(answer):
        raise Gone

    with pytest.raises(Gone):
        run(PLAN, Changed(50, leave), store)
    assert export_requests(store, tmp_path / "requests.jsonl") == results_of(store).answered
    with pytest.raises(ArgumentError, match="one of the runs"):
        export_requests(store, tmp_path / "other.jsonl", "nobody")
    assert not (tmp_path / "other.jsonl").exists()
