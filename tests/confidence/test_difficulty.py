"""The difference of latitudes is chosen so that a model is right as often as wanted."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr

from holdfast.confidence.difficulty import GRID, LARGEST, SMALLEST, expected_right, find_difference
from holdfast.confidence.experiment import run
from holdfast.confidence.latitude import cities, degrees, difference_of, latitude_questions
from holdfast.confidence.observers import Observer
from holdfast.confidence.plan import Plan, TrialDesign
from holdfast.confidence.questions import Question
from holdfast.confidence.responders import SimulatedResponder
from holdfast.confidence.store import Store
from holdfast.errors import ArgumentError

ANSWERS = {
    f"Which of these is the latitude of the city of {city.name}, {city.country}?": degrees(round(city.latitude, 1))
    for city in cities()
}


def knows(blur, seed=0):
    """An observer whose percept of a latitude has this standard deviation: right in Phi(difference / 2 blur)."""

    def difficulty(prompt):
        return difference_of(Question("", prompt.text, prompt.options)) / blur

    return SimulatedResponder(Observer(noise=0.0), seed, ANSWERS, difficulty)


@pytest.mark.parametrize(("blur", "target"), [(3.0, 0.75), (6.0, 0.75), (3.0, 0.9)])
def test_the_share_of_right_answers_is_the_one_wanted(blur, target, tmp_path):
    chosen = find_difference(knows(blur), Store(tmp_path / "store"), target, pilot=600)
    assert len(chosen.right) == 600
    assert not chosen.limited
    assert chosen.expected == pytest.approx(target, abs=0.01)
    # The slope of the curve is that of a fit to 600 answers, whose share has a standard error of 0.02.
    assert ndtr(chosen.difference / (2 * blur)) == pytest.approx(target, abs=0.06)
    assert f"options {chosen.difference:g}° apart give about" in str(chosen)


@pytest.mark.parametrize(("blur", "limit"), [(1e-3, SMALLEST), (1e3, LARGEST)])
def test_a_target_out_of_reach_is_said(blur, limit, tmp_path):
    chosen = find_difference(knows(blur), Store(tmp_path / "store"), pilot=60)
    assert chosen.limited
    assert chosen.difference == limit
    assert "no difference gives 75% right answers" in str(chosen)


def test_nothing_is_asked_twice_and_no_run_begins(tmp_path):
    store = Store(tmp_path / "store")
    first = find_difference(knows(4.0), store, pilot=20)
    assert store.runs() == {}
    assert len(store.answers()) == 40
    assert find_difference(knows(4.0), store, pilot=20).difference == first.difference
    assert len(store.path.read_bytes().splitlines()) == 40
    questions = tuple(latitude_questions(4, difference=first.difference))
    assert run(Plan(questions, TrialDesign(accuracies=(0.7,))), knows(4.0), store).complete


def test_more_is_expected_of_larger_differences():
    curve = expected_right(np.array([2.0, 4.0, 8.0, 16.0]), np.array([False, True, True, True]))
    assert curve.shape == GRID.shape
    assert (np.diff(curve) >= 0).all()
    assert ((curve > 0.5) & (curve < 1)).all()


@pytest.mark.parametrize("wrong", [{"target": 0.5}, {"target": 1.0}, {"pilot": 5}])
def test_what_cannot_be_aimed_at_is_refused(wrong, tmp_path):
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        find_difference(knows(4.0), Store(tmp_path / "store"), **wrong)
