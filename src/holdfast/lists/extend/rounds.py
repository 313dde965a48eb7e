"""Several lists on their way to their answers: in each round all their questions are one batch."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast.bar import Bar
from holdfast.errors import HoldfastError
from holdfast.lists.errors import BadAnswer
from holdfast.lists.extend.blocks import Plan
from holdfast.lists.extend.labels import Laws, Translator
from holdfast.lists.extend.pairs import Labels
from holdfast.lists.oracle import Oracle

SLICE = 512
"""Lists between two updates of the progress bar."""


@dataclass(eq=False)
class Run:
    """One list.

    Arguments:
        translator: between its questions and what the function sees.
        plan: yields questions, is sent their answers (`None`: there is none), returns the result.
        expected: about how many questions there will be.
    """

    translator: Translator
    plan: Generator[list[Labels], list[Labels | None], Any]
    expected: int = 0
    waiting: list[Labels] = field(default_factory=list)
    """Questions of this round."""
    result: Any = None
    """What came out, or the error; `None` before."""
    queries: int = 0
    longest: int = 0
    rounds: int = 0

    def move(self, answers: Sequence[list[Any] | BadAnswer] | None, *, keep_errors: bool, by_votes: bool) -> None:
        """One round on.

        Arguments:
            answers: to the questions of this round; `None` at the start.
            keep_errors: an error is the result, and not raised.
            by_votes: a bad answer is no error.
        """
        try:
            if answers is None:
                self.waiting = next(self.plan)
            else:
                bad = [answer for answer in answers if isinstance(answer, BadAnswer)]
                if bad and not by_votes:
                    raise bad[0]
                good = iter(self.translator.read([each for each in answers if not isinstance(each, BadAnswer)]))
                self.waiting = self.plan.send([None if isinstance(each, BadAnswer) else next(good) for each in answers])
            self.queries += len(self.waiting)
            self.longest = max([self.longest, *map(len, self.waiting)])
            self.rounds += 1
        except StopIteration as stop:
            self.result = stop.value
        except HoldfastError as error:
            if not keep_errors:
                raise
            self.result = error


def finish(runs: Sequence[Run], oracle: Oracle, *, keep_errors: bool, by_votes: bool, progress: bool) -> None:
    """Move all runs on until each has its result.

    Arguments:
        runs: the runs, at their start; those with a result stay as they are.
        oracle: answers their questions.
        keep_errors: an error of a run is its result.
        by_votes: an answer that is none is no error.
        progress: show a bar on a terminal after two seconds.
    """
    moving = [run for run in runs if run.result is None]
    for run in moving:
        run.move(None, keep_errors=keep_errors, by_votes=by_votes)
    with Bar("extrapolate", sum(run.expected for run in moving), wanted=progress) as bar:
        while moving := [run for run in moving if run.result is None]:
            queries = [run.translator.query(query) for run in moving for query in run.waiting]
            # One batch to a function that takes batches, and to a budget that is kept or passed as a whole.
            whole = oracle.batched or oracle.max_queries is not None or not bar.live
            step = max(len(queries), 1) if whole else SLICE
            answers: list[list[Any] | BadAnswer] = []
            for start in range(0, len(queries), step):
                part = queries[start : start + step]
                answers += ask_each(oracle, part) if keep_errors or by_votes else oracle.ask(part)
                bar.advance(len(part))
            found = iter(answers)
            for run in moving:
                run.move([next(found) for _ in run.waiting], keep_errors=keep_errors, by_votes=by_votes)


def checked(plan: Plan, translator: Translator) -> Generator[list[Labels], list[Labels | None], Labels]:
    """A plan whose answers are held to the laws before it gets them.

    Errors:
        AlienValue, WrongMultiplicity: an answer breaks a law.
    """
    laws = Laws(translator)
    try:
        queries = next(plan)
        while True:
            answers = [answer for answer in (yield queries) if answer is not None]
            laws.check(queries, answers)
            queries = plan.send(answers)
    except StopIteration as stop:
        labels: Labels = stop.value
        return labels


def ask_each(oracle: Oracle, queries: Sequence[Any], *, fresh: bool = False) -> list[list[Any] | BadAnswer]:
    """Answers, or what is wrong with them: a bad one of a batch is looked for by halves."""
    if not queries:
        return []
    if len(queries) > 1 and not (oracle.batched or oracle.is_async):
        return [answer for query in queries for answer in ask_each(oracle, [query], fresh=fresh)]
    try:
        return list(oracle.ask(queries, fresh=fresh))
    except BadAnswer as error:
        if len(queries) == 1:
            return [error]
    middle = len(queries) // 2
    return ask_each(oracle, queries[:middle], fresh=fresh) + ask_each(oracle, queries[middle:], fresh=fresh)
