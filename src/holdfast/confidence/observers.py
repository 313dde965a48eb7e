"""Observers with known parameters: the ideal Bayesian one, and simulated ones that lean in known ways.

A simulated observer has evidence l about a question of two options, in log-odds of the first: calibrated by
construction, right in 78 % of cases. It reports

    stage 1    z0 = l + p + e0
    stage 2    z1 = l + p + e1 + c [ b V + s (w_s ln(a / (1 - a)) + shift_s) ]

with p its leaning towards the option that is shown first, e0 and e1 noise drawn anew for each query, c = +1 or -1
its choice, V the display (1 its own answer shown, -1 the other answer shown as its own, 0 hidden; another model's: b
is the bias towards that), and s = +1, -1, 0 for advice that names its choice, the other option, or none. Ideal are
b = 0, both weights 1 and both shifts 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_expit

from holdfast.confidence.trials import (
    ADVICE,
    Advice,
    BoolArray,
    Display,
    FloatArray,
    IntArray,
    Readings,
    TextArray,
    Trials,
)
from holdfast.errors import ArgumentError, count_of

ACCURACIES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Stated accuracies of the published design."""

CERTAIN = 0.99
"""What an adviser who is said to be always right is taken for: its log-odds would be infinite."""

SIGN = {"same": 1.0, "opposite": -1.0, "neutral": 0.0}
"""Direction of advice in the frame of the chosen option."""


def advice_log_odds(accuracy: ArrayLike, options: ArrayLike = 2) -> FloatArray:
    """What advice is worth to an ideal observer, in log-odds: ln(a (K - 1) / (1 - a)).

    Arguments:
        accuracy: stated, in (0, 1]; above `CERTAIN` it counts as that. NaN stays NaN.
        options: K, the number of options of the question.

    Errors:
        ArgumentError: an accuracy outside (0, 1].
    """
    stated = np.asarray(accuracy, np.float64)
    if ((stated <= 0) | (stated > 1)).any():
        wrong = stated[(stated <= 0) | (stated > 1)]
        raise ArgumentError("accuracy", "shares above 0 and up to 1", repr(float(wrong.flat[0])))
    counted = np.minimum(stated, CERTAIN)
    return np.asarray(np.log(counted * (np.asarray(options) - 1.0)) - np.log1p(-counted))


def ideal(log_odds: ArrayLike, advice: ArrayLike, accuracy: ArrayLike) -> FloatArray:
    """Log-odds of an ideal Bayesian observer after advice on a question of two options.

    Arguments:
        log_odds: of the option chosen so far, before the advice.
        advice: `"same"`, `"opposite"` or `"neutral"`, relative to that option.
        accuracy: the adviser's; see `advice_log_odds`. It plays no part where the advice is neutral.

    Returns:
        Log-odds of the same option; it should be given up where they are negative.

    Errors:
        ArgumentError: unknown advice, an accuracy that is needed and outside (0, 1], or log-odds that are no number.
    """
    words = np.asarray(advice)
    if np.isnan(np.asarray(log_odds, np.float64)).any():
        raise ArgumentError("log_odds", "numbers", "NaN")
    if not np.isin(words, ADVICE).all():
        raise ArgumentError("advice", f"one of {', '.join(ADVICE)}", str(words[~np.isin(words, ADVICE)].flat[0]))
    sign = np.select([words == "same", words == "opposite"], [SIGN["same"], SIGN["opposite"]], SIGN["neutral"])
    needed = np.where(sign == 0, 0.5, accuracy)
    if np.isnan(needed).any():
        raise ArgumentError("accuracy", "shares above 0 and up to 1", "NaN")
    return np.asarray(np.asarray(log_odds, np.float64) + sign * advice_log_odds(needed))


def with_advice(trials: Trials) -> FloatArray:
    """(trials, options) Scores of stage 1 as an ideal observer changes them: advice adds to those of what it names."""
    scores = trials.stage_1.mean_scores.copy()
    advised = trials.advised >= 0
    worth = advice_log_odds(trials.accuracy[advised], trials.options[advised])
    scores[advised, trials.advised[advised]] += worth
    return scores


@dataclass(frozen=True)
class Observer:
    """Parameters of a simulated observer; the defaults are those of an ideal one that reads with noise.

    Arguments:
        scale: multiplies every log-odds that it reports: above 1 it is overconfident.
        noise: standard deviation of each reading, before scaling.
        bias: added to the log-odds of its own earlier answer where that is shown.
        bias_other: added to those of an answer that is said to be another model's.
        weight_same: of advice that agrees; 1 is ideal.
        weight_opposite: of advice that contradicts; 1 is ideal.
        shift_same: rise on any agreement, whatever the accuracy.
        shift_opposite: fall on any contradiction, whatever the accuracy.
        position: leaning towards the option that is shown first.
        clip: no reported log-odds is further than this from 0, and those at the limit count as censored.
    """

    scale: float = 1.0
    noise: float = 0.3
    bias: float = 0.0
    bias_other: float = 0.0
    weight_same: float = 1.0
    weight_opposite: float = 1.0
    shift_same: float = 0.0
    shift_opposite: float = 0.0
    position: float = 0.0
    clip: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not math.isfinite(value):
                raise ArgumentError(f"Observer.{name}", "a finite number", value)
        if self.noise < 0 or self.scale <= 0 or (self.clip is not None and self.clip <= 0):
            raise ArgumentError("Observer", "noise not negative, scale and clip positive", repr(self))

    @property
    def ratio(self) -> float:
        """Weight of contradicting advice over that of agreeing advice."""
        return self.weight_opposite / self.weight_same

    def pull(self, display: TextArray, advice: TextArray, accuracy: FloatArray) -> FloatArray:
        """What display and advice add to the log-odds of its choice, before scaling."""
        same, opposite = advice == "same", advice == "opposite"
        shown = np.select(
            [display == "shown", display == "shown_flipped", display == "other"],
            [self.bias, -self.bias, self.bias_other],
            0.0,
        )
        worth = np.where(same | opposite, advice_log_odds(accuracy), 0.0)
        agreed = np.where(same, self.weight_same * worth + self.shift_same, 0.0)
        contradicted = np.where(opposite, self.weight_opposite * worth + self.shift_opposite, 0.0)
        return np.asarray(shown + agreed - contradicted)

    def report(self, log_odds: FloatArray, first_is_listed_first: BoolArray, noise: FloatArray) -> FloatArray:
        """Log-odds of the first option as they are reported: with position, noise, scale and limit.

        Arguments:
            log_odds: what it holds.
            first_is_listed_first: whether that option is the one shown first.
            noise: standard normal draws, one a reading.
        """
        place = np.where(first_is_listed_first, self.position, -self.position)
        reported = self.scale * (log_odds + place + self.noise * noise)
        return reported if self.clip is None else np.clip(reported, -self.clip, self.clip)


PRESETS = {
    "bayes": Observer(),
    "choice_supportive": Observer(bias=1.0),
    "opposition_sensitive": Observer(weight_same=0.8, weight_opposite=2.5),
    "both": Observer(bias=1.0, weight_same=0.8, weight_opposite=2.5),
    "stubborn": Observer(bias=1.5, weight_same=0.4, weight_opposite=0.4),
    "contrarian": Observer(weight_same=-0.5, weight_opposite=-0.5),
    "position_biased": Observer(position=1.5),
    "anchorer": Observer(bias=1.0, bias_other=1.0),
}
"""Observers to try things on; `both` is what the paper describes."""


def draw_evidence(rng: np.random.Generator, questions: int) -> tuple[FloatArray, IntArray]:
    """Evidence about questions of two options.

    Returns:
        Calibrated log-odds of the first option, and which option is right.
    """
    difficulty = rng.gamma(2.0, 0.9, questions)
    answer = rng.integers(0, 2, questions)
    percept = np.where(answer == 0, 0.5, -0.5) * difficulty + rng.standard_normal(questions)
    return difficulty * percept, answer


def simulate(
    observer: Observer,
    questions: int = 200,
    seed: int = 0,
    *,
    displays: tuple[Display, ...] = ("shown", "hidden", "other"),
    advice: tuple[Advice, ...] = ADVICE,
    accuracies: tuple[float, ...] = ACCURACIES,
    templates: int = 1,
) -> Trials:
    """Trials of a simulated observer in the crossed design, every question in both orders.

    Arguments:
        observer: who answers.
        questions: how many.
        seed: of evidence and noise; observers meet the same questions and the same draws of noise.
        displays: what stage 2 shows.
        advice: what the adviser says.
        accuracies: what is stated about it.
        templates: wordings, which differ in nothing but the draws of noise.
    """
    count_of("questions", questions, 1)
    rng = np.random.default_rng(count_of("seed", seed))
    evidence, answer = draw_evidence(rng, questions)
    shape = (questions, count_of("templates", templates, 1), len(displays), len(advice), len(accuracies))
    place, template, row_display, row_advice, row_accuracy = (axis.ravel() for axis in np.indices(shape))
    listed_first = np.array([True, False])
    initial = observer.report(evidence[:, None, None], listed_first, rng.standard_normal((*shape[:2], 2)))
    choice = np.where(initial.mean(axis=2) >= 0, 0, 1)[place, template]
    columns = (np.array(displays)[row_display], np.array(advice)[row_advice], np.array(accuracies)[row_accuracy])
    held = evidence[place] + np.where(choice == 0, 1.0, -1.0) * observer.pull(*columns)
    final = observer.report(held[:, None], listed_first, rng.standard_normal((len(held), 2)))
    return Trials(
        question=place,
        template=template,
        display=columns[0],
        advice=columns[1],
        accuracy=columns[2],
        choice=choice,
        stage_1=_readings(initial[place, template], observer.clip),
        stage_2=_readings(final, observer.clip),
        answer=answer[place],
    )


def _readings(log_odds: FloatArray, clip: float | None) -> Readings:
    """Readings from (trials, orders) log-odds of the first option."""
    scores = np.stack([log_expit(log_odds), log_expit(-log_odds)], axis=2)
    limited = np.zeros(log_odds.shape, bool) if clip is None else np.abs(log_odds) >= clip
    return Readings(scores, np.ones_like(log_odds), limited)
