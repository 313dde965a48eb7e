"""Rules for continuous integration."""

from __future__ import annotations

import pytest

from holdfast.card.fail_on import broken_by, rules_of, without_figure
from holdfast.errors import ArgumentError
from tests.card.fakes import card, finding, full_card, measure

PROBES = ("sharpness", "rat", "plasticity", "solutions", "lists", "control-latency")


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("fails", ["fails: sharpness fails"]),
        ("not-told,not-run", ["not-told: plasticity not told", "not-run: solutions not run"]),
        ("sharpness", ["sharpness: sharpness fails"]),
        ("sharpness=fails", ["sharpness=fails: sharpness fails"]),
        ("sharpness=not-told", []),
        ("rat", []),
        ("rat=holds", ["rat=holds: rat holds"]),
        ("lists=does-not-apply", ["lists=does-not-apply: lists does not apply"]),
        ("rat.entropy<0.8", ["rat.entropy<0.8: it is 0.31"]),
        ("rat.entropy < 3.2e-1", ["rat.entropy < 3.2e-1: it is 0.31"]),
        ("rat.entropy>0.31", []),
        ("rat.entropy>-1", ["rat.entropy>-1: it is 0.31"]),
        ("plasticity.entropy<9", []),
        (" sharpness , rat ", ["sharpness: sharpness fails"]),
    ],
)
def test_rules(text, broken):
    assert broken_by(full_card(), rules_of(text, PROBES)) == broken


def test_a_figure_of_two_words_is_named_with_a_dash():
    made = card([finding("control-latency", measures=(measure(0.4, name="learning speed"),))])
    assert broken_by(made, rules_of("control-latency.learning-speed<0.5", PROBES))


@pytest.mark.parametrize(
    "text",
    [
        *("", ",", "fails,", "sharpnes", "sharpness=bad", "sharpness=", "rat.entropy", "rat.entropy<", "rat.entropy=3"),
        *("x.entropy<1", "rat.entropy<1.2.3", "rat.entropy<.", "fails sharpness", "<script>", "rat..entropy<1"),
    ],
)
def test_what_cannot_be_read_is_refused(text):
    with pytest.raises(ArgumentError, match="fail_on: expected"):
        rules_of(text, PROBES)


def test_a_figure_that_was_not_measured_breaks_no_rule_and_is_told():
    rules = rules_of("rat.entropi<9,rat.entropy<9,plasticity.entropy<9,fails", PROBES)
    assert without_figure(full_card(), rules) == [
        "rat.entropi<9: no such figure was measured, of rat there are: entropy",
        "plasticity.entropy<9: no such figure was measured, of plasticity there are: none",
    ]
