"""Face gluing: the answer to a list from the answers to that list with one value deleted, as the definition has it.

Deleting a value from a list deletes it from the answer: `f . filter p == filter p . f`. So the *faces*, the answers to
the list without one value each, are the answer with one value deleted each, and three of them fix it. This is the
reference that the fast engines are tested against.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from holdfast.errors import ArgumentError
from holdfast.lists.errors import AlienValue, Cycle, NotExtendable
from holdfast.lists.extend.labels import in_values
from holdfast.lists.extend.pairs import Labels, closure, glue_words, linear_extensions
from holdfast.lists.extend.sublists import Plan, Sublists

MOST_VALUES = 12
"""Most distinct values that the engine takes: it visits every set of values."""


def glue_faces(faces: Mapping[Any, Sequence[Any]]) -> list[Any]:
    """The list that becomes each of the faces where one value is deleted.

    The next element is the one value that all faces but its own have next.

    Arguments:
        faces: for each value of the list, the answer without it; at least three.

    Returns:
        The answer.

    Errors:
        ArgumentError: fewer than three faces.
        NotExtendable, Cycle: no list has these faces.

    Source: the amalgamation of arXiv 2507.08796, derived in docs/systems/lists.md.
    """
    if not isinstance(faces, Mapping) or not all(isinstance(face, Sequence) for face in faces.values()):
        raise ArgumentError("faces", "lists by the value that they lack", type(faces).__name__)
    if len(faces) < 3:
        raise ArgumentError("faces", "three or more, as fewer leave several answers (see face_candidates)", len(faces))
    at = dict.fromkeys(faces, 0)
    glued: list[Any] = []
    while True:
        heads = {value: face[at[value]] for value, face in faces.items() if at[value] < len(face)}
        if not heads:
            return glued
        following = [h for h in faces if all(v == h or (v in heads and heads[v] == h) for v in faces)]
        if len(following) != 1:
            raise _contradiction(faces, glued, heads)
        glued.append(following[0])
        for value in faces:
            at[value] += value != following[0]


def face_candidates(faces: Mapping[Any, Sequence[Any]], *, copies: int = 1, limit: int = 1000) -> list[list[Any]]:
    """All lists that have the given faces: one face leaves many, two leave few, three or more at most one.

    Arguments:
        faces: for some values of the list, the answer without it; at least one.
        copies: copies of the value of a single face, which no face shows.
        limit: most lists that are looked for.

    Returns:
        The lists; none if the faces contradict each other.

    Errors:
        ArgumentError: there is no face, or a number is negative.
        AlienValue: a face holds the value that it is without.

    Source: the amalgamation of arXiv 2507.08796, derived in docs/systems/lists.md. Without
    duplicates and with n values, one face leaves n lists, two leave one or two.
    """
    if not faces:
        raise ArgumentError("faces", "one or more", len(faces))
    for name, number in (("copies", copies), ("limit", limit)):
        if number < 0:
            raise ArgumentError(name, "at least 0", number)
    values = list(dict.fromkeys([*faces, *(value for face in faces.values() for value in face)]))
    _refuse_aliens(faces, values)
    shown = {value: [list(face).count(value) for v, face in faces.items() if v != value] for value in values}
    counts = {value: max(numbers, default=copies) for value, numbers in shown.items()}
    if any(count != counts[value] for value, numbers in shown.items() for count in numbers):
        return []
    tokens = [(value, copy) for value in values for copy in range(counts[value])]
    place_of = {token: place for place, token in enumerate(tokens)}
    before = np.zeros((len(tokens),) * 2, dtype=bool)
    for known in (*faces.values(), *([value] * counts[value] for value in values)):
        seen = dict.fromkeys(values, -1)
        at = []
        for value in known:
            seen[value] += 1
            at.append(place_of[value, seen[value]])
        before[np.ix_(at, at)] |= np.triu(np.ones((len(at),) * 2, dtype=bool), 1)
    before = closure(before)
    if before.diagonal().any():
        return []
    return [[tokens[place][0] for place in order] for order in linear_extensions(before, limit)]


def face_merge(sublists: Sublists) -> Plan:
    """The whole recursion over faces: every set of values is asked for if it can be, else glued from its faces.

    Errors:
        ArgumentError: more than 12 distinct values, or two values have more copies together than the capacity.
        NotExtendable, Cycle: no list has the faces.
    """
    values = np.unique(sublists.labels).tolist()
    if len(values) > MOST_VALUES:
        raise ArgumentError("engine", f"another one than faces for more than {MOST_VALUES} values", len(values))
    capacity = sublists.capacity
    asked: dict[frozenset[int], Labels] = {}
    glued: list[frozenset[int]] = []
    open_sets = {frozenset(values)}
    while open_sets:
        smaller = set()
        for some in open_sets:
            if len(some) <= 2 or capacity is None or sum(sublists.counts[value] for value in some) <= capacity:
                asked[some] = sublists.of(some)
            else:
                glued.append(some)
                smaller |= {some - {value} for value in some}
        open_sets = smaller
    answers = yield list(asked.values())
    known = {some: answer.tolist() for some, answer in zip(asked, answers, strict=True)}
    for some in reversed(glued):
        try:
            known[some] = glue_faces({value: known[some - {value}] for value in sorted(some)})
        except Cycle as error:
            shown = tuple((sublists.of(query).tolist(), answer) for query, answer in error.answers)
            raise in_values(Cycle(error.tokens, shown), sublists.show) from None
        except NotExtendable as error:
            raise in_values(error, sublists.show) from None
    return np.array(known[frozenset(values)], dtype=np.int64)


def _refuse_aliens(faces: Mapping[Any, Sequence[Any]], values: Sequence[Any]) -> None:
    for without, face in faces.items():
        others = [value for value in values if value != without]
        for value in face:
            if value not in others:
                raise AlienValue(others, face, value)


def _contradiction(faces: Mapping[Any, Sequence[Any]], glued: list[Any], heads: Mapping[Any, Any]) -> Exception:
    """Why faces do not glue: two of them disagree, or three values go round in a circle."""
    values = list(faces)
    _refuse_aliens(faces, values)
    for u, v in combinations(values, 2):
        want, got = ([x for x in faces[a] if x != b] for a, b in ((u, v), (v, u)))
        if want != got:
            rule = "two faces, each without the value that the other is without, are equal"
            return NotExtendable(rule, [x for x in values if x not in (u, v)], want, got)
    # Faces that agree hold every list of three values if there are four; so there are three, and they are pair words.
    pairs = {(x, y): face for x, y in combinations(range(3), 2) for face in [faces[values[3 - x - y]]]}
    copies = np.array([list(faces[values[0 if label else 1]]).count(values[label]) for label in range(3)])
    words = {(x, y): np.array([value == values[y] for value in face], dtype=bool) for (x, y), face in pairs.items()}
    try:
        glue_words(copies, words)
    except Cycle as cycle:
        tokens: Any = tuple((values[label], copy) for label, copy in cycle.tokens)  # type: ignore[call-overload]
        shown = tuple(
            ([values[label] for label in pair], [values[label] for label in word]) for pair, word in cycle.answers
        )
        return Cycle(tokens, shown)
    raise AssertionError(f"the faces glue, though after {glued} their heads are {dict(heads)}")
