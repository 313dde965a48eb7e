"""Words of others, made fit for a line: a target, its errors, and cards from elsewhere may say anything."""

from __future__ import annotations

import re

from holdfast.lab.report import text

LONGEST = 1000
"""Characters of a text that are shown."""

HIDDEN = re.compile("[\x80-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")
"""Controls of terminals in one byte, what turns the direction of writing, and what is not seen."""


def line(words: object, longest: int = LONGEST) -> str:
    """Words on one line, without what a terminal or a page obeys, and not longer than is read.

    Arguments:
        words: anything.
        longest: characters that are kept.
    """
    # What is cut cheaply first may be ten megabytes.
    shown = " ".join(HIDDEN.sub("", text.clean(str(words)[: 4 * longest])).split())
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"
