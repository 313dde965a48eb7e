"""Results of a run, read from its store, and what forbids to conclude anything from them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from holdfast.confidence.contrasts import Grid
from holdfast.confidence.duplicates import RepeatNoise, repeat_noise
from holdfast.confidence.plan import Plan, advised_option
from holdfast.confidence.requests import Request, duplicate_requests, first_requests, second_requests
from holdfast.confidence.responders.interface import NOT_FINITE, Answer, Backend
from holdfast.confidence.store import Run, Store
from holdfast.confidence.trials import BoolArray, FloatArray, IntArray, Readings, Trials
from holdfast.errors import HoldfastError

LEAST_MASS = 0.5
"""Share of probability on the labels below which answers are not used."""

MOST_INVALID = 0.01
"""Share of ties, and of scores that are no numbers, beyond which nothing is concluded."""

TIE, UNDECIDED, NO_MASS, NOT_ASKED = "tie", "undecided", "little mass on the labels", "not asked"
"""Why trials are invalid, beside the problems that responders name."""


ANOTHER_WAY = "Ask in another form (--form) or wording (--wordings)"

REMEDIES = {
    "huggingface": "Turn off thinking if its chat template lets it think (--no-thinking, or `chat_template_kwargs`). "
    f"{ANOTHER_WAY}; a base model may need the flat form. If it has to write more before it answers, serve it, and "
    "draw and count answers there (--model with --backend sampled)",
    "chat": "Turn off thinking if its chat template lets it think (--no-thinking, or `Endpoint.extra`). "
    f"{ANOTHER_WAY}. If it has to write more before it answers, draw and count answers (--backend sampled)",
    "sampled": "Turn off thinking if its chat template lets it think (--no-thinking, or `Endpoint.extra`). "
    f"{ANOTHER_WAY}; let answers be longer (`max_tokens` of `SampledResponder`)",
}
"""What to try where a model does not write labels, by the kind of back end."""


class UnusableAnswers(HoldfastError):
    """The answers do not support any conclusion; the message says why, and what to try."""


@dataclass(frozen=True, eq=False)
class Results:
    """What a run brought, read from its store.

    Arguments:
        run: what was asked of whom.
        trials: a row for each question, template and cell of which stage 1 was answered.
        answered: requests that are answered, of `run.plan.requests`.
        problems: readings without use, by reason.
        undecided: questions without a choice in stage 1, each template counted.
        skipped: requests of stage 2 that these questions do not have.
        mass: mean share of probability on the labels; NaN: not known.
        noise: by how much answers to equal prompts differ; `None`: not measured.
        warnings: what to know of the run before believing any number, in sentences. What trials show by themselves,
            such as little mass, is left to `holdfast.confidence.analyze`.
    """

    run: Run
    trials: Trials
    answered: int
    problems: Mapping[str, int]
    undecided: int
    skipped: int
    mass: float
    noise: RepeatNoise | None
    warnings: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether all is answered but stage 2 of questions that have no choice."""
        return self.answered + self.skipped == self.run.plan.requests


def trials_of(store: Store, run_id: str | None = None) -> Trials:
    """The trials of a run; see `results_of`."""
    return results_of(store, run_id).trials


def results_of(store: Store, run_id: str | None = None) -> Results:
    """What a run brought so far: a function of the store alone, which never asks anybody.

    Questions of which stage 1 is not answered are left out. A trial that lacks one of its readings, in either order, is
    marked invalid with the reason; contrasts leave out the whole question then, and say how many.

    Arguments:
        store: where the answers are.
        run_id: which run; may be left out where there is only one.

    Errors:
        ArgumentError: there is no such run, or no stage 1 of any question is answered.
        UnusableAnswers: labels hold less than half of the probability, or more than 1 % of the readings are no
            numbers, or of the questions have no choice because of a tie.
    """
    this = store.run(run_id)
    answers = store.answers()
    units = Units.read(this, answers)
    design, count = this.plan.design, len(this.plan.design.cells)
    second = _Table(len(units.choice) * count, this.plan)
    for request in second_requests(this, units.choice):
        second.put(request.unit * count + request.cell, request, answers.get(request.key))
    rows = np.flatnonzero(np.repeat(units.asked, count))
    if not len(rows):
        raise UnusableAnswers(_too_few(this, units.table.answered))
    refuse_little_mass([*units.table.read, *second.read], this.backend.kind)
    _refuse_invalid(this, units, second)
    unit, cell = rows // count, rows % count
    questions = [this.plan.questions[place] for place in unit // len(design.templates)]
    cells = [design.cells[place] for place in cell]
    choice = np.maximum(units.choice[unit], 0)
    advised = [
        advised_option(question, at, int(chosen)) for question, at, chosen in zip(questions, cells, choice, strict=True)
    ]
    invalid = np.where(units.reason[unit] != "", units.reason[unit], second.reason[rows])
    trials = Trials(
        question=np.array([question.id for question in questions]),
        template=np.array([template.label for template in design.templates])[unit % len(design.templates)],
        display=np.array([at.display for at in cells]),
        advice=np.array([at.advice for at in cells]),
        accuracy=np.array([math.nan if at.accuracy is None else at.accuracy for at in cells]),
        choice=choice,
        stage_1=units.table.readings(unit),
        stage_2=second.readings(rows),
        answer=np.array([-1 if question.answer is None else question.answer for question in questions]),
        options=np.array([len(question.options) for question in questions]),
        advised=np.array([-1 if option is None else option for option in advised]),
        invalid=invalid.astype(np.str_),
        source=this.backend.source,
        samples=this.backend.samples,
    )
    undecided = np.flatnonzero(units.asked & (units.reason != ""))
    skipped = count * sum(len(design.turns(this.plan.questions[at // len(design.templates)])) for at in undecided)
    problems = units.table.problems + second.problems
    masses = [answer.mass for answer in (*units.table.read, *second.read) if not math.isnan(answer.mass)]
    mass = float(np.mean(masses)) if masses else math.nan
    again = [(answers.get(first.key), answers.get(twice.key)) for first, twice in duplicate_requests(this)]
    of_use = [(first, twice) for first, twice in again if _is_of_use(first) and _is_of_use(twice)]
    results = Results(
        run=this,
        trials=trials,
        answered=units.table.answered + second.answered + sum(twice is not None for _, twice in again),
        problems=dict(problems),
        undecided=len(undecided),
        skipped=skipped,
        mass=mass,
        # Bare choices have no log-odds that could differ.
        noise=None if this.backend.source == "choices" else repeat_noise(of_use),
        warnings=(),
    )
    models = _models((*units.table.read, *second.read))
    return replace(results, warnings=tuple(_warnings(results, models)))


@dataclass(frozen=True, eq=False)
class Units:
    """Stage 1 of every question with every template.

    Arguments:
        table: readings.
        choice: option that leads in the mean over the orders; -1: none.
        reason: why there is none; empty: there is one.
        asked: whether all its orders are answered.
    """

    table: _Table
    choice: IntArray
    reason: NDArray[np.str_]
    asked: BoolArray

    @classmethod
    def read(cls, this: Run, answers: Mapping[str, Answer]) -> Units:
        plan = this.plan
        table = _Table(len(plan.questions) * len(plan.design.templates), plan)
        for request in first_requests(this):
            table.put(request.unit, request, answers.get(request.key))
        mean = table.readings(np.arange(len(table.reason))).mean_scores
        filled = np.where(np.isnan(mean), -np.inf, mean)
        best = filled.max(axis=1, keepdims=True)
        tie = (filled == best).sum(axis=1) > 1
        # Bare choices that change with the order are no tie of a measurement: the model has not decided.
        word = TIE if this.backend.source == "logprobs" else UNDECIDED
        reason = np.where(table.reason != "", table.reason, np.where(tie, word, "")).astype(np.str_)
        choice = np.where(reason == "", filled.argmax(axis=1), -1)
        return cls(table, choice, reason, reason != NOT_ASKED)


class _Table:
    """Readings by row, in the frame of the options as listed, and why rows have none."""

    def __init__(self, rows: int, plan: Plan) -> None:
        width = max(len(question.options) for question in plan.questions)
        turns = max(len(plan.design.turns(question)) for question in plan.questions)
        self.scores: FloatArray = np.full((rows, turns, width), np.nan)
        self.mass: FloatArray = np.full((rows, turns), np.nan)
        self.censored: BoolArray = np.zeros((rows, turns), bool)
        self.reason = np.full(rows, "", object)
        self.read: list[Answer] = []
        self.answered = 0
        self.problems: Counter[str] = Counter()

    def put(self, row: int, request: Request, answer: Answer | None) -> None:
        """Put one answer in its place; a request without one leaves its row invalid."""
        order, turn = request.question.order(request.turn), request.turn
        if answer is None:
            self.reason[row] = self.reason[row] or NOT_ASKED
            return
        self.answered += 1
        problem = answer.problem or ("malformed" if len(answer.scores) != len(order) else "")
        problem = problem or (NO_MASS if answer.mass < LEAST_MASS else "")
        if problem:
            self.problems[problem] += 1
            # What went wrong says more than what was not asked.
            self.reason[row] = problem if self.reason[row] in ("", NOT_ASKED) else self.reason[row]
        if problem in ("", NO_MASS):
            self.read.append(answer)
            self.mass[row, turn] = min(max(answer.mass, 0.0), 1.0) if not math.isnan(answer.mass) else math.nan
        if not problem:
            self.scores[row, turn, list(order)] = answer.scores
            self.censored[row, turn] = bool(answer.missing)

    def readings(self, rows: IntArray) -> Readings:
        """Those of some rows."""
        return Readings(self.scores[rows], self.mass[rows], self.censored[rows])


def _is_of_use(answer: Answer | None) -> TypeGuard[Answer]:
    return answer is not None and not answer.problem and not answer.mass < LEAST_MASS


def refuse_nothing(results: Results) -> None:
    """Stop where no question has what an analysis needs.

    Errors:
        UnusableAnswers: none does, since answers are still missing, or since too many are of no use.
    """
    trials = results.trials
    compared = trials.valid.any() if trials.source == "choices" else Grid.of(trials).complete.any()
    if compared:
        return
    if not results.complete:
        raise UnusableAnswers(_too_few(results.run, results.answered))
    reasons, counts = np.unique(trials.invalid[~trials.valid], return_counts=True)
    named = ", ".join(f"{reason} in {number}" for reason, number in zip(reasons, counts, strict=True))
    remedy = REMEDIES.get(results.run.backend.kind, ANOTHER_WAY)
    raise UnusableAnswers(f"no question has all its answers: of {len(trials):,} trials {named} are left out. {remedy}")


def _too_few(this: Run, answered: int) -> str:
    return (
        f"{answered:,} of {this.plan.requests:,} {unit_of(this.backend)} are answered, and no question in all its "
        "conditions. To go on, give the command (or call) that began it once more, with a larger --max-requests if "
        "that ended it: only what is missing is asked"
    )


def unit_of(backend: Backend) -> str:
    """What is counted of a run: requests, or readings where each takes several."""
    return "readings" if backend.samples > 1 else "requests"


def refuse_little_mass(answers: Iterable[Answer], kind: str) -> None:
    """Stop where the model wants to write something other than a label.

    Arguments:
        answers: of one model.
        kind: of its back end, which decides what can be done.

    Errors:
        UnusableAnswers: the labels hold less than half of the probability on average.
    """
    known = [answer for answer in answers if not math.isnan(answer.mass)]
    mass = sum(answer.mass for answer in known) / max(len(known), 1)
    if known and mass < LEAST_MASS:
        weight: Counter[str] = Counter()
        for answer in known:
            weight.update({text: math.exp(value) / len(known) for text, value in answer.tokens})
        seen = ", ".join(f"{text!r} ({share:.0%})" for text, share in weight.most_common(5)) or "not known"
        raise UnusableAnswers(
            f"the labels hold {mass:.0%} of the probability: the model wants to write something else (likeliest: "
            f"{seen}). {REMEDIES.get(kind, ANOTHER_WAY)}"
        )


def _refuse_invalid(this: Run, units: Units, second: _Table) -> None:
    read = len(units.table.read) + len(second.read)
    broken = units.table.problems[NOT_FINITE] + second.problems[NOT_FINITE]
    if broken > MOST_INVALID * (read + broken):
        raise UnusableAnswers(
            f"{broken} of {read + broken} readings are infinite or no numbers: load the model in a wider format, "
            "such as bfloat16 for float16, or float32"
        )
    ties = int((units.reason == TIE).sum())
    # One question of a small set is no pattern.
    if ties > max(MOST_INVALID * units.asked.sum(), 1):
        raise UnusableAnswers(
            f"{ties} of {units.asked.sum()} questions have no choice in stage 1, since options are exactly equal: "
            "scores are too coarse, or the model does not read the options"
        )


def _warnings(results: Results, models: set[str]) -> Iterator[str]:
    missing = results.run.plan.requests - results.answered - results.skipped
    if not results.complete:
        yield f"{missing:,} of {results.run.plan.requests:,} {unit_of(results.run.backend)} have no answer yet"
    if len(models) > 1:
        yield f"the server changed its model during the run: {', '.join(sorted(models))}"


def _models(answers: Iterable[Answer]) -> set[str]:
    """Models that the server says it used, with their fingerprints."""
    names = (
        " ".join(str(answer.raw.get(name) or "") for name in ("model", "system_fingerprint")) for answer in answers
    )
    return {name.strip() for name in names if name.strip()}
