"""Trials made by hand from log-odds of the first option."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_expit

from holdfast.confidence import Readings, Trials


def readings(log_odds: ArrayLike, mass: float = 1.0) -> Readings:
    """Readings of both orders, all of them complete."""
    values = np.asarray(log_odds, np.float64)
    scores = np.stack([log_expit(values), log_expit(-values)], axis=2)
    return Readings(scores, np.full(values.shape, mass), np.zeros(values.shape, bool))


def of_two(
    stage_1: ArrayLike,
    stage_2: ArrayLike,
    *,
    display: Sequence[str] = (),
    advice: Sequence[str] = (),
    accuracy: Sequence[float] = (),
    choice: Sequence[int] = (),
    invalid: Sequence[str] = (),
) -> Trials:
    """Trials of one question of two options, of which the first was chosen unless said otherwise."""
    count = len(np.asarray(stage_1))
    return Trials(
        question=np.full(count, "q"),
        template=np.full(count, "t"),
        display=np.array(display or ["hidden"] * count),
        advice=np.array(advice or ["neutral"] * count),
        accuracy=np.array(accuracy or [0.7] * count),
        choice=np.array(choice or [0] * count),
        stage_1=readings(stage_1),
        stage_2=readings(stage_2),
        answer=np.full(count, -1),
        invalid=np.array(invalid or [""] * count),
    )
