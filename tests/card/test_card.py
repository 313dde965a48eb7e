"""The card itself: what is read first, JSON there and back, and a summary that a terminal holds."""

from __future__ import annotations

import json
import math

import pytest

from holdfast.card import SCHEMA, Card, Outcome, Subject
from holdfast.errors import ArgumentError
from tests.card.fakes import MARKUP, card, finding, full_card, measure


def with_finding(**changes):
    """A card's document with a finding of which something is not what it should be."""
    document = full_card().to_dict()
    document["subjects"][0]["findings"][0] |= changes
    return document


def test_what_is_read_first():
    ordered = [one.probe for one in full_card().subjects[0].ordered()]
    assert ordered == ["sharpness", "plasticity", "rat", "solutions", "lists"]


@pytest.mark.parametrize(
    ("outcomes", "answer"),
    [
        ([], "Nothing was measured."),
        ([Outcome.NOT_RUN, Outcome.INAPPLICABLE], "Nothing was measured."),
        ([Outcome.HOLDS], "No failure found by 1 question."),
        ([Outcome.FAILS], "The one question that could be asked found a failure: p0."),
        ([Outcome.NOT_TOLD] * 2, "What was measured does not decide any of 2 questions."),
        ([Outcome.NOT_TOLD], "What was measured does not decide the one question that could be asked."),
        (
            [Outcome.HOLDS, Outcome.NOT_TOLD],
            "No failure found by 1 of 2 questions. Left open by what was measured: p1.",
        ),
        ([Outcome.FAILS, Outcome.HOLDS], "1 of 2 questions answered with a failure: p0."),
    ],
)
def test_the_answer(outcomes, answer):
    assert card([finding(f"p{number}", outcome) for number, outcome in enumerate(outcomes)]).answer == answer


@pytest.mark.parametrize("probes", [0, 1, 9, 40])
@pytest.mark.parametrize("words", [3, 400])
@pytest.mark.parametrize("subjects", [1, 3])
def test_a_summary_fits_a_terminal(probes, words, subjects):
    outcomes = list(Outcome)
    findings = tuple(
        finding(f"probe-{number}", outcomes[number % len(outcomes)], sentence="word " * words)
        for number in range(probes)
    )
    made = Card(tuple(Subject(f"model {number}", "network", "", findings) for number in range(subjects)))
    lines = made.summary().splitlines()
    assert len(lines) <= 25
    # A sentence is wrapped; only names are never cut.
    assert all(len(line) <= 100 for line in lines[1:])
    assert lines[0] == made.answer


@pytest.mark.parametrize("measured", [[], [finding("c")]])
def test_it_is_said_what_to_give_for_a_question_that_was_not_asked(measured):
    unfit = Outcome.INAPPLICABLE
    asked_not = [finding("a", unfit, sentence="needs --data"), finding("b", unfit, sentence="it is no policy")]
    lines = card([*measured, *asked_not]).summary().splitlines()
    assert lines[-2:] == ["    not yet: a: needs --data", "            not for this: b"]


def test_where_nothing_is_measured_the_page_says_why():
    made = card([finding("a", Outcome.INAPPLICABLE, sentence="needs --data")])
    assert 'id="not-asked" open' in made.to_html()
    assert 'id="not-asked" open' not in full_card().to_html()


def test_there_and_back():
    made = full_card()
    read = Card.from_dict(json.loads(json.dumps(made.to_dict(), allow_nan=False)))
    assert read == made
    assert read.to_dict() == made.to_dict()
    assert made.to_dict()["schema"] == SCHEMA


def test_figures_that_json_lacks_come_back():
    made = card(
        [
            finding("a", measures=(measure(0.1, 0.2, degrees=4.5, units="rows, seed 0", values=(0.1, 0.3)),)),
            finding("b", measures=(measure(math.inf), measure(-math.inf, name="other"))),
            finding("c", measures=(measure(math.nan),)),
        ]
    )
    document = json.loads(json.dumps(made.to_dict(), allow_nan=False))
    read = Card.from_dict(document)
    assert read.findings[:2] == made.findings[:2]
    assert math.isnan(read.findings[2].measures[0].value)


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"schema": "holdfast.card/2"},
        {"schema": SCHEMA},
        {"schema": SCHEMA, "subjects": 3},
        {"schema": SCHEMA, "subjects": [{"name": "a"}]},
        {**full_card().to_dict(), "settings": 3},
        {**full_card().to_dict(), "seconds": "long"},
        *(with_finding(**{name: 5}) for name in ("probe", "question", "sentence", "certainty", "picture", "report")),
        with_finding(probe=["x"]),
        with_finding(remedy={"text": 1, "code": "", "page": ""}),
        with_finding(remedy=["text"]),
        with_finding(measures=[{**full_card().to_dict()["subjects"][0]["findings"][0]["measures"][0], "name": 3}]),
        with_finding(measures=5),
        {**full_card().to_dict(), "subjects": [{"name": "a", "kind": "b", "identity": "c", "findings": [{}]}]},
    ],
)
def test_what_is_no_card_is_refused(document):
    with pytest.raises(ArgumentError, match=r"card: expected a document of schema holdfast.card/1"):
        Card.from_dict(document)


def test_an_unknown_entry_is_no_fault():
    """Within a version of the schema entries may be added."""
    document = full_card().to_dict()
    document["later"] = document["subjects"][0]["later"] = 1
    assert Card.from_dict(document) == full_card()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"3"])
def test_a_file_that_is_no_card(tmp_path, content):
    (tmp_path / "card.json").write_bytes(content)
    with pytest.raises(ArgumentError, match="card: expected"):
        Card.read(tmp_path)
    with pytest.raises(ArgumentError, match="card: expected"):
        Card.read(tmp_path / "none.json")


def test_a_finding_by_its_probe():
    made = full_card()
    assert made.finding("rat").outcome is Outcome.HOLDS
    with pytest.raises(
        ArgumentError, match="probe: expected one of lists, plasticity, rat, sharpness, solutions, got x"
    ):
        made.finding("x")
    twice = Card((card([finding("a", Outcome.INAPPLICABLE)]).subjects[0], card([finding("a")]).subjects[0]))
    assert twice.finding("a").outcome is Outcome.HOLDS


def test_markup_is_text_in_the_summary():
    assert MARKUP in card([finding("a")], name=MARKUP).summary()
