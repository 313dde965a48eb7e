"""By how much answers to equal prompts differ: below that floor nothing can be seen in a single answer.

Servers batch what arrives together, and the rounding of a model's sums depends on what else is in the batch: equal
prompts at temperature 0 get log-probabilities that differ. Some requests of stage 1 are therefore sent once more,
spread among those of stage 2, so that they stand in the batches that answers are read from. A cache of whole answers
between here and the model hides the noise.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from holdfast.confidence.contrasts import contrast
from holdfast.confidence.responders.interface import Answer, Backend
from holdfast.confidence.trials import Trials, log_odds

DUPLICATES = 20
"""Sent unless their number is given; they tell the standard deviation to a third of it."""

FEWEST = 2
"""Duplicates below which no standard deviation is given."""


def duplicates_for(backend: Backend) -> int:
    """How many duplicates are worth sending: none where equal prompts have equal answers, or where answers are drawn at
    random, whose noise is known."""
    return 0 if backend.deterministic or backend.source != "logprobs" else DUPLICATES


@dataclass(frozen=True)
class RepeatNoise:
    """Noise of readings of equal prompts.

    Arguments:
        deviation: standard deviation of their log-odds around the mean of each prompt.
        duplicates: requests that it comes from, beside the first one of each prompt.
    """

    deviation: float
    duplicates: int


def repeat_noise(pairs: Iterable[tuple[Answer, Answer]]) -> RepeatNoise | None:
    """The noise of readings, pooled over prompts.

    Arguments:
        pairs: first and second answer to equal prompts, both of use; a prompt that was asked thrice stands in two.
            Those of which only a bound is known count for nothing.

    Returns:
        The noise; `None`: fewer than two duplicates have a reading.
    """
    groups: dict[str, list[float]] = {}
    for pair in pairs:
        if any(answer.missing for answer in pair):
            continue
        # Log-odds of what the first answer chose, which for two options has the same spread as those of the other.
        chosen = np.array(int(np.argmax(pair[0].scores)))
        first, again = (float(log_odds(np.array(answer.scores), chosen)) for answer in pair)
        groups.setdefault(pair[0].key, [first]).append(again)
    freedom = sum(len(group) - 1 for group in groups.values())
    if freedom < FEWEST:
        return None
    squares = sum(len(group) * float(np.var(group)) for group in groups.values())
    return RepeatNoise(math.sqrt(squares / freedom), freedom)


def noise_of_contrasts(trials: Trials, deviation: float, seed: int = 0) -> dict[str, float]:
    """Half of the 95 % interval that noise of readings makes by itself, for each contrast of stage 2.

    Readings are disturbed by noise of that size, once, and what this moves in each question is measured.

    Arguments:
        trials: with log-odds, not bare choices.
        deviation: of the log-odds of one reading.
        seed: of the noise.

    Returns:
        Half widths in the unit of the contrast; NaN where the design cannot tell, or there are fewer than two
        questions.
    """
    scores = trials.stage_2.scores.copy()
    noise = np.random.default_rng(seed).normal(0.0, deviation, scores.shape[:2])
    # What is added to the score of one option is added to its log-odds.
    scores[np.arange(len(trials)), :, trials.choice] += noise
    disturbed = contrast(dataclasses.replace(trials, stage_2=dataclasses.replace(trials.stage_2, scores=scores)))
    undisturbed = contrast(trials)
    moved = {name: disturbed.values[name] - values for name, values in undisturbed.values.items()}
    few = undisturbed.questions < 2
    return {
        name: math.nan if few else float(1.96 * np.std(values, ddof=1) / math.sqrt(len(values)))
        for name, values in moved.items()
    }
