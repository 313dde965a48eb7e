"""Checks and cards that are made up: what the card does with answers, whatever they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from holdfast.card import Card, CheckSettings, Finding, Measure, Outcome, Remedy, Subject
from holdfast.card.checks.check import Check
from holdfast.card.target import Kind, Target

MARKUP = "<b onclick=alert(1)>&amp;\"'</b><script>alert(1)</script>"

PICTURE = (
    '<svg class="plot" viewBox="0 0 200 120" role="img" aria-label="made up"><defs><clipPath id="card-x-0">'
    '<rect x="0" y="0" width="200" height="120" /></clipPath></defs><g clip-path="url(#card-x-0)">'
    '<path d="M10 110L60 70L120 60L190 20" style="fill: none; stroke: #2f7fc1" /></g>'
    '<text x="60" y="115" style="font-size: 10px; fill: currentColor">length</text></svg>'
)


def target(name: str = "thing", identity: str = "one", kind: Kind = Kind.FUNCTION) -> Target:
    return Target(kind, name, sorted, identity)


def fake(
    name: str,
    answer: Callable[..., Any] | Outcome = Outcome.HOLDS,
    *,
    seconds: float = 1.0,
    unfit: str = "",
) -> Check:
    """A check that gives an outcome, or what a function of target, settings and seconds gives."""

    def probe(target: Target, settings: CheckSettings, seconds: float) -> Finding:
        if not isinstance(answer, Outcome):
            answer(target, settings, seconds)
        outcome = answer if isinstance(answer, Outcome) else Outcome.HOLDS
        return Finding(name, f"What of {name}?", outcome, f"{name} was asked.", "1 row")

    return Check(name, f"What of {name}?", seconds, lambda target, settings: unfit, probe)


def finding(probe: str, outcome: Outcome = Outcome.HOLDS, **changes: Any) -> Finding:
    made = Finding(
        probe,
        f"Does {probe} break?",
        outcome,
        f"{probe.capitalize()} {outcome} by 0.31 (threshold 0.5).",
        "64 rows of 3 draws",
        Remedy("make it adaptive", "from holdfast.nn import x\nx(model)", f"systems/{probe}"),
        (measure(0.31, 0.02),),
        {"rows": [1.5, None, {"deep": "text"}]},
        PICTURE,
        1.5,
    )
    return dataclasses.replace(made, **changes)


def measure(value: float, error: float = 0.0, name: str = "entropy", **further: Any) -> Measure:
    return Measure(name, "what it is", value, error, better="higher", **further)


def card(findings: Sequence[Finding] = (), name: str = "thing", kind: Kind = Kind.MODEL) -> Card:
    subject = Subject(name, kind, "identity", tuple(findings))
    return Card((subject,), "holdfast check thing", {"budget_s": 60.0, "seed": 0}, {"python": "3.12"}, 4.2)


def full_card(name: str = "thing") -> Card:
    """One with every outcome."""
    return card(
        [
            finding("rat"),
            finding("sharpness", Outcome.FAILS),
            finding("plasticity", Outcome.NOT_TOLD, picture="", measures=()),
            finding("solutions", Outcome.NOT_RUN, sentence="no time was left of 60 s", remedy=None, picture=""),
            finding("lists", Outcome.INAPPLICABLE, sentence="it is no function", remedy=None, picture=""),
        ],
        name,
    )
