"""Tokens of an answer, and the three of them that show that there is no answer.

The words on two values each order their tokens. There is one list with these words if and only if no three tokens go
round in a circle: a tournament without 3-cycles is transitive, and its scores differ (Landau).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

Token = tuple[int, int]
"""A label and which of its copies, from 0."""


def circle_through(s: Token, t: Token, before: Callable[[Token], Mapping[int, int]]) -> tuple[Token, Token, Token]:
    """Three tokens, each of which comes before the next, and the last before the first.

    Arguments:
        s: a token.
        t: another one, of another value, with as many tokens before it.
        before: a token -> how many tokens of each label stand before it.
    """
    before_s, before_t = before(s), before(t)
    if before_s[t[0]] > t[1]:
        s, t, before_s, before_t = t, s, before_t, before_s
    # As many stand before s as before t, and s is one of the latter: so some token stands before s and not before t. It
    # has a third value, since copies of one value stand in their order.
    third = next(label for label, count in before_s.items() if count > before_t[label])
    return s, t, (third, before_t[third])
