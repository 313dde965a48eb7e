"""The experiment: ask stage 1, take the choices, ask stage 2.

`run` asks what the store does not hold yet, and then reads its results from the store alone, as `results_of` does at
any later time: a second reading cannot say something else.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing

from holdfast.bar import Bar
from holdfast.confidence.plan import Condition, Plan
from holdfast.confidence.requests import Request, duplicate_requests, first_requests, second_requests
from holdfast.confidence.responders.interface import Answer, Ask, Responder
from holdfast.confidence.results import Results, Units, refuse_little_mass, results_of, unit_of
from holdfast.confidence.store import Record, Run, Store
from holdfast.errors import HoldfastError

EARLY = 20
"""Answers after which a stage looks whether they are of use."""

Tell = Callable[[str], None]


def run(
    plan: Plan, responder: Responder, store: Store, *, tell: Tell = lambda line: None, progress: bool = True
) -> Results:
    """Ask what the store does not hold yet, and read the results.

    After any end, a kill included, the same call goes on where it was: only requests that were under way are repeated.

    Arguments:
        plan: what is asked.
        responder: who answers.
        store: where answers are kept.
        tell: called with lines for the user.
        progress: show a bar with the time left, where there is a terminal.

    Errors:
        UnusableAnswers: the model wants to write something other than a label, or too many answers are invalid.
        ArgumentError: the store cannot be written, or somebody else is writing to it.
        HoldfastError: what the responder raises. Answers so far are kept.
    """
    this = Run(responder.backend, plan)
    for line in _other_wordings(this, store):
        tell(line)
    unit = unit_of(responder.backend)
    with store.writing(this) as record, Bar(unit, plan.requests, wanted=progress) as bar:
        known = store.answers()
        asker = _Asker(responder, record, known, plan.design.cells, bar)
        asker.ask(first_requests(this))
        duplicates = (again for _, again in duplicate_requests(this))
        asker.ask(_spread(duplicates, second_requests(this, Units.read(this, known).choice), plan))
    each = f" of {responder.backend.samples} requests each" if unit == "readings" else ""
    tell(f"{asker.sent:,} {unit}{each} were answered now, {asker.kept:,} before")
    return results_of(store, this.id)


def ask_first(plan: Plan, responder: Responder, store: Store, *, progress: bool = True) -> Units:
    """Ask stage 1 alone; a run of the same questions later does not ask it again.

    Arguments:
        plan: the questions, and the templates and orders of their design.
        responder: who answers.
        store: where answers are kept.
        progress: show a bar.

    Returns:
        Choices and readings by question and template.

    Errors:
        See `run`.
    """
    this = Run(responder.backend, plan)
    with store.writing(None) as record, Bar(unit_of(responder.backend), plan.first_requests, wanted=progress) as bar:
        known = store.answers()
        _Asker(responder, record, known, plan.design.cells, bar).ask(first_requests(this))
    return Units.read(this, known)


class _Asker:
    """Asks what is not known, keeps every answer at once, and stops early where answers are of no use."""

    def __init__(
        self, responder: Responder, record: Record, known: dict[str, Answer], cells: Sequence[Condition], bar: Bar
    ) -> None:
        self._responder, self._record, self._known, self._cells, self._bar = responder, record, known, cells, bar
        self.sent = self.kept = 0

    def ask(self, requests: Iterable[Request]) -> None:
        """Ask them all.

        Errors:
            See `run`.
        """
        waiting: dict[str, Request] = {}
        early: list[Answer] = []

        def unknown() -> Iterator[Ask]:
            for request in requests:
                if request.key in self._known:
                    self.kept += 1
                    self._bar.advance()
                else:
                    waiting[request.key] = request
                    yield request.ask()

        with closing(self._responder.answer(unknown())) as answers:
            for answer in answers:
                request = waiting.pop(answer.key, None)
                if request is None or len(answer.scores) != (0 if answer.problem else len(request.question.options)):
                    raise HoldfastError(f"the responder answered what was not asked: {answer}")
                self._record(answer, request.about(self._cells))
                self._known[answer.key] = answer
                self.sent += 1
                self._bar.advance()
                if len(early) < EARLY:
                    early.append(answer)
                    if len(early) == EARLY:
                        refuse_little_mass(early, self._responder.backend.kind)
        if waiting:
            raise HoldfastError(f"the responder left {len(waiting)} requests without an answer")


def _spread(duplicates: Iterator[Request], second: Iterable[Request], plan: Plan) -> Iterator[Request]:
    """Stage 2 with duplicates in between, about as far from each other everywhere."""
    apart = max((plan.requests - plan.first_requests - plan.duplicates) // max(plan.duplicates, 1), 1)
    for number, request in enumerate(second):
        if number % apart == 0:
            yield from itertools.islice(duplicates, 1)
        yield request
    yield from duplicates


def _other_wordings(this: Run, store: Store) -> Iterator[str]:
    """Runs of the same back end with templates of the same names and other words: nothing of theirs is used."""
    hashes = {template.name: template.hash for template in this.plan.design.templates}
    for name, run_before in store.runs().items():
        changed = [
            template.name
            for template in run_before.plan.design.templates
            if run_before.backend == this.backend and hashes.get(template.name, template.hash) != template.hash
        ]
        if changed:
            words = ", ".join(changed)
            yield f"template {words} is not what it was in run {name}: this is run {this.id}, kept apart from it"
