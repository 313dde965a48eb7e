"""What several parts ask before they compare what is retained."""

from __future__ import annotations

from holdfast.lab.results import Values
from holdfast.lab.verdict import BySeed

LEARNT = 0.9
"""Mean learning accuracy below which retention says nothing: what was not learnt cannot be forgotten."""


def not_learnt(learn: BySeed, label: str) -> str:
    """Why what an arm keeps is not compared; empty where it is.

    Arguments:
        learn: its learning accuracy by seed.
        label: what it is called.
    """
    if not learn:
        return ""  # the test says what is missing
    mean = sum(learn.values()) / len(learn)
    if mean >= LEARNT:
        return ""
    return f"not learnt, retention is meaningless: {label} has a learning accuracy of {mean:.3f}, below {LEARNT:g}"


def unmatched(values: Values, label: str, level: float) -> str:
    """Why there is no retention at a learning accuracy; empty where there is one at each seed.

    Arguments:
        values: retention by seed, NaN where no two neighbouring rates bracket the level.
        label: what the optimiser is called.
        level: the learning accuracy.
    """
    seeds = [str(seed) for seed, value in values.items() if value != value]
    if not seeds:
        return ""
    which = f"of {label} bracket a learning accuracy of {level:g} at seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}"
    return f"no comparison: no two neighbouring rates {which}"
