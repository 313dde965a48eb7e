"""Question sets: what cannot be asked is said at once, and latitudes are told apart by knowing them."""

from __future__ import annotations

import json
import re

import pytest

from holdfast.confidence.latitude import ATTRIBUTION, DIFFERENCES, cities, difference_of, latitude_questions
from holdfast.confidence.questions import Question, check_questions, read_questions, write_questions
from holdfast.errors import ArgumentError


def test_a_set_survives_a_file(tmp_path):
    questions = [
        Question("a", "Which is it – 1 or 2?", ("1", "2"), 1),
        Question("b", 'Three "options"\nin two lines', ("x", "y", "ž")),
    ]
    write_questions(tmp_path / "set.jsonl", questions)
    assert read_questions(tmp_path / "set.jsonl") == questions


def test_numbers_are_names_and_empty_lines_are_skipped(tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_text('\ufeff{"id": 7, "question": "?", "options": ["1", "2"]}\n\n', encoding="utf-8")
    assert read_questions(path) == [Question("7", "?", ("1", "2"), None)]


def test_all_problems_are_named_at_once(tmp_path):
    lines = [
        {"id": "twice", "question": "first?", "options": ["1", "2"]},
        {"id": "twice", "question": "second?", "options": ["1", "2"]},
        {"id": "copy", "question": "first?", "options": ["1", "2"]},
        {"id": "blank", "question": "?", "options": ["1", "  "]},
        {"id": "equal", "question": "?", "options": ["Paris", "paris "]},
        {"id": "many", "question": "?", "options": [str(number) for number in range(27)]},
        {"id": "one", "question": "?", "options": ["1"]},
        {"id": "answer", "question": "?", "options": ["1", "2"], "answer": 2},
        {"id": "silent", "question": " ", "options": ["1", "2"]},
        {"id": "dumb", "question": "", "options": ["1", "3"]},
        {"question": "?", "options": ["1", "2"]},
        {"id": "letter", "question": "?", "options": ["1", "2"], "answer": "B"},
        {"id": "text", "question": "?", "options": "12"},
    ]
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + "not json\n", encoding="utf-8")
    with pytest.raises(ArgumentError) as caught:
        read_questions(path)
    said = str(caught.value)
    for words in (
        "line 11: no id",
        "the answer of 'letter' is neither an index nor null",
        "the options of 'text' are no list of texts",
        "line 14 is not JSON",
        "'twice' is the id of several questions",
        "'copy' asks the same as 'twice'",
        "'blank': an option is empty",
        "'equal': several options are 'paris'",
        "'many': 27 options",
        "'one': 1 options",
        "'answer': answer 2 is none of the options 0 to 1",
    ):
        assert words in said
    assert said.endswith("and 1 more")


@pytest.mark.parametrize(
    ("key", "hint"), [("anwser", "did you mean 'answer'?"), ("source", "there are id, question, options, answer")]
)
def test_a_key_that_is_not_known_is_no_answer(key, hint, tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_text(json.dumps({"id": "q", "question": "?", "options": ["1", "2"], key: 0}))
    with pytest.raises(ArgumentError, match=re.escape(f"line 1: unknown key {key!r} ({hint})")):
        read_questions(path)


@pytest.mark.parametrize(
    "questions",
    [
        [],
        [Question("a", "?", ("1",))],
        # Each would ask in one order what the other asks in another one.
        [Question("a", "?", ("1", "2")), Question("b", "?", ("2", "1"))],
        [Question("a", "?", ("1", "2", "3")), Question("b", "?", ("2", "3", "1"))],
    ],
)
def test_what_cannot_be_asked_is_refused(questions):
    with pytest.raises(ArgumentError, match="questions that can be asked"):
        check_questions(questions)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(ArgumentError, match="a file of JSON lines"):
        read_questions(tmp_path / "none.jsonl")


def test_rivals_are_other_options_and_depend_on_the_question_alone():
    for count in (2, 3, 5):
        question = Question("q", f"{count}?", tuple(map(str, range(count))))
        rivals = [question.rival(chosen) for chosen in range(count)]
        assert all(rival != chosen for chosen, rival in enumerate(rivals))
        assert sorted(rivals) == list(range(count))


def test_the_table_of_cities_is_what_it_says():
    table = cities()
    assert len(table) > 2000
    assert len({(city.name, city.country) for city in table}) == len(table)
    assert [city.inhabitants for city in table] == sorted((city.inhabitants for city in table), reverse=True)
    where = {(city.name, city.country): city.latitude for city in table}
    assert where["London", "United Kingdom"] == pytest.approx(51.51)
    assert where["Sydney", "Australia"] == pytest.approx(-33.87)
    assert "GeoNames" in ATTRIBUTION


def test_latitudes_differ_as_asked_and_give_nothing_away():
    questions = latitude_questions(2000, seed=3)
    check_questions(questions)
    assert {round(difference_of(question), 1) for question in questions} == set(DIFFERENCES)
    latitude = {f"{city.name}, {city.country}": city.latitude for city in cities()}
    for question in questions:
        right = latitude[question.id.partition(":")[0]]
        assert question.options[question.answer].startswith(f"{abs(round(right, 1)):.1f}")
        assert question.options[0][-1] == question.options[1][-1]  # the hemisphere is that of both
    first = sum(question.answer == 0 for question in questions)
    assert abs(first - 1000) < 5 * 500**0.5
    larger = sum(
        float(question.options[question.answer][:-3]) > float(question.options[1 - question.answer][:-3])
        for question in questions
    )
    assert 700 < larger < 1300


def test_a_smaller_set_is_the_beginning_of_a_larger_one():
    assert latitude_questions(200, seed=1)[:50] == latitude_questions(50, seed=1)
    assert latitude_questions(50, seed=1) != latitude_questions(50, seed=2)
    assert all(difference_of(question) == pytest.approx(5) for question in latitude_questions(20, difference=5))


def test_too_much_is_refused():
    with pytest.raises(ArgumentError, match="no more such cities"):
        latitude_questions(5000)
    with pytest.raises(ArgumentError, match="difference"):
        latitude_questions(5, difference=0.0)
