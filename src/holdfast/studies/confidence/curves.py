"""What pictures of an analysis are drawn from, as curves of an outcome."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.confidence import Analysis
    from holdfast.lab import Record


def curves_of(analysis: Analysis) -> dict[str, list[Record]]:
    """Curves `cells` (changes of mind and of confidence) and `updates` (observed and ideal) of an analysis."""
    cells: list[Record] = [
        {
            "display": cell.display,
            "advice": cell.advice,
            "accuracy": cell.accuracy,
            "trials": cell.trials,
            "change_of_mind": known(cell.change_of_mind.value),
            "ideal_change_of_mind": known(cell.ideal_change_of_mind),
            "probability_change": known(cell.probability_change),
        }
        for cell in analysis.cells
    ]
    updates: list[Record] = [
        {
            "advice": update.advice,
            "accuracy": update.accuracy,
            "observed": update.observed.value,
            "low": update.observed.low,
            "high": update.observed.high,
            "ideal": update.ideal,
        }
        for update in analysis.updates
    ]
    return {"cells": cells, "updates": updates}


def known(value: float) -> float | None:
    """A number, or `None` where it is none."""
    return value if math.isfinite(value) else None
