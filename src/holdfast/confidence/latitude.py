"""Questions that need no file: on which of two latitudes does a city lie? Their difficulty is the distance of the two.

The cities are in `cities.csv`: GeoNames (https://www.geonames.org), CC BY 4.0.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from holdfast.confidence.questions import Question
from holdfast.errors import ArgumentError, count_of

ATTRIBUTION = "City data: GeoNames (https://www.geonames.org), CC BY 4.0"
"""To be shown wherever results on these questions are published."""

DIFFERENCES = (2.0, 4.0, 6.0, 8.0, 12.0, 16.0)
"""Degrees between the two options, from hard to easy."""

SOUTHERNMOST, NORTHERNMOST = -60.0, 75.0
"""Where options lie: hardly a city is beyond, so that such a one would give itself away."""


@dataclass(frozen=True)
class City:
    """A city.

    Arguments:
        name: in English, where it has one.
        country: as people call it.
        latitude: in degrees, north positive.
        inhabitants: about how many.
    """

    name: str
    country: str
    latitude: float
    inhabitants: int


@cache
def cities() -> tuple[City, ...]:
    """All cities of the table, most populous first."""
    text = files("holdfast.confidence").joinpath("cities.csv").read_text(encoding="utf-8")
    rows = (line.split(";") for line in text.splitlines() if not line.startswith("#"))
    return tuple(City(name, country, float(latitude), int(people)) for name, country, latitude, people in rows)


def latitude_questions(
    count: int,
    seed: int = 0,
    difference: float | Sequence[float] = DIFFERENCES,
    *,
    least_inhabitants: int = 250_000,
    across_equator: bool = False,
) -> list[Question]:
    """Questions on different cities, in random order; with one seed a smaller set is the beginning of a larger one.

    Arguments:
        count: how many.
        seed: of the order of cities, and of what is drawn for each.
        difference: degrees between the two options: one number, or several of which each question draws one.
        least_inhabitants: of the cities that are asked about.
        across_equator: allow options on both sides of the equator, which are told apart without knowing the latitude.

    Returns:
        Questions whose right option is the first in half of the cases, at random.

    Errors:
        ArgumentError: a difference that is not positive or too large for any foil, or more questions than there are
            cities for.
    """
    count_of("count", count, 1)
    choices = tuple(difference) if isinstance(difference, Sequence) else (difference,)
    if not choices or not all(0.1 <= delta <= 60 for delta in choices):
        raise ArgumentError("difference", "degrees between 0.1 and 60", difference)
    questions: list[Question] = []
    order = [city for city in cities() if city.inhabitants >= least_inhabitants]
    random.Random(seed).shuffle(order)
    for city in order:
        if len(questions) == count:
            break
        # One stream a city: what is drawn for it does not depend on those before.
        question = _question(city, choices, across_equator, random.Random(f"{seed} {city.name} {city.country}"))
        if question is not None:
            questions.append(question)
    if len(questions) < count:
        raise ArgumentError("count", f"at most {len(questions)}, as there are no more such cities", count)
    return questions


def _question(city: City, differences: Sequence[float], across: bool, draw: random.Random) -> Question | None:
    """The question about a city; `None` where no foil of the difference that was drawn lies where options may."""
    delta, first, up = draw.choice(differences), draw.random() < 0.5, draw.random() < 0.5
    right = round(city.latitude, 1)
    for foil in (right + delta, right - delta) if up else (right - delta, right + delta):
        if SOUTHERNMOST <= foil <= NORTHERNMOST and (across or foil * right > 0) and abs(foil) >= 0.05:
            options = (degrees(right), degrees(foil)) if first else (degrees(foil), degrees(right))
            return Question(
                id=f"{city.name}, {city.country}: {options[0]} or {options[1]}",
                text=f"Which of these is the latitude of the city of {city.name}, {city.country}?",
                options=options,
                answer=0 if first else 1,
            )
    return None


def degrees(latitude: float) -> str:
    """A latitude as maps write it, such as 48.9° N."""
    return f"{abs(latitude):.1f}° {'N' if latitude >= 0 else 'S'}"


def difference_of(question: Question) -> float:
    """Degrees between the two options of a question made here."""
    one, other = (float(text[:-3]) * (1 if text.endswith("N") else -1) for text in question.options)
    return abs(one - other)
