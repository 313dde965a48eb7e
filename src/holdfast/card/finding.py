"""What a probe says about one model on a card: an outcome, a sentence, a remedy, and figures that can be compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """What became of one question."""

    FAILS = "fails"
    HOLDS = "holds"
    NOT_TOLD = "not told"
    """Measured, and the measurement does not decide."""
    INAPPLICABLE = "does not apply"
    NOT_RUN = "not run"
    """It applies, and something stopped it: the budget, a missing extra, an error."""


MEASURED = (Outcome.FAILS, Outcome.HOLDS, Outcome.NOT_TOLD)
"""Outcomes of a probe that ran."""


@dataclass(frozen=True)
class Measure:
    """One figure of a model that two cards are compared by.

    Arguments:
        name: of the figure, such as `"learning speed"`.
        meaning: what it is, for people.
        value: the figure.
        error: its standard error; zero for a figure without chance in it.
        degrees: degrees of freedom of that error; infinite where it is known.
        better: which side is the better one; `"neither"` where that is the user's to say.
        units: what was drawn for it: values of two cards with equal units are compared pair by pair.
        values: one for each unit, where there are several.
        spread: standard deviation among models of the kind that no unit shows: of what two cards differ by, it is in
            each of both.
        spread_degrees: degrees of freedom of that; cards with equal units have it from the same draws.
    """

    name: str
    meaning: str
    value: float
    error: float = 0.0
    degrees: float = math.inf
    better: str = "neither"
    units: str = ""
    values: tuple[float, ...] = ()
    spread: float = 0.0
    spread_degrees: float = math.inf


@dataclass(frozen=True)
class Remedy:
    """What to try.

    Arguments:
        text: in words.
        code: the lines that do it, for Python or a shell; empty where words are all there is.
        page: the part of the documentation that says more, as `systems/rat`.
    """

    text: str
    code: str = ""
    page: str = ""


@dataclass(frozen=True)
class Finding:
    """The answer of one probe.

    Arguments:
        probe: its name on the command line.
        question: what it asks, as a person would.
        outcome: the answer in a word.
        sentence: the answer: whether the failure is there, and how bad it is; what to do is the remedy's to say.
        certainty: on what the answer rests: how many rows, draws or requests, and an interval.
        remedy: what to try; `None`: nothing.
        measures: figures that two cards are compared by.
        report: the probe's own report, ready for JSON.
        picture: an SVG image; empty: none.
        seconds: that it took.
    """

    probe: str
    question: str
    outcome: Outcome
    sentence: str
    certainty: str = ""
    remedy: Remedy | None = None
    measures: tuple[Measure, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)
    picture: str = ""
    seconds: float = 0.0
