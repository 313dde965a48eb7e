"""All probes on one model: what will break when it leaves the conditions it was made for.

`check` asks every question that applies and answers with a `Card`.
"""

from __future__ import annotations

from holdfast.card.against import Comparison, Difference, compare
from holdfast.card.card import SCHEMA, Card, Subject
from holdfast.card.checking import check
from holdfast.card.finding import Finding, Measure, Outcome, Remedy
from holdfast.card.settings import CheckSettings

__all__ = [
    "SCHEMA",
    "Card",
    "CheckSettings",
    "Comparison",
    "Difference",
    "Finding",
    "Measure",
    "Outcome",
    "Remedy",
    "Subject",
    "check",
    "compare",
]
