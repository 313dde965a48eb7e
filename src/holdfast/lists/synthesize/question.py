"""The list to ask for next: the one whose answer tells the functions that fit apart best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import permutations, product
from typing import Any

from holdfast.lists.synthesize.families import fresh_values
from holdfast.lists.synthesize.synthesis import QUESTION_LENGTH, Family, Hypothesis
from holdfast.lists.synthesize.version_space import VersionSpace

COMPARED = 150
"""Hypotheses that a question is chosen by."""


def best_question(space: VersionSpace, families: Sequence[Family]) -> tuple[list[Any] | None, tuple[int, int]]:
    """The short list whose answers split the functions that fit best, and into how many groups.

    First the functions of the best class are to be told apart; if there is but one, those of all classes.
    """
    best = next((family for family in families if family.hypotheses), None)
    if best is None:
        return None, (0, 0)
    rivals = (
        best.hypotheses
        if len(best.hypotheses) > 1
        else [hypothesis for family in families for hypothesis in family.hypotheses]
    )
    question = _best_split(space, rivals)
    if question[0] is None and len(best.hypotheses) > 1:
        question = _best_split(space, [hypothesis for family in families for hypothesis in family.hypotheses])
    return question


def _best_split(space: VersionSpace, hypotheses: Sequence[Hypothesis]) -> tuple[list[Any] | None, tuple[int, int]]:
    # The simplest ones, and some from the others.
    step = max(1, len(hypotheses) // COMPARED)
    compared = list(hypotheses[::step])[:COMPARED]
    chosen: list[Any] | None = None
    # Functions that would be left on average, times their number: what is to be small.
    least = len(compared) ** 2
    groups = 1
    for xs in _questions(space):
        try:
            answers = Counter(tuple(_places(xs, hypothesis(list(xs)))) for hypothesis in compared)
        except Exception:  # no question for all of them: a value that one does not know, or a key that raises
            continue
        left = sum(number**2 for number in answers.values())
        if left < least:
            chosen, least, groups = list(xs), left, len(answers)
            if groups == len(compared):
                break
    return chosen, (groups, len(compared))


def _places(xs: Sequence[Any], answer: Sequence[Any]) -> list[int]:
    """An answer by the places of its values in the list: also for values that cannot be hashed."""
    return [xs.index(y) for y in answer]


def _questions(space: VersionSpace) -> Iterator[tuple[Any, ...]]:
    """Short lists, the shortest first, of the values of the examples and of others; long ones without duplicates."""
    values = list(space.alphabet.values)
    pool = [*values[:3], *fresh_values(values)][:QUESTION_LENGTH]
    for length in range(1, QUESTION_LENGTH + 1):
        yield from product(pool, repeat=length)
        if len(values) > len(pool) - 1:
            yield from permutations(values[:7], length)
