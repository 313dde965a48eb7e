"""How far apart two latitudes have to be for a model to be right as often as wanted.

A question that is always answered right leaves no room for a change of mind, and one that is guessed nothing to cling
to. The share of right answers follows a Weibull function of the difference, as in the measurement of thresholds with
two alternatives (Watson and Pelli, QUEST, 1983):

    P(right) = 1/2 + 1/2 (1 - exp(-(difference / scale) ** slope))

averaged over scales and slopes by how well they explain the answers, all equally likely before. The first half of the
pilot spreads over the differences, the second half is put around the threshold that follows from the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.confidence.experiment import ask_first
from holdfast.confidence.latitude import DIFFERENCES, difference_of, latitude_questions
from holdfast.confidence.plan import Plan, TrialDesign
from holdfast.confidence.questions import Question
from holdfast.confidence.responders.interface import Responder
from holdfast.confidence.results import UnusableAnswers
from holdfast.confidence.store import Store
from holdfast.confidence.templates import PLAIN, Template
from holdfast.confidence.trials import BoolArray, FloatArray
from holdfast.errors import ArgumentError, count_of

SMALLEST, LARGEST = 0.5, 30.0
"""Degrees between options that are asked at all."""

AROUND = (0.6, 1.0, 1.6)
"""Differences of the second half, as multiples of the threshold that follows from the first."""

GRID = np.round(np.arange(SMALLEST, LARGEST + 0.05, 0.1), 1)
"""Differences to choose from."""

SCALES = np.geomspace(0.3, 200.0, 120)
SLOPES = np.array([0.5, 0.7, 1.0, 1.4, 2.0])


@dataclass(frozen=True, eq=False)
class Difficulty:
    """What a pilot found.

    Arguments:
        difference: degrees between options at which the model is right as often as wanted, or the limit nearest to it.
        target: share of right answers that was wanted.
        expected: share that is expected there.
        differences: (pilot) of the questions that were asked.
        right: (pilot) whether the model was.
        limited: the target is out of reach between `SMALLEST` and `LARGEST`.
    """

    difference: float
    target: float
    expected: float
    differences: FloatArray
    right: BoolArray
    limited: bool

    def __str__(self) -> str:
        """Return a sentence."""
        asked = f"{len(self.right)} questions, {self.right.mean():.0%} right"
        if self.limited:
            return (
                f"no difference gives {self.target:.0%} right answers; at {self.difference:g}° it is about "
                f"{self.expected:.0%} ({asked}): the set leaves little room for changes of mind"
            )
        return f"options {self.difference:g}° apart give about {self.expected:.0%} right answers ({asked})"


def find_difference(
    responder: Responder,
    store: Store,
    target: float = 0.75,
    *,
    pilot: int = 100,
    seed: int = 1,
    template: Template = PLAIN,
    progress: bool = True,
) -> Difficulty:
    """Ask pilot questions, each in both orders, and choose.

    Arguments:
        responder: who answers.
        store: where answers are kept.
        target: share of right answers that is wanted, between 1/2 and 1.
        pilot: how many questions.
        seed: of the questions; another one than that of the questions to come, so that these are not chosen by their
            answers.
        template: how to ask.
        progress: show a bar.

    Errors:
        ArgumentError: a target or number that cannot be used.
        UnusableAnswers: no question has a first answer.
        HoldfastError: see `holdfast.confidence.experiment.run`.
    """
    if not 0.5 < target < 1:
        raise ArgumentError("target", "a share between 0.5 and 1", target)
    count_of("pilot", pilot, 10)
    design = TrialDesign(templates=(template,))
    differences: FloatArray = np.zeros(0)
    right: BoolArray = np.zeros(0, bool)
    levels: Sequence[float] = DIFFERENCES
    for part, count in enumerate((pilot // 2, pilot - pilot // 2)):
        questions = latitude_questions(count, seed=2 * seed + part, difference=levels)
        units = ask_first(Plan(tuple(questions), design), responder, store, progress=progress)
        keep = units.choice >= 0
        differences = np.concatenate([differences, np.array(list(map(difference_of, questions)))[keep]])
        right = np.concatenate([right, (units.choice == _answers(questions))[keep]])
        curve = expected_right(differences, right)
        place = int(np.abs(curve - target).argmin())
        levels = [min(max(round(factor * GRID[place], 1), SMALLEST), LARGEST) for factor in AROUND]
    if not len(right):
        raise UnusableAnswers("no question of the pilot has a usable first answer")
    limited = bool(target < curve[0] or target > curve[-1])
    return Difficulty(float(GRID[place]), target, float(curve[place]), differences, right, limited)


def expected_right(differences: FloatArray, right: BoolArray) -> FloatArray:
    """(grid) Expected share of right answers at each difference of `GRID`, given some answers.

    Arguments:
        differences: (n) in degrees.
        right: (n) whether the answer was.
    """
    wrong = _wrong(differences)
    likelihood = np.where(right, np.log1p(-wrong), np.log(np.maximum(wrong, 1e-12))).sum(axis=2)
    weight = np.exp(likelihood - likelihood.max())
    return np.asarray(1 - np.tensordot(weight / weight.sum(), _wrong(GRID), axes=2))


def _wrong(differences: FloatArray) -> FloatArray:
    """(scales, slopes, n) Share of wrong answers."""
    return np.asarray(0.5 * np.exp(-((differences / SCALES[:, None, None]) ** SLOPES[:, None])))


def _answers(questions: Sequence[Question]) -> FloatArray:
    return np.array([-1 if question.answer is None else question.answer for question in questions])
