"""What can mislead: each trap is looked for in the trials at hand, named, and said in a sentence.

A caution may refuse estimates: a number that cannot be trusted is not given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from holdfast.confidence.cells import Cell, cell_table
from holdfast.confidence.comparison import pooled_regression
from holdfast.confidence.contrasts import Contrasts, Grid
from holdfast.confidence.estimates import Estimates, first_answers
from holdfast.confidence.intervals import Estimate
from holdfast.confidence.observers import CERTAIN, with_advice
from holdfast.confidence.trials import BoolArray, Trials, log_odds

CENSORED_LIMIT = 0.2
"""Share of censored trials in a cell from which no ratio of weights is given."""

FAR_CENSORED = 0.02
"""Share of censored trials in a cell of questions far from the limit from which no verdict on weights is given."""

MASS_WARNING, MASS_LIMIT = 0.9, 0.5
"""Probability on the options: below the first it is said, below the second nothing is estimated."""

NOT_FINITE_LIMIT = 0.01
"""Share of readings that are no numbers from which nothing is estimated."""

CEILING = 0.97
"""Share of right first answers from which hardly a mind can be changed."""

POSITION_LIMIT = 1.0
"""Log-odds for the first place beyond which order decides answers."""

FEW_QUESTIONS = 30
"""Below this, intervals over questions are too narrow."""

ALL_ESTIMATES = ("*",)
"""Everything is refused."""

CALIBRATED = ("calibrated",)
"""Only the comparison with an ideal observer is refused."""


@dataclass(frozen=True)
class Caution:
    """Something that misleads who does not know it.

    Arguments:
        name: short, for programs.
        text: what it is here, in one sentence.
        refuses: names of estimates that are not given because of it; see `ALL_ESTIMATES` and `CALIBRATED`.
    """

    name: str
    text: str
    refuses: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProbabilityAsymmetry:
    """How much further contradiction moves probabilities than agreement does, answers hidden; no bias in itself.

    Arguments:
        observed: mean |p1 - p0| under contradiction over that under agreement.
        ideal: the same of an ideal observer with the same first-stage log-odds.
    """

    observed: float
    ideal: float


def probability_asymmetry(trials: Trials) -> ProbabilityAsymmetry | None:
    """Both ratios; `None` where the design lacks agreeing or contradicting advice."""
    display = "hidden" if (trials.display == "hidden").any() else "shown"
    moves: list[tuple[float, float]] = []
    for side in ("opposite", "same"):
        rows = trials.valid & (trials.display == display) & (trials.advice == side) & (trials.accuracy <= CERTAIN)
        if not rows.any():
            return None
        before = expit(trials.initial_log_odds[rows])
        after = expit(log_odds(with_advice(trials)[rows], trials.choice[rows]))
        observed = float(np.mean(expit(trials.final_log_odds[rows]) - before))
        moves.append((abs(observed), abs(float(np.mean(after - before)))))
    (observed, ideal), (observed_same, ideal_same) = moves
    nothing = observed_same == 0 or ideal_same == 0
    return None if nothing else ProbabilityAsymmetry(observed / observed_same, ideal / ideal_same)


def reliability_of_readings(trials: Trials) -> float:
    """Correlation of the first two stage-1 readings of a question, one for each order; NaN without both."""
    rows = Grid.of(trials).first
    scores = trials.stage_1.scores[rows[trials.valid[rows]]]
    if scores.shape[1] < 2:
        return math.nan
    listed, turned = (scores[:, order, 0] - scores[:, order, 1] for order in (0, 1))
    both = ~np.isnan(listed) & ~np.isnan(turned)
    if both.sum() < 3 or listed[both].std() == 0 or turned[both].std() == 0:
        return math.nan
    return float(np.corrcoef(listed[both], turned[both])[0, 1])


def look_at_readings(trials: Trials) -> list[Caution]:
    """Cautions about what was read, whatever is estimated from it."""
    cautions = [*_invalid(trials), *_mass(trials)]
    if trials.source == "sampled":
        cautions.append(
            Caution(
                "sampled",
                f"confidences are shares of {trials.samples} answers: none beyond 1 / {trials.samples} can be seen, "
                "and intervals are wider for it",
            )
        )
    if trials.questions < FEW_QUESTIONS:
        cautions.append(
            Caution("few_questions", f"{trials.questions} questions: intervals are too narrow below {FEW_QUESTIONS}")
        )
    asked = ~np.isnan(trials.stage_2.scores[trials.valid]).all(axis=2)
    orders, options = asked.sum(axis=1), trials.options[trials.valid]
    lacking = float((orders < options).mean())
    if lacking > 0:
        few = "one order" if (orders[orders < options] == 1).all() else "fewer orders than they have options"
        cautions.append(
            Caution("single_order", f"{lacking:.0%} of trials were asked in {few}: a leaning to a place is in them")
        )
    ties = int((trials.change_of_mind[trials.valid] == 0.5).sum())
    if ties:
        cautions.append(Caution("ties", f"in {ties} trials no option led: they count as half a change of mind"))
    _, correct = first_answers(trials)
    if not len(correct):
        cautions.append(
            Caution("no_answers", "no answer key: log-odds cannot be calibrated, weights not called right", CALIBRATED)
        )
        return cautions
    chance, accuracy = float(np.mean(1 / trials.options[trials.valid])), float(correct.mean())
    if accuracy <= chance:
        cautions.append(
            Caution(
                "at_chance",
                f"first answers are right in {accuracy:.0%}, no better than guessing: the set is "
                "uninformative; choose easier questions (a larger difference between the options)",
                CALIBRATED,
            )
        )
    if accuracy >= CEILING:
        cautions.append(
            Caution(
                "at_ceiling",
                f"first answers are right in {accuracy:.0%}: the set is uninformative, there is no room "
                "for changes of mind; choose harder questions (a smaller difference between the options)",
                CALIBRATED,
            )
        )
    return cautions


def look_at_estimates(
    trials: Trials, contrasts: Contrasts, estimates: Estimates, table: tuple[Cell, ...], unsaturated: Estimate | None
) -> list[Caution]:
    """Cautions about contrasts: the traps that make a number say something else than it seems to."""
    reported = estimates.reported
    cautions = [
        *_dropped(contrasts),
        *_position(reported["position_bias"]),
        *_censored(table, unsaturated),
        *_visibility(reported),
        *_regression_to_the_mean(trials, table),
        *_disagreement(reported),
        *_scale(estimates.temperature),
        *_pooled(trials, reported),
    ]
    asymmetry = probability_asymmetry(trials)
    if asymmetry is not None and asymmetry.observed > 1.3:
        cautions.append(
            Caution(
                "probability_asymmetry",
                f"in probabilities contradiction moves answers {asymmetry.observed:.2f} times as far as agreement; "
                f"an ideal observer with the same first answers moves {asymmetry.ideal:.2f} times as far, since "
                "there is more room below a confident answer than above it: judge by log-odds",
            )
        )
    return cautions


def saturation_limit(trials: Trials) -> float:
    """Log-odds at which censored readings begin; infinite where there are none."""
    scores = trials.stage_2.scores
    rows = trials.valid[:, None] & trials.stage_2.censored & ~np.isnan(scores).all(axis=2)
    if not rows.any():
        return math.inf
    scores = scores[rows]
    ranked = np.sort(np.where(np.isnan(scores), -np.inf, scores), axis=1)
    return float(np.quantile(ranked[:, -1] - ranked[:, -2], 0.05))


def most_censored(table: tuple[Cell, ...]) -> Cell:
    """The cell with the largest share of censored trials, of those that weights come from: with their display, and
    advisers who know something but not all; of all cells where there are no such."""
    used = [
        cell
        for cell in table
        if cell.display in ("shown", "hidden") and cell.accuracy not in (None, 0.5) and cell.accuracy <= CERTAIN
    ]
    return max(used or table, key=lambda cell: cell.censored)


def share_censored(trials: Trials) -> float:
    """The largest share of trials with a censored reading, over the cells that weights come from."""
    return most_censored(cell_table(trials, np.full((1, trials.questions), 1 / trials.questions))).censored


def far_from_limit(trials: Trials, limit: float) -> BoolArray:
    """(trials) Whether a trial with neutral advice is less than half way to the limit; others are."""
    return np.asarray((trials.advice != "neutral") | (np.abs(trials.final_log_odds) < limit / 2))


def _invalid(trials: Trials) -> list[Caution]:
    reasons, counts = np.unique(trials.invalid[~trials.valid], return_counts=True)
    if not len(reasons):
        return []
    named = ", ".join(f"{reason} {count}" for reason, count in zip(reasons, counts, strict=True))
    cautions = [Caution("invalid", f"{int(counts.sum())} of {len(trials)} trials are left out ({named})")]
    broken = float(np.isin(trials.invalid, ("tie", "not finite")).mean())
    if broken > NOT_FINITE_LIMIT:
        text = f"{broken:.1%} of readings are ties in stage 1 or no numbers: the back end computes wrongly"
        cautions.append(Caution("broken_readings", text, ALL_ESTIMATES))
    return cautions


def _mass(trials: Trials) -> list[Caution]:
    known = [
        stage.mass[trials.valid][~np.isnan(stage.mass[trials.valid])] for stage in (trials.stage_1, trials.stage_2)
    ]
    means = [float(values.mean()) for values in known if len(values)]
    if not means or min(means) >= MASS_WARNING:
        return []
    text = f"only {min(means):.0%} of the probability is on the options: the model wants to write something else"
    if min(means) < MASS_LIMIT:
        return [Caution("mass", f"{text}; nothing is estimated from the rest", ALL_ESTIMATES)]
    return [Caution("mass", text)]


def _dropped(contrasts: Contrasts) -> list[Caution]:
    if not contrasts.dropped:
        return []
    text = f"{contrasts.dropped} of {contrasts.units} questions lack a cell and are left out of contrasts"
    return [Caution("dropped", text)]


def _position(leaning: Estimate) -> list[Caution]:
    if not leaning.known or abs(leaning.value) <= POSITION_LIMIT:
        return []
    place = "first" if leaning.value > 0 else "last"
    text = f"it leans towards the option shown {place} by {abs(leaning.value):.2f} log-odds: order decides answers"
    return [Caution("position_bias", text)]


def _censored(table: tuple[Cell, ...], unsaturated: Estimate | None) -> list[Caution]:
    worst = most_censored(table)
    if not worst.censored:
        return []
    where = f"{worst.display}, {worst.advice}" + ("" if worst.accuracy is None else f", {worst.accuracy:.0%}")
    text = f"up to {worst.censored:.0%} of trials in a cell ({where}) have a reading that is only a bound"
    if unsaturated is not None and unsaturated.known:
        text += f"; the ratio of weights far from the limit is {unsaturated}"
    text += "; verdicts on weights come from questions far from it alone, where there are enough"
    if worst.censored <= CENSORED_LIMIT:
        return [Caution("censored", f"{text}; over all the ratio of weights is too large, and both are too small")]
    text += "; ask for more top log-probabilities, or harder questions"
    return [Caution("censored", text, ("ratio",))]


def _visibility(reported: dict[str, Estimate]) -> list[Caution]:
    """Trap: with the own answer shown, the change from stage 1 holds the choice bias too."""
    same, opposite = (reported[f"shown_from_stage_1_{side}"] for side in ("same", "opposite"))
    weights = reported["weight_same"], reported["weight_opposite"]
    if not all(entry.known for entry in (same, opposite, *weights)):
        return []
    if max(abs(same.value - weights[0].value), abs(opposite.value - weights[1].value)) <= 0.2:
        return []
    text = (
        f"measured from stage 1 with the own answer shown, the weights would seem {same.value:.2f} and "
        f"{opposite.value:.2f} instead of {weights[0].value:.2f} and {weights[1].value:.2f}: that mixes the display "
        "with the advice"
    )
    return [Caution("mixed_visibility", text)]


def _regression_to_the_mean(trials: Trials, table: tuple[Cell, ...]) -> list[Caution]:
    """Trap: who reads with noise changes its mind without any reason."""
    cells = [c for c in table if (c.display, c.advice, c.accuracy) == ("hidden", "neutral", None)]
    if not cells or cells[0].change_of_mind.value < 0.02:
        return []
    cell, r = cells[0], reliability_of_readings(trials)
    reliable = "" if math.isnan(r) else f" (their reliability is {r:.2f})"
    text = (
        f"with its answer hidden and no advice it changes its mind in {cell.change_of_mind.value:.1%}, and its "
        f"log-odds move by {cell.log_odds_change:+.2f}: noise of its readings{reliable} does that too, so that only "
        "the difference between displays says something"
    )
    return [Caution("regression_to_the_mean", text)]


def _disagreement(reported: dict[str, Estimate]) -> list[Caution]:
    """Trap: a reaction to mere disagreement looks like weight on advice where no intercept is fitted."""
    intercept, slope, through = (
        reported[name] for name in ("intercept_opposite", "weight_opposite", "through_zero_opposite")
    )
    if not intercept.known or not intercept.excludes(0) or abs(through.value - slope.value) <= 0.1:
        return []
    text = (
        f"mere disagreement moves it by {intercept} log-odds, whatever the accuracy; a slope through zero would call "
        f"that a weight of {through.value:.2f} instead of {slope.value:.2f}"
    )
    return [Caution("disagreement_intercept", text)]


def _scale(temperature: Estimate) -> list[Caution]:
    """Trap: log-odds that are too large make bias and weights too large, but not their ratio."""
    if not temperature.known or not temperature.excludes(1) or 0.8 <= temperature.value <= 1.25:
        return []
    way = "over" if temperature.value > 1 else "under"
    text = (
        f"it is {way}confident by a factor of {temperature.value:.2f}: bias and weights as reported are too "
        f"{'large' if temperature.value > 1 else 'small'} by it, their ratio is not; compare calibrated ones with 1"
    )
    return [Caution("miscalibrated", text)]


def _pooled(trials: Trials, reported: dict[str, Estimate]) -> list[Caution]:
    """Trap: one regression over all cells is bent by readings at a limit and by certain advisers."""
    if (trials.options > 2).any():
        return []
    apart = {
        name: value
        for name, value in pooled_regression(trials).items()
        if name in reported
        and reported[name].known
        and abs(value - reported[name].value) > max(0.1, 0.1 * abs(reported[name].value))
    }
    if not apart:
        return []
    named = ", ".join(f"{name} {value:.2f} instead of {reported[name].value:.2f}" for name, value in apart.items())
    return [Caution("pooled_regression", f"one regression over all cells would say {named}: contrasts are sounder")]
