"""When a check counts as failed, for continuous integration: rules in a small language.

A rule list is made of rules with commas between them, any of which fails the check:

    fails                     any failure that was found
    not-told, not-run         any such outcome
    sharpness=fails           that outcome of that probe
    sharpness                 the same, shorter
    plasticity.learning-speed<0.8   a figure of a probe, by the name in the card, beside a number: < or >
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from holdfast.card.card import Card
from holdfast.card.finding import Outcome
from holdfast.errors import ArgumentError

OUTCOMES = {str(outcome).replace(" ", "-"): outcome for outcome in Outcome}
GRAMMAR = "rules such as fails, not-run, sharpness, sharpness=not-told or plasticity.learning-speed<0.8, with commas"
FIGURE = re.compile(r"([\w-]+)\.([\w-]+)\s*([<>])\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)", re.IGNORECASE)


@dataclass(frozen=True)
class Rule:
    """One rule.

    Arguments:
        text: as it was typed.
        broken: says of a card why it fails, or an empty string.
        figure: the probe and the figure that it is about, where it is about one.
    """

    text: str
    broken: Callable[[Card], str]
    figure: tuple[str, str] | None = None


def rules_of(text: str, probes: tuple[str, ...]) -> list[Rule]:
    """Read a list of rules.

    Arguments:
        text: the list.
        probes: names that there are.

    Errors:
        ArgumentError: it cannot be read, or names an unknown probe.
    """
    words = [word.strip() for word in text.split(",")]
    return [_rule(word, probes) for word in words]


def broken_by(card: Card, rules: list[Rule]) -> list[str]:
    """A line for each rule that a card breaks."""
    return [f"{rule.text}: {why}" for rule in rules if (why := rule.broken(card))]


def without_figure(card: Card, rules: list[Rule]) -> list[str]:
    """A line for each rule about a figure that a card does not have: it may be misspelt, or not have been measured."""
    had = {(finding.probe, _dashed(measure.name)) for finding in card.findings for measure in finding.measures}
    lines = []
    for rule in rules:
        if rule.figure is not None and rule.figure not in had:
            there = ", ".join(sorted(name for probe, name in had if probe == rule.figure[0])) or "none"
            lines.append(f"{rule.text}: no such figure was measured, of {rule.figure[0]} there are: {there}")
    return lines


def _dashed(name: str) -> str:
    return name.replace(" ", "-")


def _rule(word: str, probes: tuple[str, ...]) -> Rule:
    if word in OUTCOMES:
        return Rule(word, lambda card: _with_outcome(card, OUTCOMES[word], None))
    if match := FIGURE.fullmatch(word):
        probe, figure, side, limit = match[1], match[2], match[3], float(match[4])
        _known(probe, probes)
        return Rule(word, lambda card: _beyond(card, probe, figure, side, limit), (probe, figure))
    probe, _, outcome = (word if "=" in word else f"{word}=fails").partition("=")
    if not re.fullmatch(r"[\w-]+", probe) or outcome not in OUTCOMES:
        raise ArgumentError("fail_on", GRAMMAR, word or "nothing")
    _known(probe, probes)
    return Rule(word, lambda card: _with_outcome(card, OUTCOMES[outcome], probe))


def _known(probe: str, probes: tuple[str, ...]) -> None:
    if probe not in probes:
        raise ArgumentError("fail_on", f"a probe: one of {', '.join(probes)}", probe)


def _with_outcome(card: Card, outcome: Outcome, probe: str | None) -> str:
    named = [f for f in card.findings if f.outcome is outcome and probe in (None, f.probe)]
    return ", ".join(f"{finding.probe} {outcome}" for finding in named)


def _beyond(card: Card, probe: str, figure: str, side: str, limit: float) -> str:
    """A figure that was not measured breaks no rule about its size; `not-run` is the rule for that."""
    for finding in card.findings:
        for measure in finding.measures:
            named = _dashed(measure.name)
            over = measure.value > limit if side == ">" else measure.value < limit
            if finding.probe == probe and named == figure and over:
                return f"it is {measure.value:.3g}"
    return ""
