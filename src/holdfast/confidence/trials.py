"""Trials of the two-stage design: the one record that runners fill and analyses read.

Stage 1: a model answers a question. Stage 2, a new query without memory: the question again, the first answer
displayed or not, one line of advice from a stated adviser, and the final answer. A trial is one stage-2 query of a
question, asked in all orders of its options, with the stage-1 readings of that question beside it.

**Frames.** Readings are kept in the *option frame*: a score for each option, whatever place it was shown at. There are
as many orders as options, each moved on by a place from the one before, and readings are averaged over them, which
takes an additive preference for a place out exactly: each option stood at each place once. Analyses look at the
*chosen frame*: L0 and L1 are the log-odds of the option that was chosen in stage 1, before and after.

**K options.** The log-odds of an option are those against all the others together, z_k - logsumexp(z_j, j != k). For
two options this is the difference of their scores. A mind has changed where another option leads in stage 2, which
for two options is L1 < 0, and for more is not the same as a share below one half. An adviser who is right with
probability a and otherwise names each wrong option alike multiplies the odds of the option that it names against the
others by a (K - 1) / (1 - a), and by the inverse those of the chosen option against the one named.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from holdfast.errors import ArgumentError

Display: TypeAlias = Literal["shown", "hidden", "other", "shown_flipped"]
"""What stage 2 shows: the model's first answer, a mask, the same answer said to be another model's, or the answer that
it did not give said to be its own."""

Advice: TypeAlias = Literal["same", "opposite", "neutral"]
"""Which option the adviser names: the one chosen in stage 1, another one, or none."""

Source: TypeAlias = Literal["logprobs", "sampled", "choices"]
"""Where scores come from: log-probabilities, shares of repeated samples, or bare choices. They are never pooled."""

DISPLAYS: tuple[Display, ...] = get_args(Display)
ADVICE: tuple[Advice, ...] = get_args(Advice)
SOURCES: tuple[Source, ...] = get_args(Source)

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]
TextArray: TypeAlias = NDArray[np.str_]


@dataclass(frozen=True, eq=False)
class Readings:
    """What the model said in one stage, a row a trial.

    Arguments:
        scores: (trials, orders, options) natural log-probabilities of the options, up to a constant for each trial and
            order; all NaN in an order that was not asked, does not exist or failed, NaN at options that the question
            does not have. In order r the option (j + r) mod K stood at the place j: 0 is as listed, and for two options
            1 is the other way round.
            For bare choices: 1 at the choice and 0 elsewhere, of which only the sign of differences is used.
        mass: (trials, orders) share of probability on the options, the rest going to other words; NaN: unknown.
        censored: (trials, orders) some option's score is only an upper bound.
    """

    scores: FloatArray
    mass: FloatArray
    censored: BoolArray

    @cached_property
    def mean_scores(self) -> FloatArray:
        """(trials, options) Scores averaged over the orders that were asked; NaN where there were none."""
        asked = ~np.isnan(self.scores).all(axis=2, keepdims=True)
        count = asked.sum(axis=1)
        total = np.where(asked, self.scores, 0.0).sum(axis=1)
        return np.asarray(np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0))


def log_odds(scores: FloatArray, option: IntArray) -> FloatArray:
    """Log-odds of one option against the others: the formula is in the module's first lines.

    Arguments:
        scores: (..., options) NaN at options that do not exist.
        option: (...) index of the option.

    Returns:
        (...) log-odds.
    """
    this = np.take_along_axis(scores, option[..., None], axis=-1)[..., 0]
    if scores.shape[-1] == 2:
        other = np.take_along_axis(scores, 1 - option[..., None], axis=-1)[..., 0]
        return np.asarray(this - other)
    others = np.where(np.isnan(scores), -np.inf, scores)
    np.put_along_axis(others, option[..., None], -np.inf, axis=-1)
    return np.asarray(this - logsumexp(others, axis=-1))


def lead(scores: FloatArray, option: IntArray) -> FloatArray:
    """By how much an option's score is above that of its strongest rival; negative where the rival leads.

    Arguments:
        scores: (..., options) NaN at options that do not exist.
        option: (...) index of the option.
    """
    this = np.take_along_axis(scores, option[..., None], axis=-1)[..., 0]
    rivals = np.where(np.isnan(scores), -np.inf, scores)
    np.put_along_axis(rivals, option[..., None], -np.inf, axis=-1)
    return np.asarray(this - rivals.max(axis=-1))


@dataclass(frozen=True, eq=False)
class Trials:
    """Trials as columns, a row for each (question, template, display, advice, accuracy); checked once, here.

    Arguments:
        question: (trials) name of the question.
        template: (trials) name or content hash of the wording.
        display: (trials) one of `DISPLAYS`.
        advice: (trials) one of `ADVICE`, relative to `choice`.
        accuracy: (trials) the adviser's stated accuracy in (0, 1]; NaN allowed for neutral advice that states none.
        choice: (trials) option chosen in stage 1, which display and advice were made from.
        stage_1: readings of the question alone, repeated in each of its trials.
        stage_2: readings of the trial.
        answer: (trials) the correct option; -1: unknown.
        options: (trials) number of options of the question; left out: all that the scores have.
        advised: (trials) option that the adviser named, -1 for neutral; may be left out where there are two options.
        invalid: (trials) why the trial is to be left out, for example `"refusal"`; `"tie"` (no first choice) and
            `"not finite"` (NaN or infinite logits) are known to be faults of the back end. Empty: it is not left out.
            May be left out as a column: all are valid.
        source: where the scores come from.
        samples: answers drawn for each reading, where they are shares of samples.

    Errors:
        ArgumentError: columns do not fit each other; all problems are named in one message.
    """

    question: NDArray[np.str_ | np.int64]
    template: NDArray[np.str_ | np.int64]
    display: TextArray
    advice: TextArray
    accuracy: FloatArray
    choice: IntArray
    stage_1: Readings
    stage_2: Readings
    answer: IntArray
    options: IntArray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    advised: IntArray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    invalid: TextArray = dataclasses.field(default_factory=lambda: np.zeros(0, "<U1"))
    source: Source = "logprobs"
    samples: int = 0

    def __post_init__(self) -> None:
        count, width = len(self.question), self.stage_1.scores.shape[-1]
        if not len(self.options):
            object.__setattr__(self, "options", np.full(count, width, np.int64))
        if not len(self.invalid):
            object.__setattr__(self, "invalid", np.full(count, "", "<U1"))
        if not len(self.advised) and width == 2 and len(self.choice) == len(self.advice):
            other = np.where(self.advice == "opposite", 1 - self.choice, -1)
            object.__setattr__(self, "advised", np.where(self.advice == "same", self.choice, other))
        problems = _shape_problems(self) or _value_problems(self)
        if problems:
            raise ArgumentError("trials", "columns of one crossed design", "; ".join(problems))

    def __len__(self) -> int:
        return len(self.question)

    @cached_property
    def valid(self) -> BoolArray:
        """(trials) Trials that are not marked invalid."""
        return np.asarray(self.invalid == "")

    @cached_property
    def initial_log_odds(self) -> FloatArray:
        """(trials) L0: log-odds of the chosen option in stage 1, over the orders that were asked."""
        return log_odds(self.stage_1.mean_scores, self.choice)

    @cached_property
    def final_log_odds(self) -> FloatArray:
        """(trials) L1: log-odds of the same option in stage 2."""
        return log_odds(self.stage_2.mean_scores, self.choice)

    @cached_property
    def change_of_mind(self) -> FloatArray:
        """(trials) 1: another option leads in stage 2; 0: the chosen one; 1/2: a tie; NaN: no score."""
        margin = lead(self.stage_2.mean_scores, self.choice)
        return np.where(np.isnan(margin), np.nan, (margin < 0) + 0.5 * (margin == 0))

    @cached_property
    def question_code(self) -> IntArray:
        """(trials) Questions as numbers from 0."""
        return np.unique(self.question, return_inverse=True)[1].astype(np.int64)

    @cached_property
    def template_code(self) -> IntArray:
        """(trials) Templates as numbers from 0."""
        return np.unique(self.template, return_inverse=True)[1].astype(np.int64)

    @property
    def questions(self) -> int:
        """Number of different questions."""
        return int(self.question_code.max()) + 1 if len(self) else 0

    def where(self, rows: BoolArray | IntArray) -> Trials:
        """The trials at a mask or at indices."""
        columns: dict[str, Any] = {
            field.name: value[rows]
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), np.ndarray)
        }
        return dataclasses.replace(
            self, **columns, stage_1=_rows_of(self.stage_1, rows), stage_2=_rows_of(self.stage_2, rows)
        )


def concatenate(parts: Sequence[Trials]) -> Trials:
    """Trials of several runs in one record.

    Errors:
        ArgumentError: there are none, their sources differ, or two of them hold the same trial.
    """
    if not parts:
        raise ArgumentError("parts", "at least one record of trials", "none")
    if len({(part.source, part.samples) for part in parts}) > 1:
        named = ", ".join(sorted({part.source for part in parts}))
        raise ArgumentError("parts", "confidences of one source: they are never pooled", named)
    columns: dict[str, Any] = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in dataclasses.fields(Trials)
        if isinstance(getattr(parts[0], field.name), np.ndarray)
    }
    orders, width = (max(part.stage_1.scores.shape[axis] for part in parts) for axis in (1, 2))
    for stage in ("stage_1", "stage_2"):
        columns[stage] = _joined([getattr(part, stage) for part in parts], orders, width)
    return dataclasses.replace(parts[0], **columns)


def _rows_of(readings: Readings, rows: BoolArray | IntArray) -> Readings:
    return Readings(readings.scores[rows], readings.mass[rows], readings.censored[rows])


def _joined(readings: Sequence[Readings], orders: int, width: int) -> Readings:
    """Readings below each other, padded to the same number of orders and options."""
    joined: dict[str, list[Any]] = {"scores": [], "mass": [], "censored": []}
    for part in readings:
        missing = ((0, 0), (0, orders - part.scores.shape[1]), (0, width - part.scores.shape[2]))
        joined["scores"].append(np.pad(part.scores, missing, constant_values=np.nan))
        joined["mass"].append(np.pad(part.mass, missing[:2], constant_values=np.nan))
        joined["censored"].append(np.pad(part.censored, missing[:2]))
    return Readings(**{name: np.concatenate(values) for name, values in joined.items()})


def _shape_problems(trials: Trials) -> list[str]:
    """Columns whose shapes do not fit; nothing else can be looked at before they do."""
    count = len(trials.question)
    problems = [
        f"{field.name} has shape {value.shape} where there are {count} questions"
        for field in dataclasses.fields(trials)
        if isinstance(value := getattr(trials, field.name), np.ndarray) and value.shape != (count,)
    ]
    shape = trials.stage_1.scores.shape
    if len(shape) != 3 or shape[0] != count or shape[1] < 1 or shape[2] < 2:
        return [*problems, f"stage_1.scores has shape {shape} instead of ({count}, orders, at least 2 options)"]
    for stage in ("stage_1", "stage_2"):
        readings: Readings = getattr(trials, stage)
        for name, want in (("scores", shape), ("mass", shape[:2]), ("censored", shape[:2])):
            if (got := getattr(readings, name).shape) != want:
                problems.append(f"{stage}.{name} has shape {got} instead of {want}")
    return problems


def _value_problems(trials: Trials) -> list[str]:
    """What is wrong with values, each with the number of rows and the first of them."""
    same, opposite, neutral = (trials.advice == name for name in ADVICE)
    unstated = np.isnan(trials.accuracy)
    right_advised = (
        (same & (trials.advised == trials.choice))
        | (opposite & (trials.advised != trials.choice) & (trials.advised >= 0) & (trials.advised < trials.options))
        | (neutral & (trials.advised == -1))
    )
    width = trials.stage_1.scores.shape[-1]
    wrong = {
        f"display not one of {', '.join(DISPLAYS)}": ~np.isin(trials.display, DISPLAYS),
        f"advice not one of {', '.join(ADVICE)}": ~np.isin(trials.advice, ADVICE),
        "accuracy outside (0, 1]": np.where(unstated, ~neutral, ~((trials.accuracy > 0) & (trials.accuracy <= 1))),
        f"options outside 2 to {width}": (trials.options < 2) | (trials.options > width),
        "choice not an option": (trials.choice < 0) | (trials.choice >= trials.options),
        "answer neither an option nor -1": (trials.answer < -1) | (trials.answer >= trials.options),
        "advised not what advice says": ~right_advised,
    }
    exists = np.arange(width) < trials.options[:, None]
    for stage in ("stage_1", "stage_2"):
        readings: Readings = getattr(trials, stage)
        scored = np.isfinite(readings.scores)
        missing = np.asarray(np.isnan(readings.scores).all(axis=2))
        unusable = np.asarray(~missing & (scored != exists[:, None, :]).any(axis=2))
        valid = trials.invalid == ""
        wrong[f"{stage}.scores infinite, partly missing or beyond the options"] = valid & unusable.any(axis=1)
        beyond = ~missing & (np.arange(missing.shape[1]) >= trials.options[:, None])
        wrong[f"{stage}.scores in more orders than there are options"] = beyond.any(axis=1)
        wrong[f"{stage}.scores missing in a trial not marked invalid"] = valid & missing.all(axis=1)
        wrong[f"{stage}.mass outside [0, 1]"] = ((readings.mass < 0) | (readings.mass > 1 + 1e-6)).any(axis=1)
    problems = [
        f"{what} in {int(rows.sum())} rows, the first {int(np.argmax(rows))}"
        for what, rows in wrong.items()
        if rows.any()
    ]
    if trials.source not in SOURCES:
        problems.append(f"source {trials.source!r} not one of {', '.join(SOURCES)}")
    if (trials.source == "sampled") != (trials.samples > 0):
        problems.append(f"samples is {trials.samples} where the source is {trials.source}")
    if len(trials) and not problems:
        unit = trials.question_code * (int(trials.template_code.max()) + 1) + trials.template_code
        for name, of, what in (
            ("choice", unit, "a question in one wording"),
            ("answer", trials.question_code, "a question"),
            ("options", trials.question_code, "a question"),
        ):
            # Contrasts of trials whose first choices differ would be between log-odds of different options.
            mixed = len(np.unique(np.stack([of, getattr(trials, name)]), axis=1)[0]) - len(np.unique(of))
            if mixed:
                problems.append(f"{name} differs between the rows of {what}, {mixed} times")
        key = np.rec.fromarrays(
            [trials.question_code, trials.template_code, trials.display, trials.advice, np.nan_to_num(trials.accuracy)]
        )
        repeated = len(key) - len(np.unique(key))
        if repeated:
            problems.append(f"{repeated} rows repeat a question, template, display, advice and accuracy")
    return problems
