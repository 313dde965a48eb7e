"""Votes from lists that were shown in both orders, and what to make of them.

A judge may favour what it is shown first. Then its answers to a list and to the same list the other way round disagree,
and votes from one of these orders alone agree on what is wrong. Votes from both cancel out. But a function may also be
meant to look at where elements stand, as `reverse` does: for it the answer to the list the other way round is no vote
for the same order. The two are told apart by which pairs turn with the list. Those of a filter-equivariant function are
the pairs inside of classes (two turn with a third, then with each other), and nothing else speaks for either order of
them. Those of a judge are scattered, or lean towards one order of the whole list.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

LEAST_CLOSED = 0.65
"""Share of two turning pairs with a third, from which on they count as those of classes, however noisy the votes."""

MOST_CLOSED = 0.95
"""The same where votes for one pair never differ."""

LEANING = 2.0
"""How much further than by chance the votes of turning pairs may lean towards one order."""

Support = Int[np.ndarray, "n n"]
"""For each two tokens, the votes for the row's before the column's."""


@dataclass(frozen=True, eq=False)
class Balanced:
    """What votes from both orders come to.

    Arguments:
        support: all the votes.
        weighed: the same, with as much weight for the lists turned round as for the others wherever there are both.
        turning: share of the pairs that were seen in both orders whose answer turns with the list.
        by_place: whether the function is taken to look at where elements stand.
        plain: all the votes, were that not so, where the votes leave a doubt about it; else `support`.
    """

    support: Support
    weighed: Support
    turning: float
    by_place: bool
    plain: Support


def balance(given: Support, turned: Support, *, by_place: bool | None = None) -> Balanced:
    """Votes from a list as it is and from the list turned round, as votes for the answer to the list as it is.

    Arguments:
        given: votes of the lists as they are.
        turned: votes of the lists turned round.
        by_place: whether the function looks at where elements stand; `None`: as the votes have it.
    """
    if not turned.any():
        return Balanced(given, given, 0.0, False, given)
    share_given, share_turned = _shares(given), _shares(turned)
    seen = ~np.isnan(share_given) & ~np.isnan(share_turned)
    turns = seen & ((share_given - 0.5) * (share_turned - 0.5) < 0)
    turning = float(turns.sum() / seen.sum()) if seen.any() else 0.0
    plain = given + turned
    closed = _closed(turns, seen)
    doubtful = by_place is None and (closed is None or closed < 1)
    if by_place is None:
        net = np.where(turns, share_given + share_turned - 1, 0.0)
        error = _error(given, turned)
        alone = closed is None and not error
        in_classes = (closed or 0.0) >= max(LEAST_CLOSED, MOST_CLOSED - 5 * error)
        by_place = alone or (in_classes and not _leans(net, turns))
    if by_place:
        support = given + np.where(_smooth(turns, seen), turned.T, turned)
        return Balanced(support, support, turning, True, plain if doubtful else support)
    both = seen & seen.T
    weighed = np.where(both, given * (turned + turned.T) + turned * (given + given.T), plain)
    return Balanced(plain, weighed, turning, False, plain)


def _smooth(turns: Bool[np.ndarray, "n n"], seen: Bool[np.ndarray, "n n"]) -> Bool[np.ndarray, "n n"]:
    """Which pairs turn, by what most of the others say: two that turn with a third turn with each other."""
    edges = turns.astype(np.float64)
    apart = seen & ~turns
    together = edges @ edges
    one_only = edges @ apart + apart @ edges
    return np.asarray(np.where(together + one_only > 0, together > one_only, turns))


def _shares(support: Support) -> Float[np.ndarray, "n n"]:
    """Share of the votes for the row's token first; NaN where there are none."""
    total = support + support.T
    return np.where(total > 0, support / np.maximum(total, 1), np.nan)


def _closed(turns: Bool[np.ndarray, "n n"], seen: Bool[np.ndarray, "n n"]) -> float | None:
    """Of two turning pairs that share a token, how often the third pair turns as well; `None` where no two do.

    Copies of one value are no pair.
    """
    edges = turns.astype(np.float64)
    ways = edges @ edges
    paths = float((ways * seen).sum())
    return float((ways * edges).sum() / paths) if paths else None


def _error(given: Support, turned: Support) -> float:
    """Share of the votes that differ from most of those for the same pair in the same order of presentation."""
    minority = sum(float(np.minimum(votes, votes.T).sum()) for votes in (given, turned))
    return minority / max(float(given.sum() + turned.sum()), 1.0)


def _leans(net: Float[np.ndarray, "n n"], turns: Bool[np.ndarray, "n n"]) -> bool:
    """Whether what is left of the votes for turning pairs agrees on an order of the tokens.

    By chance the sum over the pairs of one token varies as the sum of that many independent terms.
    """
    expected = float((net**2).sum())
    return expected > 0 and float((net.sum(axis=1) ** 2).sum()) > LEANING * expected and int(turns.sum()) > 2
