"""Whether a function on lists keeps the rule by which its answers on short lists settle those on long ones."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.card.checks.check import Check, picture
from holdfast.card.finding import Finding, Measure, Outcome, Remedy
from holdfast.card.settings import CheckSettings
from holdfast.card.target import Kind, Target
from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from holdfast.probes.lists import ListReport

NAME = "lists"
QUESTION = "Does it go wrong on lists longer than those it was tried on?"
LENGTHS = (4, 8, 16, 32, 64)
LISTS = 60
"""Of each length."""
EXAMPLES = 500
"""Short lists drawn at random, after all of up to five elements of three values."""
QUERIES = 6.0
"""Calls for a short list: with each of its values deleted."""
FEWEST = 10
"""Lists of a length, and short ones, below which nothing is measured."""


def unfit(target: Target, settings: CheckSettings) -> str:
    """Only functions on lists."""
    return "" if target.kind is Kind.FUNCTION else "it is no function from a list to a list"


def probe(target: Target, settings: CheckSettings, seconds: float) -> Finding:
    """Search short lists for one that breaks the rule, and measure by length how often it is broken."""
    from holdfast.lists import Oracle, check_filter_equivariance
    from holdfast.probes.lists import probe_filter_equivariance

    # Half of the time for the short lists, half for the long ones.
    calls = seconds / 2 / _seconds_of_a_call(target, seconds)
    short = int(min(EXAMPLES, calls / QUERIES / 2))
    lists = int(min(LISTS, calls / 2 / len(LENGTHS)))
    if min(short, lists) < FEWEST:
        enough = max(FEWEST * QUERIES * 2, FEWEST * 2 * len(LENGTHS)) / calls
        raise HoldfastError(
            f"In {seconds:.0f} s there is no time for {FEWEST} lists of each length, as one takes "
            f"{seconds / 2 / calls:.2g} s: a budget of {math.ceil(1.1 * settings.budget_s * enough)} s would do"
        )
    oracle = Oracle(target.subject)
    searched = check_filter_equivariance(
        oracle, max_examples=short, exhaustive=(3, 5 if short == EXAMPLES else 3), seed=settings.seed
    )
    report = probe_filter_equivariance(oracle, lists=_lists(lists, settings.seed), seed=settings.seed)
    total = sum(entry.lists for entry in report.entries)
    broken = round(sum(entry.violation * entry.lists for entry in report.entries))
    fails = broken > 0 or not searched.holds
    # What breaks the rule at every length follows another one, and need not be wrong at any.
    another = report.breaks_at() == report.lengths[0]
    example = None if searched.counterexample is None else list(searched.counterexample.xs)
    certainty = f"{_lists_of(searched.n_checked, 'short ')}, and {lists} of each length up to {LENGTHS[-1]}"
    if not fails:
        most = max(entry.interval[1] for entry in report.entries)
        certainty += f"; at any one length it may contradict itself on {most:.0%} of them at most (95 %)"
    return Finding(
        NAME,
        QUESTION,
        Outcome.NOT_TOLD if another else Outcome.FAILS if fails else Outcome.HOLDS,
        _sentence(report, broken, total, example),
        certainty,
        _remedy(target, report) if fails else None,
        (_measure(broken, total),),
        {"search": searched.to_dict(), "lengths": report.to_dict()},
        picture(report, NAME),
    )


RULE = "when one value is taken out of a list, more than that value changes in its answer"
"""What it is that a function contradicts itself."""


def _sentence(report: ListReport, broken: int, total: int, example: list[Any] | None) -> str:
    """The answer for somebody who has read nothing on it; the share of all lists is the figure of the card.

    Arguments:
        report: by length.
        broken: lists of all lengths on which the function contradicts itself.
        total: lists of all lengths.
        example: a short list on which it does.
    """
    if not broken and example is None:
        return (
            f"It never contradicts itself, on {_lists_of(total)} of up to {report.lengths[-1]} elements: when "
            "one value is taken out of a list, nothing else changes in its answer. Mistakes that keep to this, such as "
            "sorting downwards, do not show."
        )
    if not broken:
        return (
            f"It contradicts itself on {example!r}, though on none of {_lists_of(total, 'longer ')}: {RULE}. Look at "
            "that list."
        )
    worst = max(report.entries, key=lambda entry: entry.violation)
    found = (
        f"It contradicts itself on {worst.violation:.0%} of the lists of {worst.length} elements, where it is worst, "
        f"and on {_percent(broken / total)} of all {total}: {RULE}."
    )
    at = report.breaks_at()
    if at is None:
        return f"{found} At no length does that concern most lists."
    kept = [length for length in report.lengths if length < at]
    if kept:
        return f"It goes wrong between {kept[-1]} and {at} elements. {found}"
    return (
        f"It follows another rule than this question is about, or is wrong everywhere. {found} Functions that sort, "
        "choose or reorder do not; one that changes every value, counts, or keeps the first few does, and may be right."
    )


def _percent(share: float) -> str:
    return f"{share:.1%}" if share < 0.01 else f"{share:.0%}"


def _lists_of(number: int, kind: str = "") -> str:
    return f"{number} {kind}{'list' if number == 1 else 'lists'}"


def _seconds_of_a_call(target: Target, seconds: float) -> float:
    """How long a list of middling length takes.

    Errors:
        HoldfastError: the function does not answer lists of numbers with lists.
    """
    from holdfast.lists import BadAnswer, Oracle

    oracle = Oracle(target.subject)
    started = time.monotonic()
    tried = [[0], [2, 0, 1], list(range(LENGTHS[2]))]
    try:
        for xs in tried:
            oracle(xs)
    except BadAnswer as error:
        said = " ".join(str(error).split())
        raise HoldfastError(f"It does not answer every list of whole numbers with a list: {said}") from error
    return max((time.monotonic() - started) / len(tried), 1e-6)


def _lists(number: int, seed: int) -> list[list[int]]:
    """As many of each length: half of them without an element twice, half with some."""
    rng = np.random.default_rng(seed)
    drawn = []
    for length in LENGTHS:
        drawn += [rng.permutation(2 * length)[:length].tolist() for _ in range(number - number // 2)]
        drawn += [rng.integers(length, size=length).tolist() for _ in range(number // 2)]
    return drawn


def _measure(broken: int, total: int) -> Measure:
    # Laplace's share, so that none of so many does not count as none at all.
    share = (broken + 1) / (total + 2)
    return Measure(
        "broken lists",
        "share of lists, of all lengths together, on which the function contradicts itself",
        broken / total,
        math.sqrt(share * (1 - share) / total),
        better="lower",
    )


def _remedy(target: Target, report: ListReport) -> Remedy:
    """Extend it from a length up to which it is right; where there is none, no extension fits."""
    at = report.breaks_at()
    kept = [length for length in report.lengths if at is None or length < at]
    if not kept:
        text = "if it should sort, choose or reorder, look for its mistake in a short list; if not, try it on examples"
        return Remedy(f"{text} whose answers you know", page="systems/lists")
    source, _, name = target.name.rpartition(":")
    made = f"from {source.removesuffix('.py').replace('/', '.')} import {name}\n" if source else ""
    votes = ", votes=3" if at is None else ""
    lines = (
        f"{made}from holdfast.lists import extrapolate\n\nf = extrapolate({name}, capacity={min(kept[-1], 16)}{votes})"
    )
    text = "unless it cuts its answer short on purpose, ask it for several short lists and put their answers together"
    return Remedy(f"{text}{', by majority' if votes else ''}", lines, "systems/lists")


CHECK = Check(NAME, QUESTION, 2.0, unfit, probe, "it goes wrong on longer lists")
