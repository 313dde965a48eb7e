"""What a card asks: one file a probe, each with the question, whom it suits, and how its answer becomes a finding."""

from __future__ import annotations

from holdfast.card.checks import (
    confidence,
    control_latency,
    copycat,
    lists,
    macros,
    plasticity,
    rat,
    sharpness,
    solutions,
)
from holdfast.card.checks.check import Check

CHECKS: tuple[Check, ...] = (
    lists.CHECK,
    sharpness.CHECK,
    rat.CHECK,
    macros.CHECK,
    control_latency.CHECK,
    copycat.CHECK,
    solutions.CHECK,
    plasticity.CHECK,
    confidence.CHECK,
)

__all__ = ["CHECKS", "Check"]
