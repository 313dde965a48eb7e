"""Programs by example: list functions that fit a few examples, in every class at once, and the question to ask next.

All classes are filter equivariant, so that an example says much more than itself: with any values deleted from the list
and from its answer it is an example again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from holdfast.errors import ArgumentError, count_of
from holdfast.lists.synthesize.families import (
    Limits,
    natural_family,
    order_natural_family,
    permutation_family,
    term_family,
)
from holdfast.lists.synthesize.question import best_question
from holdfast.lists.synthesize.synthesis import CLASSES, ClassName, Family, Synthesis
from holdfast.lists.synthesize.version_space import Example, as_examples, version_space

MOST_COPIES = 20
"""Copies that the largest `inflate` of a search may make."""

MOST_LEAVES = 5
"""Leaves of the largest term that a search may be asked for."""


def synthesize(
    examples: Sequence[Example],
    *,
    classes: Sequence[str] = CLASSES,
    max_size: int = 3,
    max_multiplicity: int = 4,
    max_hypotheses: int = 1000,
    keys: Mapping[str, Callable[[Any], Any]] | None = None,
    predicates: Mapping[str, Callable[[Any], Any]] | None = None,
    progress: bool = True,
) -> Synthesis:
    """Find the list functions that fit examples.

    Arguments:
        examples: pairs (list, its answer).
        classes: where to look. "natural": commute with every map of the values. "order-natural": with those that keep
            their order. "terms": a small language of named functions. "permutation": change nothing but the order, in a
            way that is specific to the values of the examples.
        max_size: leaves of the largest term, at most 5. 4 takes seconds, 5 a minute and more.
        max_multiplicity: copies that an `inflate` in a term makes, at most 20; and copies that a natural function
            makes, where no example has an element and shows it.
        max_hypotheses: functions that are kept of a class; all are counted where possible.
        keys: what a term may sort by, by name, such as `{"abs": abs}`.
        predicates: what a term may keep, by name.
        progress: show a bar on a terminal after two seconds.

    Returns:
        What fits, and what to ask next.

    Errors:
        ArgumentError: an argument cannot be used.
        AlienValue, WrongMultiplicity, Contradiction, Cycle: no filter-equivariant function at all fits the examples.
            The error names the law, and the examples that break it.

    Source: arXiv 2507.08796 for the classes.
    """
    wanted = [name for name in CLASSES if isinstance(classes, list | tuple) and name in classes]
    if not wanted or any(name not in CLASSES for name in classes):
        raise ArgumentError("classes", f"some of {', '.join(CLASSES)}", classes)
    for argument, number in (("max_size", max_size), ("max_hypotheses", max_hypotheses)):
        count_of(argument, number, least=1)
    if max_size > MOST_LEAVES:
        raise ArgumentError("max_size", f"at most {MOST_LEAVES}", max_size)
    if count_of("max_multiplicity", max_multiplicity) > MOST_COPIES:
        raise ArgumentError("max_multiplicity", f"at most {MOST_COPIES}", max_multiplicity)
    for argument, given in (("keys", keys), ("predicates", predicates)):
        if given is not None and "terms" not in wanted:
            raise ArgumentError(argument, "none without the class terms", given)
    space = version_space(as_examples(examples))
    limits = Limits(max_size, max_multiplicity, min(max_hypotheses, sys.maxsize))
    families: dict[ClassName, Callable[[], Family]] = {
        "natural": lambda: natural_family(space, limits),
        "order-natural": lambda: order_natural_family(space, limits),
        "terms": lambda: term_family(space, limits, keys or {}, predicates or {}, progress=progress),
        "permutation": lambda: permutation_family(space, limits),
    }
    left = tuple(families[name]() for name in wanted)
    question, groups = best_question(space, left)
    return Synthesis(space.examples, left, question, groups, space)
