"""Words of others on one line."""

from __future__ import annotations

import pytest

from holdfast.card import Outcome
from holdfast.card.words import LONGEST, line
from tests.card.fakes import card, finding


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("two\n  words\t", "two words"),
        ("\x1b[2J\x1b]0;title\x07red\x9b31m", "red31m"),
        ("\u202egnirts\u2066\u200b", "gnirts"),
        (ValueError("an error"), "an error"),
        ("x" * LONGEST, "x" * LONGEST),
        ("x" * 10_000_000, "x" * (LONGEST - 1) + "…"),
    ],
)
def test_a_line(words, shown):
    assert line(words) == shown


def test_a_summary_obeys_no_terminal_code():
    evil = "\x1b[31m\u202ered\x9b" + "y" * 1_000_000
    made = card([finding(evil, Outcome.FAILS, sentence=evil)], name=evil)
    summary, page = made.summary(), made.to_html(against=made)
    assert not set("\x1b\x9b\u202e") & set(summary)
    assert not set("\x1b\x9b\u202e") & set(page.partition("<main>")[2].partition("<details")[0])
    assert len(summary) < 10_000
    assert len(page) < 300_000
