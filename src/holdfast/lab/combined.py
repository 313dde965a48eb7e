"""Evidence that is put together from that of several statements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from holdfast.errors import ArgumentError
from holdfast.lab.verdict import Bounds, BySeed, Evidence, mean_of


def all_of(links: Sequence[Evidence]) -> Evidence:
    """Evidence that every one of several statements holds: that of the weakest.

    All must be shown, so that the largest p-value needs no correction (an intersection-union test); one that is
    contradicted is enough against all, and each could have been that one.

    Arguments:
        links: of the statements, at least one.
    """
    if not links:
        raise ArgumentError("links", "evidence of at least one statement", "none")
    against = [link for link in links if link.p_value is not None and not link.favours]
    if against:
        worst = min(against, key=lambda link: link.p_value or 0.0)
        worst = replace(worst, p_value=min(1.0, len(links) * (worst.p_value or 0.0)))
    else:
        worst = max(links, key=lambda link: (link.p_value is None, link.p_value or 0.0))
    return replace(worst, test=f"{worst.test}; the weakest of {len(links)}") if worst.test else worst


def within(values: BySeed, low: float, high: float, name: str, *, bounds: Bounds | None = None) -> Evidence:
    """Evidence that a mean over seeds lies between two numbers: two one-sided tests.

    Arguments:
        values: by seed.
        low: lower one.
        high: upper one.
        name: how to call the metric in a reason.
        bounds: least and greatest value that the metric can have.
    """
    above = mean_of(values, threshold=low, bounds=bounds, name=name)
    below = mean_of(values, threshold=high, alternative="less", bounds=bounds, name=name)
    outside = [side for side in (above, below) if not side.favours]
    weaker = max(outside or (above, below), key=lambda side: (side.p_value is None, side.p_value or 0.0))
    return replace(weaker, test=f"{weaker.test}, two one-sided tests") if weaker.test else weaker
