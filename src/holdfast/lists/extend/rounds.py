"""Several lists on their way to their answers: in each round all their questions are one batch."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from holdfast.bar import Bar
from holdfast.errors import ArgumentError, HoldfastError
from holdfast.lists.errors import BadAnswer
from holdfast.lists.extend.labels import Laws, Translator
from holdfast.lists.extend.pairs import Labels
from holdfast.lists.extend.sublists import Plan
from holdfast.lists.oracle import Oracle
from holdfast.lists.values import Key

SLICE = 512
"""Lists between two updates of the progress bar."""

Answering = Generator[list[Labels], list[Labels | None], Any]
"""Yields questions, is sent their answers (`None`: there is none), returns an `Extension`."""


@dataclass(eq=False)
class Run:
    """One list.

    Arguments:
        xs: the list as it was given, or as a list.
        translator: between it, or its questions, and labels.
        keep_errors: an error is the result, and not raised.
    """

    xs: Any
    translator: Translator
    keep_errors: bool
    votes: bool = False
    """Whether a list that is asked for again is to be answered anew."""
    plan: Answering = field(init=False)
    """Yields questions, is sent their answers, returns the result."""
    expected: int = 0
    """About how many questions there will be."""
    waiting: list[Labels] = field(default_factory=list)
    """Questions of this round."""
    anew: list[bool] = field(default_factory=list)
    """Which of them were asked before, and may not be answered by what was said then."""
    result: Any = None
    """What came out, or the error; `None` before."""
    queries: int = 0
    longest: int = 0
    rounds: int = 0
    _asked: set[bytes] = field(default_factory=set)

    @classmethod
    def of(cls, xs: Any, key: Key, keep_errors: bool) -> Run:
        """A list at its start."""
        run = cls([], Translator([], None, False), keep_errors)
        with run.guarded():
            run.xs = as_sequence(xs)
            run.translator = Translator(run.xs, key, run.is_text)
        return run

    @property
    def is_text(self) -> bool:
        """Whether the function sees texts."""
        return isinstance(self.xs, str)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """What goes wrong inside is the result, if errors are kept."""
        try:
            yield
        except HoldfastError as error:
            if not self.keep_errors:
                raise
            self.result = error

    def move(self, answers: Sequence[list[Any] | BadAnswer] | None, *, tolerant: bool) -> None:
        """One round on.

        Arguments:
            answers: to the questions of this round; `None` at the start.
            tolerant: a bad answer is no error.
        """
        with self.guarded():
            try:
                self.waiting = next(self.plan) if answers is None else self.plan.send(self._read(answers, tolerant))
            except StopIteration as stop:
                self.result = stop.value
                return
            self.anew = [self.votes and self._again(query) for query in self.waiting]
            self.queries += len(self.waiting)
            self.longest = max([self.longest, *map(len, self.waiting)])
            self.rounds += 1

    def _again(self, query: Labels) -> bool:
        name = query.tobytes()
        again = name in self._asked
        self._asked.add(name)
        return again

    def _read(self, answers: Sequence[list[Any] | BadAnswer], tolerant: bool) -> list[Labels | None]:
        """Answers as labels; `None` for a bad one."""
        for answer in answers:
            if isinstance(answer, BadAnswer) and not tolerant:
                raise answer
        good = iter(self.translator.read([answer for answer in answers if not isinstance(answer, BadAnswer)]))
        return [None if isinstance(answer, BadAnswer) else next(good) for answer in answers]


def finish(runs: Sequence[Run], oracle: Oracle, *, tolerant: bool) -> None:
    """Move all runs on until each has its result.

    Arguments:
        runs: the runs, at their start; those with a result stay as they are.
        oracle: answers their questions.
        tolerant: an answer that is none is no error.

    Errors:
        OutOfBudget: the questions of a round are more than are left.
        BadAnswer: of a run whose errors are not kept, if not tolerant.
    """
    moving = [run for run in runs if run.result is None]
    for run in moving:
        run.move(None, tolerant=tolerant)
    one_by_one = tolerant or any(run.keep_errors for run in moving)
    with Bar("extrapolate", sum(run.expected for run in moving), wanted=oracle.progress) as bar:
        while moving := [run for run in moving if run.result is None]:
            queries = [run.translator.query(query) for run in moving for query in run.waiting]
            anew = [again for run in moving for again in run.anew]
            # One batch to a function that takes batches, and to a budget that is kept or passed as a whole.
            whole = oracle.batched or oracle.max_queries is not None or not bar.live
            step = max(len(queries), 1) if whole else SLICE
            answers: list[list[Any] | BadAnswer] = []
            for start in range(0, len(queries), step):
                part, fresh = queries[start : start + step], anew[start : start + step]
                answers += oracle.attempt(part, fresh=fresh) if one_by_one else oracle.ask(part, fresh=fresh)
                bar.advance(len(part))
            rest = iter(answers)
            for run in moving:
                run.move([next(rest) for _ in run.waiting], tolerant=tolerant)


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


def as_sequence(xs: Any) -> Any:
    """A list, tuple or text as it is; anything else that can be gone through, as a list."""
    if isinstance(xs, str | list | tuple):
        return xs
    try:
        return xs.tolist() if isinstance(xs, np.ndarray) and xs.ndim == 1 else list(xs)
    except TypeError:
        raise ArgumentError("xs", "a list, tuple or text", type(xs).__name__) from None
