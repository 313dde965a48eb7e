"""Contrasts within questions: the primary estimates of bias and of the weights of advice.

The design is crossed within each question, so differences between two trials of one question are free of how hard it
is and of what stage 1 happened to read (L1: log-odds of the chosen option in stage 2):

    choice bias       L1(own answer shown) - L1(hidden)            neutral advice
    ownership bias    L1(own answer shown) - L1(another's shown)   neutral advice
    agreement         d = L1(same) - L1(neutral)                   same display and accuracy
    contradiction     d = L1(neutral) - L1(opposite)               same display and accuracy

and d is regressed on ln(a / (1 - a)): the slope is the weight of the advice, 1 being ideal, the intercept what mere
agreement or disagreement does. All questions have the same cells, so that the regression over all of them is the mean
of those within each. With more than two options contradiction is seen in the log-odds of the chosen option against
the one that was advised; see `trials`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from holdfast.confidence.observers import CERTAIN, advice_log_odds
from holdfast.confidence.trials import (
    ADVICE,
    DISPLAYS,
    BoolArray,
    FloatArray,
    IntArray,
    Trials,
    log_odds,
)
from holdfast.errors import ArgumentError

SHOWN, HIDDEN, OTHER, FLIPPED = range(len(DISPLAYS))
SAME, OPPOSITE, NEUTRAL = range(len(ADVICE))


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the trials of each unit (a question in one wording) stand.

    Arguments:
        row: (units, displays, advice, accuracies) index of the trial; -1: there is none, or it is invalid.
        accuracies: (accuracies) stated ones, ascending.
        question: (units) number of the question.
        first: (units) a trial of the unit, for what all of them share.
        complete: (units) whether all cells that the design has are there.
    """

    row: IntArray
    accuracies: FloatArray
    question: IntArray
    first: IntArray
    complete: BoolArray

    @classmethod
    def of(cls, trials: Trials) -> Grid:
        """Put trials in their places. Neutral advice that states no accuracy stands at all of them."""
        unit_key = trials.question_code * (int(trials.template_code.max(initial=0)) + 1) + trials.template_code
        _, first, unit = np.unique(unit_key, return_index=True, return_inverse=True)
        stated = ~np.isnan(trials.accuracy)
        accuracies = np.unique(trials.accuracy[stated]) if stated.any() else np.array([np.nan])
        display, advice = _codes(trials.display, DISPLAYS), _codes(trials.advice, ADVICE)
        level = np.searchsorted(accuracies, trials.accuracy)
        row = np.full((len(first), len(DISPLAYS), len(ADVICE), len(accuracies)), -1)
        numbers = np.where(trials.valid, np.arange(len(trials)), -1)
        row[unit[~stated], display[~stated], advice[~stated]] = numbers[~stated, None]
        row[unit[stated], display[stated], advice[stated], level[stated]] = numbers[stated]
        used = np.zeros(row.shape[1:], bool)
        used[display[stated], advice[stated], level[stated]] = True
        used[display[~stated], advice[~stated]] = True
        complete = np.asarray((row >= 0)[:, used].all(axis=1))
        return cls(row, accuracies, trials.question_code[first], first, complete)

    def has(self, display: int, advice: int) -> bool:
        """Whether the design has this display with this advice."""
        return bool((self.row[:, display, advice] >= 0).any())


@dataclass(frozen=True, eq=False)
class Contrasts:
    """Contrasts of each question, averaged over its wordings; NaN where the design cannot tell.

    Arguments:
        question: (questions) number of the question among all trials.
        values: (questions) by name of the column; see `COLUMNS`.
        updates: (questions, 2, accuracies) d for agreement and contradiction; at all accuracies.
        accuracies: (accuracies) stated ones.
        worth: (questions, accuracies) what advice is worth to an ideal observer.
        dropped: units left out because a cell is missing or invalid.
        units: units that there were.
    """

    question: IntArray
    values: dict[str, FloatArray]
    updates: FloatArray
    accuracies: FloatArray
    worth: FloatArray
    dropped: int
    units: int

    @property
    def questions(self) -> int:
        """Number of questions."""
        return len(self.question)

    def mean(self, name: str) -> float:
        """Mean over questions of a column."""
        return float(self.values[name].mean())


COLUMNS = {
    "choice_bias": "own answer shown against hidden",
    "ownership_bias": "own answer shown against another model's",
    "other_bias": "another model's answer shown against hidden",
    "flipped_bias": "the other answer shown as its own against hidden",
    "weight_same": "slope of agreement",
    "intercept_same": "intercept of agreement",
    "weight_opposite": "slope of contradiction",
    "intercept_opposite": "intercept of contradiction",
    "through_zero_same": "slope of agreement without intercept",
    "through_zero_opposite": "slope of contradiction without intercept",
    "position_bias": "leaning towards the option shown first, in stage 1",
    "shown_from_stage_1_same": "mean L1 - L0 over mean ln(a / (1 - a)), own answer shown, agreement",
    "shown_from_stage_1_opposite": "the same for contradiction",
    "hidden_from_stage_1_same": "the same, hidden, agreement",
    "hidden_from_stage_1_opposite": "the same, hidden, contradiction",
}


def informative(worth: FloatArray, accuracies: FloatArray) -> BoolArray:
    """(accuracies) Those that slopes are fitted to: advice that is worth something, and no more than `CERTAIN`, beyond
    which the worth that is counted is not the one that was stated."""
    return np.asarray((accuracies <= CERTAIN) & (np.abs(worth) > 1e-9).all(axis=0))


def contrast(trials: Trials, keep: BoolArray | None = None) -> Contrasts:
    """Contrasts of each question of which all cells are there.

    Arguments:
        trials: with log-odds, not bare choices.
        keep: (trials) leave out units of which any trial is not kept.

    Errors:
        ArgumentError: bare choices, or no unit is complete.
    """
    if trials.source == "choices":
        raise ArgumentError("trials", "log-odds", "bare choices, which only the model of choices can read")
    grid = Grid.of(trials)
    units = grid.complete
    if keep is not None:
        units = units & np.where(grid.row >= 0, keep[grid.row], True).all(axis=(1, 2, 3))
    if not units.any():
        raise ArgumentError("trials", "a question of which no cell is missing or invalid", "none")
    row, first = grid.row[units], grid.first[units]
    options = trials.options[first]
    worth = advice_log_odds(grid.accuracies[None, :], options[:, None])
    columns = _display_contrasts(trials, grid, row) | _from_stage_1(trials, grid, row, worth)
    columns["position_bias"] = position(trials)[first]
    updates = _updates(trials, grid, row)
    usable = informative(worth, grid.accuracies)
    for place, side in enumerate(("same", "opposite")):
        columns |= _regression(worth[:, usable], updates[:, place, usable], side)
    questions, of = np.unique(grid.question[units], return_inverse=True)
    wordings = np.bincount(of)

    def over_wordings(values: FloatArray) -> FloatArray:
        total = np.zeros((len(questions), *values.shape[1:]))
        np.add.at(total, of, values)
        return np.asarray(total / wordings.reshape(-1, *[1] * (values.ndim - 1)))

    return Contrasts(
        question=questions,
        values={name: over_wordings(columns[name]) for name in COLUMNS},
        updates=over_wordings(updates),
        accuracies=grid.accuracies,
        worth=over_wordings(worth),
        dropped=int((~grid.complete).sum()),
        units=len(grid.complete),
    )


def position(trials: Trials) -> FloatArray:
    """(trials) Stage-1 leaning towards what is shown first: half the log-odds that the first place gains over the last.

    The mean over options, each of which stands first in one order and last in another. For two options
    (L_AB - L_BA) / 2 with L the log-odds of the option listed first; NaN without all orders.
    """
    scores, leaning = trials.stage_1.scores, np.full(len(trials), np.nan)
    for count in np.unique(trials.options):
        if count <= scores.shape[1]:
            rows = np.flatnonzero(trials.options == count)
            # In order r the option (j + r) mod K stands at the place j.
            gains = [
                log_odds(scores[rows, option], at) - log_odds(scores[rows, (option + 1) % count], at)
                for option in range(count)
                for at in [np.full(len(rows), option)]
            ]
            leaning[rows] = np.mean(gains, axis=0) / 2
    return leaning


def _codes(words: np.ndarray, names: tuple[str, ...]) -> IntArray:
    return np.asarray(np.argmax(words[:, None] == np.array(names), axis=1), np.int64)


def _display_contrasts(trials: Trials, grid: Grid, row: IntArray) -> dict[str, FloatArray]:
    """Differences between displays under neutral advice, averaged over accuracies."""
    final = trials.final_log_odds

    def neutral(display: int) -> FloatArray:
        if not grid.has(display, NEUTRAL):
            return np.full(len(row), np.nan)
        at = row[:, display, NEUTRAL]
        there = at[0] >= 0
        return np.asarray(final[at[:, there]].mean(axis=1))

    shown, hidden, other, flipped = (neutral(display) for display in range(len(DISPLAYS)))
    return {
        "choice_bias": shown - hidden,
        "ownership_bias": shown - other,
        "other_bias": other - hidden,
        "flipped_bias": flipped - hidden,
    }


def _updates(trials: Trials, grid: Grid, row: IntArray) -> FloatArray:
    """(units, 2, accuracies) d for agreement and contradiction, averaged over the displays that have them."""
    mean = trials.stage_2.mean_scores
    updates = np.full((len(row), 2, len(grid.accuracies)), np.nan)
    for place, advice in enumerate((SAME, OPPOSITE)):
        displays = [d for d in _advised_displays(grid) if grid.has(d, advice) and grid.has(d, NEUTRAL)]
        if not displays:
            continue
        advised, neutral = row[:, displays, advice], row[:, displays, NEUTRAL]
        there = (advised >= 0) & (neutral >= 0)
        pair = (np.maximum(advised, 0), np.maximum(neutral, 0))
        if advice == SAME:
            change = trials.final_log_odds[pair[0]] - trials.final_log_odds[pair[1]]
        else:
            choice, named = trials.choice[pair[0]], trials.advised[pair[0]]
            margins = [
                np.take_along_axis(mean[at], choice[..., None], -1) - np.take_along_axis(mean[at], named[..., None], -1)
                for at in pair
            ]
            change = (margins[1] - margins[0])[..., 0]
        count = there.sum(axis=1)
        total = np.where(there, change, 0.0).sum(axis=1)
        updates[:, place] = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return updates


def _advised_displays(grid: Grid) -> list[int]:
    """Displays that advice is read at: those of the published design, or all where it has neither."""
    published = [d for d in (SHOWN, HIDDEN) if grid.has(d, NEUTRAL)]
    return published or list(range(len(DISPLAYS)))


def _regression(worth: FloatArray, update: FloatArray, side: str) -> dict[str, FloatArray]:
    """Slope and intercept of each unit, and the slope through zero."""
    nothing = np.full(len(update), np.nan)
    columns = {f"weight_{side}": nothing, f"intercept_{side}": nothing, f"through_zero_{side}": nothing}
    levels = update.shape[1]
    if levels:
        columns[f"through_zero_{side}"] = (worth * update).sum(axis=1) / (worth**2).sum(axis=1)
    if levels > 1:
        centred = worth - worth.mean(axis=1, keepdims=True)
        slope = (centred * update).sum(axis=1) / (centred**2).sum(axis=1)
        columns[f"weight_{side}"] = slope
        columns[f"intercept_{side}"] = update.mean(axis=1) - slope * worth.mean(axis=1)
    return columns


def _from_stage_1(trials: Trials, grid: Grid, row: IntArray, worth: FloatArray) -> dict[str, FloatArray]:
    """Change from stage 1 over what the advice is worth: biased by display and by regression to the mean."""
    change = trials.final_log_odds - trials.initial_log_odds
    usable = informative(worth, grid.accuracies)
    columns: dict[str, FloatArray] = {}
    if not usable.any():
        nothing = np.full(len(row), np.nan)
        return {f"{word}_from_stage_1_{side}": nothing for word in ("shown", "hidden") for side in ("same", "opposite")}
    for display, word in ((SHOWN, "shown"), (HIDDEN, "hidden")):
        for advice, side, sign in ((SAME, "same", 1.0), (OPPOSITE, "opposite", -1.0)):
            at = row[:, display, advice][:, usable]
            known = bool((at >= 0).all())
            mean = change[at].mean(axis=1) if known else np.full(len(row), np.nan)
            columns[f"{word}_from_stage_1_{side}"] = sign * mean / worth[:, usable].mean(axis=1)
    return columns
