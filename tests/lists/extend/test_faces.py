"""Three faces fix a list, two leave at most two, and faces that disagree are told apart from circles."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, permutations

import pytest

from holdfast.errors import ArgumentError
from holdfast.lists.errors import AlienValue, Cycle, NotExtendable
from holdfast.lists.extend.faces import face_candidates, glue_faces


def faces_of(out: tuple, values: tuple) -> dict:
    return {value: [x for x in out if x != value] for value in values}


def test_all_faces_give_the_list_back() -> None:
    for out in permutations("aabbc"):
        assert glue_faces(faces_of(out, tuple("abc"))) == list(out)
    assert glue_faces(faces_of((1, 2), (1, 2, 3))) == [1, 2], "a deleted value: its face is the whole list"
    assert glue_faces({1: [], 2: [], 3: []}) == []


@pytest.mark.parametrize(("values", "classes"), [(4, 18), (5, 96), (6, 600)])
def test_two_faces_leave_at_most_two_lists(values: int, classes: int) -> None:
    kinds = Counter()
    for out in permutations(range(values)):
        faces = faces_of(out, (0, 1))
        kinds[str(faces)] += 1
        if values < 6:
            found = face_candidates(faces)
            assert list(out) in found
            assert all(faces_of(tuple(each), (0, 1)) == faces for each in found)
            assert len(found) == sum(faces_of(other, (0, 1)) == faces for other in permutations(range(values)))
    assert len(kinds) == classes
    assert max(kinds.values()) == 2


def test_three_faces_fix_a_list_of_six() -> None:
    for number, out in enumerate(permutations(range(6))):
        if number % 7 == 0:
            for some in combinations(range(6), 3):
                assert face_candidates(faces_of(out, some)) == [list(out)]


def test_both_candidates_are_named() -> None:
    assert sorted(face_candidates({"a": ["b", "c"], "b": ["a", "c"]})) == [["a", "b", "c"], ["b", "a", "c"]]
    assert len(face_candidates(faces_of((3, 0, 2, 1), (3,)))) == 4
    assert len(face_candidates({"a": ["b", "c"]}, copies=2)) == 6
    assert len(face_candidates({"a": list("bcdefgh")}, limit=3)) == 3


def test_faces_that_disagree() -> None:
    faces = {0: [1, 2, 3], 1: [0, 3, 2], 2: [0, 1, 3], 3: [0, 1, 2]}
    with pytest.raises(NotExtendable) as caught:
        glue_faces(faces)
    assert (caught.value.want, caught.value.got) == ([2, 3], [3, 2])
    assert face_candidates(faces) == []
    with pytest.raises(AlienValue):
        glue_faces({0: [1, 2], 1: [0, 1], 2: [0, 1]})
    with pytest.raises(AlienValue):
        face_candidates({0: [0, 1]})


def test_three_faces_in_a_circle() -> None:
    with pytest.raises(Cycle) as caught:
        glue_faces({"a": ["b", "c"], "b": ["c", "a"], "c": ["a", "b"]})
    assert {value for value, _ in caught.value.tokens} == {"a", "b", "c"}
    for (x, _), (y, _), (query, answer) in zip(
        caught.value.tokens, (*caught.value.tokens[1:], caught.value.tokens[0]), caught.value.answers, strict=True
    ):
        assert set(query) == {x, y}
        assert answer == [x, y]


def test_too_few_faces() -> None:
    with pytest.raises(ArgumentError, match="three or more"):
        glue_faces({0: [1], 1: [0]})
    with pytest.raises(ArgumentError, match="one or more"):
        face_candidates({})
    with pytest.raises(ArgumentError, match="limit: expected at least 0"):
        face_candidates({0: [1]}, limit=-1)
