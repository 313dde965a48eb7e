"""One plain sentence about attention: is it dispersed, how badly, and what to try."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

DISPERSED = 0.8
"""Mean H / ln n above which a head counts as dispersed."""

GROWING = 0.5
"""d H / d ln n above which the entropy of a head counts as growing: half as fast as that of uniform attention."""


@dataclass(frozen=True)
class HeadSummary:
    """What the sentence is made of, for one head.

    Arguments:
        share: mean H / ln n.
        slope: d H / d ln n; NaN where there is only one size.
        acting: share of rows that the law changes.
        above: share of rows beyond its reach.
    """

    share: float
    slope: float
    acting: float
    above: float


def sentence(heads: Sequence[HeadSummary], where: str, *, broken: int = 0, compared: bool = False) -> str:
    """The verdict on some heads.

    Arguments:
        heads: all of them.
        where: the size, for example "at 128 tokens".
        broken: rows with NaN.
        compared: whether the report compares remedies, so that it need not advise to.
    """
    known = [head for head in heads if not math.isnan(head.share)]
    nan = f"; {broken} rows are NaN and were left out" if broken else ""
    if not known:
        return f"Nothing can be said about dispersion {where}: no row has two visible keys and finite numbers{nan}."
    dispersed = [head for head in known if head.share > DISPERSED]
    told = [head for head in known if not math.isnan(head.slope)]
    growing = [head for head in told if head.slope > GROWING]
    count = f"{len(dispersed)} of {_heads(len(known))}"
    extent = f"{'spreads' if len(dispersed) == 1 else 'spread'} almost evenly (H / ln n above {DISPERSED:g})"
    if not told:
        growth = "whether it grows with the input cannot be told at one size"
    else:
        growth = f"the entropy of {len(growing)} of {_heads(len(told))} grows with ln n at a slope above {GROWING:g}"
    if not dispersed and not growing:
        return f"Attention is not dispersed {where}: {count} {extent}, and {growth}{nan}."
    opening = "Attention is dispersed" if 3 * len(dispersed) >= len(known) else "Some attention is dispersed"
    opening = opening if dispersed else "Attention is not dispersed yet"
    return f"{opening} {where}: {count} {extent}, and {growth}; {_advice(dispersed or growing, compared)}{nan}."


def _heads(count: int) -> str:
    return "1 head" if count == 1 else f"{count} heads"


def _advice(heads: Sequence[HeadSummary], compared: bool) -> str:
    """What to try for heads that have the problem, by where their rows lie against the law."""
    acting, above = (sum(values) / len(heads) for values in zip(*((h.acting, h.above) for h in heads), strict=True))
    if above > acting:
        return f"the law does not reach {above:.0%} of their rows, so fit one that does (fit_temperature), or try LogN"
    if acting < 0.1:
        return "the law acts on few of their rows, so fit one to them (fit_temperature), or try LogN"
    where = "see below what it does" if compared else "compare it with others before you switch it on"
    return f"adaptive temperature acts on {acting:.0%} of their rows: {where}"


COLUMNS = {
    "H": "mean Shannon entropy of a row of attention, in nats",
    "H/ln n": "mean of H divided by that of uniform attention over as many keys; 1 is uniform",
    "exp H": "number of equally weighted keys with that entropy",
    "max w": "mean largest weight of a row",
    "spread": "mean distance of the largest visible logit to the smallest, in nats",
    "n*": "bound on the number of keys beyond which no key can hold half the weight (or the weight asked for)",
    "b_crit": "median of what the logits must be multiplied by for the largest to stand out; at most 1 where it does",
    "below": "share of rows whose entropy is too low for the law to change them",
    "acts": "share of rows that the law changes",
    "above": "share of rows whose entropy is beyond the law's reach, so that it leaves them as they are",
}
"""Columns that both reports have."""
