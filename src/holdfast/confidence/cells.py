"""The table of cells: how often minds change and how confidence moves, for each display, advice and stated accuracy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from holdfast.confidence.intervals import Estimate, interval
from holdfast.confidence.observers import with_advice
from holdfast.confidence.trials import (
    ADVICE,
    DISPLAYS,
    Advice,
    BoolArray,
    Display,
    FloatArray,
    Trials,
    lead,
    log_odds,
)


@dataclass(frozen=True)
class Cell:
    """Trials of one cell of the design.

    Arguments:
        display: what stage 2 showed.
        advice: what the adviser said.
        accuracy: what was stated about it; `None`: all of them together.
        trials: valid ones.
        change_of_mind: share of changed minds, ties counting half, with its interval over questions.
        standard_error: of that share over trials, as the paper draws it.
        ideal_change_of_mind: share that an ideal observer with the same stage-1 readings would change.
        probability_change: mean of p1 - p0 of the option chosen first.
        probability_error: its standard error over trials.
        log_odds_change: mean of L1 - L0.
        ideal_log_odds_change: mean of what the advice adds to the log-odds of an ideal observer.
        censored: share of trials with a reading that is only a bound.
        ties: trials in which no option led.
    """

    display: Display
    advice: Advice
    accuracy: float | None
    trials: int
    change_of_mind: Estimate
    standard_error: float
    ideal_change_of_mind: float
    probability_change: float
    probability_error: float
    log_odds_change: float
    ideal_log_odds_change: float
    censored: float
    ties: int


@dataclass(frozen=True)
class ChangeOfMind:
    """How much rarer changes of mind are where the model's own answer is shown, over all advice.

    Arguments:
        shown: share of changed minds with the own answer shown.
        hidden: share with it hidden.
        difference: hidden less shown.
        odds_ratio: odds of changing when shown over those when hidden; below 1: the answer is clung to.
    """

    shown: Estimate
    hidden: Estimate
    difference: Estimate
    odds_ratio: Estimate


def cell_table(trials: Trials, weights: FloatArray) -> tuple[Cell, ...]:
    """All cells, those over all accuracies first.

    Arguments:
        trials: with at least one valid one.
        weights: (resamples, questions) from `question_weights`, for all questions of the trials.
    """
    initial, final = trials.initial_log_odds, trials.final_log_odds
    if trials.source == "choices":
        initial = final = np.full(len(trials), np.nan)
    scores = with_advice(trials) if trials.source != "choices" else np.full_like(trials.stage_1.mean_scores, np.nan)
    margin = lead(scores, trials.choice)
    ideal_change = np.where(np.isnan(margin), np.nan, (margin < -1e-12) + 0.5 * (np.abs(margin) <= 1e-12))
    columns = {
        "change": trials.change_of_mind,
        "ideal": ideal_change,
        "probability": expit(final) - expit(initial),
        "log_odds": final - initial,
        "worth": log_odds(scores, trials.choice) - initial,
        "censored": trials.stage_2.censored.any(axis=1).astype(np.float64),
        "tie": (trials.change_of_mind == 0.5).astype(np.float64),
    }
    levels: list[float | None] = [None, *np.unique(trials.accuracy[~np.isnan(trials.accuracy)]).tolist()]
    wheres: list[tuple[Display, Advice, float | None]] = list(itertools.product(DISPLAYS, ADVICE, levels))
    masks = {}
    for where in sorted(wheres, key=lambda where: (where[2] is not None, where[2] or 0.0)):
        at_level = trials.valid if where[2] is None else trials.valid & (trials.accuracy == where[2])
        rows = at_level & (trials.display == where[0]) & (trials.advice == where[1])
        if rows.any():
            masks[where] = rows
    again = _resampled_means(trials, list(masks.values()), trials.change_of_mind, weights)
    return tuple(
        _cell(where, rows, columns, again[:, k], trials.questions) for k, (where, rows) in enumerate(masks.items())
    )


def change_of_mind(trials: Trials, weights: FloatArray) -> ChangeOfMind | None:
    """Changes of mind with the own answer shown against hidden; `None` where the design has only one of them.

    Arguments:
        trials: any source.
        weights: (resamples, questions) from `question_weights`.
    """
    rows = {name: trials.valid & (trials.display == name) for name in ("shown", "hidden")}
    if not all(mask.any() for mask in rows.values()):
        return None
    again = _resampled_means(trials, list(rows.values()), trials.change_of_mind, weights)
    shown, hidden = (float(trials.change_of_mind[mask].mean()) for mask in rows.values())
    shown_again, hidden_again = again.T
    with np.errstate(divide="ignore", invalid="ignore"):
        odds = float(np.divide(shown * (1 - hidden), hidden * (1 - shown)))
        odds_again = shown_again * (1 - hidden_again) / (hidden_again * (1 - shown_again))
    usable = math.isfinite(odds) and bool(np.isfinite(odds_again).all())
    nothing = Estimate(math.nan, math.nan, math.nan, "no mind or every mind changed in some resample")
    return ChangeOfMind(
        _share(shown, shown_again, trials.questions),
        _share(hidden, hidden_again, trials.questions),
        interval(hidden - shown, hidden_again - shown_again, trials.questions),
        interval(odds, odds_again, trials.questions) if usable else nothing,
    )


def _resampled_means(trials: Trials, masks: Sequence[BoolArray], values: FloatArray, weights: FloatArray) -> FloatArray:
    """(resamples, masks) Mean over the trials of each mask, for each resample of questions."""
    code, count = trials.question_code, weights.shape[1]
    totals = np.stack([np.bincount(code[rows], values[rows], count) for rows in masks], axis=1)
    numbers = np.stack([np.bincount(code[rows], minlength=count) for rows in masks], axis=1).astype(np.float64)
    return np.asarray((weights @ totals) / np.maximum(weights @ numbers, 1e-12))


def _share(value: float, again: FloatArray, questions: int) -> Estimate:
    """A share with an interval of possible shares."""
    entry = interval(value, again, questions)
    return Estimate(value, max(entry.low, 0.0), min(entry.high, 1.0))


def _cell(
    where: tuple[Display, Advice, float | None],
    rows: BoolArray,
    columns: dict[str, FloatArray],
    change_again: FloatArray,
    questions: int,
) -> Cell:
    """One row of the table."""
    count = int(rows.sum())
    mean = {name: float(values[rows].mean()) for name, values in columns.items()}
    spread = {name: float(columns[name][rows].std(ddof=1)) if count > 1 else math.nan for name in columns}
    return Cell(
        *where,
        trials=count,
        change_of_mind=_share(mean["change"], change_again, questions),
        standard_error=spread["change"] / math.sqrt(count),
        ideal_change_of_mind=mean["ideal"],
        probability_change=mean["probability"],
        probability_error=spread["probability"] / math.sqrt(count),
        log_odds_change=mean["log_odds"],
        ideal_log_odds_change=mean["worth"],
        censored=mean["censored"],
        ties=int(columns["tie"][rows].sum()),
    )
