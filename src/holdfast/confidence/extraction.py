"""From what an endpoint returns to scores of options: log-probabilities of a few tokens, logits, counted samples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from holdfast.confidence.trials import FloatArray, IntArray
from holdfast.errors import ArgumentError, HoldfastError

SPACES = " \t\r\n\u0120\u2581\u010a"
"""Around a label: white space, and the marks that byte-pair and sentence-piece vocabularies write for it."""

PLACEHOLDER = -9000.0
"""Some back ends write -9999 for what they do not know; no model gives a token so little."""


ROUNDING = 1e-4
"""How far the probabilities of a list may be from what they are together: log-probabilities of four digits are off by
5e-5, and so is their weighted sum."""


class NoLogprobs(HoldfastError):
    """The back end returned no log-probabilities that mean anything."""


@dataclass(frozen=True, eq=False)
class OptionReading:
    """What one answer says about the options.

    Arguments:
        scores: (options) log-probability of each label; of a missing one an upper bound.
        mass: share of probability on all labels that were returned.
        missing: indices of labels that were not among the tokens returned, or the answers drawn.
    """

    scores: FloatArray
    mass: float
    missing: tuple[int, ...] = ()

    @property
    def censored(self) -> bool:
        """Whether some score is only an upper bound."""
        return bool(self.missing)


def read_top_logprobs(tokens: Iterable[tuple[str, float]], labels: Sequence[str]) -> OptionReading:
    """Scores from the likeliest tokens at the place of the answer.

    Arguments:
        tokens: pairs of text and natural log-probability.
        labels: of the options, as the prompt asks for them. Tokens that differ from a label in white space around it
            or in its case count for it, unless two labels differ in case alone.

    Returns:
        The reading. The probability of a label that is missing is at most that of the least likely token returned, and
        at most what all of them leave of 1, rounding included; the smaller one stands in its place.

    Errors:
        NoLogprobs: no tokens, placeholders such as -9999, or zeros only, which more than one token cannot have.
        ArgumentError: labels are empty or not different.
    """
    pairs = list(tokens)
    values = [value for _, value in pairs]
    if not pairs or all(not math.isfinite(value) or value <= PLACEHOLDER for value in values):
        raise NoLogprobs("the answer holds no log-probabilities")
    if len(pairs) > 1 and all(value == 0 for value in values):
        raise NoLogprobs("all log-probabilities are 0, which no distribution has: the back end makes them up")
    usable = [(text, value) for text, value in pairs if value > PLACEHOLDER and not math.isnan(value)]
    if any(value > 1e-3 for _, value in usable):
        raise NoLogprobs("log-probabilities above 0: the back end returns something else")
    names = [label.strip(SPACES) for label in labels]
    folded = [name.casefold() for name in names]
    if len(set(names)) < len(names) or "" in names:
        raise ArgumentError("labels", "different words", ", ".join(labels))
    by_case = len(set(folded)) < len(folded)
    keys = names if by_case else folded
    spelled: list[list[float]] = [[] for _ in keys]
    for text, value in usable:
        word = text.strip(SPACES)
        word = word if by_case else word.casefold()
        if word in keys:
            spelled[keys.index(word)].append(value)
    bound = _bound([value for _, value in usable])
    missing = tuple(k for k, values in enumerate(spelled) if not values)
    scores = np.array([logsumexp(values) if values else bound for values in spelled])
    mass = float(sum(math.exp(value) for values in spelled for value in values))
    return OptionReading(scores, min(mass, 1.0), missing)


def _bound(values: Sequence[float]) -> float:
    """The largest log-probability that a token can have which is not in a list.

    Arguments:
        values: log-probabilities of the list.
    """
    left = 1 - math.fsum(map(math.exp, values))
    # More than 1 is no distribution, so that what is left of it means nothing.
    return min(values) if left < -ROUNDING else min(min(values), math.log(max(left, 0.0) + ROUNDING))


def read_logits(logits: FloatArray, label_tokens: Sequence[IntArray | Sequence[int]]) -> OptionReading:
    """Scores from all logits at the place of the answer: exact.

    Arguments:
        logits: (vocabulary) of the next token.
        label_tokens: for each option the ids of the tokens that spell its label.

    Errors:
        ArgumentError: an option without tokens, or a token that spells two labels.
    """
    ids = [list(map(int, tokens)) for tokens in label_tokens]
    flat = [token for tokens in ids for token in tokens]
    if any(not tokens for tokens in ids) or len(set(flat)) < len(flat):
        raise ArgumentError("label_tokens", "at least one token for each option, none for two", repr(ids))
    values = np.asarray(logits, np.float64)
    scores = np.array([logsumexp(values[tokens]) for tokens in ids]) - logsumexp(values)
    return OptionReading(scores, min(float(np.exp(logsumexp(scores))), 1.0))


def read_samples(counts: Sequence[int], drawn: int) -> OptionReading:
    """Scores from answers drawn at temperature 1: (k + 1/2) / (n + K/2), with n the answers that name an option.

    An option that never came counts as missing: it may be as rare as it likes, and its share is only a bound.

    Arguments:
        counts: how often each option came.
        drawn: answers drawn, with those that name no option.

    Errors:
        ArgumentError: no answer names an option, or more do than were drawn.
    """
    named = sum(counts)
    if min(counts) < 0 or not 0 < named <= drawn:
        raise ArgumentError("counts", f"between 1 and {drawn} answers that name an option", repr(list(counts)))
    shares = (np.asarray(counts, np.float64) + 0.5) / (named + len(counts) / 2)
    never = tuple(place for place, count in enumerate(counts) if not count)
    return OptionReading(np.log(shares), named / drawn, never)


def read_choice(option: int, options: int) -> OptionReading:
    """Scores of a bare choice, of which only the sign of differences means anything; its mass is not known.

    Arguments:
        option: the one chosen.
        options: how many there were.
    """
    if not 0 <= option < options:
        raise ArgumentError("option", f"an index below {options}", option)
    return OptionReading(np.where(np.arange(options) == option, 1.0, 0.0), math.nan)
