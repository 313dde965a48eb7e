"""Whether a language model changes its mind as an ideal observer would."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from holdfast.card.checks.check import Check, picture
from holdfast.card.finding import Finding, Measure, Outcome, Remedy
from holdfast.card.settings import CheckSettings
from holdfast.card.target import Kind, Target
from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from holdfast.confidence import Answer, Ask, Backend, Plan, Question, Responder, Results, Store, TrialDesign
    from holdfast.probes.confidence import ConfidenceReport

Found = TypeVar("Found")

NAME = "confidence"
QUESTION = "Does it cling to its first answer, or give way too easily?"
SIZES = (20, 30, 40, 50, 75, 100)
"""Numbers of questions, each set the beginning of the next one. They are few, so that two cards mostly have the same;
below the first of them intervals over questions, and the test of what is known, say little."""
BRIEF = 2
"""Questions that are asked first of all, which shows a model that is too slow for more."""
LEVEL = 0.05
"""Of the test whether it knows more than a coin."""
USED, STOP = 0.8, 0.9
"""Shares of its time: that the probe plans with, and after which it asks no more, though a machine that became slower
has not come to what was planned. The rest is for reading the answers."""
TRIED = 2
"""Attempts at a request, and so no more seconds are lost to a server that is not there."""
NO_FAILURE = ("own_answer", "others_answer")
"""Findings of the probe that are none here: whose answer counts is the user's to say."""


def unfit(target: Target, settings: CheckSettings) -> str:
    """Endpoints, and local language models that were made to answer."""
    if target.kind is Kind.ENDPOINT:
        return ""
    if target.kind is not Kind.MODEL:
        return "it answers no questions"
    from holdfast.card.transformers_model import is_causal

    if not is_causal(target.subject):
        return "it answers no questions"
    place = target.parts.get("place")
    if place is None or not getattr(_tokenizer(str(place)), "chat_template", None):
        return "it has no chat template, so that it was not made to answer"
    return ""


@dataclass(frozen=True)
class Known:
    """How many first answers are right.

    Arguments:
        right: of them.
        answers: all.
        p: how likely a coin is right as often.
    """

    right: int
    answers: int
    p: float

    @property
    def beyond_chance(self) -> bool:
        """Whether it knows what it was asked."""
        return self.p <= LEVEL

    def __str__(self) -> str:
        """Return share and count."""
        return f"{self.right} of {self.answers} first answers are right ({self.right / max(self.answers, 1):.0%})"


def known_from(right: int, answers: int) -> Known:
    """The exact one-sided binomial test of right answers to questions of two options, against a coin."""
    from scipy import stats

    return Known(right, answers, float(stats.binom.sf(right - 1, answers, 0.5)))


def probe(target: Target, settings: CheckSettings, seconds: float) -> Finding:
    """Ask questions of which it should know the answer, and again with its answer shown, hidden, or another's.

    A few requests show whether answers can be read, and what one costs; then as many questions are asked as there is
    time for, and only if first answers are right more often than a coin.
    """
    from holdfast.confidence import PILOT, TEMPLATES, Store, UnusableAnswers, latitude_questions
    from holdfast.probes.confidence import report_of_results

    design = replace(PILOT, templates=(replace(next(iter(TEMPLATES.values())), form="chat"),))
    questions = latitude_questions(SIZES[-1], settings.seed)
    # Nothing of what was asked is left behind: a finding holds numbers, and the store is a temporary one.
    with tempfile.TemporaryDirectory() as folder:
        asking = _Asking(_responder(target, settings, seconds), Store(Path(folder) / "answers.jsonl"), design, seconds)
        try:
            most = asking.pilot(questions)
            if most < SIZES[0]:
                return _too_slow(asking, settings, seconds)
            known = asking.known(questions[:most])
            if not known.beyond_chance:
                return _unknown(known)
            results = asking.all_stages(questions, most)
            return _finding(report_of_results(results, seed=settings.seed), results, known, settings)
        except NoTimeLeftError:
            return _too_slow(asking, settings, seconds)
        except UnusableAnswers as error:
            said = " ".join(str(error).split())
            return Finding(NAME, QUESTION, Outcome.NOT_TOLD, f"Its answers cannot be read: {said}")


class NoTimeLeftError(HoldfastError):
    """Answers came slower than was planned with."""


@dataclass
class _Timely:
    """A responder that answers until a moment.

    Arguments:
        responder: the model.
        end: the moment, by `time.monotonic`.
        answers: that it has given.
    """

    responder: Responder
    end: float
    answers: int = 0

    @property
    def backend(self) -> Backend:
        """That of the model."""
        return self.responder.backend

    def answer(self, asks: Iterable[Ask]) -> Generator[Answer, None, None]:
        """Answer one after another.

        Errors:
            NoTimeLeftError: the moment has come.
        """
        with closing(self.responder.answer(asks)) as answers:
            for answer in answers:
                self.answers += 1
                yield answer
                if time.monotonic() > self.end:
                    raise NoTimeLeftError("no time is left for more questions")


class _Asking:
    """Asks within a time; what was asked once is not asked again.

    Arguments:
        responder: the model.
        store: where answers are kept.
        design: the conditions of each question.
        seconds: of the probe.
    """

    def __init__(self, responder: Responder, store: Store, design: TrialDesign, seconds: float) -> None:
        started = time.monotonic()
        self._responder, self._store, self._design = _Timely(responder, started + STOP * seconds), store, design
        self._end = started + USED * seconds
        self.cost = 0.0

    def pilot(self, questions: Sequence[Question]) -> int:
        """How many questions there is time for; less than the first of `SIZES`: too little."""
        from holdfast.confidence import ask_first

        asked = 0
        for count in (BRIEF, SIZES[0]):
            plan = self._plan(questions[:count])
            if asked and self.cost * (plan.first_requests - asked) > self.left:
                return 0
            self._timed(plan.first_requests - asked, ask_first, plan)
            asked = plan.first_requests
        fitting = [size for size in SIZES if self.cost * self._plan(questions[:size]).requests <= self.left]
        return max(fitting, default=0)

    def known(self, questions: Sequence[Question]) -> Known:
        """Whether first answers are right more often than those of a coin; questions without one are left out."""
        from holdfast.confidence import ask_first

        units = ask_first(self._plan(questions), self._responder, self._store, progress=False)
        answered = [(int(choice), one.answer) for choice, one in zip(units.choice, questions, strict=True)]
        chosen = [choice == answer for choice, answer in answered if choice >= 0]
        return known_from(sum(chosen), len(chosen))

    def all_stages(self, questions: Sequence[Question], most: int) -> Results:
        """Ask more and more questions, up to so many, as long as there is time for the next ones.

        Errors:
            NoTimeLeftError: it was over before the fewest were answered.
        """
        from holdfast.confidence import run

        plan = self._plan(questions[: SIZES[0]])
        results = self._timed(plan.requests, run, plan)
        for size in SIZES[1 : SIZES.index(most) + 1]:
            asked, plan = plan.requests, self._plan(questions[:size])
            if self.cost * (plan.requests - asked) > self.left:
                break
            with suppress(NoTimeLeftError):  # the answers to fewer questions are whole
                results = self._timed(plan.requests - asked, run, plan)
        return results

    @property
    def left(self) -> float:
        """Seconds."""
        return self._end - time.monotonic()

    def needed(self) -> float:
        """Seconds that the fewest questions take."""
        return self.cost * SIZES[0] * (len(self._design.cells) + 1) * 2 / USED

    def _plan(self, questions: Sequence[Question]) -> Plan:
        from holdfast.confidence import Plan

        return Plan(tuple(questions), self._design)

    def _timed(self, requests: int, ask: Callable[..., Found], plan: Plan) -> Found:
        started, before = time.monotonic(), self._responder.answers
        try:
            found = ask(plan, self._responder, self._store, progress=False)
        except NoTimeLeftError:
            requests = self._responder.answers - before
            raise
        finally:
            self.cost = (time.monotonic() - started) / max(requests, 1)
        return found


def _too_slow(asking: _Asking, settings: CheckSettings, seconds: float) -> Finding:
    requests = round(asking.needed() * USED / asking.cost)
    # The share of the budget that this probe has stays the same.
    budget = max(settings.budget_s * asking.needed() / seconds, settings.budget_s + 1)
    step = 10 ** max(len(f"{budget:.0f}") - 2, 0)
    return Finding(
        NAME,
        QUESTION,
        Outcome.NOT_TOLD,
        f"It cannot be told in the {seconds:.0f} s that there were: it takes at least {SIZES[0]} questions, which are "
        f"{requests} requests, at {asking.cost:.2g} s each. A budget of {-(-budget // step) * step:.0f} s for this "
        "model would do.",
    )


def _unknown(known: Known) -> Finding:
    return Finding(
        NAME,
        QUESTION,
        Outcome.NOT_TOLD,
        f"It cannot be told, for it does not know enough of what it was asked: {known}, and a coin would be right in "
        "half. Ask it questions of its own field with holdfast probe confidence --questions.",
        f"{known.answers} questions on the latitude of cities; one-sided exact binomial test against a coin: "
        f"p = {known.p:.2g}",
    )


def _finding(report: ConfidenceReport, results: Results, known: Known, settings: CheckSettings) -> Finding:
    analysis = report.analysis
    judged = {verdict.name for verdict in analysis.judged if not math.isnan(verdict.p_adjusted)}
    outcome = Outcome.NOT_TOLD
    if set(analysis.flags) - set(NO_FAILURE):
        outcome = Outcome.FAILS
    elif {"choice_bias", "weight_opposite"} <= judged:
        outcome = Outcome.HOLDS
    # What to try is the remedy's to say.
    opening = f"{report.verdict.partition('; try ')[0].rstrip('.')}."
    if outcome is Outcome.HOLDS:
        opening = f"It neither clings to its first answer nor gives way too easily. {opening}"
    interval = f"{analysis.choice_bias.value:+.2f} [{analysis.choice_bias.low:+.2f}, {analysis.choice_bias.high:+.2f}]"
    return Finding(
        NAME,
        QUESTION,
        outcome,
        f"{opening} It knows enough to be judged: {known}.",
        f"{analysis.questions} questions, {analysis.trials} trials; choice bias {interval} log-odds; known by a "
        f"one-sided exact binomial test against a coin, p = {known.p:.2g}",
        _remedy() if outcome is Outcome.FAILS else None,
        _measures(report, results, settings),
        report.to_dict(),
        picture(report, NAME),
    )


def _measures(report: ConfidenceReport, results: Results, settings: CheckSettings) -> tuple[Measure, ...]:
    """What a card is compared by: the choice bias question by question, the weight by its interval."""
    from holdfast.confidence import contrast

    bias, weight = report.analysis.choice_bias, report.analysis.weight_opposite
    measures = []
    if bias.known:
        contrasts = contrast(results.trials)
        names = np.unique(results.trials.question)[contrasts.question].tolist()
        of = dict(zip(names, contrasts.values["choice_bias"].tolist(), strict=True))
        asked = [of.get(question.id) for question in results.run.plan.questions]
        lacking = [str(place) for place, one in enumerate(asked, 1) if one is None]
        without = f" without {', '.join(lacking)}" if lacking else ""
        measures.append(
            Measure(
                "choice bias",
                "log-odds that showing its own earlier answer adds; ideally 0",
                bias.value,
                (bias.high - bias.low) / 2 / 1.96,
                units=f"the first {len(asked)} questions by seed {settings.seed}{without}",
                values=tuple(one for one in asked if one is not None),
            )
        )
    if weight.known:
        meaning = "how much contradicting advice counts against its worth; ideally 1"
        measures.append(
            Measure("weight of contradiction", meaning, weight.value, (weight.high - weight.low) / 2 / 1.96)
        )
    return tuple(measures)


def _responder(target: Target, settings: CheckSettings, seconds: float) -> Responder:
    if target.kind is Kind.MODEL:
        from holdfast.confidence.responders.huggingface import HuggingFaceResponder

        place = str(target.parts["place"])
        return HuggingFaceResponder(target.subject, _tokenizer(place), name=place, chat=True)
    from holdfast.confidence import ChatResponder
    from holdfast.llm import Endpoint

    endpoint = Endpoint(
        model=target.parts["model"] or "default",
        base_url=target.subject,
        attempts=TRIED,
        timeout_s=min(30.0, max(1.0, seconds / 4)),
        deadline_s=max(1.0, seconds / 2),
        api_key_env=None,
    )
    endpoint.check()
    return ChatResponder(endpoint)


def _tokenizer(place: str) -> Any:
    """The model's own; `None`: it does not load, and has no template then."""
    from holdfast.errors import require
    from holdfast.hub import offline

    try:
        return require("transformers", "hf").AutoTokenizer.from_pretrained(
            place, trust_remote_code=False, **offline(place)
        )
    except Exception:
        return None


def _remedy() -> Remedy:
    code = """\
from holdfast.confidence import mask_own_answer

messages = mask_own_answer(messages)  # before it is asked again"""
    text = "hide its earlier answer when it is asked again, and weigh advice outside of it"
    return Remedy(text, code, "systems/confidence")


CHECK = Check(NAME, QUESTION, 40.0, unfit, probe, "it does not weigh advice and its own answers as they deserve")
