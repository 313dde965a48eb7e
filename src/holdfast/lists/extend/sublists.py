"""A list and its sublists of some values, which are all that a function is shown; and how engines ask for them.

The engines are generators: each yields lists to ask for, as labels, and is sent their answers, until it returns the
answer to the whole list. So the caller decides how to ask: one by one, in one batch, or together with other lists.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from holdfast.errors import ArgumentError
from holdfast.lists.extend.pairs import Labels
from holdfast.lists.tokens import Token

Plan = Generator[list[Labels], list[Labels], Labels]
"""Yields lists to ask for, is sent their answers, returns the answer to the whole list."""

Merge = Generator[list[Labels], list[Labels], list[Token]]
"""The same, for two runs of tokens that become one."""


@dataclass(frozen=True, eq=False)
class Sublists:
    """A list, and its sublists of some values.

    Arguments:
        labels: the list.
        values: what the labels stand for.
        capacity: most elements of a sublist that may be asked for; `None`: any number.
    """

    labels: Labels
    values: Sequence[Any]
    capacity: int | None = None

    @cached_property
    def counts(self) -> list[int]:
        """How often each value stands in the list."""
        counts: list[int] = np.bincount(self.labels, minlength=len(self.values)).tolist()
        return counts

    @property
    def room(self) -> int:
        """Most elements of a sublist: the capacity, or all of them."""
        return len(self.labels) if self.capacity is None else self.capacity

    @cached_property
    def _where(self) -> list[Labels]:
        order = np.argsort(self.labels, kind="stable")
        return np.split(order, np.cumsum(self.counts)[:-1])

    def of(self, some: Iterable[int]) -> Labels:
        """The list with all but some values deleted.

        Errors:
            ArgumentError: it is longer than the capacity.
        """
        where = [self._where[value] for value in some]
        at = np.sort(np.concatenate(where)) if where else np.zeros(0, dtype=np.int64)
        if self.capacity is not None and len(at) > self.capacity:
            raise self.too_long(some)
        return np.asarray(self.labels[at])

    def too_long(self, some: Iterable[int]) -> ArgumentError:
        """The error for values that the function cannot be shown together."""
        shown = [f"{self.values[value]!r} {self.counts[value]} times" for value in dict.fromkeys(some)]
        total = sum(self.counts[value] for value in dict.fromkeys(some))
        what = "all copies of two values at once" if len(shown) > 1 else "all copies of a value at once"
        expected = f"at least {total}, since mode group shows the function {what} ({' and '.join(shown)})"
        return ArgumentError("capacity", expected, self.capacity)

    def refuse_too_long(self, values: Sequence[int]) -> None:
        """An error before anything is asked, if some two of the values cannot be shown together.

        Errors:
            ArgumentError: they cannot.
        """
        if len(values) < 2 or self.capacity is None:
            return
        largest = sorted(values, key=lambda value: -self.counts[value])[:2]
        if sum(self.counts[value] for value in largest) > self.capacity:
            raise self.too_long(largest)

    def packed(self, values: Iterable[int], size: int) -> Iterator[list[int]]:
        """Values in groups of at most so many elements, in their order; a value that has more is alone."""
        group: list[int] = []
        shown = 0
        for value in values:
            if group and shown + self.counts[value] > size:
                yield group
                group, shown = [], 0
            group.append(value)
            shown += self.counts[value]
        if group:
            yield group

    def show(self, labels: Iterable[int]) -> list[Any]:
        """A list of labels as values."""
        return [self.values[label] for label in (labels.tolist() if isinstance(labels, np.ndarray) else labels)]


def tokens_of(answer: Labels) -> list[Token]:
    """The tokens of an answer, in its order."""
    seen: dict[int, int] = {}
    tokens = []
    for label in answer.tolist():
        copy = seen.get(label, 0)
        seen[label] = copy + 1
        tokens.append((label, copy))
    return tokens


def labels_of(tokens: list[Token]) -> Labels:
    """The values of tokens."""
    return np.array([label for label, _ in tokens], dtype=np.int64)


def in_step(merges: Sequence[Merge]) -> Generator[list[Labels], list[Labels], list[list[Token]]]:
    """Several merges together: in each round the lists that all of them ask for."""
    done: list[list[Token]] = [[] for _ in merges]
    waiting: dict[int, list[Labels]] = {}

    def move(number: int, answers: list[Labels] | None) -> None:
        try:
            merge = merges[number]
            waiting[number] = next(merge) if answers is None else merge.send(answers)
        except StopIteration as stop:
            waiting.pop(number, None)
            done[number] = stop.value

    for number in range(len(merges)):
        move(number, None)
    while waiting:
        answers = iter((yield [query for queries in waiting.values() for query in queries]))
        for number, queries in list(waiting.items()):
            move(number, [next(answers) for _ in queries])
    return done


def merge_all(
    runs: list[list[Token]], merge: Callable[[list[Token], list[Token]], Merge]
) -> Generator[list[Labels], list[Labels], list[Token]]:
    """Runs of tokens merged two by two until one is left; all merges of a level go in step.

    Arguments:
        runs: the runs.
        merge: of two of them.
    """
    while len(runs) > 1:
        odd = runs[-1:] if len(runs) % 2 else []
        pairs = zip(runs[::2], runs[1::2], strict=False)
        runs = (yield from in_step([merge(left, right) for left, right in pairs])) + odd
    return runs[0] if runs else []
